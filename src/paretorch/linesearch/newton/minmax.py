"""Minimum of the largest of several convex quadratic models, by an interior-point method."""

from __future__ import annotations

import numpy as np

from paretorch.core.arrays import Array

STEPS = 100
TOLERANCE = 1e-12  # relative gap
REDUCTION = 10.0  # of the gap in a step
SHORT = 0.99  # part of the step at which a weight becomes zero
LEAST = 1e-9  # weights below it become zero: the method ends inside the simplex


def models_at(gradients: Array, hessians: Array, step: Array) -> Array:
    """(T,) the quadratic models of (T, n) gradients and (T, n, n) Hessians after an (n,) step."""
    values: Array = gradients @ step + np.einsum("i,tij,j->t", step, hessians, step) / 2
    return values


def minmax_weights(gradients: Array, hessians: Array) -> Array:
    r"""The weights of the models at the minimum of the largest, by a primal-dual interior-point method.

    .. math:: \min_{s, \tau} \tau \quad \text{s.t.} \quad g_t^T s + \tfrac{1}{2} s^T H_t s \le \tau \quad \text{for all } t

    Args:
        gradients: (T, n).
        hessians: (T, n, n), positive definite.

    Returns:
        (T,) on the simplex, to a few digits at least.

    Example:
        >>> minmax_weights(np.array([[1.0], [-1.0]]), np.ones((2, 1, 1))).round(6)
        array([0.5, 0.5])

    References:
        Boyd & Vandenberghe, "Convex Optimization", 2004, section 11.7.
    """
    count, size = gradients.shape
    weights = np.full(count, 1 / count)
    mean = weights @ gradients
    point, top = np.zeros(size), float(mean @ np.linalg.solve(np.tensordot(weights, hessians, 1), mean)) / 2

    def models(at: Array) -> Array:
        return models_at(gradients, hessians, at)

    for _ in range(STEPS if top > 0 else 0):
        margin, slopes = top - models(point), gradients + hessians @ point
        gap = float(margin @ weights)
        if gap <= TOLERANCE * abs(top):
            break
        centre, ratios = gap / (REDUCTION * count), weights / margin
        across = ratios @ slopes
        matrix = np.block([
            [np.tensordot(weights, hessians, 1) + (slopes.T * ratios) @ slopes, -across[:, None]],
            [-across[None], ratios.sum()[None, None]],
        ])  # fmt: skip
        try:
            move = np.linalg.solve(matrix, -np.append(slopes.T @ (centre / margin), 1 - (centre / margin).sum()))
        except np.linalg.LinAlgError:  # converged to rounding
            break
        change = ratios * (slopes @ move[:-1] - move[-1]) + centre / margin - weights
        decreasing = change < 0
        step = min(1.0, SHORT * float((-weights[decreasing] / change[decreasing]).min(initial=np.inf)))
        while not (models(point + step * move[:-1]) < top + step * move[-1]).all():
            step /= 2
            if step < TOLERANCE:
                return _on_simplex(weights)
        point, top, weights = point + step * move[:-1], top + step * float(move[-1]), weights + step * change
    return _on_simplex(weights)


def _on_simplex(weights: Array) -> Array:
    share: Array = weights / weights.sum()
    share = np.where(share < LEAST, 0.0, share)
    result: Array = share / share.sum()
    return result
