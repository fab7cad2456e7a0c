"""COSMOS: one network for all preferences (Ruchte & Grabocka, ICDM 2021)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from paretorch.pareto.algorithms.contract import FrontAlgorithm
from paretorch.pareto.models.conditional_model import ConditionalModel, ConditionedModel, ConditionedNetwork
from paretorch.pareto.preferences import drawn, rays


@dataclass(frozen=True)
class COSMOS(FrontAlgorithm):
    r"""A network that takes the preference as an input; each step draws one, and rewards losses that point along it.

    .. math:: w \sim \mathrm{Dirichlet}(\alpha), \qquad \sum_t w_t L_t(\theta, w) - \lambda\, \cos\big(1/w, L(\theta, w)\big)

    Args:
        alpha: concentration, above 0; the larger, the nearer to even preferences.
        penalty: lambda, at least 0: spreads the front where the weighted sum alone would collapse.

    Example:
        >>> COSMOS(penalty=0.0).objective(torch.tensor([[1.0, 3.0]]), torch.tensor([[0.5, 0.5]]))
        tensor(2.)

    References:
        Ruchte & Grabocka, "Scalable Pareto front approximation for deep multi-objective learning", ICDM 2021, eq. (6).
        Theirs gives an encoder of its own T more input channels; ours puts a linear map before any encoder. Their cosine is
        with w itself, which makes a loss large where its task matters, against the first term; ours is with 1/w, as
        Tchebycheff's ray is.
    """

    alpha: float = 1.0
    penalty: float = 1.0

    conditional = True

    def __post_init__(self) -> None:
        if not (math.isfinite(self.alpha) and self.alpha > 0):
            raise ValueError(f"alpha is above 0, got {self.alpha}")
        if not (math.isfinite(self.penalty) and self.penalty >= 0):
            raise ValueError(f"penalty is at least 0, got {self.penalty}")

    def conditional_model(self, models: list[nn.Module], example: Any) -> ConditionalModel:
        """The first model, with the preference as an input."""
        return ConditionedModel(ConditionedNetwork(models[0], example, len(models)))

    def draw(self, tasks: int, generator: torch.Generator) -> Tensor:
        """(1, T) from the Dirichlet distribution."""
        return drawn(1, tasks, self.alpha, generator)

    def objective(self, losses: Tensor, preferences: Tensor) -> Tensor:
        """The weighted sum less the penalty's cosine."""
        total = (preferences * losses).sum(dim=1)
        if not self.penalty:
            return total.mean()
        return (total - self.penalty * nn.functional.cosine_similarity(rays(preferences), losses, dim=1)).mean()
