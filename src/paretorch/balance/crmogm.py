"""Weights averaged over steps: correlation-reduced multi-objective gradients (Zhou et al., NeurIPS 2022)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from paretorch.core.contract import Balance, Evidence, Method, Need
from paretorch.core.option_checks import check_fraction


class CRMOGMState(NamedTuple):
    """``mean`` (all,): the weights' running mean, nan before the first step of a task; ``inner``: the method's state."""

    mean: Tensor
    inner: Any


@dataclass(frozen=True)
class CRMOGM(Method[CRMOGMState]):
    r"""The running mean of another method's weights, which reduces the effect of noise in the gradients of one step.

    .. math:: \bar w \leftarrow \alpha \bar w + (1 - \alpha) \, \mathrm{method}(G), \qquad d = \sum_t \bar w_t g_t

    Args:
        method: a method that returns weights, for one batch.
        alpha: weight of the previous mean, in [0, 1).

    Example:
        >>> import paretorch as pt
        >>> pt.weights(CRMOGM(pt.MGDA()), torch.tensor([[18.0, -22.0], [-22.0, 38.0]]))
        tensor([0.6000, 0.4000], dtype=torch.float64)

    References:
        Zhou et al., "On the Convergence of Stochastic Multi-Objective Gradient Manipulation and Beyond", NeurIPS 2022,
        Algorithm 1. Theirs starts from equal weights, ours from the first weights of the method.
    """

    method: Method[Any]
    alpha: float = 0.9
    needs = Need.GRAMIAN

    def __post_init__(self) -> None:
        inner = self.method
        if not isinstance(inner, Method) or Need.JACOBIAN in inner.needs or inner.batches > 1 or inner.observes:
            raise ValueError(f"CRMOGM takes a method that returns weights for one batch, got {inner!r}")
        check_fraction("alpha", self.alpha)
        for name in ("needs", "homogeneous", "homogeneous_on_paper", "random", "features"):
            object.__setattr__(self, name, getattr(inner, name))

    def init(self, tasks: tuple[str, ...], like: Tensor) -> CRMOGMState:
        return CRMOGMState(like.new_full((len(tasks),), torch.nan), self.method.init(tasks, like))

    def gain(self, tasks: int) -> float:
        return self.method.gain(tasks)

    def balance(self, evidence: Evidence, state: CRMOGMState) -> tuple[Balance, CRMOGMState]:
        return self._averaged(evidence, state, *self.method.balance(evidence, state.inner))

    def calibrated(self, evidence: Evidence, state: CRMOGMState) -> tuple[Balance, CRMOGMState]:
        return self._averaged(evidence, state, *self.method.calibrated(evidence, state.inner))

    def end_epoch(self, state: CRMOGMState) -> CRMOGMState:
        return state._replace(inner=self.method.end_epoch(state.inner))

    def _averaged(
        self, evidence: Evidence, state: CRMOGMState, balance: Balance, inner: Any
    ) -> tuple[Balance, CRMOGMState]:
        weights, mean = balance.weights, state.mean.clone()
        assert weights is not None
        before = mean[evidence.present]
        mixed = torch.where(torch.isnan(before), weights, self.alpha * before + (1 - self.alpha) * weights)
        mean[evidence.present] = mixed
        return replace(balance, weights=mixed), CRMOGMState(mean, inner)
