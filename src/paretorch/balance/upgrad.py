"""Unconflicting projection of gradients (Quinton & Rey 2024)."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from paretorch.balance.parts.dual_cone import DualConeMethod
from paretorch.core.solvers.minimum_norm import Solution
from paretorch.core.solvers.projections import sum_of_projections


@dataclass(frozen=True)
class UPGrad(DualConeMethod):
    r"""Each gradient is projected on the cone of directions that conflict with no task; the projections are averaged.

    .. math:: d = \sum_t p_t \, \pi(g_t), \qquad \pi(g) = \arg\min_{\langle v, g_s \rangle \ge 0 \,\forall s} \lVert v - g \rVert

    Args:
        preference: p, by task name or in the declared order; even by default. Scaled to sum to one.

    Example:
        >>> import torch
        >>> from paretorch.core.method.weights import weights
        >>> weights(UPGrad(), torch.tensor([[18.0, -22.0], [-22.0, 38.0]]))
        tensor([1.1111, 0.7895], dtype=torch.float64)

    References:
        Quinton & Rey, "Jacobian Descent for Multi-Objective Optimization", 2024, section 2.2 and proposition 1. We project in
        units of each gradient's own length, so that the shortest gradient is protected as well as the longest.
    """

    def projected(self, gramian: Tensor, preferred: Tensor) -> Solution:
        return sum_of_projections(gramian, preferred)
