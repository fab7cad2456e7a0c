"""Dual balancing (Lin, Jiang, Ye, Zhang, Chen, Chen, Liu & Kwok 2023)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from paretorch.balance.parts.loss_domain import losses_above
from paretorch.balance.parts.stored_gradients import mean_over_ranks, stored_rows
from paretorch.core.contract import Balance, Evidence, Method, Need, Status
from paretorch.core.option_checks import check_at_least, check_fraction
from paretorch.core.search_space import Range, SearchSpace

EPS = 1e-8


class DBMTLState(NamedTuple):
    """``means`` (all, n): no columns before the first step; ``taken`` (all,): the number of gradients in each mean."""

    means: Tensor
    taken: Tensor


@dataclass(frozen=True)
class DBMTL(Method[DBMTLState]):
    r"""The sum of running means of the log-losses' gradients, each scaled to the length of the longest.

    .. math:: \hat g_t \leftarrow \beta_k \hat g_t + (1 - \beta_k) \nabla \log (L_t + 10^{-8}), \quad
              \beta_k = \beta / k^\sigma, \qquad d = \sum_t \frac{\max_s \lVert \hat g_s \rVert}{\lVert \hat g_t \rVert} \hat g_t

    for the k-th gradient after the first; the mean starts as the first gradient. Each head minimizes its log-loss. The state has
    T x n numbers. For a :class:`~paretorch.Balancer` only.

    Args:
        beta: weight of the previous mean, in [0, 1).
        sigma: rate at which that weight decreases, at least 0.

    Raises:
        ValueError: in a step with a loss that is not above 0.

    Example:
        >>> import paretorch as pt
        >>> shared = torch.nn.Parameter(torch.tensor([1.0, 2.0]))
        >>> balance = pt.Balancer(pt.DBMTL()).backward({"a": shared.square().sum(), "b": (shared - 3).square().sum()})
        >>> shared.grad
        tensor([-0.4000,  0.4000])

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
        check_fraction("beta", self.beta)
        check_at_least("sigma", self.sigma)

    def init(self, tasks: tuple[str, ...], like: Tensor) -> DBMTLState:
        return DBMTLState(like.new_zeros(len(tasks), 0), like.new_zeros(len(tasks)))

    def balance(self, evidence: Evidence, state: DBMTLState) -> tuple[Balance, DBMTLState]:
        present, jacobian = evidence.present, evidence.needed("jacobian")
        inverse = 1 / (losses_above(evidence, 0.0, "DBMTL") + EPS)
        here = present.to(jacobian.device)
        means, taken = stored_rows(state.means, evidence), state.taken.to("cpu", torch.float64, copy=True)
        before = taken[present]
        old = torch.where(before > 0, self.beta / before.clamp_min(1) ** self.sigma, 0.0).to(jacobian)[:, None]
        rows = old * means[here] + (1 - old) * inverse.to(jacobian)[:, None] * jacobian
        means[here] = rows
        taken[present] += 1
        whole = mean_over_ranks(rows, evidence)
        largest = whole.abs().amax(dim=1, keepdim=True)
        whole = whole / torch.where(largest > 0, largest, 1.0)  # so that no square leaves the range of floating point
        lengths = whole.norm(dim=1) * largest[:, 0]
        weights = torch.where(lengths > 0, lengths.max() / torch.where(lengths > 0, lengths, 1.0), 0.0)
        return Balance(None, Status.SOLVED, weights @ rows, heads=inverse), DBMTLState(means, taken)
