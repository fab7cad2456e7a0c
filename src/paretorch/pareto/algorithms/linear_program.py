"""Linear programs over weights on the simplex, by SciPy's HiGHS."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from paretorch.core.arrays import Array
from paretorch.extras import extra

FEASIBLE = 1e-10  # tolerance of a row relative to its largest entry: the least that HiGHS accepts
TINY = 1e-300  # lower bound of divisors


def solver() -> Callable[..., Any]:
    """``scipy.optimize.linprog``.

    Raises:
        ModuleNotFoundError: SciPy is not installed; the message contains the command that installs it.
    """
    with extra("fronts"):
        from scipy.optimize import linprog
    found: Callable[..., Any] = linprog
    return found


def best_weights(gain: Array, matrix: Array, least: Array) -> Array | None:
    r"""The weights on the simplex of maximum gain, subject to lower bounds of products.

    .. math:: \max_w c^T w \quad \text{s.t.} \quad w \ge 0,\; 1^T w = 1,\; A w \ge b

    Args:
        gain: (T,) c.
        matrix: (m, T) A.
        least: (m,) b; minus infinity without a bound.

    Returns:
        (T,) weights, a vertex of the feasible set; None if nothing is feasible, or rounding leaves it undecided.

    Raises:
        ModuleNotFoundError: SciPy is not installed.

    Example:
        >>> best_weights(np.array([1.0, 0.0]), np.array([[0.0, 1.0]]), np.array([0.25]))
        array([0.75, 0.25])

    References:
        Huangfu & Hall, "Parallelizing the dual revised simplex method", Mathematical Programming Computation 2018: HiGHS.
    """
    bounded = np.isfinite(least)
    # relative to each row's largest entry, so that small rows are not taken for rounding
    size = np.maximum(np.abs(matrix).max(axis=1, initial=0.0), TINY)[bounded]
    found = solver()(
        -gain / max(float(np.abs(gain).max()), TINY),
        A_ub=-matrix[bounded] / size[:, None],
        b_ub=-least[bounded] / size,
        A_eq=np.ones((1, len(gain))),
        b_eq=np.ones(1),
        method="highs-ds",  # the simplex method, which ends at a vertex
        options={"primal_feasibility_tolerance": FEASIBLE, "dual_feasibility_tolerance": FEASIBLE},
    )
    if found.status != 0:
        return None
    weights = np.maximum(found.x, 0.0)
    result: Array = weights / weights.sum()
    return result
