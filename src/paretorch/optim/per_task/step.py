"""The evidence of one multi-task step, and the rule that turns it into an update."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from paretorch.core import checks
from paretorch.optim.per_task.gradients import TaskGradients

Losses = Mapping[str, Tensor]
Weights = Mapping[str, float] | Sequence[float] | None


@dataclass(frozen=True)
class TaskStep:
    """The evidence of one step.

    Args:
        parameters: those that require grad.
        groups: options of each parameter group, with the indices of its parameters.
        gradients: of the present tasks; their indices are those of ``parameters``.
        tasks: all tasks, in the optimizer's order.
        state: of each parameter; updated in place.
    """

    parameters: Sequence[Tensor]
    groups: Sequence[tuple[Mapping[str, Any], Sequence[int]]]
    gradients: TaskGradients
    tasks: tuple[str, ...]
    state: MutableMapping[Tensor, dict[str, Any]]


@dataclass(frozen=True)
class UpdateRule:
    """What distinguishes one multi-task optimizer from another.

    Args:
        update: moves the parameters of a step and updates their state, in place.
        check: raises ValueError for parameters that the rule does not support, given the optimizer's name; None: all are.
        losses: the losses to differentiate, from those given, the options of the first group and the number of tasks that have a
            loss on any rank; None: those given.
        rows: names of the losses to differentiate; None: the tasks.
    """

    update: Callable[[TaskStep], None]
    check: Callable[[Iterable[Tensor], str], object] | None = checks.check_real
    losses: Callable[[Losses, Mapping[str, Any], int], Losses] | None = None
    rows: tuple[str, ...] | None = None


def task_weights(weights: Weights, tasks: Sequence[str]) -> dict[str, float]:
    """The weight of each task: as given, by name or in the order of the tasks; 1 by default.

    Raises:
        ValueError: a task has no weight, a weight is not above 0, or their number is not that of the tasks.

    Example:
        >>> task_weights((0.5, 2.0), ("seg", "depth"))
        {'seg': 0.5, 'depth': 2.0}
    """
    if weights is None:
        return dict.fromkeys(tasks, 1.0)
    if isinstance(weights, Mapping):
        if missing := [task for task in tasks if task not in weights]:
            raise ValueError(f"weights: task {missing[0]!r} has none; got weights of {', '.join(map(repr, weights))}")
        found = {task: float(weights[task]) for task in tasks}
    else:
        if len(weights) != len(tasks):
            raise ValueError(f"weights: expected one for each of {tuple(tasks)}, got {tuple(weights)}")
        found = dict(zip(tasks, map(float, weights), strict=True))
    for task, weight in found.items():
        if not (weight > 0 and math.isfinite(weight)):
            raise ValueError(f"weights: task {task!r} has {weight}, expected a finite number above 0")
    return found
