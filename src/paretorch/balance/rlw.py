"""Random loss weighting (Lin, Ye, Zhang & Tsang, TMLR 2022)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from paretorch.core.contract import Balance, Evidence, Method, Need
from paretorch.core.option_checks import check_choice
from paretorch.core.search_space import Choice, SearchSpace

DISTRIBUTIONS = ("normal", "dirichlet")


@dataclass(frozen=True)
class RLW(Method[None]):
    r"""Random weights, drawn anew in every step: a baseline for methods that compute weights.

    .. math:: w = T \, \mathrm{softmax}(\xi), \; \xi_t \sim \mathcal{N}(0, 1) \qquad \text{or} \qquad
              w / T \sim \mathrm{Dirichlet}(1, \dots, 1)

    Args:
        distribution: ``"normal"`` or ``"dirichlet"`` (uniform on the simplex).

    Example:
        >>> import paretorch as pt
        >>> pt.weights(pt.RLW(), losses=torch.tensor([1.0, 1.0])).sum()
        tensor(2., dtype=torch.float64)

    References:
        Lin, Ye, Zhang & Tsang, "Reasonable Effectiveness of Random Weighting", TMLR 2022, section 3.1. Their weights sum to
        one; ours sum to T, like those of the sum of losses.
    """

    distribution: str = "normal"
    needs = Need.LOSSES
    search_space: ClassVar[SearchSpace] = {"distribution": Choice(DISTRIBUTIONS)}
    random = True

    def __post_init__(self) -> None:
        check_choice("distribution", self.distribution, DISTRIBUTIONS)

    def balance(self, evidence: Evidence, state: None) -> tuple[Balance, None]:
        tasks = len(evidence.tasks)
        if self.distribution == "normal":
            draw = torch.randn(tasks, generator=evidence.generator, dtype=torch.float64).exp()
        else:  # normalized exponential draws are uniform on the simplex
            draw = -torch.log1p(-torch.rand(tasks, generator=evidence.generator, dtype=torch.float64))
            draw = draw.clamp_min(torch.finfo(torch.float64).tiny)
        return Balance(tasks * draw / draw.sum()), state
