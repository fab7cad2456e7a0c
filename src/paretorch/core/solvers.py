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
from numpy.typing import NDArray
from torch import Tensor

Array = NDArray[np.float64]

EPS = float(np.finfo(np.float64).eps)
ROUNDS = 12  # of block pivoting: independent rows settle in about five
FEW = 16  # up to so many tasks plain arithmetic costs less than calls into NumPy
STATIONARY = 6.7  # in square roots of rounding: a combination so short against its terms cannot be told from zero


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
    """Whether sum_t w_t g_t is zero as far as the gradients' precision can tell: its direction would be rounding.

    Rounding leaves errors of ``resolution`` in the Gramian, and so of its square root in lengths: 1e-7 of the sum of the terms'
    lengths for float64, 2e-3 for float32.
    """
    if len(weights) <= FEW:
        rows, shares = gramian.tolist(), weights.tolist()
        length = sum(
            abs(share) * math.sqrt(max(row[task], 0.0))
            for task, (row, share) in enumerate(zip(rows, shares, strict=True))
        )
        square = sum(share * sum(map(mul, row, shares)) for row, share in zip(rows, shares, strict=True))
        return bool(square <= STATIONARY**2 * resolution * length**2)
    matrix, weight = gramian.numpy(), weights.numpy()
    terms = np.abs(weight) @ np.sqrt(np.maximum(matrix.diagonal(), 0.0))
    return bool(weight @ matrix @ weight <= STATIONARY**2 * resolution * terms**2)


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
    matrix, lengths = _unit_rows(gramian)
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
    if length <= 0:
        share = 0.5 if short == long else 1.0
    else:
        share = 1.0 if cross >= short else (long - cross) / length
    pair = (share, 1 - share) if first <= second else (1 - share, share)
    return Solution(torch.tensor(pair, dtype=torch.float64), True)


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
    matrix, lengths = _unit_rows(gramian)
    scaled = (combinations.numpy() * lengths).T
    sizes = np.abs(scaled).max(axis=0, initial=0.0)
    scaled = scaled / np.where(sizes > 0, sizes, 1.0)
    added, converged = nonnegative_program(matrix, -matrix @ scaled)
    inverse = np.divide(1.0, lengths, out=np.zeros_like(lengths), where=lengths > 0)
    return Solution(torch.from_numpy(((scaled + added) * sizes).T * inverse), converged)


def _unit_rows(gramian: Tensor) -> tuple[Array, Array]:
    """(T, T) cosines and (T,) lengths; the row of a zero gradient is zero."""
    matrix: Array = gramian.numpy()
    lengths: Array = np.sqrt(np.maximum(matrix.diagonal(), 0.0))
    inverse = np.divide(1.0, lengths, out=np.zeros_like(lengths), where=lengths > 0)
    return matrix * inverse[:, None] * inverse[None, :], lengths


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


def pseudo_inverse(matrix: Tensor, resolution: float) -> Tensor:
    """The pseudo-inverse of a symmetric positive semidefinite matrix; eigenvalues that are rounding count as zero.

    Args:
        matrix: (T, T); ``resolution``: relative spacing of the numbers in which it was summed.
    """
    values, vectors = torch.linalg.eigh(matrix)
    kept = values > values[-1] * len(matrix) * resolution
    inverse = torch.where(kept, 1 / torch.where(kept, values, 1.0), 0.0)
    result: Tensor = (vectors * inverse) @ vectors.T
    return result


def nonnegative_program(matrix: Array, linear: Array) -> tuple[Array, bool]:
    """The minimizers of x^T C x / 2 - b^T x over x >= 0, for every column b, by block principal pivoting.

    All columns are solved at once: each guesses which of its entries are zero, solves for the others, and exchanges every entry
    whose sign is wrong. A column that does not settle (dependent rows) is left to :func:`_active_set`. A ridge of a few units of
    rounding, on a matrix of unit diagonal, makes every block invertible without favouring a longer gradient.

    Args:
        matrix: (T, T) cosines: symmetric, positive semidefinite, unit (or zero) diagonal.
        linear: (T, m) the columns b, of size about one.

    Returns:
        (T, m) minimizers, and whether the optimality conditions hold to rounding for all columns.

    References:
        Judice & Pires, "A block principal pivoting algorithm for large-scale strictly monotone linear complementarity
        problems", Computers & Operations Research 1994.
    """
    tasks, columns = linear.shape
    ridged = _definite(matrix)
    if columns == 1 and linear.min() > 0:
        everywhere = np.linalg.solve(ridged, linear).astype(np.float64, copy=False)
        if everywhere.min() > 0 and np.abs(ridged @ everywhere - linear).max() <= 1e-9 * everywhere.sum():
            return everywhere, True
    free = linear.T > 0  # (m, T): the entries guessed to be positive
    x = np.zeros((columns, tasks))
    pending = np.arange(columns)
    for _ in range(ROUNDS):
        x[pending] = _solve_free(ridged, linear[:, pending], free[pending])
        slope = x[pending] @ ridged - linear.T[pending]
        tolerance = 8 * tasks * EPS * (1 + np.abs(x[pending]).max(axis=1, keepdims=True))
        wrong = np.where(free[pending], x[pending] < -tolerance, slope < -tolerance)
        left = wrong.any(axis=1)
        pending = pending[left]
        if not len(pending):
            break
        free[pending] ^= wrong[left]
    for column in pending:
        x[column] = _active_set(ridged, linear[:, column])
    x = np.maximum(x, 0.0)
    return x.T, _is_optimal(ridged, linear, x)


def _definite(matrix: Array) -> Array:
    """The matrix with a ridge of a few units of rounding, after what float32 sums made negative has been cut off.

    Inner products summed in lower precision need not be those of any vectors; the nearest that are lie at the eigenvalues that
    are not negative.
    """
    ridge = 4 * len(matrix) * EPS
    result = _lifted(matrix, ridge)
    try:
        np.linalg.cholesky(result)
    except np.linalg.LinAlgError:
        values, vectors = np.linalg.eigh(matrix)
        near = (vectors * np.maximum(values, 0.0)) @ vectors.T
        size = np.sqrt(np.maximum(near.diagonal(), EPS))
        result = _lifted(near / size[:, None] / size[None, :], ridge)
    return result


def _lifted(matrix: Array, ridge: float) -> Array:
    """A copy with the ridge added to the diagonal."""
    result: Array = matrix.copy()
    result.flat[:: len(matrix) + 1] += ridge
    return result


def _solve_free(matrix: Array, linear: Array, free: NDArray[np.bool_]) -> Array:
    """(m, T) solutions of C x = b on each column's free entries, zero elsewhere, with one step of refinement."""
    blocks = np.where(free[:, :, None] & free[:, None, :], matrix, np.eye(len(matrix)))
    right = np.where(free, linear.T, 0.0)[:, :, None]
    solution: Array = np.linalg.solve(blocks, right)[:, :, 0]
    return np.where(free, solution, 0.0)


def _active_set(matrix: Array, linear: Array) -> Array:
    """(T,) the minimizer for one column by Lawson and Hanson's active set: slower, and never worse than its last iterate."""
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


def _is_optimal(matrix: Array, linear: Array, x: Array) -> bool:
    """Whether slopes are non-negative and vanish where x is positive, to 1e-9 of the terms they are sums of."""
    slope = x @ matrix - linear.T
    scale = 1e-9 * (np.abs(linear.T).max(axis=1, keepdims=True) + x.sum(axis=1, keepdims=True))
    return bool((slope >= -scale).all() and (np.minimum(x, slope) <= scale).all())
