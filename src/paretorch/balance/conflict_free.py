"""Conflict-free inverse gradients (Liu, Chu & Thuerey, ICLR 2025)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch

from paretorch.core.contract import Balance, Evidence, Method, Need, Status
from paretorch.core.search_space import Choice, SearchSpace
from paretorch.core.solvers.equal_products import equal_products
from paretorch.core.solvers.minimum_norm import unit_rows

LENGTHS = ("projection", "mean", "min")


@dataclass(frozen=True)
class ConFIG(Method[None]):
    r"""The direction that has one cosine with all task gradients, as long as the sum of their projections on it.

    .. math:: C v = 1, \quad x = \sum_t v_t \frac{g_t}{\lVert g_t \rVert}, \qquad
              d = \Big( \sum_t \big\langle g_t, \tfrac{x}{\lVert x \rVert} \big\rangle \Big) \frac{x}{\lVert x \rVert}

    A zero gradient has no direction and gets weight 0. Where the unit gradients depend on each other, equal cosines may not
    exist; then they are the nearest to equal ones, and the length, which keeps its sign, can be negative. The update is zero
    where no direction is common to all, or where it would raise a task although zero lies in the convex hull of the gradients.

    Args:
        length: ``"projection"``: the sum of the projections (the paper's); ``"mean"`` or ``"min"`` of the gradients' lengths,
            which do not vanish where the projections do: for steps that shrink.

    Example:
        >>> from paretorch.core.method.weights import weights
        >>> w = weights(ConFIG(), torch.tensor([[18.0, -22.0], [-22.0, 38.0]]))
        >>> w @ torch.tensor([[-4.0, 1.0, 1.0], [6.0, 1.0, 1.0]], dtype=torch.float64)
        tensor([0.1588, 2.0706, 2.0706], dtype=torch.float64)

    References:
        Liu, Chu & Thuerey, "ConFIG: Towards Conflict-free Training of Physics Informed Neural Networks", ICLR 2025, section 3.
        They invert the matrix of unit gradients; we the cosines, with what is rounding cut off.
    """

    length: str = "projection"
    needs = Need.GRAMIAN
    search_space: ClassVar[SearchSpace] = {"length": Choice(LENGTHS)}

    def __post_init__(self) -> None:
        if self.length not in LENGTHS:
            raise ValueError(f"length is one of {LENGTHS}, got {self.length!r}")

    def gain(self, tasks: int) -> float:
        return float(tasks) if self.length == "projection" else 1.0

    def balance(self, evidence: Evidence, state: None) -> tuple[Balance, None]:
        matrix, lengths = unit_rows(evidence.needed("gramian"))
        there = lengths > 0
        solution, square, stationary, exists = equal_products(matrix, there.astype(np.float64), evidence.resolution)
        if not exists:
            return Balance(torch.from_numpy(0 * lengths), Status.STATIONARY), state
        if self.length == "projection":
            size = float(lengths @ (matrix @ solution)) / math.sqrt(square)
        else:
            size = float(lengths[there].mean() if self.length == "mean" else lengths[there].min())
        raw = np.divide(solution, lengths, out=np.zeros_like(lengths), where=there)
        weights = torch.from_numpy(raw * (size / math.sqrt(square)))
        return Balance(weights, Status.STATIONARY if stationary else Status.SOLVED), state
