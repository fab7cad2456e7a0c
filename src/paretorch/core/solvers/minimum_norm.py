"""The shortest convex combination of gradients."""

from __future__ import annotations

from operator import mul
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from paretorch.core.arrays import EPS
from paretorch.core.solvers.gramian import FEW, cosines_and_norms
from paretorch.core.solvers.nonnegative import nonnegative_program
from paretorch.core.solvers.pivoting import list_cosines_and_norms, principal_pivoting


class Solution(NamedTuple):
    """The result of a solve: ``weights`` (T,), and whether they satisfy the optimality conditions within rounding."""

    weights: Tensor
    converged: bool


def minimum_norm(gramian: Tensor) -> Solution:
    r"""The weights of the shortest convex combination of T gradients.

    .. math:: \min_w w^T G w \quad \text{s.t.} \quad w \ge 0,\; 1^T w = 1

    With D the diagonal matrix of the norms n and z = D w, the optimality conditions C z = mu a on the support, a = 1/n, are those
    of the non-negative program min x^T C x / 2 - a^T x up to the length of x. Where the convex hull contains zero, x is large
    along the combination that vanishes, and its direction is the solution.

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
    matrix, lengths = cosines_and_norms(gramian)
    if lengths.min() == 0:  # a zero gradient is the shortest combination
        zero = (lengths == 0).astype(np.float64)
        return Solution(torch.from_numpy(zero / zero.sum()), True)
    inverse = lengths.min() / lengths
    x, converged = nonnegative_program(matrix, inverse[:, None])
    weights = x[:, 0] * inverse
    return Solution(torch.from_numpy(weights / weights.sum()), converged)


def _minimum_norm_of_two(gramian: Tensor) -> Solution:
    """The shortest point of a segment in closed form, measured from the longer end: Sener & Koltun 2018, Algorithm 1."""
    (first, cross), (_, second) = gramian.tolist()
    short, long = min(first, second), max(first, second)
    length = (short - cross) + (long - cross)
    if length <= 4 * EPS * long:  # equal gradients: the difference of their lengths is rounding
        share = 0.5 if long - short <= 4 * EPS * long else 1.0
    else:
        share = 1.0 if cross >= short else (long - cross) / length
    pair = (share, 1 - share) if first <= second else (1 - share, share)
    return Solution(torch.tensor(pair, dtype=torch.float64), True)


def _minimum_norm_of_few(gramian: Tensor) -> Solution | None:
    """:func:`minimum_norm` in plain arithmetic; None where pivoting fails."""
    rows, lengths = list_cosines_and_norms(gramian.tolist())
    least = min(lengths)
    x = None if least == 0 else principal_pivoting(rows, inverse := [least / length for length in lengths])
    if x is None:
        return None
    raw = list(map(mul, x, inverse))
    total = sum(raw)
    return Solution(torch.tensor([share / total for share in raw], dtype=torch.float64), True)
