"""Non-negative quadratic programs of few variables, in plain arithmetic, which here costs less than calls into NumPy."""

from __future__ import annotations

import math
from operator import mul

import numpy as np

SMALLEST_PIVOT = 1e-7  # with smaller pivots rows are nearly dependent, and the tableau loses digits
TOLERANCE = 1e-13  # of the slopes, relative to the terms of their sums

Rows = list[list[float]]


def list_cosines_and_norms(gramian: Rows) -> tuple[Rows, list[float]]:
    """(T, T) cosines and (T,) lengths; the row of a zero gradient is zero."""
    lengths = [math.sqrt(max(row[task], 0.0)) for task, row in enumerate(gramian)]
    inverse = [1 / length if length > 0 else 0.0 for length in lengths]
    return [
        [share * value for value in map(mul, row, inverse)] for row, share in zip(gramian, inverse, strict=True)
    ], lengths


def principal_pivoting(rows: Rows, linear: list[float]) -> list[float] | None:
    """The minimizer of x^T C x / 2 - b^T x over x >= 0, or None where it is not found within rounding.

    A tableau holds the slopes s = C x - b solved for T of the 2 T variables s and x. The most negative entry is exchanged until
    none is negative. The result is checked with C itself, so that rounding in the tableau has no effect.

    Args:
        rows: (T, T) cosines: symmetric, positive semidefinite, unit (or zero) diagonal.
        linear: (T,) b.

    Example:
        >>> principal_pivoting([[1.0, -0.5], [-0.5, 1.0]], [0.3, -0.6])
        [0.3, 0.0]

    References:
        Keller, "The general quadratic optimization problem", Mathematical Programming 1973: principal pivots.
    """
    tasks = len(linear)
    free = [False] * tasks
    table = [[*row, -value] for row, value in zip(rows, linear, strict=True)]
    if tasks > 4 and min(linear) > 0:  # start with all entries free or with none, whichever is likely to be nearer
        solved = _all_free(rows, linear)
        if solved is not None and 2 * sum(row[-1] > 0 for row in solved) > tasks:
            free, table = [True] * tasks, solved
    tolerance = 4e-16 * tasks * max(map(abs, linear))
    for _ in range(3 * tasks):
        worst = min(table, key=_last)
        if worst[-1] >= -tolerance:
            x = [max(row[-1], 0.0) if inside else 0.0 for row, inside in zip(table, free, strict=True)]
            return x if _is_optimal(rows, linear, x, free) else None
        place = table.index(worst)
        if worst[place] < SMALLEST_PIVOT:
            return None
        _exchange(table, place)
        free[place] = not free[place]
    return None


def _last(row: list[float]) -> float:
    return row[-1]


def _all_free(rows: Rows, linear: list[float]) -> Rows | None:
    """The tableau solved for all of x: C^-1 and C^-1 b."""
    try:
        inverse = np.linalg.inv(np.array(rows))
    except np.linalg.LinAlgError:
        return None
    return [[*row, sum(map(mul, row, linear))] for row in inverse.tolist()]


def _exchange(table: Rows, place: int) -> None:
    """Solve the row at ``place`` for its own variable, and substitute it in the others."""
    own = table[place]
    inverse = 1 / own[place]
    solved = [-inverse * value for value in own]
    for row, values in enumerate(table):
        share = values[place]
        if share:
            table[row] = [value + share * other for value, other in zip(values, solved, strict=True)]
            table[row][place] = share * inverse
    solved[place] = inverse
    table[place] = solved


def _is_optimal(rows: Rows, linear: list[float], x: list[float], free: list[bool]) -> bool:
    """Whether slopes are zero where x is free and non-negative elsewhere, within rounding, and x small enough to be accurate."""
    size = sum(x)
    miss = TOLERANCE * (size + max(map(abs, linear)))
    for row, value, inside in zip(rows, linear, free, strict=True):
        slope = sum(map(mul, row, x)) - value
        if slope < -miss or (inside and slope > miss):
            return False
    return size * SMALLEST_PIVOT < 1
