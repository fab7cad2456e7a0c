"""The combination of the gradients whose inner products with all unit gradients are equal."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch

from paretorch.core.arrays import Array
from paretorch.core.solvers.gramian import is_zero_combination, zero_threshold
from paretorch.core.solvers.minimum_norm import minimum_norm

WELL_CONDITIONED = 2e-2  # rounding relative to the least eigenvalue: up to this value no eigenvalue is computed


class EqualProducts(NamedTuple):
    """x = sum_t v_t u_t of the unit gradients u.

    Args:
        weights: (T,) v, zero for a zero gradient.
        square: squared length of x; zero where no direction is common to all gradients.
        stationary: whether x, or the shortest convex combination of the gradients, is zero within rounding.
        exists: whether x is a direction: False where x is zero within rounding, or where it increases the loss of a task and zero
            is in the convex hull of the gradients.
    """

    weights: Array
    square: float
    stationary: bool
    exists: bool


def equal_products(matrix: Array, nonzero: Array, resolution: float) -> EqualProducts:
    r"""The x with <u_t, x> = 1 for all unit gradients.

    .. math:: C v = 1, \qquad x = \sum_t v_t u_t, \quad \lVert x \rVert^2 = 1^T v

    Where the unit gradients are linearly dependent within rounding, the products are nearest to one in the sense of least
    squares, and some may be negative. If zero is then in the convex hull of the gradients, no direction descends for every task.

    Args:
        matrix: (T, T) C, the cosines.
        nonzero: (T,) 1 where the gradient is not zero, else 0.
        resolution: bound on the rounding error of an inner product, relative to the lengths of the two gradients.

    Example:
        >>> equal_products(np.array([[1.0, 0.0], [0.0, 1.0]]), np.ones(2), 1e-16).weights
        array([1., 1.])
    """
    tasks, solution = len(nonzero), least_squares(matrix, nonzero, resolution)
    square = float(nonzero @ solution)
    if square <= tasks * resolution:
        return EqualProducts(solution, square, stationary=True, exists=False)
    if float((matrix @ solution).min()) < 0:
        gramian = torch.from_numpy(matrix[np.ix_(nonzero > 0, nonzero > 0)])
        if is_zero_combination(gramian, minimum_norm(gramian).weights, resolution):
            return EqualProducts(solution, square, stationary=True, exists=False)
    short = square <= zero_threshold(resolution, tasks) * float(np.abs(solution).sum()) ** 2
    return EqualProducts(solution, square, stationary=short, exists=True)


def least_squares(matrix: Array, right: Array, resolution: float) -> Array:
    """The shortest least-squares solution of C v = b; eigenvalues within rounding count as zero.

    Args:
        matrix: (T, T) cosines C.
        right: (T,) b.
        resolution: bound on the rounding error of an entry of C.
    """
    tasks = len(right)
    try:
        inverse = np.linalg.inv(matrix)  # its entries are large only if an eigenvalue is small
    except np.linalg.LinAlgError:
        pass
    else:
        flat, other = matrix.ravel(), inverse.ravel()
        condition = math.sqrt(float(flat @ flat) * float(other @ other))  # an upper bound
        if condition * tasks * resolution <= WELL_CONDITIONED:
            solved: Array = inverse @ right
            return solved
    values, vectors = np.linalg.eigh(matrix)
    kept = values > values[-1] * tasks * resolution
    shares = np.divide(1.0, values, out=np.zeros_like(values), where=kept)
    result: Array = vectors @ (shares * (right @ vectors))
    return result
