"""Gradient normalization (Chen, Badrinarayanan, Lee & Rabinovich, ICML 2018)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from paretorch.balance.parts.loss_domain import losses_above
from paretorch.core.contract import Balance, Evidence, Method, Need
from paretorch.core.option_checks import check_above, check_at_least
from paretorch.core.search_space import Range, SearchSpace


class GradNormState(NamedTuple):
    """``log_weights`` (all,): log w_t up to a constant; ``start`` (all,): each task's first loss, nan before."""

    log_weights: Tensor
    start: Tensor


@dataclass(frozen=True)
class GradNorm(Method[GradNormState]):
    r"""Learned weights that equalize the lengths of the weighted gradients; slow tasks get longer ones.

    .. math:: \log w_t \leftarrow \log w_t - \eta \, \mathrm{sign}(w_t n_t - A r_t^\alpha) \frac{w_t n_t}{A}, \quad
              A = \frac{1}{T} \sum_t w_t n_t, \quad
              r_t = \frac{L_t / L_t(0)}{\frac{1}{T} \sum_s L_s / L_s(0)}, \quad \sum_t w_t = T

    with n_t the length of task t's gradient. A step uses the weights from before its update.

    Args:
        alpha: exponent of the relative rate; larger values favour slow tasks more. At least 0.
        rate: eta, above 0.

    Raises:
        ValueError: in a step with a loss that is not above 0.

    Example:
        >>> import paretorch as pt
        >>> pt.weights(pt.GradNorm(), torch.tensor([[18.0, -22.0], [-22.0, 38.0]]), losses=torch.tensor([1.0, 2.0]))
        tensor([1., 1.], dtype=torch.float64)

    References:
        Chen et al., "GradNorm: Gradient Normalization for Adaptive Loss Balancing in Deep Multitask Networks", ICML 2018,
        eq. (1)-(2) and Algorithm 1. The gradient of their L1 loss is taken with respect to log w and in units of A: on w itself
        one step turns weights negative when lengths differ by a hundred. They compare gradients on the last shared layer:
        ``Balancer(GradNorm(), shared=last_layer)``.
    """

    alpha: float = 1.5
    rate: float = 0.025
    needs = Need.GRAMIAN | Need.LOSSES
    homogeneous = False
    search_space: ClassVar[SearchSpace] = {"alpha": Range(0.0, 3.0), "rate": Range(2.5e-3, 0.25, log=True)}

    def __post_init__(self) -> None:
        check_at_least("alpha", self.alpha)
        check_above("rate", self.rate)

    def init(self, tasks: tuple[str, ...], like: Tensor) -> GradNormState:
        return GradNormState(like.new_zeros(len(tasks)), like.new_full((len(tasks),), torch.nan))

    def balance(self, evidence: Evidence, state: GradNormState) -> tuple[Balance, GradNormState]:
        present, losses = evidence.present, losses_above(evidence, 0.0, "GradNorm")
        start = state.start.clone()
        start[present] = torch.where(torch.isnan(start[present]), losses, start[present])
        weights = len(losses) * torch.softmax(state.log_weights[present], dim=0)
        sizes = weights * evidence.norms
        mean = sizes.mean()
        if mean == 0:
            return Balance(weights), state._replace(start=start)
        sizes = sizes / mean
        left = losses / start[present]
        slowness = (left / left.mean()) ** self.alpha
        logs = state.log_weights.clone()
        logs[present] -= self.rate * torch.sign(sizes - slowness) * sizes
        logs[present] -= logs[present].mean() - state.log_weights[present].mean()
        return Balance(weights), GradNormState(logs, start)
