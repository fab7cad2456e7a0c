"""Gradient ascent of the hypervolume (Deist et al., 2021)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from paretorch.pareto.algorithms.contract import FrontAlgorithm, FrontEvidence
from paretorch.pareto.dominance import non_dominated
from paretorch.pareto.hypervolume import check_reference, hypervolume_gradient


@dataclass(frozen=True)
class HypervolumeAscent(FrontAlgorithm):
    r"""Members follow the gradient of their joint hypervolume.

    .. math:: w_{it} = -\frac{\partial H}{\partial L_{it}} \Big/ \Big\lVert \frac{\partial H}{\partial L_i} \Big\rVert

    L are the losses of all members in the previous step, so that the result does not depend on the order of execution. Dominated
    members form fronts of their own, layer by layer. Members beyond the reference descend the sum of losses. Members with unknown
    or equal losses descend the sum weighted by their preferences, and thus diverge from one another.

    Args:
        reference: (T,) reference point of the hypervolume, above the expected losses; None: that of the training.

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
        """True without a reference of its own."""
        return self.reference is None

    def check(self, preferences: Tensor, tasks: tuple[str, ...]) -> None:
        """Checks that the reference has a value per task."""
        if self.reference is not None:
            check_reference(self.reference, tasks)

    def weights(self, evidence: FrontEvidence) -> Tensor:
        """(n, T) derivatives of the hypervolume, of length one."""
        point = evidence.reference if self.reference is None else torch.tensor(self.reference, dtype=torch.float64)
        assert point is not None
        slopes = torch.zeros_like(evidence.previous_losses)
        known = evidence.previous_losses.isfinite().all(dim=1)
        remaining = known.clone()
        while bool(remaining.any()):
            layer_losses = torch.where(remaining[:, None], evidence.previous_losses, torch.inf)
            layer = non_dominated(layer_losses)
            slopes[layer] = hypervolume_gradient(layer_losses[layer], point)
            remaining &= ~layer
        rows = list(evidence.rows)
        own = slopes[rows] if evidence.present is None else slopes[rows][:, evidence.present]
        beyond = known[rows] & ~(evidence.previous_losses[rows] < point).all(dim=1)
        instead = torch.where(beyond[:, None], torch.ones_like(evidence.preferences), evidence.preferences)
        own = torch.where(own.sum(dim=1, keepdim=True) > 0, own, instead)
        unit: Tensor = own / own.norm(dim=1, keepdim=True).clamp_min(1e-300)  # zero if no present task has a weight
        return unit
