"""Losses by task: checks of their graphs, and their values."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from paretorch.core import checks
from paretorch.core.arrays import Array
from paretorch.core.gradients.graph import task_graph
from paretorch.core.gradients.task_gradients import summing_limits

LossesOf = Callable[[Any], Mapping[str, Tensor | None]]


def checked_losses(losses: Mapping[str, Tensor | None], tasks: tuple[str, ...]) -> dict[str, Tensor]:
    """The losses of the present tasks.

    Raises:
        ValueError: a loss is not a scalar, or its task is not declared.
    """
    present = checks.present_losses(losses, "losses_of")
    checks.check_known_tasks(present, tasks, "losses_of")
    return present


def check_origin(
    losses: Mapping[str, Tensor], features: Sequence[Tensor], shared: Sequence[Tensor], checked: frozenset[str]
) -> frozenset[str]:
    """The tasks whose losses depend on the given features and on nothing else of the encoder; each is checked once.

    Args:
        losses: with their graphs.
        features: the leaves given to ``losses_of``.
        shared: the encoder's parameters.
        checked: tasks that were checked before.

    Raises:
        ValueError: the message names the task.
    """
    inside, given = {id(leaf) for leaf in shared}, {id(leaf) for leaf in features}
    for task, loss in losses.items():
        if task in checked:
            continue
        leaves = {id(leaf) for leaf in task_graph([[loss]]).leaves}
        if leaves & inside:
            raise ValueError(
                f"the loss of task {task!r} reaches the encoder past the features given to losses_of, so that trials on the "
                "features omit this part: compute it from the features alone, or use Backtracking, which runs the whole model"
            )
        if not leaves & given:
            raise ValueError(
                f"the loss of task {task!r} does not come from the features given to losses_of: compute it from the argument "
                "of losses_of, not from features computed before"
            )
        checked |= {task}
    return checked


def losses_in_order(losses: Mapping[str, Tensor | None], tasks: Mapping[str, object]) -> Array:
    """(T,) the values of the tasks' losses in a trial, with one transfer from the device.

    Raises:
        ValueError: a task of the first call is missing.
    """
    found = []
    for task in tasks:
        loss = losses.get(task)
        if loss is None:
            raise ValueError(
                f"losses_of returned a loss of task {task!r} in the first call and none in a trial: every call within a step "
                "must return the same tasks"
            )
        found.append(loss.detach())
    return np.array(torch.stack(found).tolist())


def requiring_grad(inputs: Any) -> list[Tensor]:
    """The tensors among the inputs, in any nesting, that require grad."""
    return [part for part in tree_leaves(inputs) if isinstance(part, Tensor) and part.requires_grad]


class InputDerivative(TorchFunctionMode):
    """A context in which ``torch.autograd.grad`` with respect to an input raises :func:`input_derivative_error`.

    Args:
        inputs: the encoder's input tensors.
    """

    def __init__(self, inputs: Sequence[Tensor]) -> None:
        super().__init__()
        self.inputs = {id(part) for part in inputs}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Every call of torch passes here."""
        kwargs = kwargs or {}
        if func is torch.autograd.grad:
            inputs = kwargs.get("inputs", args[1] if len(args) > 1 else ())
            if any(id(part) in self.inputs for part in ([inputs] if isinstance(inputs, Tensor) else inputs)):
                raise input_derivative_error()
        return func(*args, **kwargs)


def input_derivative_error() -> ValueError:
    """The error for a loss that contains a derivative by the encoder's input."""
    return ValueError(
        "a loss contains a derivative by the encoder's input, but losses_of receives the features alone, which do not depend "
        "on the input in its graph: use Backtracking, which runs the whole model in every trial, or a Balancer with a fixed step"
    )


def values_of(losses: Mapping[str, Tensor]) -> dict[str, float]:
    """The losses as numbers, with one transfer from the device."""
    if not losses:
        return {}
    stacked = torch.stack([loss.detach() for loss in losses.values()])
    return dict(zip(losses, stacked.tolist(), strict=True))


def resolution(losses: Mapping[str, Tensor], like: Tensor) -> float:
    """Relative spacing of the numbers in which the losses are computed: the widest of the losses' and the features' sums."""
    return max(summing_limits(like.dtype)[0], *(torch.finfo(loss.dtype).eps for loss in losses.values()))


def check_finite(values: Mapping[str, float], gradients: Mapping[str, float]) -> None:
    """Checks that losses and the squared norms of their gradients are finite, before anything is changed.

    Raises:
        FloatingPointError: the message names the task.
    """
    for what, numbers in (("loss", values), ("gradient", gradients)):
        for task, value in numbers.items():
            if not math.isfinite(value):
                raise FloatingPointError(
                    f"the {what} of task {task!r} is not finite; parameters and state are as before the step. Check its inputs "
                    "and targets for inf or nan, or lower max_step"
                )
