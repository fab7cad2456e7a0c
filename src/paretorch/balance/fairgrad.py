"""Fair resource allocation among tasks (Ban & Ji, ICML 2024)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from paretorch.core.contract import Balance, Evidence, Method, Need, Status
from paretorch.core.option_checks import check_above
from paretorch.core.search_space import Range, SearchSpace
from paretorch.core.solvers.bargaining import bargaining_weights


@dataclass(frozen=True)
class FairGrad(Method[None]):
    r"""The update whose inner products with the task gradients are alpha-fair.

    .. math:: G w = w^{-1/\alpha}, \; w > 0: \qquad
              d = \arg\max_{\lVert d \rVert \le \epsilon} \sum_t \frac{\langle g_t, d \rangle^{1 - \alpha}}{1 - \alpha}

    With alpha = 1 it is :class:`~paretorch.NashMTL`; larger values favour the task with the smallest inner product. The system
    has one solution unless zero is in the convex hull of the gradients; then the status is STATIONARY, and the cosines get a
    ridge of 1e-6. A zero gradient gets weight 0.

    The calibrated update is homogeneous of degree one in the gradients; at the paper's scale of degree (1 - alpha)/(1 + alpha).

    Args:
        alpha: above 0. The paper's scripts use 2, also our default; their class has 1.

    Example:
        >>> import torch
        >>> import paretorch as pt
        >>> pt.weights(pt.FairGrad(alpha=2.0), torch.tensor([[18.0, -22.0], [-22.0, 38.0]]))
        tensor([0.4714, 0.3195], dtype=torch.float64)

    References:
        Ban & Ji, "Fair Resource Allocation in Multi-Task Learning", ICML 2024, Algorithm 1. They solve a least-squares
        problem approximately; we solve the system to a residual of 1e-10 by Newton's method.
    """

    alpha: float = 2.0
    needs = Need.GRAMIAN
    homogeneous_on_paper = False
    search_space: ClassVar[SearchSpace] = {"alpha": Range(0.5, 5.0, log=True)}

    def __post_init__(self) -> None:
        check_above("alpha", self.alpha)

    def balance(self, evidence: Evidence, state: None) -> tuple[Balance, None]:
        weights, converged, exists = bargaining_weights(evidence.needed("gramian"), self.alpha, evidence.resolution)
        if not converged:
            return Balance(weights, Status.NOT_CONVERGED), state
        return Balance(weights, Status.SOLVED if exists else Status.STATIONARY), state

    def calibrated(self, evidence: Evidence, state: None) -> tuple[Balance, None]:
        gramian = evidence.needed("gramian")
        size = float(gramian.diagonal().mean())
        if size == 0:
            return self.balance(evidence, state)
        balance, state = self.balance(replace(evidence, gramian=gramian / size), state)
        assert balance.weights is not None
        return replace(balance, weights=balance.weights * len(gramian) ** (self.alpha / (1 + self.alpha))), state
