"""COSMOS: one network for all preferences (Ruchte & Grabocka, ICDM 2021)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from paretorch.pareto.algorithm import FrontAlgorithm
from paretorch.pareto.preferences import rays


@dataclass(frozen=True)
class COSMOS(FrontAlgorithm):
    r"""A network that takes the preference as an input; each step draws one, and rewards losses that point along it.

    .. math:: w \sim \mathrm{Dirichlet}(\alpha), \qquad \sum_t w_t L_t(\theta, w) - \lambda\, \cos\big(1/w, L(\theta, w)\big)

    Args:
        alpha: concentration, above 0; the larger, the nearer to even preferences.
        penalty: lambda, at least 0: spreads the front where the weighted sum alone would collapse.

    Example:
        >>> COSMOS(penalty=0.0).objective(torch.tensor([1.0, 3.0]), torch.tensor([0.5, 0.5]))
        tensor(2.)

    References:
        Ruchte & Grabocka, "Scalable Pareto front approximation for deep multi-objective learning", ICDM 2021, eq.
        (6). Theirs gives
        an encoder of its own T more input channels; ours puts a linear map before any encoder. Their cosine is with
        w itself, which
        makes a loss large where its task matters, against the first term; ours is with 1/w, as Tchebycheff's ray is.
    """

    alpha: float = 1.0
    penalty: float = 1.0

    conditional = True

    def __post_init__(self) -> None:
        if not (math.isfinite(self.alpha) and self.alpha > 0):
            raise ValueError(f"alpha is above 0, got {self.alpha}")
        if not (math.isfinite(self.penalty) and self.penalty >= 0):
            raise ValueError(f"penalty is at least 0, got {self.penalty}")

    def draw(self, tasks: int, generator: torch.Generator) -> Tensor:
        """(T,) from the Dirichlet distribution."""
        seed = int(torch.randint(2**62, (1,), generator=generator))
        return torch.from_numpy(np.random.default_rng(seed).dirichlet(np.full(tasks, self.alpha)))

    def objective(self, losses: Tensor, preference: Tensor) -> Tensor:
        """The weighted sum less the penalty's cosine."""
        total = (preference * losses).sum()
        if not self.penalty:
            return total
        return total - self.penalty * torch.nn.functional.cosine_similarity(rays(preference[None])[0], losses, dim=0)
