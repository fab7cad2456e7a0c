"""Dual balancing (Lin, Jiang, Ye, Zhang, Chen, Chen, Liu & Kwok 2023)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from paretorch.balance.parts.domain import losses_above
from paretorch.balance.parts.ranges import at_least, share
from paretorch.balance.parts.task_rows import kept_rows, over_ranks
from paretorch.core.contract import Balance, Evidence, Method, Need, Status
from paretorch.core.search_space import Range, SearchSpace

EPS = 1e-8


class DBMTLState(NamedTuple):
    """``means`` (all, n): no columns before the first step; ``taken`` (all,): the gradients in each of them."""

    means: Tensor
    taken: Tensor


@dataclass(frozen=True)
class DBMTL(Method[DBMTLState]):
    r"""The gradients of the log-losses, averaged over steps, each brought to the length of the longest.

    .. math:: \hat g_t \leftarrow \beta_k \hat g_t + (1 - \beta_k) \nabla \log (L_t + 10^{-8}), \quad
              \beta_k = \beta / k^\sigma, \qquad d = \sum_t \frac{\max_s \lVert \hat g_s \rVert}{\lVert \hat g_t \rVert} \hat g_t

    for the k-th gradient after the first, with which the mean begins. Each head descends its log-loss. The state holds T x n
    numbers. For a :class:`~paretorch.Balancer` only.

    Args:
        beta: weight of the mean so far, in [0, 1).
        sigma: how fast that weight falls, at least 0.

    Raises:
        ValueError: in a step, where a loss is not above 0.

    References:
        Lin et al., "Dual-Balancing for Multi-Task Learning", 2023, section 3 and Algorithm 1.
    """

    beta: float = 0.9
    sigma: float = 0.0
    needs = Need.JACOBIAN | Need.LOSSES
    homogeneous = False
    features = False
    search_space: ClassVar[SearchSpace] = {"beta": Range(0.0, 0.99), "sigma": Range(0.0, 1.0)}

    def __post_init__(self) -> None:
        share("beta", self.beta)
        at_least("sigma", self.sigma)

    def init(self, tasks: tuple[str, ...], like: Tensor) -> DBMTLState:
        return DBMTLState(like.new_zeros(len(tasks), 0), like.new_zeros(len(tasks)))

    def balance(self, evidence: Evidence, state: DBMTLState) -> tuple[Balance, DBMTLState]:
        present, jacobian = evidence.present, evidence.needed("jacobian")
        inverse = 1 / (losses_above(evidence, 0.0, "DBMTL") + EPS)
        here = present.to(jacobian.device)
        means, taken = kept_rows(state.means, evidence), state.taken.to("cpu", torch.float64, copy=True)
        before = taken[present]
        old = torch.where(before > 0, self.beta / before.clamp_min(1) ** self.sigma, 0.0).to(jacobian)[:, None]
        rows = old * means[here] + (1 - old) * inverse.to(jacobian)[:, None] * jacobian
        means[here] = rows
        taken[present] += 1
        whole = over_ranks(rows, evidence)
        largest = whole.abs().amax(dim=1, keepdim=True)
        whole = whole / torch.where(largest > 0, largest, 1.0)  # no square leaves the range
        lengths = whole.norm(dim=1) * largest[:, 0]
        weights = torch.where(lengths > 0, lengths.max() / torch.where(lengths > 0, lengths, 1.0), 0.0)
        return Balance(None, Status.SOLVED, weights @ rows, heads=inverse), DBMTLState(means, taken)
