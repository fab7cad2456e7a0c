"""Exact solvers for the small (T, T) problems of balancing, in float64 on the host.

Everything here sees a Gramian G = J J^T and never the gradients. Rows are brought to unit length first (C, the cosines), so that
no result depends on how long a task's gradient is, nor on its ratio to the others.
"""

from __future__ import annotations

import math
from operator import mul
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from paretorch.core.arrays import EPS, Array
from paretorch.core.solvers.nonnegative import nonnegative_program
from paretorch.core.solvers.pivoting import pivoted, unit_lists

FEW = 8  # up to so many tasks plain arithmetic costs less than calls into NumPy
FEW_PIVOTS = 650  # and for projections, up to so many times cubed tasks
TINY = 1e-300  # in place of zero, to divide by
STATIONARY = 4.0  # in square roots of rounding: a combination so short against its terms cannot be told from zero


class Solution(NamedTuple):
    """A solve's result: ``weights`` (T,), and whether the optimality conditions hold to rounding."""

    weights: Tensor
    converged: bool


def norms(gramian: Tensor) -> Tensor:
    """(T,) square roots of the Gramian's diagonal."""
    return gramian.diagonal().clamp_min(0).sqrt()


def cosines(gramian: Tensor) -> Tensor:
    """(T, T) the Gramian of the unit gradients; rows of zero gradients are zero."""
    lengths = norms(gramian)
    inverse = torch.where(lengths > 0, 1 / lengths, 0.0)
    return gramian * inverse[:, None] * inverse[None, :]


def cancels(gramian: Tensor, weights: Tensor, resolution: float = EPS) -> bool:
    r"""Whether sum_t w_t g_t is zero as far as the gradients' precision can tell: its direction would be rounding.

    .. math:: w^T G w \le 16 \, (\rho + T u) \Big( \sum_t |w_t| \lVert g_t \rVert \Big)^2

    Rounding moves w^T G w by at most rho times that square, and solving in float64 by T u times it.

    Args:
        gramian: (T, T); ``weights``: (T,) w.
        resolution: rho, the bound on the rounding error of an inner product, relative to the lengths: see
            :func:`~paretorch.core.gradients.rounding.product_rounding`.
    """
    least = negligible(resolution, len(weights))
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


def negligible(resolution: float, tasks: int) -> float:
    """Squared length, relative to the squared sum of its terms' lengths, up to which a combination is rounding."""
    return STATIONARY**2 * (resolution + tasks * EPS)


def minimum_norm(gramian: Tensor) -> Solution:
    r"""The weights of the shortest convex combination of T gradients.

    .. math:: \min_w w^T G w \quad \text{s.t.} \quad w \ge 0,\; 1^T w = 1

    With z = D w (D the norms), the optimality conditions C z = mu a on the support, a = 1/n, are those of the non-negative
    program min x^T C x / 2 - a^T x up to the length of x; where the hull contains zero, x grows along the combination that
    vanishes, and its direction is the answer.

    Args:
        gramian: (T, T) symmetric positive semidefinite.

    Example:
        >>> minimum_norm(torch.tensor([[18.0, -22.0], [-22.0, 38.0]], dtype=torch.float64)).weights
        tensor([0.6000, 0.4000], dtype=torch.float64)

    References:
        Wolfe, "Finding the nearest point in a polytope", Mathematical Programming 1976.
    """
    if len(gramian) == 2:
        return _minimum_norm_of_two(gramian)
    if len(gramian) <= FEW:
        few = _minimum_norm_of_few(gramian)
        if few is not None:
            return few
    matrix, lengths = unit_rows(gramian)
    if lengths.min() == 0:  # a zero gradient is the shortest combination
        zero = (lengths == 0).astype(np.float64)
        return Solution(torch.from_numpy(zero / zero.sum()), True)
    inverse = lengths.min() / lengths
    x, converged = nonnegative_program(matrix, inverse[:, None])
    weights = x[:, 0] * inverse
    return Solution(torch.from_numpy(weights / weights.sum()), converged)


def _minimum_norm_of_two(gramian: Tensor) -> Solution:
    """The nearest point of a segment in closed form, measured from the longer end: Sener & Koltun 2018, Algorithm 1."""
    (first, cross), (_, second) = gramian.tolist()
    short, long = min(first, second), max(first, second)
    length = (short - cross) + (long - cross)
    if length <= 4 * EPS * long:  # one gradient twice: which end is nearer is rounding
        share = 0.5 if long - short <= 4 * EPS * long else 1.0
    else:
        share = 1.0 if cross >= short else (long - cross) / length
    pair = (share, 1 - share) if first <= second else (1 - share, share)
    return Solution(torch.tensor(pair, dtype=torch.float64), True)


def _minimum_norm_of_few(gramian: Tensor) -> Solution | None:
    """:func:`minimum_norm` in plain arithmetic; None where that does not reach it."""
    rows, lengths = unit_lists(gramian.tolist())
    least = min(lengths)
    x = None if least == 0 else pivoted(rows, inverse := [least / length for length in lengths])
    if x is None:
        return None
    raw = list(map(mul, x, inverse))
    total = sum(raw)
    return Solution(torch.tensor([share / total for share in raw], dtype=torch.float64), True)


def project_on_dual_cone(gramian: Tensor, combinations: Tensor) -> Solution:
    r"""The projections of combinations of the gradients on the cone {d : <d, g_t> >= 0 for all t}, again as combinations.

    .. math:: \min_v v^T G v \quad \text{s.t.} \quad v \ge u

    Args:
        gramian: (T, T) symmetric positive semidefinite.
        combinations: (m, T) the weights u of each vector to project; they share one problem matrix.

    Returns:
        (m, T) weights v, one row for each combination.

    Example:
        >>> gramian = torch.tensor([[18.0, -22.0], [-22.0, 38.0]], dtype=torch.float64)
        >>> project_on_dual_cone(gramian, torch.eye(2, dtype=torch.float64)).weights
        tensor([[1.0000, 0.5789],
                [1.2222, 1.0000]], dtype=torch.float64)

    References:
        Quinton & Rey, "Jacobian descent for multi-objective optimization", 2024, proposition 1.
    """
    if len(gramian) == 2:
        return _project_two(gramian, combinations)
    if len(combinations) * len(gramian) ** 3 <= FEW_PIVOTS:
        few = _project_few(gramian, combinations)
        if few is not None:
            return few
    matrix, lengths = unit_rows(gramian)
    rows = combinations.numpy() * lengths
    sizes = np.maximum(np.abs(rows).max(axis=1, keepdims=True), TINY)
    rows /= sizes
    added, converged = nonnegative_program(matrix, -(rows @ matrix).T)
    inverse = sizes / (lengths if lengths.min() > 0 else np.where(lengths > 0, lengths, np.inf))
    return Solution(torch.from_numpy((rows + added.T) * inverse), converged)


def sum_of_projections(gramian: Tensor, shares: Tensor) -> Solution:
    r"""The projections of all gradients on the dual cone, each taken in its share: one combination of the gradients.

    .. math:: v = \sum_t p_t \, v^{(t)}, \qquad v^{(t)} = \arg\min_v v^T G v \quad \text{s.t.} \quad v \ge e_t

    Args:
        gramian: (T, T) symmetric positive semidefinite.
        shares: (T,) p.

    Example:
        >>> gramian = torch.tensor([[18.0, -22.0], [-22.0, 38.0]], dtype=torch.float64)
        >>> sum_of_projections(gramian, torch.tensor([0.5, 0.5], dtype=torch.float64)).weights
        tensor([1.1111, 0.7895], dtype=torch.float64)

    References:
        Quinton & Rey, "Jacobian descent for multi-objective optimization", 2024, section 2.2 and proposition 1.
    """
    tasks = len(gramian)
    if tasks**4 <= FEW_PIVOTS:
        each, converged = project_on_dual_cone(gramian, torch.eye(tasks, dtype=torch.float64))
        return Solution(shares @ each, converged)
    matrix, lengths = unit_rows(gramian)
    added, converged = nonnegative_program(matrix, -matrix)
    parts = shares.numpy() * lengths
    return Solution(torch.from_numpy((parts + added @ parts) / np.where(lengths > 0, lengths, np.inf)), converged)


def _project_few(gramian: Tensor, combinations: Tensor) -> Solution | None:
    """:func:`project_on_dual_cone` in plain arithmetic; None where that does not reach it."""
    rows, lengths = unit_lists(gramian.tolist())
    projected = []
    for combination in combinations.tolist():
        scaled = list(map(mul, combination, lengths))
        size = max(map(abs, scaled)) or 1.0
        added = pivoted(rows, [-sum(map(mul, row, scaled)) / size for row in rows])
        if added is None:
            return None
        projected.append(
            [
                (own + size * more) / length if length > 0 else 0.0
                for own, more, length in zip(scaled, added, lengths, strict=True)
            ]
        )
    return Solution(torch.tensor(projected, dtype=torch.float64), True)


def _project_two(gramian: Tensor, combinations: Tensor) -> Solution:
    """:func:`project_on_dual_cone` for two gradients: a face of the cone, its edge, or its tip."""
    (first, cross), (_, second) = gramian.tolist()
    projected = []
    for a, b in combinations.tolist():
        p, q = a * first + b * cross, a * cross + b * second
        if p >= 0 and q >= 0:
            projected.append((a, b))
            continue
        found = (0.0, 0.0)
        least = -4 * EPS * (abs(a) + abs(b))
        if p < 0 and q - p / first * cross >= least * second:
            found = (a - p / first, b)
        elif q < 0 and p - q / second * cross >= least * first:
            found = (a, b - q / second)
        projected.append(found)
    return Solution(torch.tensor(projected, dtype=torch.float64), True)


def unit_rows(gramian: Tensor) -> tuple[Array, Array]:
    """(T, T) cosines and (T,) lengths; the row of a zero gradient is zero."""
    matrix: Array = gramian.numpy()
    lengths: Array = np.sqrt(np.maximum(matrix.diagonal(), 0.0))
    if lengths.min() > 0:
        return matrix / lengths / lengths[:, None], lengths
    inverse = np.divide(1.0, lengths, out=np.zeros_like(lengths), where=lengths > 0)
    return matrix * inverse[:, None] * inverse[None, :], lengths


def project_on_simplex(point: Tensor) -> Tensor:
    r"""The nearest point of the simplex: all entries lowered by one threshold, and cut off at zero.

    .. math:: \min_w \lVert w - p \rVert \quad \text{s.t.} \quad w \ge 0,\; 1^T w = 1

    Args:
        point: (T,) finite.

    Example:
        >>> project_on_simplex(torch.tensor([0.8, 0.6, -1.0], dtype=torch.float64))
        tensor([0.6000, 0.4000, 0.0000], dtype=torch.float64)

    References:
        Held, Wolfe & Crowder, "Validation of subgradient optimization", Mathematical Programming 1974.
    """
    return torch.from_numpy(simplex_point(point.numpy()))


def simplex_point(point: Array) -> Array:
    """:func:`project_on_simplex` for an array."""
    values = point - point.max()  # the largest is zero: no entry that counts loses digits
    falling = np.sort(values)[::-1]
    thresholds = (np.cumsum(falling) - 1) / np.arange(1, len(falling) + 1)
    threshold = thresholds[np.count_nonzero(falling > thresholds) - 1]
    weights = np.maximum(values - threshold, 0.0)
    result: Array = weights / weights.sum()
    return result
