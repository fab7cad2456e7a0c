"""Robust multi-task learning with excess risks (He, Zhou, Zhang, Yu, Tan & Zhao, ICML 2024)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from paretorch.balance.parts.stored_gradients import mean_over_ranks, stored_rows
from paretorch.core.contract import Balance, Evidence, Method, Need
from paretorch.core.option_checks import check_above
from paretorch.core.search_space import Range, SearchSpace

EPS = 1e-7


class ExcessMTLState(NamedTuple):
    """``squares`` (all, n): sums of squared gradients, no columns before the first step; ``start`` (all,): each task's first
    excess, nan before; ``log_weights`` (all,).
    """

    squares: Tensor
    start: Tensor
    log_weights: Tensor


@dataclass(frozen=True)
class ExcessMTL(Method[ExcessMTLState]):
    r"""Weights that increase with the excess risk of a task, which is estimated from its gradients.

    .. math:: s \leftarrow s + g^2, \quad e_t = \sum_i \frac{g_{ti}^2}{\sqrt{s_{ti} + 10^{-7}}}, \quad
              w_t \leftarrow w_t \exp \Big( \eta \frac{e_t}{e_t(0)} \Big), \quad \sum_t w_t = T

    The excess risk is the distance of a loss from its optimum: label noise increases the loss, but not the excess. On features
    the gradient is first summed over the batch. The state has as many numbers as the gradients.

    Args:
        step: eta, above 0.

    Example:
        >>> import paretorch as pt
        >>> shared = torch.nn.Parameter(torch.tensor([1.0, 2.0]))
        >>> balance = pt.Balancer(pt.ExcessMTL()).backward({"a": shared.square().sum(), "b": (shared - 3).square().sum()})
        >>> balance.weights
        tensor([1., 1.], dtype=torch.float64)

    References:
        He et al., "Robust Multi-Task Learning with Excess Risks", ICML 2024, Algorithm 1. With the constant
        under the root, the weights are not invariant to the scale of the gradients.
    """

    step: float = 1e-2
    needs = Need.JACOBIAN
    homogeneous = False
    search_space: ClassVar[SearchSpace] = {"step": Range(1e-4, 1.0, log=True)}

    def __post_init__(self) -> None:
        check_above("step", self.step)

    def init(self, tasks: tuple[str, ...], like: Tensor) -> ExcessMTLState:
        zeros = like.new_zeros(len(tasks))
        return ExcessMTLState(like.new_zeros(len(tasks), 0), torch.full_like(zeros, torch.nan), zeros)

    def balance(self, evidence: Evidence, state: ExcessMTLState) -> tuple[Balance, ExcessMTLState]:
        present, rows = evidence.present, evidence.needed("jacobian")
        if evidence.features is not None:
            rows = rows.view(len(rows), *evidence.features.shape).sum(dim=1)
        rows = mean_over_ranks(rows, evidence)
        squares = (
            stored_rows(state.squares, evidence)
            if state.squares.shape[1]
            else rows.new_zeros(len(present), len(rows[0]))
        )
        here = present.to(rows.device)
        squares[here] += rows.square()
        # g^2 / sqrt(s) is computed as g times g / sqrt(s), which does not leave the range of floating point.
        excess = (rows.abs() * (rows.abs() / (squares[here] + EPS).sqrt())).sum(dim=1).to("cpu", torch.float64)
        start, logs = (
            state.start.to("cpu", torch.float64, copy=True),
            state.log_weights.to("cpu", torch.float64, copy=True),
        )
        start[present] = torch.where(torch.isnan(start[present]), excess, start[present])
        logs[present] += self.step * torch.where(start[present] > 0, excess / start[present], 0.0)
        logs[present] -= logs[present].max()
        weights = len(evidence.tasks) * torch.softmax(logs[present], dim=0)
        return Balance(weights), ExcessMTLState(squares, start, logs)
