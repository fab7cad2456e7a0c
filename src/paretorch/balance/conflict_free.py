"""Conflict-free inverse gradients (Liu, Chu & Thuerey, ICLR 2025)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch

from paretorch.core.contract import Balance, Evidence, Method, Need, Status
from paretorch.core.option_checks import check_choice
from paretorch.core.search_space import Choice, SearchSpace
from paretorch.core.solvers.equal_products import equal_products
from paretorch.core.solvers.gramian import cosines_and_norms

LENGTHS = ("projection", "mean", "min")


@dataclass(frozen=True)
class ConFIG(Method[None]):
    r"""The direction with equal cosines to all task gradients; its length is the sum of their projections on it.

    .. math:: C v = 1, \quad x = \sum_t v_t \frac{g_t}{\lVert g_t \rVert}, \qquad
              d = \Big( \sum_t \big\langle g_t, \tfrac{x}{\lVert x \rVert} \big\rangle \Big) \frac{x}{\lVert x \rVert}

    A zero gradient has no direction and gets weight 0. Where the unit gradients are linearly dependent, equal cosines may not
    exist; then they are nearest to equal in the sense of least squares, and the length, which keeps its sign, can be negative.
    The update is zero where no direction is common to all tasks, or where zero is in the convex hull of the gradients and the
    update would increase the loss of a task.

    Args:
        length: ``"projection"``: the sum of the projections (the paper's); ``"mean"`` or ``"min"`` of the gradients' lengths,
            which are not zero where the projections are: for learning rates that decrease.

    Example:
        >>> import paretorch as pt
        >>> w = pt.weights(pt.ConFIG(), torch.tensor([[18.0, -22.0], [-22.0, 38.0]]))
        >>> w @ torch.tensor([[-4.0, 1.0, 1.0], [6.0, 1.0, 1.0]], dtype=torch.float64)
        tensor([0.1588, 2.0706, 2.0706], dtype=torch.float64)

    References:
        Liu, Chu & Thuerey, "ConFIG: Towards Conflict-free Training of Physics Informed Neural Networks", ICLR 2025, section 3.
        They invert the matrix of unit gradients; we invert the cosines, without eigenvalues within rounding.
    """

    length: str = "projection"
    needs = Need.GRAMIAN
    search_space: ClassVar[SearchSpace] = {"length": Choice(LENGTHS)}

    def __post_init__(self) -> None:
        check_choice("length", self.length, LENGTHS)

    def gain(self, tasks: int) -> float:
        return float(tasks) if self.length == "projection" else 1.0

    def balance(self, evidence: Evidence, state: None) -> tuple[Balance, None]:
        matrix, lengths = cosines_and_norms(evidence.needed("gramian"))
        nonzero = lengths > 0
        solution, square, stationary, exists = equal_products(matrix, nonzero.astype(np.float64), evidence.resolution)
        if not exists:
            return Balance(torch.from_numpy(0 * lengths), Status.STATIONARY), state
        if self.length == "projection":
            size = float(lengths @ (matrix @ solution)) / math.sqrt(square)
        else:
            size = float(lengths[nonzero].mean() if self.length == "mean" else lengths[nonzero].min())
        raw = np.divide(solution, lengths, out=np.zeros_like(lengths), where=nonzero)
        weights = torch.from_numpy(raw * (size / math.sqrt(square)))
        return Balance(weights, Status.STATIONARY if stationary else Status.SOLVED), state
