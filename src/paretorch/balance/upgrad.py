"""Unconflicting projection of gradients (Quinton & Rey 2024)."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from paretorch.balance.parts.dual_cone import dual_cone_balance
from paretorch.core.contract import Balance, Evidence, Method, Need
from paretorch.core.method.preference import Preference, check_tasks, checked
from paretorch.core.solvers.projections import sum_of_projections


@dataclass(frozen=True)
class UPGrad(Method[None]):
    r"""The mean of the projections of all gradients on the cone of directions that conflict with no task.

    .. math:: d = \sum_t p_t \, \pi(g_t), \qquad \pi(g) = \arg\min_{\langle v, g_s \rangle \ge 0 \,\forall s} \lVert v - g \rVert

    Args:
        preference: p, by task name or in the declared order; equal by default. It is normalized to sum to one.

    Example:
        >>> import torch
        >>> import paretorch as pt
        >>> pt.weights(pt.UPGrad(), torch.tensor([[18.0, -22.0], [-22.0, 38.0]]))
        tensor([1.1111, 0.7895], dtype=torch.float64)

    References:
        Quinton & Rey, "Jacobian Descent for Multi-Objective Optimization", 2024, section 2.2 and proposition 1. We solve
        the projections for unit gradients, so that short gradients are treated as accurately as long ones.
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
        return dual_cone_balance(evidence, self.preference, sum_of_projections), state
