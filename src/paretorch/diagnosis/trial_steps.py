"""Trial steps: which losses does a step along the sum increase?"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

from paretorch.core.arrays import Array
from paretorch.core.checks import called
from paretorch.diagnosis.results import Raised, Trials
from paretorch.diagnosis.subject import Subject
from paretorch.training import randomness

DECREASE = 0.01  # of the loss, to first order, by a gradient step
MOST_OWN = 8  # tasks up to which steps of single tasks are tried
RESOLUTION = 4  # spacings of a float32 number by which a loss must increase

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
        sizes = {task: abs(loss) for task, loss in before[0].items()}
        scales = {task: weights.get(task, 1.0) for task in sizes}
        plain, scaled = _combined(rows, dict.fromkeys(rows, 1.0)), _combined(rows, scales)
        steps = {
            "sum": _gradient_step(plain, sum(sizes.values())),
            "scaled": _gradient_step(scaled, sum(scales[task] * size for task, size in sizes.items())),
            "training": _optimizer_step(subject, optimizer, scaled),
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
                    after = state.losses(pair[1], _gradient_step(rows[task], sizes[task]))
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
        return {task: loss for task, loss in found.items() if loss is not None}


def _increased(tasks: Sequence[str], before: Losses, after: Losses) -> Array:
    """(T,) 1 where a loss has increased by more than rounding, 0 where not, nan for absent tasks."""
    result = np.full(len(tasks), np.nan)
    spacing = RESOLUTION * float(np.finfo(np.float32).eps)
    for index, task in enumerate(tasks):
        if task in before and task in after:
            result[index] = float(not after[task] <= before[task] + spacing * abs(before[task]))
    return result


def _combined(rows: Mapping[str, Row], weights: Mapping[str, float]) -> list[Tensor | None]:
    """The weighted sum of the gradients, for each parameter tensor."""
    total: list[Tensor | None] = []
    for parts in zip(*rows.values(), strict=True):
        terms = [weights[task] * part for task, part in zip(rows, parts, strict=True) if part is not None]
        total.append(torch.stack(terms).sum(dim=0) if terms else None)
    return total


def _gradient_step(gradient: Row, size: float) -> list[Tensor | None]:
    """The step against the gradient that decreases a loss by a hundredth of ``size`` to first order."""
    square = sum(float(part.double().square().sum()) for part in gradient if part is not None)
    rate = DECREASE * size / square if square > 0 else 0.0
    return [None if part is None else -rate * part for part in gradient]


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
