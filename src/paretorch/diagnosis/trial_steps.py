"""Trial steps: which losses does a step along the sum increase?"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

from paretorch.core.arrays import Array
from paretorch.core.checks import called, is_bare_zero
from paretorch.diagnosis.results import Raised, Trials
from paretorch.diagnosis.subject import Subject
from paretorch.training import randomness

CHANGE = 0.01  # of each task's loss, to first order, at most, by a gradient step
SHORTER = 0.25  # factor on a gradient step that is too long for the first order
SUFFICIENT = 0.5  # of the first-order decrease of its own objective, which a gradient step must reach
TRIES = 8  # lengths of a gradient step
MOST_OWN = 8  # tasks up to which steps of single tasks are tried
SPACING = 4 * float(np.finfo(np.float32).eps)  # relative change of a loss that is no more than rounding

Losses = dict[str, float]
Row = Sequence[Tensor | None]


def trial_steps(
    subject: Subject,
    batches: Sequence[Any],
    tasks: Sequence[str],
    weights: Mapping[str, float],
    optimizer: torch.optim.Optimizer,
) -> Trials:
    """Tries each kind of step on each batch but the last, and measures on it and on the next one.

    Args:
        subject: the copied model; its parameters, buffers and the optimizer are restored after every step.
        batches: at least two.
        tasks: (T,) names.
        weights: of the losses that make their gradient norms agree.
        optimizer: of the model, in the state of the training so far.
    """
    kinds: dict[str, list[tuple[Array, Array]]] = {"sum": [], "scaled": [], "training": []}
    own: list[Array] = []
    for pair in pairwise(batches):
        state = _State(subject)
        rows = subject.gradients(pair[0]).rows
        before = [state.losses(batch, None) for batch in pair]
        scales = {task: weights.get(task, 1.0) for task in rows}
        trial = partial(_gradient_step, state, pair[0], before[0], rows)
        steps = {
            "sum": trial(dict.fromkeys(rows, 1.0)),
            "scaled": trial(scales),
            "training": _optimizer_step(subject, optimizer, _combined(rows, scales)),
        }
        for name, step in steps.items():
            same, other = (
                _increased(tasks, old, state.losses(batch, step)) for old, batch in zip(before, pair, strict=True)
            )
            kinds[name].append((same, other))
        if len(tasks) <= MOST_OWN:
            found = np.full(len(tasks), np.nan)
            for index, task in enumerate(tasks):
                if task in rows:
                    after = state.losses(pair[1], trial({task: 1.0}))
                    found[index] = _increased(tasks, before[1], after)[index]
            own.append(found)
    raised = {name: _raised(found) for name, found in kinds.items()}
    shares = _share(np.stack(own)) if own else np.full(len(tasks), np.nan)
    return Trials(len(batches) - 1, raised["sum"], raised["scaled"], raised["training"], shares)


class _State:
    """The weights, buffers and random generators before a trial, and the losses after a step from there."""

    def __init__(self, subject: Subject) -> None:
        self.subject = subject
        self.random = randomness.capture(subject.device)
        self.buffers = [(buffer, buffer.clone()) for buffer in subject.model.buffers()]
        self.parameters = [parameter.detach().clone() for parameter in subject.parameters]

    def losses(self, batch: Any, step: Row | None) -> Losses:
        """The losses after a step, with the random draws of the first forward; all else is restored."""
        randomness.restore(self.random, self.subject.device)
        with torch.no_grad():
            for buffer, value in self.buffers:
                buffer.copy_(value)
            for parameter, part in zip(self.subject.parameters, step or (), strict=step is not None):
                if part is not None:
                    parameter.add_(part)
        try:
            found = {task: float(loss.detach()) for task, loss in self._evaluated(batch).items()}
        finally:
            with torch.no_grad():
                for parameter, value in zip(self.subject.parameters, self.parameters, strict=True):
                    parameter.copy_(value)
        return found

    def _evaluated(self, batch: Any) -> Mapping[str, Tensor]:
        """The losses, with a graph, since some contain derivatives; a loss that is not finite has increased."""
        found = called(self.subject.losses_of, self.subject.model, batch)
        return {task: loss for task, loss in found.items() if loss is not None and not is_bare_zero(loss)}


def _increased(tasks: Sequence[str], before: Losses, after: Losses) -> Array:
    """(T,) 1 where a loss has increased by more than rounding, 0 where not, nan for absent tasks."""
    result = np.full(len(tasks), np.nan)
    for index, task in enumerate(tasks):
        if task in before and task in after:
            result[index] = float(not after[task] <= before[task] + SPACING * abs(before[task]))
    return result


def _combined(rows: Mapping[str, Row], weights: Mapping[str, float]) -> list[Tensor | None]:
    """The weighted sum of the gradients of the tasks in ``weights``, for each parameter tensor."""
    total: list[Tensor | None] = []
    for parts in zip(*(rows[task] for task in weights), strict=True):
        terms = [weight * part for weight, part in zip(weights.values(), parts, strict=True) if part is not None]
        total.append(torch.stack(terms).sum(dim=0) if terms else None)
    return total


def _gradient_step(
    state: _State, batch: Any, before: Losses, rows: Mapping[str, Row], weights: Mapping[str, float]
) -> list[Tensor | None]:
    """The longest step against the gradient of the weighted sum that the first order describes.

    To first order no loss changes by more than a hundredth of its value: the length does not depend on the units of the losses.
    The step is shortened until the weighted sum decreases by half of what the first order gives; at a longer step an increase of
    a loss shows the curvature of another one, not a conflict.

    Args:
        state: before the step.
        batch: on which the losses are compared.
        before: losses of the batch.
        rows: gradients by task.
        weights: of the tasks in the sum; the others only limit the length.
    """
    gradient = _combined(rows, weights)
    slopes = {task: _inner_product(row, gradient) for task, row in rows.items()}
    rates = [CHANGE * abs(before[task]) / abs(slope) for task, slope in slopes.items() if slope and before[task]]
    rate = min(rates, default=0.0)
    slope = sum(weight * slopes[task] for task, weight in weights.items())
    rounding = SPACING * sum(weight * abs(before[task]) for task, weight in weights.items())
    for _ in range(TRIES):
        step = [None if part is None else -rate * part for part in gradient]
        after = state.losses(batch, step)
        decrease = sum(weight * (before[task] - after.get(task, math.nan)) for task, weight in weights.items())
        if decrease + rounding >= SUFFICIENT * rate * slope:
            break
        rate *= SHORTER
    return step


def _inner_product(one: Row, other: Row) -> float:
    return sum(
        float((a.double() * b.double()).sum()) for a, b in zip(one, other, strict=True) if not (a is None or b is None)
    )


def _optimizer_step(subject: Subject, optimizer: torch.optim.Optimizer, gradient: Row) -> list[Tensor | None]:
    """The step that the optimizer takes for a gradient; its state and the parameters are restored."""
    before = [parameter.detach().clone() for parameter in subject.parameters]
    state = copy.deepcopy(optimizer.state_dict())
    for parameter, part in zip(subject.parameters, gradient, strict=True):
        parameter.grad = None if part is None else part.to(parameter.dtype)
    optimizer.step()
    step: list[Tensor | None] = []
    with torch.no_grad():
        for parameter, value in zip(subject.parameters, before, strict=True):
            step.append(parameter.detach() - value)
            parameter.copy_(value)
    optimizer.zero_grad(set_to_none=True)
    optimizer.load_state_dict(state)
    return step


def _raised(found: Sequence[tuple[Array, Array]]) -> Raised:
    same, other = (np.stack([pair[place] for pair in found]) for place in (0, 1))
    return Raised(float(np.nanmax(np.nan_to_num(same), axis=1).mean()), _share(same), _share(other))


def _share(increased: Array) -> Array:
    """(T,) shares of (n, T) flags, nan for tasks that are never there."""
    there = np.isfinite(increased)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(np.where(there, increased, 0.0).sum(axis=0) / there.sum(axis=0))
