"""The step of an optimizer with Adam's moments for each task: gradients are scaled, then buckets of parameters updated."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from paretorch.core import checks
from paretorch.core.gradients.task_gradients import summing_dtype
from paretorch.core.option_checks import check_choice
from paretorch.optim.per_task.gradients import TaskGradients
from paretorch.optim.per_task.moments import Bucket, Moments, moments_of
from paretorch.optim.per_task.step import TaskStep, task_weights

LengthOver = Literal["tensor", "group"]


class ParameterTasks(NamedTuple):
    """What the factors of the task gradients on one parameter depend on.

    Args:
        options: of the parameter's group.
        weights: of all tasks.
        moments: of all tasks that have reached the parameter, in the optimizer's order.
        lengths: of the present tasks' gradients.
    """

    options: Mapping[str, Any]
    weights: Mapping[str, float]
    moments: Mapping[str, Moments]
    lengths: Mapping[str, float]


Factors = Callable[[ParameterTasks], Mapping[str, float]]
"""By what the gradient of each present task is multiplied before it enters the moments."""
BucketUpdate = Callable[[Bucket, Mapping[str, Any]], None]
"""Updates the parameters and moments of a bucket, from the group's options."""


def adam_per_task(step: TaskStep, factors: Factors, update: BucketUpdate) -> None:
    """One step of all parameters, in place."""
    gradients = step.gradients
    for options, places in step.groups:
        weights = task_weights(options["weights"], step.tasks)
        reached = {
            place: tasks
            for place in places
            if (tasks := tuple(task for task in gradients.tasks if gradients.rows[task][place] is not None))
        }
        lengths = _lengths(options, list(reached), gradients)
        buckets: dict[object, Bucket] = {}
        for place, tasks in reached.items():
            parameter = step.parameters[place]
            state = step.state[parameter]
            moments = {task: moments_of(state, task, parameter, options["amsgrad"]) for task in tasks}
            ordered = {task: state["by_task"][task] for task in step.tasks if task in state["by_task"]}
            own = {task: lengths[place][task] for task in tasks}
            scales = factors(ParameterTasks(options, weights, ordered, own))
            largest = torch.finfo(summing_dtype(parameter.dtype)).max
            bucket = buckets.setdefault((parameter.device, parameter.dtype, tasks), Bucket.empty(tasks, weights))
            bucket.parameters.append(parameter)
            for task in tasks:
                part = gradients.rows[task][place]
                assert part is not None
                bucket.gradients[task].append(part)
                bucket.moments[task].append(moments[task])
                bucket.factors[task].append(min(scales[task], largest))
        for bucket in buckets.values():
            foreach = options["foreach"]
            foreach = bucket.parameters[0].device.type == "cuda" if foreach is None else foreach
            for each in (each for own_moments in bucket.moments.values() for each in own_moments):
                each["taken"] += 1
            for chunk in [bucket] if foreach else bucket.chunks():
                update(chunk, options)


def check_precision(parameters: Iterable[Tensor], name: str) -> None:
    """Refuses float16 and complex parameters."""
    parameters = list(parameters)
    if any(parameter.dtype == torch.float16 for parameter in parameters):
        raise ValueError(
            f"{name} got a float16 parameter, and squares of gradients leave the range of float16: keep "
            "parameters in float32 with the forward under autocast, or in bfloat16"
        )
    checks.check_real(parameters, name)


def mean_length(moments: Moments, length: float, beta: float) -> float:
    """Updates the moving mean of a gradient's length and returns it; the first length above zero is its initial value.

    An initial value of zero would make the mean increase so slowly that the steps of an encoder under zero-initialized heads
    are ten times too large.
    """
    before = moments.get("length", 0.0)
    moments["length"] = beta * before + (1 - beta) * length if before > 0 else length
    return float(moments["length"])


def check_length_over(value: str) -> None:
    """Refuses unknown values of the option ``length_over``."""
    check_choice("length_over", value, ("tensor", "group"))


def _lengths(
    options: Mapping[str, Any], places: Sequence[int], gradients: TaskGradients
) -> dict[int, dict[str, float]]:
    """By parameter and task, the length of the gradient on the tensor or over the whole group."""
    if options.get("length_over", "tensor") == "tensor":
        return {place: {task: gradients.lengths[task][place] for task in gradients.tasks} for place in places}
    whole = {task: math.hypot(*(gradients.lengths[task][place] for place in places)) for task in gradients.tasks}
    return dict.fromkeys(places, whole)
