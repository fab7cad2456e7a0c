"""Unconflicting projection of gradients (Quinton & Rey 2024)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from paretorch.core.contract import Balance, Evidence, Method, Need, Status
from paretorch.core.preference import Preference, check_tasks, checked, on_simplex
from paretorch.core.solvers import cancels, project_on_dual_cone


@dataclass(frozen=True)
class UPGrad(Method[None]):
    r"""Each gradient is projected on the cone of directions that conflict with no task; the projections are averaged.

    .. math:: d = \sum_t p_t \, \pi(g_t), \qquad \pi(g) = \arg\min_{\langle v, g_s \rangle \ge 0 \,\forall s} \lVert v - g \rVert

    Args:
        preference: p, by task name or in the declared order; even by default. Scaled to sum to one.

    Example:
        >>> from paretorch.core.weights import weights
        >>> weights(UPGrad(), torch.tensor([[18.0, -22.0], [-22.0, 38.0]]))
        tensor([1.1111, 0.7895], dtype=torch.float64)

    References:
        Quinton & Rey, "Jacobian Descent for Multi-Objective Optimization", 2024, section 2.2 and proposition 1. We project in
        units of each gradient's own length, so that the shortest gradient is protected as well as the longest.
    """

    preference: Preference = None
    needs = Need.GRAMIAN

    def __post_init__(self) -> None:
        checked(self.preference)

    def init(self, tasks: tuple[str, ...], like: Tensor) -> None:
        check_tasks(self.preference, tasks)

    def gain(self, tasks: int) -> float:
        return 1.0

    def balance(self, evidence: Evidence, state: None) -> tuple[Balance, None]:
        gramian = evidence.needed("gramian")
        projections, converged = project_on_dual_cone(gramian, torch.eye(len(gramian), dtype=gramian.dtype))
        weights = on_simplex(self.preference, evidence.tasks, evidence.present) @ projections
        if cancels(gramian, weights, evidence.resolution):
            return Balance(torch.zeros_like(weights), Status.STATIONARY), state
        return Balance(weights, Status.SOLVED if converged else Status.NOT_CONVERGED), state
