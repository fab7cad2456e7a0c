"""The convex problem of conflict-averse gradient descent, in T numbers."""

from __future__ import annotations

import torch
from torch import Tensor

from paretorch.core.nonnegative import EPS
from paretorch.core.solvers import Solution, minimum_norm


def conflict_averse(gramian: Tensor, c: float) -> Solution:
    r"""The simplex weights that minimize <g_w, g_0> + c |g_0| |g_w|, with g_0 the mean gradient.

    .. math:: \min_w b^T w + \varphi \sqrt{w^T G w}, \qquad b = G 1 / T, \quad \varphi = c \sqrt{1^T G 1} / T

    For a length s = |g_w| that is held, this is the minimum norm of the shifted gradients g_t + (s / phi) g_0, whose solution
    has some length s'; the two agree at the minimum. s' - s falls once through zero, which is bracketed and bisected with the
    secant, s' / phi never leaving [0, max |g_t| / phi].

    Args:
        gramian: (T, T) symmetric positive semidefinite, not zero; ``c``: in [0, 1).

    References:
        Liu et al., NeurIPS 2021, eq. (4).
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
