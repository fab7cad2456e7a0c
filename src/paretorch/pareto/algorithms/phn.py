"""Pareto hypernetworks: a network from preferences to model parameters (Navon et al., ICLR 2021)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from paretorch.pareto.algorithms.contract import FrontAlgorithm, FrontEvidence
from paretorch.pareto.algorithms.epo import EPO
from paretorch.pareto.models.conditional_model import ConditionalModel, Hypernetwork
from paretorch.pareto.preferences import drawn


@dataclass(frozen=True)
class PHNLS(FrontAlgorithm):
    r"""A hypernetwork phi that minimizes the weighted sum for random preferences.

    .. math:: w \sim \mathrm{Dirichlet}(\alpha), \qquad \min_\phi \sum_t w_t L_t(\theta_\phi(w))

    Its minima are on convex parts of a front. BatchNorm statistics are of all preferences together.

    Args:
        alpha: concentration of the random preferences, above 0.
        hidden: units of each of the hypernetwork's two hidden layers.

    Example:
        >>> PHNLS().objective(torch.tensor([[1.0, 3.0]]), torch.tensor([[0.5, 0.5]]))
        tensor(2.)

    References:
        Navon, Shamsian, Chechik & Fetaya, "Learning the Pareto front with hypernetworks", ICLR 2021, Algorithm 1. Ours is
        initialized as the workload's model for every preference, theirs with random last layers.
    """

    alpha: float = 1.0
    hidden: int = 100

    conditional = True

    def __post_init__(self) -> None:
        if not (math.isfinite(self.alpha) and self.alpha > 0):
            raise ValueError(f"alpha is above 0, got {self.alpha}")
        if self.hidden < 1:
            raise ValueError(f"hidden is at least 1 unit, got {self.hidden}")

    def conditional_model(self, models: list[nn.Module], example: Any) -> ConditionalModel:
        """The hypernetwork."""
        return Hypernetwork(models[0], len(models), self.hidden)

    def draw(self, tasks: int, generator: torch.Generator) -> Tensor:
        """(1, T) from the Dirichlet distribution."""
        return drawn(1, tasks, self.alpha, generator)

    def objective(self, losses: Tensor, preferences: Tensor) -> Tensor:
        """The weighted sum."""
        return (preferences * losses).sum(dim=1).mean()


@dataclass(frozen=True)
class PHNEPO(PHNLS):
    r"""A hypernetwork with the steps of :class:`EPO`, whose models converge to equal weighted losses.

    Also reaches the parts of a front that are not convex, with T backward passes per step.

    Args:
        alpha: concentration of the random preferences, above 0.
        hidden: units of each of the hypernetwork's two hidden layers.
        margin: the least weight of a task in a random preference, above 0: boundary points have no ray.

    Example:
        >>> PHNEPO(margin=0.1).draw(2, torch.Generator().manual_seed(0)).min() >= 0.1
        tensor(True)

    References:
        Navon, Shamsian, Chechik & Fetaya, "Learning the Pareto front with hypernetworks", ICLR 2021, section 3.2. Inner products
        are those of the gradients by the hypernetwork's parameters.
    """

    margin: float = 0.05

    needs_gramian = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.margin < 0.5:
            raise ValueError(f"margin is in (0, 1/T), got {self.margin}")

    def check(self, preferences: Tensor, tasks: tuple[str, ...]) -> None:
        """Checks that preferences are above zero and the margin is below 1/T."""
        EPO().check(preferences, tasks)
        if self.margin * len(tasks) >= 1:
            raise ValueError(f"margin is below 1/T = {1 / len(tasks):.4g}, got {self.margin}")

    def draw(self, tasks: int, generator: torch.Generator) -> Tensor:
        """(1, T) from the Dirichlet distribution, contracted towards the centre."""
        return self.margin + (1 - tasks * self.margin) * super().draw(tasks, generator)

    def weights(self, evidence: FrontEvidence) -> Tensor:
        """(n, T) weights of EPO."""
        return EPO().weights(evidence)
