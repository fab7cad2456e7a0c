"""What a search asks of the function that turns features into losses."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from paretorch.core.arrays import Array
from paretorch.core.gradients.graph import task_graph
from paretorch.core.gradients.task_gradients import summing_limits


def check_origin(
    losses: Mapping[str, Tensor], features: Sequence[Tensor], shared: Sequence[Tensor], trusted: set[str]
) -> None:
    """Each loss comes from the features that were given, and from nothing else of the encoder. Looked at once for each task.

    Args:
        losses: with their graphs.
        features: the leaves that were given.
        shared: the encoder's parameters.
        trusted: tasks that were looked at; grows.

    Raises:
        ValueError: the message names the task.
    """
    inside, given = {id(leaf) for leaf in shared}, {id(leaf) for leaf in features}
    for task, loss in losses.items():
        if task in trusted:
            continue
        found = {id(leaf) for leaf in task_graph([[loss]]).leaves}
        if found & inside:
            raise ValueError(
                f"the loss of task {task!r} reaches the encoder past the features given to losses_of, so that trials on the "
                "features cannot see it: compute it from the features alone, or use Backtracking, which runs the whole model"
            )
        if not found & given:
            raise ValueError(
                f"the loss of task {task!r} does not come from the features given to losses_of: compute it from the argument "
                "of losses_of, not from features computed before"
            )
        trusted.add(task)


def losses_in_order(losses: Mapping[str, Tensor | None], tasks: Mapping[str, object]) -> Array:
    """(T,) the values of the tasks' losses in a trial, with one transfer from the device.

    Raises:
        ValueError: a task that was there at first is missing.
    """
    found = []
    for task in tasks:
        loss = losses.get(task)
        if loss is None:
            raise ValueError(
                f"losses_of gave a loss of task {task!r} at first and none in a trial: the same tasks must be there at every "
                "call within a step"
            )
        found.append(loss.detach())
    return np.array(torch.stack(found).tolist())


def requiring_grad(inputs: Any) -> list[Tensor]:
    """The tensors among the inputs, whatever their nesting, by which a loss may be differentiated."""
    return [part for part in tree_leaves(inputs) if isinstance(part, Tensor) and part.requires_grad]


class InputDerivative(TorchFunctionMode):
    """Within it ``torch.autograd.grad`` by one of the inputs raises :func:`by_the_input`.

    Args:
        inputs: tensors that the encoder was called with.
    """

    def __init__(self, inputs: Sequence[Tensor]) -> None:
        super().__init__()
        self.inputs = {id(part) for part in inputs}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Every call of torch passes here."""
        kwargs = kwargs or {}
        if func is torch.autograd.grad:
            by = kwargs.get("inputs", args[1] if len(args) > 1 else ())
            if any(id(part) in self.inputs for part in ([by] if isinstance(by, Tensor) else by)):
                raise by_the_input()
        return func(*args, **kwargs)


def by_the_input() -> ValueError:
    """The refusal of a loss that contains a derivative by the encoder's input."""
    return ValueError(
        "a loss contains a derivative by the encoder's input, but losses_of is given the features alone, from which the input "
        "is not reached: use Backtracking, which runs the whole model in every trial, or a Balancer with a fixed step"
    )


def values_of(losses: Mapping[str, Tensor]) -> dict[str, float]:
    """The losses as numbers, with one transfer from the device."""
    if not losses:
        return {}
    stacked = torch.stack([loss.detach() for loss in losses.values()])
    return dict(zip(losses, stacked.tolist(), strict=True))


def resolution(losses: Mapping[str, Tensor], like: Tensor) -> float:
    """Relative spacing of the numbers that losses are computed in: the widest of their own and that of the features' sums."""
    return max(summing_limits(like.dtype)[0], *(torch.finfo(loss.dtype).eps for loss in losses.values()))


def detached(losses: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The losses without their graphs."""
    return {task: loss.detach() for task, loss in losses.items()}


def check_finite(values: Mapping[str, float], gradients: Mapping[str, float]) -> None:
    """Losses and the squared lengths of their gradients are finite, before anything is changed.

    Raises:
        FloatingPointError: the message names the task.
    """
    for what, numbers in (("loss", values), ("gradient", gradients)):
        for task, value in numbers.items():
            if not math.isfinite(value):
                raise FloatingPointError(
                    f"the {what} of task {task!r} is not finite; parameters and state are as before the step. Look for inf or "
                    "nan in its inputs or targets, or lower max_step"
                )
