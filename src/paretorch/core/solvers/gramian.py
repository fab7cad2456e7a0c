"""Lengths, cosines and vanishing combinations of gradients, from their Gramian."""

from __future__ import annotations

import math
from operator import mul

import numpy as np
import torch
from torch import Tensor

from paretorch.core.arrays import EPS, Array

FEW = 8  # up to this number of tasks, plain arithmetic costs less than calls into NumPy
ZERO_FACTOR = 4.0  # a combination is zero up to this multiple of the square root of its relative rounding error


def norms(gramian: Tensor) -> Tensor:
    """(T,) square roots of the Gramian's diagonal."""
    return gramian.diagonal().clamp_min(0).sqrt()


def cosines(gramian: Tensor) -> Tensor:
    """(T, T) the Gramian of the unit gradients; rows of zero gradients are zero."""
    lengths = norms(gramian)
    inverse = torch.where(lengths > 0, 1 / lengths, 0.0)
    return gramian * inverse[:, None] * inverse[None, :]


def cosines_and_norms(gramian: Tensor) -> tuple[Array, Array]:
    """(T, T) cosines and (T,) lengths; the row of a zero gradient is zero."""
    matrix: Array = gramian.numpy()
    lengths: Array = np.sqrt(np.maximum(matrix.diagonal(), 0.0))
    if lengths.min() > 0:
        return matrix / lengths / lengths[:, None], lengths
    inverse = np.divide(1.0, lengths, out=np.zeros_like(lengths), where=lengths > 0)
    return matrix * inverse[:, None] * inverse[None, :], lengths


def is_zero_combination(gramian: Tensor, weights: Tensor, resolution: float = EPS) -> bool:
    r"""Whether sum_t w_t g_t is zero within the rounding of the gradients, so that its direction is rounding.

    .. math:: w^T G w \le 16 \, (\rho + T u) \Big( \sum_t |w_t| \lVert g_t \rVert \Big)^2

    Rounding changes w^T G w by at most rho times the square on the right, and a solve in float64 by T u times it.

    Args:
        gramian: (T, T); ``weights``: (T,) w.
        resolution: rho, the bound on the rounding error of an inner product, relative to the lengths: see
            :func:`~paretorch.core.gradients.rounding.product_rounding`.
    """
    least = zero_threshold(resolution, len(weights))
    if len(weights) <= FEW:
        rows, shares = gramian.tolist(), weights.tolist()
        length = sum(
            abs(share) * math.sqrt(max(row[task], 0.0))
            for task, (row, share) in enumerate(zip(rows, shares, strict=True))
        )
        square = sum(share * sum(map(mul, row, shares)) for row, share in zip(rows, shares, strict=True))
        return bool(square <= least * length**2)
    matrix, weight = gramian.numpy(), weights.numpy()
    terms = float(np.abs(weight).dot(np.sqrt(np.maximum(matrix.diagonal(), 0.0))))
    return float(weight.dot(matrix.dot(weight))) <= least * terms**2


def zero_threshold(resolution: float, tasks: int) -> float:
    """The squared length, relative to the squared sum of the terms' lengths, up to which a combination is rounding."""
    return ZERO_FACTOR**2 * (resolution + tasks * EPS)
