"""The combination of the gradients that has one inner product with all unit gradients."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch

from paretorch.core.arrays import Array
from paretorch.core.solvers.minimum_norm import cancels, minimum_norm, negligible

CERTAIN = 2e-2  # of the least eigenvalue: so far above rounding, no eigenvalue has to be looked at


class EqualProducts(NamedTuple):
    """x = sum_t v_t u_t of the unit gradients u.

    Args:
        weights: (T,) v, zero for a zero gradient.
        square: squared length of x; zero where no direction is common to all.
        stationary: whether x, or else the shortest convex combination of the gradients, is zero to rounding.
        exists: whether x is a direction: False where what is left of it is rounding, or where it raises a task although zero lies
            in the convex hull of the gradients.
    """

    weights: Array
    square: float
    stationary: bool
    exists: bool


def equal_products(matrix: Array, there: Array, resolution: float) -> EqualProducts:
    r"""The x with <u_t, x> = 1 for all unit gradients, and what rounding leaves of it.

    .. math:: C v = 1, \qquad x = \sum_t v_t u_t, \quad \lVert x \rVert^2 = 1^T v

    Where the unit gradients depend on each other as far as rounding can tell, the products are the nearest to one that there are,
    and some may be negative. If zero then lies in the convex hull of the gradients, no direction descends for every task.

    Args:
        matrix: (T, T) C, the cosines.
        there: (T,) 1 where the gradient is not zero.
        resolution: bound on the rounding of an inner product, relative to the lengths.

    Example:
        >>> equal_products(np.array([[1.0, 0.0], [0.0, 1.0]]), np.ones(2), 1e-16).weights
        array([1., 1.])
    """
    tasks, solution = len(there), least_squares(matrix, there, resolution)
    square = float(there @ solution)
    if square <= tasks * resolution:
        return EqualProducts(solution, square, stationary=True, exists=False)
    if float((matrix @ solution).min()) < 0:
        gramian = torch.from_numpy(matrix[np.ix_(there > 0, there > 0)])
        if cancels(gramian, minimum_norm(gramian).weights, resolution):
            return EqualProducts(solution, square, stationary=True, exists=False)
    short = square <= negligible(resolution, tasks) * float(np.abs(solution).sum()) ** 2
    return EqualProducts(solution, square, stationary=short, exists=True)


def least_squares(matrix: Array, right: Array, resolution: float) -> Array:
    """The shortest solution of C v = b, least squares where there is none; eigenvalues that are rounding count as zero.

    Args:
        matrix: (T, T) cosines; ``right``: (T,) b; ``resolution``: bound on the rounding of an entry of C.
    """
    tasks = len(right)
    try:
        inverse = np.linalg.inv(matrix)  # of which no entry is large unless an eigenvalue is small
    except np.linalg.LinAlgError:
        pass
    else:
        flat, other = matrix.ravel(), inverse.ravel()
        condition = math.sqrt(float(flat @ flat) * float(other @ other))  # or above it
        if condition * tasks * resolution <= CERTAIN:
            solved: Array = inverse @ right
            return solved
    values, vectors = np.linalg.eigh(matrix)
    kept = values > values[-1] * tasks * resolution
    shares = np.divide(1.0, values, out=np.zeros_like(values), where=kept)
    result: Array = vectors @ (shares * (right @ vectors))
    return result
