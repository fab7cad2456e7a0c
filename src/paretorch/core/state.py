"""A method's state as a module's buffers: saved by task name, moved with the model, never cast."""

from __future__ import annotations

import itertools
import weakref
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from paretorch.core.contract import Method
from paretorch.core.fields import named_tensors, rebuilt

LIVE: weakref.WeakValueDictionary[int, StateHolder] = (
    weakref.WeakValueDictionary()
)  # by handle: compiled graphs carry numbers only
_HANDLES = itertools.count()


class StateHolder(nn.Module):
    """Holds the state of a method for declared tasks.

    A method without state, without randomness and with ``every=1`` adds no buffer, so that checkpoints of the model without it
    load as before.
    """

    task_names: Tensor
    steps: Tensor
    age: Tensor
    last_weights: Tensor
    last_heads: Tensor

    def __init__(self, method: Method[Any], every: int) -> None:
        super().__init__()
        self.method, self.every = method, every
        self.tasks: tuple[str, ...] = ()
        self.handle = _register(self)
        self._structure: Any = None  # the state before the first step, of which the buffers are the tensors

    def _declare(self, tasks: tuple[str, ...]) -> None:
        """Fix the tasks and make the method's state."""
        self.tasks = tasks
        state = self._first()
        self._structure = state
        held = {f"state_{name}": value for name, value in named_tensors(state).items()}
        if self.method.random:
            held["steps"] = torch.zeros((), dtype=torch.int64)
        if self.every > 1:
            held["age"] = torch.zeros((), dtype=torch.int64)  # of last_weights, in steps; 0: there are none
            held["last_weights"] = torch.full((len(tasks),), torch.nan, dtype=torch.float64)
            held["last_heads"] = torch.full((len(tasks),), torch.nan, dtype=torch.float64)  # nan: no factors
        if held:
            held["task_names"] = torch.tensor(list("\n".join(tasks).encode()), dtype=torch.uint8)
        for name, value in held.items():
            self.register_buffer(name, value)

    def state_tensors(self) -> list[Tensor]:
        """The buffers that hold the method's state, field by field."""
        return [tensor for name, tensor in self._buffers.items() if name.startswith("state_") and tensor is not None]

    def _as_state(self, values: Sequence[Tensor]) -> Any:
        """The state that the method knows, made of its fields; None for a method without."""
        return rebuilt(self._structure, iter(values))

    def _keep(self, state: Any) -> None:
        """Write the method's next state into the buffers."""
        for name, value in named_tensors(state).items():
            held = self._buffers[f"state_{name}"]
            if held is None or held.shape != value.shape:  # (T, n) tensors, made when n is known
                self._buffers[f"state_{name}"] = value.clone()
            else:
                held.copy_(value)

    def _first(self) -> Any:
        """The method's state before the first step."""
        return self.method.init(self.tasks, torch.zeros((), dtype=torch.float64))

    @property
    def _rows(self) -> list[str]:
        """The fields with a row of gradients for each task, as long as what is compared: at first without columns."""
        return [name for name, value in named_tensors(self._structure).items() if value.shape[1:] == (0,)]

    def _fits(self, length: int) -> bool:
        """Whether such rows are this long, or not yet begun."""
        return all(self._buffers[f"state_{name}"].shape[1] in (0, length) for name in self._rows)  # type: ignore[union-attr]

    def _buffers_changed(self) -> None:
        """Called when the buffers were written from outside."""

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        """Moves the state with the model, but leaves its dtypes as they are: half a counter counts nothing."""
        before = dict(self._buffers)
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        for name, buffer in before.items():
            moved = self._buffers[name]
            if buffer is not None and moved is not None and moved.dtype != buffer.dtype:
                dtype = torch.float32 if moved.device.type == "mps" and buffer.dtype == torch.float64 else buffer.dtype
                self._buffers[name] = buffer.to(moved.device, dtype)
        return self

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        """Loads by task name: a stored state in another order is brought into this one."""
        stored = state_dict.get(prefix + "task_names")
        if isinstance(stored, Tensor):
            names = tuple(bytes(stored.tolist()).decode().split("\n"))
            if not self.tasks:
                self._declare(names)
            if set(names) != set(self.tasks):
                raise ValueError(
                    f"the stored state is of the tasks {names}, this {type(self).__name__} has {self.tasks}"
                )
            order = [names.index(name) for name in self.tasks]
            fields = {f"state_{name}": value.shape for name, value in named_tensors(self._structure).items()}
            state_dict[prefix + "task_names"] = self.task_names
            for name in self._buffers:
                value = state_dict.get(prefix + name)
                held = self._buffers[name]
                if isinstance(value, Tensor) and held is not None and 0 in (held.numel(), value.numel()):
                    self._buffers[name] = held.new_empty(value.shape, dtype=value.dtype)  # (T, n): n was not known
                if (
                    isinstance(value, Tensor)
                    and name != "task_names"
                    and value.shape[:1] == (len(names),)
                    and order != sorted(order)
                ):
                    square = fields.get(name) == (len(names), len(names))  # (T, n) tensors have no columns at first
                    state_dict[prefix + name] = value[order][:, order] if square else value[order]
        super()._load_from_state_dict(state_dict, prefix, *args)
        self._buffers_changed()

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)  # type: ignore[no-untyped-call]
        self.handle = _register(self)


def draws(seed: int, step: int) -> torch.Generator:
    """Random numbers that are a function of (seed, step): equal on all ranks, and saved by saving the step."""
    return torch.Generator().manual_seed((seed * 0x9E3779B1 + step) % 2**63)


def _register(holder: StateHolder) -> int:
    handle = next(_HANDLES)
    LIVE[handle] = holder
    return handle
