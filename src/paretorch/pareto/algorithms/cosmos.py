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
    r"""One network with the preference as an input; the objective rewards losses in the direction of a random preference.

    .. math:: w \sim \mathrm{Dirichlet}(\alpha), \qquad \sum_t w_t L_t(\theta, w) - \lambda\, \cos\big(u, L(\theta, w)\big),
              \qquad u_t \propto \frac{1}{\max(w_t, 0.02)}

    The bound of 0.02 keeps the direction u finite where a weight is zero.

    Args:
        alpha: concentration, above 0; larger values draw preferences nearer to the centre.
        penalty: lambda, at least 0: distributes the front; with the weighted sum alone it may collapse.

    Example:
        >>> COSMOS(penalty=0.0).objective(torch.tensor([[1.0, 3.0]]), torch.tensor([[0.5, 0.5]]))
        tensor(2.)

    References:
        Ruchte & Grabocka, "Scalable Pareto front approximation for deep multi-objective learning", ICDM 2021, eq. (6).
        Their encoder has T more input channels; ours is preceded by a linear map. Their cosine is with w itself, which
        increases the loss of a task of large weight, against the first term; ours is with u, on which the weighted losses are
        equal, as for Tchebycheff.
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
        """The weighted sum minus the cosine times the penalty."""
        total = (preferences * losses).sum(dim=1)
        if not self.penalty:
            return total.mean()
        return (total - self.penalty * nn.functional.cosine_similarity(rays(preferences), losses, dim=1)).mean()
