"""Group optimization for multi-task alignment (Shen, Wang, Xiao, Snoek & Worring, NeurIPS 2024)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor

from paretorch.balance.parts.loss_domain import losses_above
from paretorch.core.arrays import Array
from paretorch.core.contract import Balance, Evidence, Method, Need
from paretorch.core.option_checks import check_above, check_whole
from paretorch.core.search_space import Range, SearchSpace


class GO4AlignState(NamedTuple):
    """``log_shares`` (all,): log p_t up to a constant."""

    log_shares: Tensor


@dataclass(frozen=True)
class GO4Align(Method[GO4AlignState]):
    r"""Weights from the scale and the history of the losses, averaged over groups of tasks with similar weights.

    .. math:: p_t \leftarrow \frac{p_t e^{-\eta L_t}}{\sum_s p_s e^{-\eta L_s}}, \qquad
              w_t = \frac{\sum_s L_s}{L_t} \, p_t, \quad \text{then its mean over the tasks of t's group}

    The groups are the exact k-means clusters of the T weights.

    Args:
        eta: above 0.
        groups: number of groups, at least 1; with 1 all weights are equal.

    Raises:
        ValueError: in a step with a loss that is not above 0.

    Example:
        >>> import paretorch as pt
        >>> pt.weights(pt.GO4Align(), losses=torch.tensor([1.0, 1.0, 2.0]))
        tensor([1.3334, 1.3334, 0.6666], dtype=torch.float64)

    References:
        Shen et al., "GO4Align: Group Optimization for Multi-Task Alignment", NeurIPS 2024, section 3 and Algorithm 1.
    """

    eta: float = 1e-4
    groups: int = 2
    needs = Need.LOSSES
    search_space: ClassVar[SearchSpace] = {"eta": Range(1e-6, 1e-1, log=True), "groups": Range(1, 8, whole=True)}

    def __post_init__(self) -> None:
        check_above("eta", self.eta)
        check_whole("groups", self.groups)

    def init(self, tasks: tuple[str, ...], like: Tensor) -> GO4AlignState:
        return GO4AlignState(like.new_zeros(len(tasks)))

    def balance(self, evidence: Evidence, state: GO4AlignState) -> tuple[Balance, GO4AlignState]:
        present, losses = evidence.present, losses_above(evidence, 0.0, "GO4Align")
        logs = state.log_shares.clone()
        logs[present] -= self.eta * losses
        logs[present] -= logs[present].max()
        weights = torch.softmax(logs[present], dim=0) * losses.sum() / losses
        return Balance(torch.from_numpy(_cluster_means(weights.numpy(), self.groups))), GO4AlignState(logs)


def _cluster_means(values: Array, groups: int) -> Array:
    """(T,) for each value the mean of its cluster, for the clusters with the smallest squared distance to their means.

    In one dimension clusters are runs of the sorted values, so that dynamic programming over the number of values finds them.
    """
    order = np.argsort(values, kind="stable")
    ordered, count = values[order] / max(float(values.max()), 1e-300), len(values)
    sums = np.concatenate([[0.0], np.cumsum(ordered)])
    squares = np.concatenate([[0.0], np.cumsum(ordered**2)])
    ends, starts = np.arange(1, count + 1), np.arange(count)
    sizes = np.maximum(ends[:, None] - starts, 1)
    cost = np.maximum(squares[1:, None] - squares[:-1] - (sums[1:, None] - sums[:-1]) ** 2 / sizes, 0.0)
    cost[ends[:, None] <= starts] = np.inf  # (end, start): the cost of the run between them
    best, choices = cost[:, 0], []
    for _ in range(min(groups, count) - 1):
        totals = np.concatenate([[np.inf], best[:-1]]) + cost
        choices.append(totals.argmin(axis=1))
        best = totals.min(axis=1)
    means, end = np.empty(count), count
    for choice in [*reversed(choices), np.zeros(count, dtype=int)]:
        start = int(choice[end - 1])
        means[order[start:end]] = values[order[start:end]].mean()
        end = start
    return means
