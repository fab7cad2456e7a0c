"""Newton's method for several objectives, with exact Hessians."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from paretorch.core import checks
from paretorch.core.arrays import Array
from paretorch.core.solvers.minimum_norm import minimum_norm
from paretorch.linesearch.armijo.rules import Rules
from paretorch.linesearch.contract import SearchOutcome, StepLine
from paretorch.linesearch.newton.minmax import minmax_weights, models_at

TOLERANCE = 1e-13  # of the dual, relative to the objectives' models
SWEEPS = 40  # exchanges of weight between two tasks
ROOTS = 60
LEAST = 1e-8  # least eigenvalue of a changed Hessian, relative to its largest in size


class NewtonStep(NamedTuple):
    """A direction, the weights of its Lagrangian, and the value of the model along it: negative, or 0 at a critical point."""

    direction: Array
    weights: Array
    value: float


class NewtonRun(NamedTuple):
    """The last point, and the norm of the shortest convex combination of gradients at each iterate."""

    point: Tensor
    criticalities: list[float]


def newton_step(gradients: Array, hessians: Array) -> NewtonStep:
    r"""The minimum of the largest of the objectives' quadratic models, by its dual.

    .. math:: s = \arg\min_s \max_t \; g_t^T s + \tfrac{1}{2} s^T H_t s, \qquad
              \lambda = \arg\min_{\lambda \ge 0,\, 1^T \lambda = 1} g_\lambda^T H_\lambda^{-1} g_\lambda, \quad
              s = -H_\lambda^{-1} g_\lambda

    with :math:`g_\lambda = \sum_t \lambda_t g_t` and :math:`H_\lambda = \sum_t \lambda_t H_t`. The dual is convex; its
    derivative by :math:`\lambda_t` is -2 times model t at s, so it is solved by moving weight from the task of the smallest
    model to that of the largest until they are equal; where that is too slow, an interior-point method gives the start. Hessians
    that are not positive definite have their eigenvalues replaced by their absolute values.

    Args:
        gradients: (T, n).
        hessians: (T, n, n), symmetric.

    Example:
        >>> step = newton_step(np.array([[1.0, 0.0], [-1.0, 0.0]]), np.stack([np.eye(2), np.eye(2)]))
        >>> step.weights, abs(step.value) < 1e-12
        (array([0.5, 0.5]), True)

    References:
        Fliege, Grana Drummond & Svaiter, "Newton's method for multiobjective optimization", SIAM J. Optim. 2009. They assume
        convex objectives. Otherwise a shift H + tau I would change every curvature and slow the convergence: where two valleys
        are not convex along the line between them, an iteration then only halves the error. We change the negative ones only.
    """
    hessians = np.stack([_definite(hessian) for hessian in hessians])
    count = len(gradients)
    weights = np.full(count, 1 / count)

    def at(weights: Array) -> tuple[Array, Array]:
        mixed = np.tensordot(weights, hessians, axes=1)
        direction = np.asarray(-np.linalg.solve(mixed, weights @ gradients), dtype=np.float64)
        return direction, models_at(gradients, hessians, direction)

    def equalised(weights: Array) -> tuple[Array, bool]:
        """Weights moved until the models are equal, and whether they are."""
        direction, models = at(weights)
        for _ in range(SWEEPS):
            gains = int(models.argmax())
            loses = int(np.where(weights > 0, models, np.inf).argmin())
            scale = np.abs(gradients @ direction).max() + np.abs(models).max()
            if models[gains] - models[loses] <= TOLERANCE * scale or scale == 0:
                return weights, True
            before, weights = weights, _moved(weights, gains, loses, lambda w: at(w)[1], TOLERANCE * scale)
            if (before == weights).all():
                break
            direction, models = at(weights)
        return weights, False

    def gap(weights: Array) -> float:
        models = at(weights)[1]
        return float(models.max() - weights @ models)

    if count > 1:
        weights, equal = equalised(weights)
        if not equal and count > 2:  # exchanges between pairs of models of different curvature converge slowly
            weights = min(weights, equalised(minmax_weights(gradients, hessians))[0], key=gap)
    direction, models = at(weights)
    return NewtonStep(direction, weights, float(min(models.max(), 0.0)))


def newton(
    objectives: Callable[[Tensor], Mapping[str, Tensor]],
    start: Tensor,
    *,
    tolerance: float = 1e-8,
    iterations: int = 100,
    rules: Rules | None = None,
) -> NewtonRun:
    r"""Newton's method from a point to a Pareto critical one, with Armijo's rules.

    A step is accepted where every objective decreases by ``beta`` times the model's value; the first trial is 1.

    Args:
        objectives: (n,) point -> scalars by name, twice differentiable.
        start: (n,), in float64 to reach the tolerance.
        tolerance: of the norm of the shortest convex combination of the gradients.
        iterations: maximum number.
        rules: of the search.

    Raises:
        ValueError: the start is not a vector.
        FloatingPointError: an objective is not finite at a point.

    Example:
        >>> def objectives(x):
        ...     return {"left": ((x - 1) ** 4).sum() + (x**2).sum(), "right": ((x + 1) ** 2).sum()}
        >>> run = newton(objectives, torch.full((3,), 2.0, dtype=torch.float64))
        >>> run.criticalities[-1] <= 1e-8
        True
    """
    if start.ndim != 1:
        raise ValueError(f"newton starts from a vector (n,), got shape {tuple(start.shape)}: flatten the parameters")
    rules = Rules() if rules is None else rules
    point = start.detach().clone()
    names = checks.checked_task_names(objectives(point))

    def values(at: Tensor) -> Tensor:
        found = objectives(at)
        return torch.stack([found[name] for name in names])

    history = []
    for iteration in range(iterations + 1):
        losses, gradients, hessians = _derivatives(values, point, names)
        history.append(criticality(gradients))
        if history[-1] <= tolerance or iteration == iterations:
            break
        step = newton_step(gradients, hessians)
        direction = torch.from_numpy(step.direction).to(point)
        slopes = -gradients @ step.direction
        moved = (
            _searched(values, names, point, losses, direction, slopes, -step.value, rules) if step.value < 0 else None
        )
        if moved is None:
            # the decrease is below the rounding of the losses: a full step, if it decreases the gradients
            moved = point + direction
            if criticality(_derivatives(values, moved, names)[1]) >= history[-1]:
                break
        point = moved
    return NewtonRun(point, history)


def _searched(
    values: Callable[[Tensor], Tensor],
    names: tuple[str, ...],
    point: Tensor,
    losses: Array,
    direction: Tensor,
    slopes: Array,
    required: float,
    rules: Rules,
) -> Tensor | None:
    """The accepted point, where each objective decreases by a share of ``required``; None where none is accepted."""

    def at(length: float) -> Array:
        with torch.no_grad():
            found: Array = values(point + length * direction).cpu().double().numpy()
        return found

    wanted = np.full(len(names), required)
    line = StepLine(names, tuple(range(len(names))), losses, slopes, wanted, at, torch.finfo(point.dtype).eps)
    found, _ = rules.search(line, rules.init(len(names)), 1.0)
    return point + found.step * direction if found.outcome is SearchOutcome.ACCEPTED else None


def criticality(gradients: Array) -> float:
    """The norm of the shortest convex combination of (T, n) gradients: 0 at Pareto critical points."""
    weights = minimum_norm(torch.from_numpy(gradients @ gradients.T)).weights.numpy()
    return float(np.linalg.norm(weights @ gradients))


def _derivatives(
    values: Callable[[Tensor], Tensor], point: Tensor, names: tuple[str, ...]
) -> tuple[Array, Array, Array]:
    leaf = point.detach().requires_grad_()
    losses = values(leaf)
    for name, loss in zip(names, losses.tolist(), strict=True):
        if not math.isfinite(loss):
            raise FloatingPointError(
                f"objective {name!r} is {loss} at the point {point.tolist()}: start where every objective is finite"
            )
    rows, squares = [], []
    for loss in losses:
        row = torch.autograd.grad(loss, leaf, create_graph=True)[0]
        rows.append(row)
        squares.append(
            torch.stack(
                [
                    torch.zeros_like(point)
                    if not entry.requires_grad
                    else _or_zero(torch.autograd.grad(entry, leaf, retain_graph=True, allow_unused=True)[0], point)
                    for entry in row
                ]
            )
        )
    stacked = torch.stack(rows).detach().cpu().double().numpy(), torch.stack(squares).detach().cpu().double().numpy()
    return losses.detach().cpu().double().numpy(), stacked[0], (stacked[1] + stacked[1].transpose(0, 2, 1)) / 2


def _or_zero(part: Tensor | None, like: Tensor) -> Tensor:
    return torch.zeros_like(like) if part is None else part


def _definite(hessian: Array) -> Array:
    """The Hessian if positive definite; else with the absolute values of its eigenvalues, none much below the largest."""
    values, vectors = np.linalg.eigh(hessian)
    sizes = np.abs(values)
    if values[0] > LEAST * sizes.max():
        return hessian
    definite: Array = (vectors * np.maximum(sizes, LEAST * max(float(sizes.max()), LEAST))) @ vectors.T
    return definite


def _moved(weights: Array, gains: int, loses: int, models: Callable[[Array], Array], enough: float) -> Array:
    """Weights moved from one task to another until their models are equal, or the one has weight zero; by false position."""

    def shifted(share: float) -> Array:
        result = weights.copy()
        result[gains] += share
        result[loses] = max(result[loses] - share, 0.0)
        return result

    def difference(share: float) -> float:
        found = models(shifted(share))
        return float(found[gains] - found[loses])

    low, high = 0.0, float(weights[loses])
    above, below = difference(low), difference(high)
    if below >= 0:
        return shifted(high)
    side = 0
    for _ in range(ROOTS):
        middle = low + (high - low) * above / (above - below)
        value = difference(middle)
        if abs(value) <= enough or not low < middle < high:
            return shifted(middle)
        if value > 0:
            below = below / 2 if side == 1 else below
            low, above, side = middle, value, 1
        else:
            above = above / 2 if side == -1 else above
            high, below, side = middle, value, -1
    return shifted(middle)
