"""Impartial multi-task learning, loss part (Liu et al., ICLR 2021)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from paretorch.balance.parts.domain import losses_above
from paretorch.balance.parts.ranges import above
from paretorch.balance.parts.scalar_adam import Moments, adam, no_moments
from paretorch.core.contract import Balance, Evidence, Method, Need
from paretorch.core.search_space import Range, SearchSpace


class IMTLLState(NamedTuple):
    """``log_scale`` (all,): s_t; then Adam's memory of it."""

    log_scale: Tensor
    first: Tensor
    second: Tensor
    taken: Tensor


@dataclass(frozen=True)
class IMTLL(Method[IMTLLState]):
    r"""Each loss gets a learned scale that brings all scaled losses to one.

    .. math:: \min_{\theta, s} \sum_t e^{s_t} L_t - s_t, \qquad w_t = e^{s_t}

    The s_t live in the method's state and follow their gradient exp(s_t) L_t - 1 in closed form by Adam; nothing is handed to
    your optimizer. At their optimum w_t = 1/L_t.

    Args:
        rate: Adam's learning rate for s, above 0.

    Raises:
        ValueError: in a step, where a loss is not above 0.

    Example:
        >>> from paretorch.core.method.weights import weights
        >>> weights(IMTLL(), losses=torch.tensor([2.0, 0.5]))
        tensor([1., 1.], dtype=torch.float64)

    References:
        Liu et al., "Towards Impartial Multi-task Learning", ICLR 2021, loss balance (IMTL-L) and Algorithm 1, with a = e. They
        learn s with the network's optimizer; ours has a rate of its own.
    """

    rate: float = 0.025
    needs = Need.LOSSES
    search_space: ClassVar[SearchSpace] = {"rate": Range(2.5e-3, 0.25, log=True)}

    def __post_init__(self) -> None:
        above("rate", self.rate)

    def init(self, tasks: tuple[str, ...], like: Tensor) -> IMTLLState:
        zeros = like.new_zeros(len(tasks))
        return IMTLLState(zeros, *no_moments(zeros))

    def balance(self, evidence: Evidence, state: IMTLLState) -> tuple[Balance, IMTLLState]:
        return scaled(evidence, state, self.rate, "IMTLL")


def scaled(evidence: Evidence, state: IMTLLState, rate: float, who: str) -> tuple[Balance, IMTLLState]:
    """The present scales as weights, and the scales after one step of Adam."""
    losses, present = losses_above(evidence, 0.0, who), evidence.present
    weights = torch.exp(state.log_scale[present])
    moments = Moments(state.first, state.second, state.taken)
    moved, moments = adam(state.log_scale, weights * losses - 1, moments, present, rate)
    return Balance(weights), IMTLLState(moved, *moments)
