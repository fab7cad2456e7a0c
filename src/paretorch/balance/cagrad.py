"""Conflict-averse gradient descent (Liu, Liu, Jin, Stone & Liu, NeurIPS 2021)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from paretorch.core.contract import Balance, Evidence, Method, Need, Status
from paretorch.core.option_checks import check_choice, check_fraction
from paretorch.core.search_space import Range, SearchSpace
from paretorch.core.solvers.conflict_averse import conflict_averse
from paretorch.core.solvers.gramian import is_zero_combination

RESCALINGS = (0, 1, 2)


@dataclass(frozen=True)
class CAGrad(Method[None]):
    r"""The direction in a ball around the mean gradient that maximizes the smallest inner product with a task gradient.

    .. math:: \max_{\lVert d - g_0 \rVert \le c \lVert g_0 \rVert} \; \min_t \langle g_t, d \rangle, \qquad
              d = g_0 + \frac{c \lVert g_0 \rVert}{\lVert g_w \rVert} g_w, \quad
              w = \arg\min_{\text{simplex}} \langle g_w, g_0 \rangle + c \lVert g_0 \rVert \lVert g_w \rVert

    with g_0 the mean gradient and g_w = sum w_t g_t. Where g_w is zero within the rounding of the gradients, d = g_0.

    Args:
        c: radius of the ball, in [0, 1).
        rescale: at the paper's scale divide d by 1 (0), 1 + c^2 (1), 1 + c (2).

    Example:
        >>> import paretorch as pt
        >>> w = pt.weights(pt.CAGrad(c=0.5), torch.tensor([[18.0, -22.0], [-22.0, 38.0]]))
        >>> w @ torch.tensor([[-4.0, 1.0, 1.0], [6.0, 1.0, 1.0]], dtype=torch.float64)
        tensor([0.1468, 0.9633, 0.9633], dtype=torch.float64)

    References:
        Liu et al., "Conflict-Averse Gradient Descent for Multi-task Learning", NeurIPS 2021, section 3 and Algorithm 1.
    """

    c: float = 0.5
    rescale: int = 1
    needs = Need.GRAMIAN
    search_space: ClassVar[SearchSpace] = {"c": Range(0.1, 0.9)}

    def __post_init__(self) -> None:
        check_fraction("c", self.c)
        check_choice("rescale", self.rescale, RESCALINGS)

    def gain(self, tasks: int) -> float:
        return (1 + self.c) / self._divisor

    @property
    def _divisor(self) -> float:
        return {0: 1.0, 1: 1 + self.c**2, 2: 1 + self.c}[self.rescale]

    def balance(self, evidence: Evidence, state: None) -> tuple[Balance, None]:
        gramian = evidence.needed("gramian")
        equal = torch.full_like(gramian[0], 1 / len(gramian))
        mean = (equal @ gramian @ equal).clamp_min(0).sqrt()
        if mean == 0:
            return Balance(equal / self._divisor, Status.STATIONARY), state
        chosen, converged = conflict_averse(gramian, self.c)
        length = (chosen @ gramian @ chosen).clamp_min(0).sqrt()
        vanishes = not length > 0 or is_zero_combination(gramian, chosen, evidence.resolution)
        offset = torch.zeros_like(chosen) if vanishes else chosen * (self.c * mean / length)
        return Balance((equal + offset) / self._divisor, Status.SOLVED if converged else Status.NOT_CONVERGED), state
