"""Pareto manifold learning: a simplex of models in weight space (Dimitriadis et al., ICML 2023)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from paretorch.pareto.algorithms.contract import FrontAlgorithm
from paretorch.pareto.models.conditional_model import ConditionalModel, ModelSimplex
from paretorch.pareto.preferences import drawn


@dataclass(frozen=True)
class PaMaL(FrontAlgorithm):
    r"""T models trained together so that every convex combination of their weights is optimal for its coefficients.

    .. math:: \theta(w) = \sum_t w_t \theta_t, \qquad \frac1W \sum_{k=1}^W w_k^T L(\theta(w_k))
              + \lambda \sum_t \log \frac{1}{\lvert E_t \rvert} \sum_{(i, j) \in E_t} e^{[L_t(\theta(w_i)) - L_t(\theta(w_j))]_+}

    where E_t is the set of pairs of random preferences with w_it > w_jt: a larger weight should give a smaller loss.

    Args:
        alpha: concentration of the random preferences, above 0.
        window: W, preferences per step, at least 1.
        order: lambda, at least 0; requires a window of at least 2.

    Example:
        >>> PaMaL(window=1).objective(torch.tensor([[1.0, 3.0]]), torch.tensor([[0.5, 0.5]]))
        tensor(2.)

    References:
        Dimitriadis, Frossard & Fleuret, "Pareto manifold learning: tackling multiple tasks via ensembles of single-task models",
        ICML 2023, section 4: the ensemble and its multi-forward regularisation. Our BatchNorm statistics are of all
        combinations together; theirs are recomputed for each one.
    """

    alpha: float = 1.0
    window: int = 4
    order: float = 1.0

    conditional = True

    def __post_init__(self) -> None:
        if not (math.isfinite(self.alpha) and self.alpha > 0):
            raise ValueError(f"alpha is above 0, got {self.alpha}")
        if self.window < 1:
            raise ValueError(f"window is at least 1 preference, got {self.window}")
        if not (math.isfinite(self.order) and self.order >= 0):
            raise ValueError(f"order is at least 0, got {self.order}")

    def conditional_model(self, models: list[nn.Module], example: Any) -> ConditionalModel:
        """The simplex of the models."""
        return ModelSimplex(models)

    def draw(self, tasks: int, generator: torch.Generator) -> Tensor:
        """(W, T) from the Dirichlet distribution."""
        return drawn(self.window, tasks, self.alpha, generator)

    def objective(self, losses: Tensor, preferences: Tensor) -> Tensor:
        """The mean weighted sum, plus the penalty of losses in the wrong order."""
        total = (preferences * losses).sum(dim=1).mean()
        if not self.order or len(losses) < 2:
            return total
        increase = (losses[:, None, :] - losses[None, :, :]).clamp_min(0)  # (W, W, T) of i over j
        heavier = preferences[:, None, :] > preferences[None, :, :]
        for task in range(losses.shape[1]):
            pairs = increase[..., task][heavier[..., task]]
            if len(pairs):
                total = total + self.order * (torch.logsumexp(pairs, dim=0) - math.log(len(pairs)))
        return total
