"""Non-negative quadratic programs on matrices of cosines: what every exact solver of balancing rests on."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

EPS = float(np.finfo(np.float64).eps)
ROUNDS = 12  # of block pivoting: independent rows settle in about five


def nonnegative_program(matrix: Array, linear: Array) -> tuple[Array, bool]:
    """The minimizers of x^T C x / 2 - b^T x over x >= 0, for every column b, by block principal pivoting.

    All columns are solved at once: each guesses which of its entries are zero, solves for the others, and exchanges every entry
    whose sign is wrong. A column that does not settle (dependent rows) is left to :func:`_active_set`. A ridge of a few units of
    rounding, on a matrix of unit diagonal, makes every block invertible without favouring a longer gradient.

    Args:
        matrix: (T, T) cosines: symmetric, positive semidefinite, unit (or zero) diagonal.
        linear: (T, m) the columns b, of size about one.

    Returns:
        (T, m) minimizers, and whether the optimality conditions hold to rounding for all columns.

    References:
        Judice & Pires, "A block principal pivoting algorithm for large-scale strictly monotone linear complementarity
        problems", Computers & Operations Research 1994.
    """
    tasks, columns = linear.shape
    ridged = definite(matrix)
    if columns == 1 and linear.min() > 0:
        everywhere = np.linalg.solve(ridged, linear).astype(np.float64, copy=False)
        if everywhere.min() > 0 and np.abs(ridged @ everywhere - linear).max() <= 1e-9 * everywhere.sum():
            return everywhere, True
    if columns == 1:
        x, settled = _pivot(ridged, linear[:, 0])
        if settled:
            return x[:, None], _is_optimal(ridged, linear, x[None])
    free = linear.T > 0  # (m, T): the entries guessed to be positive
    x = np.zeros((columns, tasks))
    pending = np.arange(columns)
    for _ in range(ROUNDS):
        x[pending] = _solve_free(ridged, linear[:, pending], free[pending])
        slope = x[pending] @ ridged - linear.T[pending]
        tolerance = 8 * tasks * EPS * (1 + np.abs(x[pending]).max(axis=1, keepdims=True))
        wrong = np.where(free[pending], x[pending] < -tolerance, slope < -tolerance)
        left = wrong.any(axis=1)
        pending = pending[left]
        if not len(pending):
            break
        free[pending] ^= wrong[left]
    for column in pending:
        x[column] = _active_set(ridged, linear[:, column])
    x = np.maximum(x, 0.0)
    return x.T, _is_optimal(ridged, linear, x)


def _pivot(matrix: Array, linear: Array) -> tuple[Array, bool]:
    """(T,) the minimizer for one column by block pivoting, and whether it settled."""
    tasks = len(linear)
    free = linear > 0
    x = np.zeros(tasks)
    for _ in range(ROUNDS):
        index = free.nonzero()[0]
        x[:] = 0.0
        if len(index):
            x[index] = np.linalg.solve(matrix[index[:, None], index], linear[index])
        tolerance = 8 * tasks * EPS * (1 + np.abs(x).max())
        wrong = np.where(free, x, matrix @ x - linear) < -tolerance
        if not wrong.any():
            return np.maximum(x, 0.0), True
        free ^= wrong
    return x, False


def definite(matrix: Array) -> Array:
    """The matrix with a ridge of a few units of rounding, after what float32 sums made negative has been cut off.

    Inner products summed in lower precision need not be those of any vectors; the nearest that are lie at the eigenvalues that
    are not negative.
    """
    ridge = 4 * len(matrix) * EPS
    result = _lifted(matrix, ridge)
    try:
        np.linalg.cholesky(result)
    except np.linalg.LinAlgError:
        values, vectors = np.linalg.eigh(matrix)
        near = (vectors * np.maximum(values, 0.0)) @ vectors.T
        size = np.sqrt(np.maximum(near.diagonal(), EPS))
        result = _lifted(near / size[:, None] / size[None, :], ridge)
    return result


def _lifted(matrix: Array, ridge: float) -> Array:
    """A copy with the ridge added to the diagonal."""
    result: Array = matrix.copy()
    result.flat[:: len(matrix) + 1] += ridge
    return result


def _solve_free(matrix: Array, linear: Array, free: NDArray[np.bool_]) -> Array:
    """(m, T) solutions of C x = b on each column's free entries, zero elsewhere, with one step of refinement."""
    blocks = np.where(free[:, :, None] & free[:, None, :], matrix, np.eye(len(matrix)))
    right = np.where(free, linear.T, 0.0)[:, :, None]
    solution: Array = np.linalg.solve(blocks, right)[:, :, 0]
    return np.where(free, solution, 0.0)


def _active_set(matrix: Array, linear: Array) -> Array:
    """(T,) the minimizer for one column by Lawson and Hanson's active set: slower, and never worse than its last iterate."""
    tasks = len(linear)
    x = np.zeros(tasks)
    free = np.zeros(tasks, dtype=bool)
    for _ in range(10 * tasks + 20):
        slope = linear - matrix @ x
        slope[free] = -np.inf
        entering = int(slope.argmax())
        if slope[entering] <= 8 * tasks * EPS * (1 + np.abs(x).max()):
            break
        free[entering] = True
        while free.any():
            target = np.zeros(tasks)
            target[free] = np.linalg.solve(matrix[np.ix_(free, free)], linear[free])
            blocked = free & (target <= 0)
            if not blocked.any():
                x = target
                break
            step = np.min(x[blocked] / (x[blocked] - target[blocked]))
            x = x + step * (target - x)
            free &= ~(blocked & (x <= EPS * np.abs(x).max()))
            x[~free] = 0.0
    return x


def _is_optimal(matrix: Array, linear: Array, x: Array) -> bool:
    """Whether slopes are non-negative and vanish where x is positive, to 1e-9 of the terms they are sums of."""
    slope = x @ matrix - linear.T
    scale = 1e-9 * (np.abs(linear.T).max(axis=1, keepdims=True) + x.sum(axis=1, keepdims=True))
    return bool((slope >= -scale).all() and (np.minimum(x, slope) <= scale).all())
