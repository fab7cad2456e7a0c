"""Fast adaptive multitask optimization (Liu, Feng, Stone & Liu, NeurIPS 2023)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from paretorch.balance.parts.loss_domain import losses_above
from paretorch.balance.parts.scalar_adam import Moments, adam, no_moments
from paretorch.core.contract import Balance, Evidence, Method, Need
from paretorch.core.option_checks import check_above, check_at_least, check_finite
from paretorch.core.search_space import Range, SearchSpace

EPS = 1e-8


class FAMOState(NamedTuple):
    """``logits`` (all,): xi; the moments of Adam; ``before`` (all,): losses before the current step, nan if none."""

    logits: Tensor
    first: Tensor
    second: Tensor
    taken: Tensor
    before: Tensor


@dataclass(frozen=True)
class FAMO(Method[FAMOState]):
    r"""Weights with which all log-losses decrease at the same rate, learned from the changes of the losses.

    .. math:: z = \mathrm{softmax}(\xi), \quad w_t = \frac{c \, z_t}{L_t - m_t + \epsilon}, \quad
              c = \Big(\sum_s \frac{z_s}{L_s - m_s + \epsilon}\Big)^{-1}

    After the optimizer's step call ``fork.observe(losses)`` with the losses on the same batch. Adam then updates xi by the
    gradient z * (d - <z, d>) + gamma xi with d_t = log D_t(before) - log D_t(after), D = L - m + eps, which decreases the
    weight of the task that improved most.

    Args:
        rate: Adam's learning rate for xi, above 0.
        gamma: decay of xi, at least 0; the authors' scripts use 1e-5 to 1e-2.
        minimum: m, a lower bound of every loss.

    Raises:
        ValueError: in a step with a loss that is not above ``minimum``.

    Example:
        >>> import paretorch as pt
        >>> pt.weights(pt.FAMO(), losses=torch.tensor([1.0, 3.0]))
        tensor([0.7500, 0.2500], dtype=torch.float64)

    References:
        Liu, Feng, Stone & Liu, "FAMO: Fast Adaptive Multitask Optimization", NeurIPS 2023, section 3 and Algorithm 1.
    """

    rate: float = 0.025
    gamma: float = 1e-3
    minimum: float = 0.0
    needs = Need.LOSSES
    search_space: ClassVar[SearchSpace] = {
        "rate": Range(2.5e-3, 0.25, log=True),
        "gamma": Range(1e-5, 1e-2, log=True),
    }
    observes = True

    def __post_init__(self) -> None:
        check_above("rate", self.rate)
        check_at_least("gamma", self.gamma)
        check_finite("minimum", self.minimum)

    def init(self, tasks: tuple[str, ...], like: Tensor) -> FAMOState:
        zeros = like.new_zeros(len(tasks))
        return FAMOState(zeros, *no_moments(zeros), like.new_full((len(tasks),), torch.nan))

    def gain(self, tasks: int) -> float:
        return 1.0

    def balance(self, evidence: Evidence, state: FAMOState) -> tuple[Balance, FAMOState]:
        present = evidence.present
        losses = losses_above(evidence, self.minimum, "FAMO", f"minimum={self.minimum}")
        raw = torch.softmax(state.logits[present], dim=0) / (losses - self.minimum + EPS)
        before = torch.full_like(state.before, torch.nan)
        before[present] = losses
        return Balance(raw / raw.sum()), state._replace(before=before)

    def observe(self, losses: Tensor, state: FAMOState) -> FAMOState:
        known = torch.isfinite(losses) & torch.isfinite(state.before)
        if not bool(known.any()):
            return state
        decrease = torch.log(state.before[known] - self.minimum + EPS) - torch.log(
            (losses[known] - self.minimum).clamp_min(0) + EPS
        )
        shares = torch.softmax(state.logits[known], dim=0)
        gradient = shares * (decrease - shares @ decrease) + self.gamma * state.logits[known]
        logits, moments = adam(
            state.logits, gradient, Moments(state.first, state.second, state.taken), known, self.rate
        )
        return FAMOState(logits, *moments, torch.full_like(state.before, torch.nan))
