"""Non-negative quadratic programs on matrices of cosines."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np

from paretorch.core.arrays import EPS, Array, Mask

NARROW = 20  # from this number of tasks on, blocks are reduced to the free entries before they are solved
ROUNDS = 12  # of block pivoting; with independent rows about five suffice
SAFE = 2e3  # a larger mean of x indicates nearly dependent rows


def nonnegative_program(matrix: Array, linear: Array) -> tuple[Array, bool]:
    """The minimizers of x^T C x / 2 - b^T x over x >= 0, for every column b, by block principal pivoting.

    All columns are solved at once. A column starts from an estimate of the entries that are zero, solves for the others, and
    exchanges every entry that has the wrong sign, until none has. Columns that do not converge, or whose x is so large that rows
    must be nearly dependent, are solved again with a ridge of a few units of rounding, which favours no gradient since the
    diagonal is one. Columns that still do not converge are solved by :func:`_active_set`.

    Args:
        matrix: (T, T) cosines: symmetric, positive semidefinite, unit (or zero) diagonal.
        linear: (T, m) the columns b, of size about one.

    Returns:
        (T, m) minimizers, and whether all columns satisfy the optimality conditions within rounding.

    References:
        Judice & Pires, "A block principal pivoting algorithm for large-scale strictly monotone linear complementarity
        problems", Computers & Operations Research 1994.
    """
    rows = linear.T
    if len(rows) == 1:
        one = _pivot_one(matrix, rows[0])
        if one is not None:
            return one[:, None], True
    x, converged = _pivot(matrix, rows, SAFE * len(matrix))
    if not converged.all():
        ridged, again = nearest_definite(matrix), np.flatnonzero(~converged)
        x[again], converged[again] = _pivot(ridged, rows[again], np.inf)
        for row in np.flatnonzero(~converged):
            x[row] = np.maximum(_active_set(ridged, rows[row]), 0.0)
        converged[again] = _are_optimal(ridged, rows[again], x[again])
    return x.T, bool(converged.all())


def _pivot(matrix: Array, linear: Array, largest: float) -> tuple[Array, Mask]:
    """(m, T) minimizers for (m, T) rows b by block pivoting, and (m,) which are optimal and sum to no more than ``largest``."""
    result = np.zeros(linear.shape)
    pending, rows, free = np.arange(len(linear)), linear, _estimated_supports(matrix, linear)
    for _ in range(ROUNDS):
        try:
            x = _solve_free(matrix, rows, free)
        except np.linalg.LinAlgError:
            return result, np.zeros(len(linear), dtype=bool)
        result[pending] = x
        signed = np.where(free, x, x @ matrix - rows)
        if signed.min() >= 0:
            pending = pending[:0]
            break
        wrong = signed < -8 * EPS * (1 + np.abs(x).sum(axis=1, keepdims=True))
        left = wrong.any(axis=1)
        pending, rows, free = pending[left], rows[left], free[left] ^ wrong[left]
        if not len(pending):
            break
    result = np.maximum(result, 0.0)
    converged = _are_optimal(matrix, linear, result, largest)
    converged[pending] = False
    return result, converged


def _pivot_one(matrix: Array, linear: Array) -> Array | None:
    """:func:`_pivot` for one row, in fewer calls; None where it does not converge."""
    tasks = len(linear)
    free = linear > 0 if tasks < NARROW else _estimated_support(matrix, linear)
    for _ in range(ROUNDS):
        index = free.nonzero()[0]
        try:
            block = matrix if len(index) == tasks else matrix[index[:, None], index]
            solution = np.linalg.solve(block, linear[index])
        except np.linalg.LinAlgError:
            return None
        x = np.zeros(tasks)
        x[index] = solution
        slope = matrix.dot(x) - linear
        violation = slope[index]
        slope[index] = solution  # optimal: a free entry is not negative, and neither is the slope of any other entry
        size = 1 + float(np.abs(solution).sum())
        if slope.min() >= -8 * EPS * size:
            optimal = size <= SAFE * tasks and np.abs(violation).max(initial=0.0) <= 1e-12 * size
            return np.maximum(x, 0.0) if optimal else None
        free ^= slope < -8 * EPS * size
    return None


def _estimated_support(matrix: Array, linear: Array) -> Mask:
    """:func:`_estimated_supports` for one row, its largest eigenvalue from power iterations; an error costs a solve."""
    top = matrix.dot(linear)
    for _ in range(2):
        top = matrix.dot(top / max(math.sqrt(top.dot(top)), EPS))
    step = 0.95 / max(math.sqrt(top.dot(top)), EPS)
    constant = step * linear
    x = extrapolated = np.maximum(constant, 0.0)
    for number in range(8 + len(matrix) // 16):
        moved = np.maximum(extrapolated - step * matrix.dot(extrapolated) + constant, 0.0)
        extrapolated = moved + number / (number + 3) * (moved - x)
        x = moved
    return x > 0


def _estimated_supports(matrix: Array, linear: Array) -> Mask:
    """(m, T) which entries are positive after a few accelerated projected gradient steps: most remain so in the solution."""
    square = (matrix @ matrix).ravel()
    # The inverse of a bound on the largest eigenvalue.
    step = 1 / max(math.sqrt(math.sqrt(float(square @ square))), EPS)
    constant, contraction = linear * step, _unit(len(matrix)) - matrix * step
    x = extrapolated = np.maximum(constant, 0.0)
    for number in range(4 + len(matrix) // 6):
        moved = extrapolated @ contraction
        moved += constant
        np.maximum(moved, 0.0, out=moved)
        extrapolated = moved + number / (number + 3) * (moved - x)
        x = moved
    return x > 0


@lru_cache(maxsize=64)
def _unit(tasks: int) -> Array:
    return np.eye(tasks)


def nearest_definite(matrix: Array) -> Array:
    """The nearest positive semidefinite matrix with unit diagonal, plus a ridge of a few units of rounding.

    A matrix of inner products that were summed in float32 can have negative eigenvalues; these become zero.
    """
    ridge = 4 * len(matrix) * EPS
    symmetric = (matrix + matrix.T) / 2
    result = _with_ridge(symmetric, ridge)
    try:
        np.linalg.cholesky(result)
    except np.linalg.LinAlgError:
        values, vectors = np.linalg.eigh(symmetric)
        near = (vectors * np.maximum(values, 0.0)) @ vectors.T
        size = np.sqrt(np.maximum(near.diagonal(), EPS))
        result = _with_ridge(near / size[:, None] / size[None, :], ridge)
    return result


def _with_ridge(matrix: Array, ridge: float) -> Array:
    """A copy with the ridge added to the diagonal."""
    result: Array = matrix.copy()
    result.flat[:: len(matrix) + 1] += ridge
    return result


def _solve_free(matrix: Array, linear: Array, free: Mask) -> Array:
    """(m, T) solutions of C x = b on the free entries of each of the (m, T) rows b, zero elsewhere."""
    tasks, x = len(matrix), np.zeros(linear.shape)
    if tasks < NARROW:
        blocks = np.where(free[:, :, None] & free[:, None, :], matrix, _unit(tasks))
        x[:] = np.linalg.solve(blocks, (linear * free)[:, :, None])[:, :, 0]
        return x
    counts = free.sum(axis=1)
    order = np.argsort(~free, axis=1, kind="stable")[:, : counts.max()]  # free entries first; the others are masked
    inside = np.arange(order.shape[1]) < counts[:, None]
    blocks = matrix[order[:, :, None], order[:, None, :]] * (inside[:, :, None] & inside[:, None, :])
    blocks.reshape(len(free), -1)[:, :: order.shape[1] + 1] += ~inside
    place = np.arange(len(free))[:, None], order
    x[place] = np.linalg.solve(blocks, (linear[place] * inside)[:, :, None])[:, :, 0]
    return x


def _active_set(matrix: Array, linear: Array) -> Array:
    """(T,) the minimizer for one column by the active-set method of Lawson & Hanson: slower, with a decreasing objective."""
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


def _are_optimal(matrix: Array, linear: Array, x: Array, largest: float = np.inf) -> Mask:
    """(m,) whether the slopes C x - b are non-negative, and zero where x is positive, to 1e-9 of the terms of their sums."""
    total = x.sum(axis=1)
    violation = np.abs(np.minimum(x, x @ matrix - linear)).max(axis=1)
    result: Mask = (violation <= 1e-9 * (float(np.abs(linear).max()) + total)) & (total <= largest)
    return result
