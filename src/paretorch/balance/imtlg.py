"""Impartial multi-task learning, gradient part (Liu et al., ICLR 2021)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from paretorch.core.contract import Balance, Evidence, Method, Need, Status
from paretorch.core.solvers.equal_products import equal_products
from paretorch.core.solvers.gramian import cosines_and_norms, is_zero_combination


@dataclass(frozen=True)
class IMTLG(Method[None]):
    r"""The combination whose projections on all unit task gradients are equal.

    .. math:: C v = 1, \qquad w_t = \frac{v_t / \lVert g_t \rVert}{\lvert \sum_s v_s / \lVert g_s \rVert \rvert}

    A zero gradient has no direction and gets weight 0. Where the unit gradients are linearly dependent, equal projections may not
    exist; then they are nearest to equal in the sense of least squares. The update is zero where no direction is common to all
    tasks, or where zero is in the convex hull of the gradients and the update would increase the loss of a task.

    Example:
        >>> import paretorch as pt
        >>> pt.weights(pt.IMTLG(), torch.tensor([[18.0, -22.0], [-22.0, 38.0]]))
        tensor([0.5923, 0.4077], dtype=torch.float64)

    References:
        Liu et al., "Towards Impartial Multi-task Learning", ICLR 2021, eq. (4)-(6). The paper divides by the sum itself,
        which can be negative: then the update increases every loss. We divide by its absolute value, and use cosines.
    """

    needs = Need.GRAMIAN

    def gain(self, tasks: int) -> float:
        return 1.0

    def balance(self, evidence: Evidence, state: None) -> tuple[Balance, None]:
        gramian = evidence.needed("gramian")
        if len(gramian) == 2 and float(gramian[0, 0]) > 0 and float(gramian[1, 1]) > 0:
            return _of_two(gramian, evidence.resolution), state
        matrix, lengths = cosines_and_norms(gramian)
        nonzero = (lengths > 0).astype(np.float64)
        found = equal_products(matrix, nonzero, evidence.resolution)
        raw = found.weights / np.where(lengths > 0, lengths, np.inf)
        total = abs(float(raw.sum()))
        if not found.exists or total <= 1e-12 * float(np.abs(raw).sum()):
            return Balance(torch.from_numpy(0 * raw), Status.STATIONARY), state
        return Balance(torch.from_numpy(raw / total), Status.STATIONARY if found.stationary else Status.SOLVED), state


def _of_two(gramian: Tensor, resolution: float) -> Balance:
    """For two gradients, each weight is proportional to the length of the other gradient; zero if they are opposite."""
    (first, cross), (_, second) = gramian.tolist()
    a, b = math.sqrt(first), math.sqrt(second)
    if 1 + cross / a / b <= 2 * resolution:
        return Balance(torch.zeros_like(gramian[0]), Status.STATIONARY)
    weights = torch.tensor([b / (a + b), a / (a + b)], dtype=torch.float64)
    return Balance(weights, Status.STATIONARY if is_zero_combination(gramian, weights, resolution) else Status.SOLVED)
