"""Homoscedastic uncertainty weighting (Kendall, Gal & Cipolla, CVPR 2018)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from paretorch.balance.parts.scalar_adam import Moments, adam, no_moments
from paretorch.core.checks import nearest
from paretorch.core.contract import Balance, Evidence, Method, Need
from paretorch.core.option_checks import check_above
from paretorch.core.search_space import Range, SearchSpace

FACTORS = {"classification": 1.0, "regression": 0.5}


class UncertaintyState(NamedTuple):
    """``log_variance`` (all,): s_t; then the moments of Adam."""

    log_variance: Tensor
    first: Tensor
    second: Tensor
    taken: Tensor


@dataclass(frozen=True)
class Uncertainty(Method[UncertaintyState]):
    r"""Weights that are the learned precisions of the tasks' noise.

    .. math:: \min_{\theta, s} \sum_t k_t e^{-s_t} L_t + \tfrac{1}{2} s_t, \qquad w_t = k_t e^{-s_t}

    with k = 1 for classification and 1/2 for regression. The s_t are part of the method's state. Adam updates them by their
    gradient 1/2 - k_t exp(-s_t) L_t, without the model's optimizer.

    Args:
        kinds: ``"classification"`` or ``"regression"`` by task name; other tasks are ``"classification"``.
        rate: Adam's learning rate for s, above 0.

    Example:
        >>> import paretorch as pt
        >>> pt.weights(pt.Uncertainty({"b": "regression"}), losses=torch.tensor([1.0, 1.0]), tasks=("a", "b"))
        tensor([1.0000, 0.5000], dtype=torch.float64)

    References:
        Kendall, Gal & Cipolla, "Multi-Task Learning Using Uncertainty to Weigh Losses", CVPR 2018, eq. (7) and (10). They learn
        s with the network's optimizer; here it has its own learning rate.
    """

    kinds: Mapping[str, str] | None = None
    rate: float = 0.025
    needs = Need.LOSSES
    search_space: ClassVar[SearchSpace] = {"rate": Range(2.5e-3, 0.25, log=True)}

    def __post_init__(self) -> None:
        check_above("rate", self.rate)
        if self.kinds is not None and not isinstance(self.kinds, Mapping):
            raise ValueError(f"kinds is a dict from task name to 'classification' or 'regression', got {self.kinds!r}")
        for name, kind in (self.kinds or {}).items():
            if kind not in FACTORS:
                raise ValueError(f"the kind of {name!r} is 'classification' or 'regression', got {kind!r}")

    def __hash__(self) -> int:
        return hash((tuple((self.kinds or {}).items()), self.rate))

    def init(self, tasks: tuple[str, ...], like: Tensor) -> UncertaintyState:
        for name in self.kinds or {}:
            if name not in tasks:
                raise ValueError(f"Uncertainty names the kind of {name!r}; the tasks are {nearest(name, tasks)}")
        zeros = like.new_zeros(len(tasks))
        return UncertaintyState(zeros, *no_moments(zeros))

    def balance(self, evidence: Evidence, state: UncertaintyState) -> tuple[Balance, UncertaintyState]:
        losses, present = evidence.needed("losses"), evidence.present
        kinds = self.kinds or {}
        factors = losses.new_tensor([FACTORS[kinds.get(name, "classification")] for name in evidence.tasks])
        weights = factors * torch.exp(-state.log_variance[present])
        moved, moments = adam(
            state.log_variance,
            0.5 - weights * losses,
            Moments(state.first, state.second, state.taken),
            present,
            self.rate,
        )
        return Balance(weights), UncertaintyState(moved, *moments)
