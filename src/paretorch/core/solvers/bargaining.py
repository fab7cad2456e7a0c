"""The nonlinear system of Nash bargaining and alpha-fairness among tasks."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from paretorch.core.arrays import EPS, Array
from paretorch.core.solvers.gramian import cosines_and_norms, zero_threshold
from paretorch.core.solvers.nonnegative import nearest_definite

TOLERANCE = 1e-10  # of the relative residual
MAX_WEIGHT = 1e3  # relative to each gradient's length: with larger weights the gradients nearly cancel
RIDGE = 1e-6
ITERATIONS = 200


class BargainingSolution(NamedTuple):
    """The result of a solve.

    Args:
        weights: (T,).
        converged: whether the weights solve the system to the tolerance.
        exists: whether the system has a solution; if False, the cosines have a ridge of 1e-6.
    """

    weights: Tensor
    converged: bool
    exists: bool


def bargaining_weights(gramian: Tensor, alpha: float, resolution: float = EPS) -> BargainingSolution:
    r"""The weights w > 0 with

    .. math:: (G w)_t = w_t^{-1/\alpha}

    They minimize w^T G w / 2 - sum_t phi(w_t) with phi' = w^(-1/alpha). This function is strictly convex, and has a minimizer if
    and only if zero is not in the convex hull of the gradients. Damped Newton steps find it, for the logarithms of the weights in
    units of each gradient's length. Where the hull (nearly) contains zero, the cosines get a ridge of 1e-6. A zero gradient gets
    weight zero.

    Args:
        gramian: (T, T) symmetric positive semidefinite.
        alpha: above 0.
        resolution: bound on the rounding error of an inner product, relative to the lengths of the two gradients.

    Example:
        >>> bargaining_weights(torch.tensor([[18.0, -22.0], [-22.0, 38.0]], dtype=torch.float64), alpha=1.0).weights
        tensor([0.5915, 0.4071], dtype=torch.float64)

    References:
        Navon et al., ICML 2022, claim 3.1; Ban & Ji, ICML 2024, Algorithm 1. They solve it by a sequence of convex programs, and
        by least squares.
    """
    matrix, lengths = cosines_and_norms(gramian)
    nonzero = lengths > 0
    weights = np.zeros(len(lengths))
    if not nonzero.any():
        return BargainingSolution(torch.from_numpy(weights), True, False)
    matrix = nearest_definite(matrix[np.ix_(nonzero, nonzero)])
    # Lengths are divided by their geometric mean, so that no power overflows.
    mean_length = float(np.exp(np.log(lengths[nonzero]).mean()))
    power = 1 / alpha
    targets = (lengths[nonzero] / mean_length) ** (power - 1)
    y, converged = _newton(matrix, targets, power, zero_threshold(resolution, len(targets)))
    exists = y is not None
    if y is None:
        matrix.flat[:: len(matrix) + 1] += RIDGE
        y, converged = _newton(matrix, targets, power, None)
        assert y is not None
    # Lengths times m multiply w by m^(-2 alpha / (1 + alpha)).
    weights[nonzero] = y / (lengths[nonzero] / mean_length) * mean_length ** (-2 / (1 + power))
    return BargainingSolution(torch.from_numpy(weights), converged, exists)


def _newton(matrix: Array, targets: Array, power: float, threshold: float | None) -> tuple[Array | None, bool]:
    """The y > 0 with (C y)_t = b_t y_t^(-p), and whether the system is solved to 1e-10 or to rounding; None without a solution.

    Args:
        matrix: (T, T) cosines C, positive definite.
        targets: (T,) b.
        power: p, above 0.
        threshold: return None as soon as y proves that the hull of the unit gradients nearly contains zero: an entry of y exceeds
            MAX_WEIGHT times the length of the combination, or the squared length is at most this part of the squared sum of y.
            None: never.
    """
    tasks = len(targets)
    y = targets ** (1 / (1 + power))  # the solution for orthogonal gradients
    y *= ((targets * y ** (1 - power)).sum() / (y @ matrix @ y)) ** (1 / (1 + power))  # the best multiple of it
    converged = False
    for _ in range(ITERATIONS):
        products = matrix @ y
        right = targets * y ** (1 - power)
        square = float(y @ products)
        if threshold is not None and (
            y.max() * math.sqrt(tasks) > MAX_WEIGHT * math.sqrt(max(square, 0.0)) or square <= threshold * y.sum() ** 2
        ):
            return None, False
        slope = right - y * products
        rounding = 4 * tasks * EPS * y * (np.abs(matrix) @ y)
        converged = bool((np.abs(slope) <= np.maximum(TOLERANCE * right, rounding)).all())
        if converged:
            break
        step, decrement = _newton_step(matrix, y, right, slope, power)
        y = y + _step_length(matrix, targets, power, y, products, step, decrement) * step
    return y, converged


def _newton_step(matrix: Array, y: Array, right: Array, slope: Array, power: float) -> tuple[Array, float]:
    """The Newton step for y and its decrement, solved with a matrix of unit diagonal."""
    hessian = matrix * y[:, None] * y
    hessian.flat[:: len(y) + 1] += power * right
    size = np.sqrt(hessian.diagonal())
    relative = np.linalg.solve(hessian / size[:, None] / size, slope / size) / size
    return relative * y, float(slope @ relative)


def _step_length(
    matrix: Array, targets: Array, power: float, y: Array, products: Array, step: Array, decrement: float
) -> float:
    """The step length that minimizes the objective along the step within y > 0, by safeguarded Newton steps."""
    cross, square = float(step @ products), float(step @ (matrix @ step))
    ratio = step / y
    longest = 0.99 / max(-float(ratio.min()), 1e-300)
    low, high, length = 0.0, longest, min(1.0, longest)
    for _ in range(30):
        moved = y + length * step
        reaction = targets * moved**-power
        slope = cross + length * square - float(step @ reaction)
        if abs(slope) <= 0.1 * decrement:
            break
        low, high = (length, high) if slope < 0 else (low, length)
        curvature = square + power * float((step**2 * reaction / moved).sum())
        length -= slope / curvature
        if not low < length < high:
            length = (low + high) / 2 if np.isfinite(high) and high < 1e300 else 2 * low + 1
    return length
