"""Ascent of the front's hypervolume (Deist et al. 2021)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from paretorch.pareto.algorithms.contract import FrontAlgorithm, FrontEvidence
from paretorch.pareto.dominance import non_dominated
from paretorch.pareto.hypervolume import check_reference, hypervolume_gradient


@dataclass(frozen=True)
class HypervolumeAscent(FrontAlgorithm):
    r"""Members move where the hypervolume of all of them grows fastest.

    .. math:: w_{it} = -\frac{\partial H}{\partial L_{it}} \Big/ \Big\lVert \frac{\partial H}{\partial L_i} \Big\rVert

    The losses L are all members' of the step before, so that the same step follows wherever members are trained, together or
    one after the other. Dominated members are treated as fronts of their own, layer behind layer; members beyond the reference
    descend the sum; those whose losses are not known yet, and those that share one point, descend the sum that their preferences
    weigh, and part.

    Args:
        reference: (T,) from which the hypervolume is measured, above the losses to come; None: that of the training.

    Example:
        >>> HypervolumeAscent(reference=(1.0, 1.0)).reference
        (1.0, 1.0)

    References:
        Deist, Grewal, Dankers, Alderliesten & Bosman, "Multi-objective learning to predict Pareto fronts using hypervolume
        maximization", 2021, section 3: dominated fronts and the normalisation are theirs.
    """

    reference: tuple[float, ...] | None = None

    @property
    def needs_reference(self) -> bool:
        """Where it has none of its own."""
        return self.reference is None

    def check(self, preferences: Tensor, tasks: tuple[str, ...]) -> None:
        """The reference has a value per task."""
        if self.reference is not None:
            check_reference(self.reference, tasks)

    def weights(self, evidence: FrontEvidence) -> Tensor:
        """(n, T) slopes of the hypervolume, of length one."""
        point = evidence.reference if self.reference is None else torch.tensor(self.reference, dtype=torch.float64)
        assert point is not None
        slopes = torch.zeros_like(evidence.previous_losses)
        known = evidence.previous_losses.isfinite().all(dim=1)
        left = known.clone()
        while bool(left.any()):
            seen = torch.where(left[:, None], evidence.previous_losses, torch.inf)
            layer = non_dominated(seen)
            slopes[layer] = hypervolume_gradient(seen[layer], point)
            left &= ~layer
        rows = list(evidence.rows)
        own = slopes[rows] if evidence.present is None else slopes[rows][:, evidence.present]
        beyond = known[rows] & ~(evidence.previous_losses[rows] < point).all(dim=1)
        instead = torch.where(beyond[:, None], torch.ones_like(evidence.preferences), evidence.preferences)
        own = torch.where(own.sum(dim=1, keepdim=True) > 0, own, instead)
        unit: Tensor = own / own.norm(dim=1, keepdim=True).clamp_min(1e-300)  # zero without a task that matters
        return unit
