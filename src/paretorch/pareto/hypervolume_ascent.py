"""Ascent of the front's hypervolume (Deist et al. 2021)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from paretorch.pareto.algorithm import FrontAlgorithm
from paretorch.pareto.ensemble import View
from paretorch.pareto.hypervolume import check_reference, hypervolume_gradient, non_dominated


@dataclass(frozen=True)
class HypervolumeAscent(FrontAlgorithm):
    r"""Members move where the hypervolume of all of them grows fastest.

    .. math:: w_{it} = -\frac{\partial H}{\partial L_{it}} \Big/ \Big\lVert \frac{\partial H}{\partial L_i} \Big\rVert

    Dominated members are treated as fronts of their own, layer behind layer; members beyond the reference descend the sum. Where
    members run in a loop, the losses of the others are those of the step before.

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

    def weights(self, view: View) -> Tensor:
        """(n, T) slopes of the hypervolume, of length one."""
        point = view.reference if self.reference is None else torch.tensor(self.reference, dtype=torch.float64)
        assert point is not None
        if view.everyone.shape[1] != len(point):
            raise ValueError("a task is absent from a batch: the hypervolume of the front is not known in this step")
        slopes = torch.zeros_like(view.everyone)
        left = view.everyone.isfinite().all(dim=1)
        while bool(left.any()):
            seen = torch.where(left[:, None], view.everyone, torch.inf)
            layer = non_dominated(seen)
            slopes[layer] = hypervolume_gradient(seen[layer], point)
            left &= ~layer
        own = slopes[list(view.rows)]
        own = torch.where(own.sum(dim=1, keepdim=True) > 0, own, torch.ones_like(own))
        unit: Tensor = own / own.norm(dim=1, keepdim=True)
        return unit
