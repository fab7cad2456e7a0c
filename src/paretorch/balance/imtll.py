"""Impartial multi-task learning, loss part (Liu et al., ICLR 2021)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from paretorch.balance.parts.loss_domain import losses_above
from paretorch.balance.parts.scalar_adam import Moments, adam, no_moments
from paretorch.core.contract import Balance, Evidence, Method, Need
from paretorch.core.option_checks import check_above
from paretorch.core.search_space import Range, SearchSpace


class IMTLLState(NamedTuple):
    """``log_scale`` (all,): s_t; then the moments of Adam."""

    log_scale: Tensor
    first: Tensor
    second: Tensor
    taken: Tensor


@dataclass(frozen=True)
class IMTLL(Method[IMTLLState]):
    r"""Learned scales of the losses; at their optimum all scaled losses are equal to one.

    .. math:: \min_{\theta, s} \sum_t e^{s_t} L_t - s_t, \qquad w_t = e^{s_t}

    The s_t are part of the method's state. Adam updates them by their gradient exp(s_t) L_t - 1, without the model's optimizer.
    At their optimum w_t = 1/L_t.

    Args:
        rate: Adam's learning rate for s, above 0.

    Raises:
        ValueError: in a step with a loss that is not above 0.

    Example:
        >>> import paretorch as pt
        >>> pt.weights(pt.IMTLL(), losses=torch.tensor([2.0, 0.5]))
        tensor([1., 1.], dtype=torch.float64)

    References:
        Liu et al., "Towards Impartial Multi-task Learning", ICLR 2021, loss balance (IMTL-L) and Algorithm 1, with a = e. They
        learn s with the network's optimizer; here it has its own learning rate.
    """

    rate: float = 0.025
    needs = Need.LOSSES
    search_space: ClassVar[SearchSpace] = {"rate": Range(2.5e-3, 0.25, log=True)}

    def __post_init__(self) -> None:
        check_above("rate", self.rate)

    def init(self, tasks: tuple[str, ...], like: Tensor) -> IMTLLState:
        zeros = like.new_zeros(len(tasks))
        return IMTLLState(zeros, *no_moments(zeros))

    def balance(self, evidence: Evidence, state: IMTLLState) -> tuple[Balance, IMTLLState]:
        return scaled(evidence, state, self.rate, "IMTLL")


def scaled(evidence: Evidence, state: IMTLLState, rate: float, method: str) -> tuple[Balance, IMTLLState]:
    """The scales as weights, and the state after one step of Adam on the scales."""
    losses, present = losses_above(evidence, 0.0, method), evidence.present
    weights = torch.exp(state.log_scale[present])
    moments = Moments(state.first, state.second, state.taken)
    moved, moments = adam(state.log_scale, weights * losses - 1, moments, present, rate)
    return Balance(weights), IMTLLState(moved, *moments)
