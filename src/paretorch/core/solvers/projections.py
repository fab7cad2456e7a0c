"""Projections of combinations of gradients on the dual cone, and of weights on the simplex."""

from __future__ import annotations

from operator import mul

import numpy as np
import torch
from torch import Tensor

from paretorch.core.arrays import EPS, Array
from paretorch.core.solvers.gramian import cosines_and_norms
from paretorch.core.solvers.minimum_norm import Solution
from paretorch.core.solvers.nonnegative import nonnegative_program
from paretorch.core.solvers.pivoting import list_cosines_and_norms, principal_pivoting

# Up to this number of combinations times cubed tasks, plain arithmetic costs less than calls into NumPy.
FEW_PIVOTS = 650
TINY = 1e-300  # replaces zero as a divisor


def project_on_dual_cone(gramian: Tensor, combinations: Tensor) -> Solution:
    r"""The projections of combinations of the gradients on the cone {d : <d, g_t> >= 0 for all t}, as combinations.

    .. math:: \min_v v^T G v \quad \text{s.t.} \quad v \ge u

    Args:
        gramian: (T, T) symmetric positive semidefinite.
        combinations: (m, T) the weights u of each vector to project.

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
    matrix, lengths = cosines_and_norms(gramian)
    rows = combinations.numpy() * lengths
    sizes = np.maximum(np.abs(rows).max(axis=1, keepdims=True), TINY)
    rows /= sizes
    added, converged = nonnegative_program(matrix, -(rows @ matrix).T)
    inverse = sizes / (lengths if lengths.min() > 0 else np.where(lengths > 0, lengths, np.inf))
    return Solution(torch.from_numpy((rows + added.T) * inverse), converged)


def sum_of_projections(gramian: Tensor, shares: Tensor) -> Solution:
    r"""The weighted sum of the projections of all gradients on the dual cone, as one combination of the gradients.

    .. math:: v = \sum_t p_t \, v^{(t)}, \qquad v^{(t)} = \arg\min_v v^T G v \quad \text{s.t.} \quad v \ge e_t

    Args:
        gramian: (T, T) symmetric positive semidefinite.
        shares: (T,) the weights p.

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
    matrix, lengths = cosines_and_norms(gramian)
    added, converged = nonnegative_program(matrix, -matrix)
    parts = shares.numpy() * lengths
    return Solution(torch.from_numpy((parts + added @ parts) / np.where(lengths > 0, lengths, np.inf)), converged)


def _project_few(gramian: Tensor, combinations: Tensor) -> Solution | None:
    """:func:`project_on_dual_cone` in plain arithmetic; None where pivoting fails."""
    rows, lengths = list_cosines_and_norms(gramian.tolist())
    projected = []
    for combination in combinations.tolist():
        scaled = list(map(mul, combination, lengths))
        size = max(map(abs, scaled)) or 1.0
        added = principal_pivoting(rows, [-sum(map(mul, row, scaled)) / size for row in rows])
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
    """:func:`project_on_dual_cone` for two gradients: the point itself, a point on a face, or the apex."""
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


def project_on_simplex(point: Tensor) -> Tensor:
    r"""The nearest point of the simplex: one threshold is subtracted from all entries, and negative ones become zero.

    .. math:: \min_w \lVert w - p \rVert \quad \text{s.t.} \quad w \ge 0,\; 1^T w = 1

    Args:
        point: (T,) finite.

    Example:
        >>> project_on_simplex(torch.tensor([0.8, 0.6, -1.0], dtype=torch.float64))
        tensor([0.6000, 0.4000, 0.0000], dtype=torch.float64)

    References:
        Held, Wolfe & Crowder, "Validation of subgradient optimization", Mathematical Programming 1974.
    """
    return torch.from_numpy(project_array_on_simplex(point.numpy()))


def project_array_on_simplex(point: Array) -> Array:
    """:func:`project_on_simplex` for an array."""
    values = point - point.max()  # the largest is zero, so no entry above the threshold loses digits
    decreasing = np.sort(values)[::-1]
    thresholds = (np.cumsum(decreasing) - 1) / np.arange(1, len(decreasing) + 1)
    threshold = thresholds[np.count_nonzero(decreasing > thresholds) - 1]
    weights = np.maximum(values - threshold, 0.0)
    result: Array = weights / weights.sum()
    return result
