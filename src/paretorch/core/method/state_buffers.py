"""A method's state as a module's buffers: saved by task name, moved with the model, never cast."""

from __future__ import annotations

import itertools
import warnings
import weakref
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from paretorch.core.contract import Method
from paretorch.core.method.state_fields import named_tensors, rebuilt

LIVE: weakref.WeakValueDictionary[int, StateHolder] = (
    weakref.WeakValueDictionary()
)  # by handle: compiled graphs carry numbers only
_HANDLES = itertools.count()
# What the buffers beside the method's own state hold before the first step.
UNUSED = {
    "steps": torch.tensor(0),
    "age": torch.tensor(0),
    "last_weights": torch.tensor(torch.nan),
    "last_heads": torch.tensor(torch.nan),
}


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
        self._verified: tuple[Tensor, int] | None = None  # the buffer of names that was found right, and its version

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
            held["task_names"] = encoded(tasks)
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

    def _snapshot(self) -> dict[str, Tensor]:
        """The buffers as they are, for :meth:`_restore`."""
        return {
            name: value.clone() for name, value in self._buffers.items() if value is not None and name != "task_names"
        }

    def _restore(self, before: dict[str, Tensor]) -> None:
        """Take a step back."""
        for name, value in before.items():
            self._buffers[name].copy_(value)  # type: ignore[union-attr]
        self._buffers_changed()

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

    def _begin_anew(self) -> None:
        """Write into the buffers what they hold before the first step."""
        state = None if self._structure is None else self._first()
        first = {f"state_{name}": value for name, value in named_tensors(state).items()}
        for name, held in self._buffers.items():
            if held is None:
                continue
            value = encoded(self.tasks) if name == "task_names" else first.get(name, UNUSED.get(name))
            assert value is not None
            if name not in UNUSED and held.shape != value.shape:  # (T, n) rows have no columns before the first step
                self._buffers[name] = value.to(held.device)
            else:
                held.detach().copy_(value)
        self._buffers_changed()

    def _forget(self) -> None:
        """Undeclare the tasks: the next step declares them."""
        self.tasks, self._structure = (), None
        for name in list(self._buffers):
            delattr(self, name)

    def _verify_state(self) -> None:
        """The buffers must be of these tasks; called in every step, and free where the names were not written since.

        Buffers can be written without this module's knowledge: ``to_empty`` leaves arbitrary memory, and so do loaders that
        make what a checkpoint lacks; torch.distributed.checkpoint loads another order of tasks in place.
        """
        held = self._buffers.get("task_names")
        if held is None or (
            self._verified is not None and held is self._verified[0] and held._version == self._verified[1]
        ):
            return
        names = decoded(held)
        if names is None or set(names) != set(self.tasks):
            self._begin_anew()
            warnings.warn(
                f"the state of this {type(self).__name__} is not that of the tasks {self.tasks}: its buffers were never "
                "initialised, or were overwritten. It begins anew, as after reset_state(); a checkpoint that has the state "
                "restores it with load_state_dict()",
                stacklevel=3,
            )
        elif names != self.tasks:
            order = [names.index(name) for name in self.tasks]
            for name, value in self._buffers.items():
                if value is not None and name != "task_names":
                    value.copy_(self._ordered(name, value, order))
            held.copy_(encoded(self.tasks))
            self._buffers_changed()
        held = self._buffers["task_names"]
        assert held is not None
        self._verified = held, held._version

    def _ordered(self, name: str, value: Tensor, order: list[int]) -> Tensor:
        """The value of a buffer with its tasks brought into another order; as it is where it has no row for each task."""
        count = len(order)
        if value.shape[:1] != (count,):
            return value
        first = {f"state_{field}": like.shape for field, like in named_tensors(self._structure).items()}
        square = first.get(name) == (count, count)  # (T, n) tensors have no columns at first
        return value[order][:, order] if square else value[order]

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
        if any(b is not None and b.is_meta and not self._buffers[name].is_meta for name, b in before.items()):  # type: ignore[union-attr]
            self._begin_anew()  # memory that nobody has written
        return self

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        """Loads by task name: a stored state in another order is brought into this one."""
        stored = state_dict.get(prefix + "task_names")
        names = decoded(stored) if isinstance(stored, Tensor) else None
        if names is not None and not self.tasks:
            self._declare(names)
        if isinstance(stored, Tensor) and "task_names" in self._buffers:  # else torch reports the unexpected keys
            if names is None:
                self._replace_unreadable(state_dict, prefix)
            else:
                self._bring_into_order(state_dict, prefix, names)
            state_dict[prefix + "task_names"] = encoded(self.tasks).to(stored.device)
        super()._load_from_state_dict(state_dict, prefix, *args)
        self._buffers_changed()

    def _replace_unreadable(self, state_dict: dict[str, Any], prefix: str) -> None:
        """A state whose task names cannot be read is not used."""
        warnings.warn(
            f"the stored task names of this {type(self).__name__} cannot be read, so its stored state is not used and it begins "
            "anew: the buffers were not initialised when they were saved, or were averaged as whole numbers",
            stacklevel=3,
        )
        self._begin_anew()
        state_dict |= {prefix + name: value.clone() for name, value in self._buffers.items() if value is not None}

    def _bring_into_order(self, state_dict: dict[str, Any], prefix: str, names: tuple[str, ...]) -> None:
        """Stored tensors with a row for each task are brought into the declared order."""
        if set(names) != set(self.tasks):
            raise ValueError(f"the stored state is of the tasks {names}, this {type(self).__name__} has {self.tasks}")
        order = [names.index(name) for name in self.tasks]
        for name, held in self._buffers.items():
            value = state_dict.get(prefix + name)
            if held is None or not isinstance(value, Tensor) or name == "task_names":
                continue
            if 0 in (held.numel(), value.numel()):
                self._buffers[name] = held.new_empty(value.shape, dtype=value.dtype)  # (T, n): n was not known
            if order != sorted(order):
                state_dict[prefix + name] = self._ordered(name, value, order)

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__({**state, "_verified": None})  # type: ignore[no-untyped-call]
        self.handle = _register(self)


def encoded(tasks: Sequence[str]) -> Tensor:
    """(n,) the names as bytes, in float64 as the rest of the state.

    Whole numbers up to 255 are exact in float16 and bfloat16, and an average of equal ones, rounded, is the same: so names
    survive casts, safetensors, broadcasts and averages of buffers, which turn 97 into 96 where they are integers.
    """
    return torch.tensor(list("\n".join(tasks).encode()), dtype=torch.float64)


def decoded(names: Tensor) -> tuple[str, ...] | None:
    """The names that :func:`encoded` wrote, in any dtype; None where these are not names."""
    if names.is_meta:
        return None
    values = names.detach().to("cpu", torch.float64)
    codes = values.round()
    if not bool(((codes - values).abs() <= 0.25).all() & (codes >= 0).all() & (codes <= 255).all()):  # nan is neither
        return None
    try:
        return tuple(bytes(codes.to(torch.int64).tolist()).decode().split("\n"))
    except UnicodeDecodeError:
        return None


def draws(seed: int, step: int) -> torch.Generator:
    """Random numbers that are a function of (seed, step): equal on all ranks, and saved by saving the step."""
    return torch.Generator().manual_seed((seed * 0x9E3779B1 + step) % 2**63)


def _register(holder: StateHolder) -> int:
    handle = next(_HANDLES)
    LIVE[handle] = holder
    return handle
