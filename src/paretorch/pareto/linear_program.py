"""Linear programs over few weights, by the simplex method."""

from __future__ import annotations

import numpy as np

from paretorch.core.nonnegative import Array

ROUNDING = 1e-10
TINY = 1e-300  # in place of zero, to divide by


def best_weights(gain: Array, matrix: Array, least: Array) -> Array | None:
    r"""The weights on the simplex of the largest gain that keep some products above a bound.

    .. math:: \max_w c^T w \quad \text{s.t.} \quad w \ge 0,\; 1^T w = 1,\; A w \ge b

    Args:
        gain: (T,) c.
        matrix: (m, T) A.
        least: (m,) b; minus infinity where there is no bound.

    Returns:
        (T,) weights, a vertex of the feasible set; None where nothing is feasible.

    Example:
        >>> best_weights(np.array([1.0, 0.0]), np.array([[0.0, 1.0]]), np.array([0.25]))
        array([0.75, 0.25])

    References:
        Dantzig's simplex method in two phases, with the rule of Bland, "New finite pivoting rules", 1977, so that it ends.
    """
    bounded = np.isfinite(least)
    # in units of each row's largest entry: what is small is no rounding
    size = np.maximum(np.abs(matrix).max(axis=1, initial=0.0), TINY)[bounded]
    rows, bound = matrix[bounded] / size[:, None], least[bounded] / size
    count, many = len(gain), len(rows)
    # A w - s = b, 1^T w = 1 with slacks s >= 0; rows are turned so that the right side is not negative
    left = np.block([[rows, -np.eye(many)], [np.ones((1, count)), np.zeros((1, many))]])
    right = np.append(bound, 1.0)
    sign = np.where(right < 0, -1.0, 1.0)
    left, right = left * sign[:, None], right * sign
    table = np.hstack([left, np.eye(many + 1), right[:, None]])
    basis = list(range(count + many, count + 2 * many + 1))
    artificial = np.zeros(table.shape[1] - 1)
    artificial[count + many :] = -1.0
    _pivot_to_best(table, basis, artificial)
    if float(sum(table[row, -1] for row, column in enumerate(basis) if column >= count + many)) > 1e-8:
        return None
    costs = np.zeros(table.shape[1] - 1)
    costs[:count] = gain / max(float(np.abs(gain).max()), TINY)
    costs[count + many :] = -np.inf  # never enter again
    _pivot_to_best(table, basis, costs)
    weights = np.zeros(table.shape[1] - 1)
    weights[basis] = table[:, -1]
    found = np.maximum(weights[:count], 0.0)
    result: Array = found / found.sum()
    return result


def _pivot_to_best(table: Array, basis: list[int], costs: Array) -> None:
    """Exchanges columns of the basis, in place, until none raises the objective."""
    for _ in range(50 * table.shape[1]):
        inner = np.where(np.isfinite(costs[basis]), costs[basis], 0.0)
        reduced = costs - inner @ table[:, :-1]
        rising = np.flatnonzero(reduced > ROUNDING)
        if not len(rising):
            return
        column = int(rising[0])
        positive = np.flatnonzero(table[:, column] > ROUNDING)
        if not len(positive):
            return  # cannot be: the simplex is bounded
        ratios = table[positive, -1] / table[positive, column]
        ties = positive[ratios <= ratios.min() + ROUNDING]
        row = int(min(ties, key=lambda each: basis[each]))
        table[row] /= table[row, column]
        for other in range(len(table)):
            if other != row:
                table[other] -= table[other, column] * table[row]
        basis[row] = column
