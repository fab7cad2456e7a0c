"""States of searches as dictionaries of plain values and tensors, for checkpoints, and those of methods to undo a step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from paretorch.core.method.runner import MethodRunner

S = TypeVar("S", bound=tuple[Any, ...])
STORED_NAMES = {"counts": "seen"}  # fields that have another name in checkpoints
FIELDS = {stored: name for name, stored in STORED_NAMES.items()}


def packed(state: Any) -> dict[str, Any]:
    """The fields of a NamedTuple of numbers and arrays; arrays become tensors."""
    return {
        STORED_NAMES.get(name, name): torch.from_numpy(value.copy()) if isinstance(value, np.ndarray) else value
        for name, value in state._asdict().items()
    }


def unpacked(like: S, stored: dict[str, Any]) -> S:
    """The NamedTuple that :func:`packed` stored.

    Raises:
        ValueError: the stored fields have other names or shapes.
    """
    expected = {name: tuple(v.shape) if isinstance(v, Tensor) else () for name, v in packed(like).items()}
    shapes = {name: tuple(v.shape) if isinstance(v, Tensor) else () for name, v in stored.items()}
    if expected != shapes:
        raise ValueError(f"the stored search does not fit: expected the fields {expected}, got {shapes}")
    values = {
        FIELDS.get(name, name): v.double().numpy().copy() if isinstance(v, Tensor) else v for name, v in stored.items()
    }
    return type(like)(**{name: tuple(v) if isinstance(v, list) else v for name, v in values.items()})


def undo_of_method(runner: MethodRunner) -> Callable[[], None]:
    """A function that restores the present state of a method and the record of its last step.

    The state is copied: numbers for each task, and T gradients for methods with a state of gradients.
    """
    state, result = runner.state, runner.result
    tasks, tensors = state.tasks, state.snapshot()

    def undo() -> None:
        if state.tasks != tasks:  # the step declared them
            state.undeclare()
        state.restore(tensors)
        runner.record(result)

    return undo
