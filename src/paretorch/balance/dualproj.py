"""Projection on the dual cone (Lopez-Paz & Ranzato, NeurIPS 2017)."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from paretorch.balance.parts.dual_cone import dual_cone_balance
from paretorch.core.contract import Balance, Evidence, Method, Need
from paretorch.core.method.preference import Preference, check_tasks, checked
from paretorch.core.solvers.minimum_norm import Solution
from paretorch.core.solvers.projections import project_on_dual_cone


@dataclass(frozen=True)
class DualProjection(Method[None]):
    r"""The projection of the weighted mean of the gradients on the cone of directions that conflict with no task.

    .. math:: d = \arg\min_{\langle d, g_t \rangle \ge 0 \,\forall t} \Big\lVert d - \sum_t p_t g_t \Big\rVert

    :class:`~paretorch.UPGrad` projects each gradient and then takes the mean.

    Args:
        preference: p, by task name or in the declared order; equal by default. It is normalized to sum to one.

    Example:
        >>> import torch
        >>> import paretorch as pt
        >>> w = pt.weights(pt.DualProjection(), torch.tensor([[1.0, -2.0], [-2.0, 16.0]]))
        >>> w
        tensor([1.0000, 0.5000], dtype=torch.float64)

    References:
        Lopez-Paz & Ranzato, "Gradient Episodic Memory for Continual Learning", NeurIPS 2017, section 3, where the other
        tasks are earlier ones. We solve the projection for unit gradients.
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
        return dual_cone_balance(evidence, self.preference, _projection), state


def _projection(gramian: Tensor, preferred: Tensor) -> Solution:
    rows, converged = project_on_dual_cone(gramian, preferred[None])
    return Solution(rows[0], converged)
