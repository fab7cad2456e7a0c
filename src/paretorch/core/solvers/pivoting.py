"""Non-negative quadratic programs of few unknowns, in plain arithmetic: there a call into NumPy costs more than the sums."""

from __future__ import annotations

import math
from operator import mul

import numpy as np

SMALLEST = 1e-7  # of a pivot: below, rows depend on each other and a table of pivots loses digits
ACCURATE = 1e-13  # of the terms: what slopes may miss

Rows = list[list[float]]


def unit_lists(gramian: Rows) -> tuple[Rows, list[float]]:
    """(T, T) cosines and (T,) lengths; the row of a zero gradient is zero."""
    lengths = [math.sqrt(max(row[task], 0.0)) for task, row in enumerate(gramian)]
    inverse = [1 / length if length > 0 else 0.0 for length in lengths]
    return [
        [share * value for value in map(mul, row, inverse)] for row, share in zip(gramian, inverse, strict=True)
    ], lengths


def pivoted(rows: Rows, linear: list[float]) -> list[float] | None:
    """The minimizer of x^T C x / 2 - b^T x over x >= 0, or None where it is not found to rounding.

    The slopes s = C x - b are kept solved for half of the unknowns; the worst negative entry, of a slope or of x, is exchanged
    until none is left. The result is measured against C itself: what the exchanges have added up does not count.

    Args:
        rows: (T, T) cosines: symmetric, positive semidefinite, unit (or zero) diagonal.
        linear: (T,) b.

    Example:
        >>> pivoted([[1.0, -0.5], [-0.5, 1.0]], [0.3, -0.6])
        [0.3, 0.0]

    References:
        Keller, "The general quadratic optimization problem", Mathematical Programming 1973: principal pivots.
    """
    tasks = len(linear)
    free = [False] * tasks
    table = [[*row, -value] for row, value in zip(rows, linear, strict=True)]
    if tasks > 4 and min(linear) > 0:  # from all or from none, whichever is likely to be nearer
        every = _everywhere(rows, linear)
        if every is not None and 2 * sum(row[-1] > 0 for row in every) > tasks:
            free, table = [True] * tasks, every
    tolerance = 4e-16 * tasks * max(map(abs, linear))
    for _ in range(3 * tasks):
        worst = min(table, key=_last)
        if worst[-1] >= -tolerance:
            x = [max(row[-1], 0.0) if inside else 0.0 for row, inside in zip(table, free, strict=True)]
            return x if _meets(rows, linear, x, free) else None
        place = table.index(worst)
        if worst[place] < SMALLEST:
            return None
        _exchange(table, place)
        free[place] = not free[place]
    return None


def _last(row: list[float]) -> float:
    return row[-1]


def _everywhere(rows: Rows, linear: list[float]) -> Rows | None:
    """The table solved for all of x: C^-1 beside C^-1 b."""
    try:
        inverse = np.linalg.inv(np.array(rows))
    except np.linalg.LinAlgError:
        return None
    return [[*row, sum(map(mul, row, linear))] for row in inverse.tolist()]


def _exchange(table: Rows, place: int) -> None:
    """Solve the row at ``place`` for its own unknown, and put that into the others."""
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


def _meets(rows: Rows, linear: list[float], x: list[float], free: list[bool]) -> bool:
    """Whether slopes vanish where x is free and are not negative elsewhere, to rounding; no entry so large as to be rounding."""
    size = sum(x)
    miss = ACCURATE * (size + max(map(abs, linear)))
    for row, value, inside in zip(rows, linear, free, strict=True):
        slope = sum(map(mul, row, x)) - value
        if slope < -miss or (inside and slope > miss):
            return False
    return size * SMALLEST < 1
