"""The dual problem of conflict-averse gradient descent, in T variables."""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from paretorch.core.arrays import EPS, Array
from paretorch.core.solvers.gramian import cosines_and_norms
from paretorch.core.solvers.minimum_norm import Solution, minimum_norm
from paretorch.core.solvers.nonnegative import nonnegative_program

ITERATIONS = 60


def conflict_averse(gramian: Tensor, c: float) -> Solution:
    r"""The simplex weights that minimize <g_w, g_0> + c |g_0| |g_w|, with g_0 the mean gradient.

    .. math:: \min_w b^T w + \varphi \sqrt{w^T G w}, \qquad b = G 1 / T, \quad \varphi = c \sqrt{1^T G 1} / T

    By duality g_w is a multiple of the x >= 0 that raises the smallest gain of any task to a level m: the solution of the
    non-negative program min x^T G x / 2 - (m - b)^T x. The length of J^T x increases with m and must equal phi. While the same
    entries of x are positive, the squared length is quadratic in m, so that a few programs find m. Where g_w vanishes there is no
    such m; then a search over the length of g_w finds the minimum.

    Args:
        gramian: (T, T) symmetric positive semidefinite, not zero.
        c: in [0, 1).

    References:
        Liu et al., NeurIPS 2021, section 3: the dual of its problem.
    """
    phi = c * math.sqrt(max(float(gramian.mean()), 0.0))
    weights = None if phi == 0 else _by_levels(gramian, phi)
    return _by_lengths(gramian, c) if weights is None else Solution(torch.from_numpy(weights), True)


def _by_levels(gramian: Tensor, phi: float) -> Array | None:
    """(T,) the weights, by a search over the level m; None where no level gives the length phi."""
    matrix, lengths = cosines_and_norms(gramian)
    if lengths.min() == 0:
        return None
    gains = gramian.numpy().mean(axis=1) / lengths  # in the units of the cosines
    levels = 1 / lengths
    low, high = float((gains * lengths).min()), float((gains * lengths + phi * lengths).min())
    level = high
    for _ in range(ITERATIONS):
        y, converged = nonnegative_program(matrix, (level * levels - gains)[:, None])
        y = y[:, 0]
        length = math.sqrt(max(float(y @ matrix @ y), 0.0))
        if not converged:
            return None
        if abs(length - phi) <= 1e-12 * phi:
            weights: Array = y / lengths / float((y / lengths).sum())
            return weights
        low, high = (low, level) if length > phi else (level, high)
        if high - low <= 4 * EPS * max(abs(low), abs(high)):
            return None
        level = _level(matrix, levels, gains, y > 0, phi)
        if not low < level < high:
            level = (low + high) / 2
    return None


def _level(matrix: Array, levels: Array, gains: Array, free: NDArray[np.bool_], phi: float) -> float:
    """The level with length phi if exactly the free entries are positive; nan where there is none."""
    index = free.nonzero()[0]
    if not len(index):
        return math.nan
    right = np.stack([levels[index], gains[index]], axis=1)
    try:
        products = right.T @ np.linalg.solve(matrix[index[:, None], index], right)
    except np.linalg.LinAlgError:
        return math.nan
    (square, cross), (_, own) = products.tolist()
    inside = cross * cross - square * (own - phi * phi)
    return (cross + math.sqrt(inside)) / square if inside >= 0 and square > 0 else math.nan


def _by_lengths(gramian: Tensor, c: float) -> Solution:
    """The weights, by a search over s = |g_w|.

    For a fixed s they are the minimum-norm weights of the shifted gradients g_t + (s / phi) g_0, whose combination has length s'.
    s' - s has one zero, at which it changes from positive to negative. Secant and bisection steps bracket it in
    [0, max |g_t| / phi].
    """
    scaled = gramian / gramian.diagonal().max()
    pull = scaled.mean(dim=1)
    mean = pull.mean().clamp_min(0)
    phi = c * mean.sqrt()
    if phi == 0:
        vertices = (pull <= pull.min()).to(pull)
        return Solution(vertices / vertices.sum(), True)

    def at(shift: Tensor) -> tuple[Solution, Tensor]:
        moved = scaled + shift * (pull[:, None] + pull[None, :]) + shift.square() * mean
        solution = minimum_norm(moved)
        return solution, (solution.weights @ scaled @ solution.weights).clamp_min(0).sqrt() - shift * phi

    low, high = torch.zeros_like(phi), 1 / phi
    below, above = at(low)[1], at(high)[1]
    best, shift = at(low)[0], low
    if below <= 0:
        return best
    converged = False
    for iteration in range(200):
        secant = low + (high - low) * below / (below - above)
        shift = secant if iteration % 3 < 2 and bool((low < secant) & (secant < high)) else (low + high) / 2
        best, gap = at(shift)
        if gap > 0:
            low, below = shift, gap
        else:
            high, above = shift, gap
        converged = bool((high - low <= 4 * EPS * high) | (gap.abs() <= 1e-14 * shift * phi))
        if converged:
            break
    return Solution(best.weights, best.converged and converged)
