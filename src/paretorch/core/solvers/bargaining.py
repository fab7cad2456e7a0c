"""The system behind bargaining and fairness among tasks: each task's weight is a power of what the update does for it."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from paretorch.core.arrays import EPS, Array
from paretorch.core.solvers.minimum_norm import negligible, unit_rows
from paretorch.core.solvers.nonnegative import definite

TOLERANCE = 1e-10  # of the relative residual
FARTHEST = 1e3  # in units of each gradient's length: larger weights mean that the gradients all but cancel
RIDGE = 1e-6
ITERATIONS = 200


class Agreement(NamedTuple):
    """``weights`` (T,); whether the system is ``converged``; whether it ``exists``: if not, a ridge of 1e-6 made it solvable."""

    weights: Tensor
    converged: bool
    exists: bool


def bargain(gramian: Tensor, alpha: float, resolution: float = EPS) -> Agreement:
    r"""The weights w > 0 with

    .. math:: (G w)_t = w_t^{-1/\alpha}

    the minimizer of w^T G w / 2 - sum_t phi(w_t), phi' = w^(-1/alpha): strictly convex, and with a minimizer if and only if zero
    is not in the convex hull of the gradients. It is found by damped Newton steps for log-weights in units of each gradient's
    own length. Where the hull (nearly) contains zero, the cosines get a ridge of 1e-6. A zero gradient gets weight zero.

    Args:
        gramian: (T, T) symmetric positive semidefinite.
        alpha: above 0.
        resolution: bound on the rounding error of an inner product, relative to the lengths.

    Example:
        >>> bargain(torch.tensor([[18.0, -22.0], [-22.0, 38.0]], dtype=torch.float64), alpha=1.0).weights
        tensor([0.5915, 0.4071], dtype=torch.float64)

    References:
        Navon et al., ICML 2022, claim 3.1; Ban & Ji, ICML 2024, Algorithm 1. They solve it by a sequence of convex programs, and
        by least squares.
    """
    matrix, lengths = unit_rows(gramian)
    there = lengths > 0
    weights = np.zeros(len(lengths))
    if not there.any():
        return Agreement(torch.from_numpy(weights), True, False)
    matrix = definite(matrix[np.ix_(there, there)])
    middle = float(
        np.exp(np.log(lengths[there]).mean())
    )  # lengths are taken relative to it, so that no power overflows
    power = 1 / alpha
    pull = (lengths[there] / middle) ** (power - 1)
    y, converged = _newton(matrix, pull, power, negligible(resolution, len(pull)))
    exists = y is not None
    if y is None:
        matrix.flat[:: len(matrix) + 1] += RIDGE
        y, converged = _newton(matrix, pull, power, None)
        assert y is not None
    # Lengths times m multiply w by m^(-2 alpha / (1 + alpha)).
    weights[there] = y / (lengths[there] / middle) * middle ** (-2 / (1 + power))
    return Agreement(torch.from_numpy(weights), converged, exists)


def _newton(matrix: Array, pull: Array, power: float, least: float | None) -> tuple[Array | None, bool]:
    """The y > 0 with (C y)_t = b_t y_t^(-p), and whether it holds to 1e-10, or to rounding; None where there is none.

    Args:
        matrix: (T, T) cosines, positive definite; ``pull``: (T,) b; ``power``: p, above 0.
        least: give up as soon as y proves that the hull of the unit gradients all but contains zero: its combination is longer
            than FARTHEST allows, or its square is at most this share of the squared sum of its terms. None: never.
    """
    tasks = len(pull)
    y = pull ** (1 / (1 + power))  # the answer for orthogonal gradients
    y *= ((pull * y ** (1 - power)).sum() / (y @ matrix @ y)) ** (1 / (1 + power))  # and the best multiple of it
    converged = False
    for _ in range(ITERATIONS):
        products = matrix @ y
        wanted = pull * y ** (1 - power)
        square = float(y @ products)
        if least is not None and (
            y.max() * math.sqrt(tasks) > FARTHEST * math.sqrt(max(square, 0.0)) or square <= least * y.sum() ** 2
        ):
            return None, False
        slope = wanted - y * products
        rounding = 4 * tasks * EPS * y * (np.abs(matrix) @ y)
        converged = bool((np.abs(slope) <= np.maximum(TOLERANCE * wanted, rounding)).all())
        if converged:
            break
        step, decrement = _newton_step(matrix, y, wanted, slope, power)
        y = y + _length(matrix, pull, power, y, products, step, decrement) * step
    return y, converged


def _newton_step(matrix: Array, y: Array, wanted: Array, slope: Array, power: float) -> tuple[Array, float]:
    """The Newton step for y, and how much the objective falls per unit of it; solved on a matrix of unit diagonal."""
    hessian = matrix * y[:, None] * y
    hessian.flat[:: len(y) + 1] += power * wanted
    size = np.sqrt(hessian.diagonal())
    relative = np.linalg.solve(hessian / size[:, None] / size, slope / size) / size
    return relative * y, float(slope @ relative)


def _length(
    matrix: Array, pull: Array, power: float, y: Array, products: Array, step: Array, decrement: float
) -> float:
    """How far to go: to the minimum along the step as Newton's method in one number finds it, within y > 0."""
    cross, square = float(step @ products), float(step @ (matrix @ step))
    ratio = step / y
    longest = 0.99 / max(-float(ratio.min()), 1e-300)
    low, high, length = 0.0, longest, min(1.0, longest)
    for _ in range(30):
        moved = y + length * step
        reaction = pull * moved**-power
        slope = cross + length * square - float(step @ reaction)
        if abs(slope) <= 0.1 * decrement:
            break
        low, high = (length, high) if slope < 0 else (low, length)
        curvature = square + power * float((step**2 * reaction / moved).sum())
        length -= slope / curvature
        if not low < length < high:
            length = (low + high) / 2 if np.isfinite(high) and high < 1e300 else 2 * low + 1
    return length
