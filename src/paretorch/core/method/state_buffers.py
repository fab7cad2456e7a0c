"""A method's state as tensors by name: checked, saved by task name, brought into the declared order."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from paretorch.core.arrays import Array
from paretorch.core.contract import Method
from paretorch.core.gradients.task_gradients import to_device, to_host
from paretorch.core.method.state_fields import named_tensors, rebuilt

# The tensors in addition to the method's own state, before the first step.
INITIAL = {
    "steps": torch.tensor(0),
    "age": torch.tensor(0),
    "last_weights": torch.tensor(torch.nan),
    "last_heads": torch.tensor(torch.nan),
}


class LastWeights(NamedTuple):
    """The weights that ``every`` reuses, on the host."""

    age: int  # steps since they were computed, themselves included; 0: there are none
    weights: Array  # (all,), nan for tasks that were absent
    heads: Array  # (all,), nan where the method gave none


class StateBuffers:
    """The state of a method for declared tasks, and the counters of its steps.

    A method without state, without randomness and with ``every=1`` adds no tensor, so that checkpoints of a model without it
    load as before.

    Args:
        method: whose state it is.
        reuses: whether the last weights are stored, for ``every`` above 1.
        owner: the name of the class in messages, such as ``"Fork"``.
        tensors: where the tensors are stored, under ``state_FIELD``, ``steps``, ``age``, ``last_weights``, ``last_heads`` and
            ``task_names``: the buffers of a module, or a dict of its own.
    """

    def __init__(self, method: Method[Any], reuses: bool, owner: str, tensors: dict[str, Tensor | None]) -> None:
        self.method, self.reuses, self.owner, self.tensors = method, reuses, owner, tensors
        self.counts_steps = method.random  # whether the number of steps is stored, on which random draws depend
        self.tasks: tuple[str, ...] = ()
        # Fields with a row of n numbers for each task; n is unknown before the first step.
        self.row_fields: tuple[str, ...] = ()
        self._template: Any = None  # the state before the first step, which has the structure of every state
        self.tensors_changed()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_verified": None, "_last_weights": None, "_steps": None, "_written": {}}

    def tensors_changed(self) -> None:
        """Drop what was derived from the tensors, after they were written from outside."""
        self._verified: tuple[Tensor, int] | None = None  # the checked tensor of task names, and its version
        # Copies on the host, which are read without synchronisation.
        self._last_weights: LastWeights | None = None
        self._steps: int | None = None
        self._written: dict[str, tuple[Tensor, int, Tensor]] = {}  # by name: the stored tensor, its version, its value

    # --- declared tasks --------------------------------------------------------------------------------------------------

    def declare(self, tasks: tuple[str, ...]) -> None:
        """Fix the tasks and make the method's state; the number of steps continues where tasks are added."""
        steps = self.steps() if "steps" in self.tensors else 0
        self.tasks = tasks
        self._template = self.initial()
        fields = named_tensors(self._template)
        self.row_fields = tuple(name for name, value in fields.items() if value.shape[1:] == (0,))
        made = {f"state_{name}": value for name, value in fields.items()}
        if self.counts_steps:
            made["steps"] = torch.tensor(steps)
        if self.reuses:
            made["age"] = torch.zeros((), dtype=torch.int64)
            made["last_weights"] = torch.full((len(tasks),), torch.nan, dtype=torch.float64)
            made["last_heads"] = torch.full((len(tasks),), torch.nan, dtype=torch.float64)
        if made:
            made["task_names"] = encoded(tasks)
        self.tensors.update(made)
        self.tensors_changed()

    def undeclare(self) -> None:
        """Forget the tasks and the state: the next step declares them."""
        self.tasks, self.row_fields, self._template = (), (), None
        self.tensors.clear()
        self.tensors_changed()

    def reset(self) -> None:
        """Write the values from before the first step."""
        state = None if self._template is None else self.initial()
        first = {f"state_{name}": value for name, value in named_tensors(state).items()}
        for name, tensor in self.tensors.items():
            if tensor is None:
                continue
            value = encoded(self.tasks) if name == "task_names" else first.get(name, INITIAL.get(name))
            assert value is not None
            if (
                name not in INITIAL and tensor.shape != value.shape
            ):  # rows of n numbers have no columns before the first step
                self.tensors[name] = value.to(tensor.device)
            else:
                tensor.detach().copy_(value)
        self.tensors_changed()

    # --- the method's state ----------------------------------------------------------------------------------------------

    @property
    def has_state(self) -> bool:
        """Whether the method has a state and the tasks are declared."""
        return self._template is not None

    def initial(self) -> Any:
        """The method's state before the first step."""
        return self.method.init(self.tasks, torch.zeros((), dtype=torch.float64))

    def fields(self) -> list[Tensor]:
        """The tensors of the method's state, field by field."""
        return [tensor for name, tensor in self.tensors.items() if name.startswith("state_") and tensor is not None]

    def assembled(self, values: Sequence[Tensor]) -> Any:
        """The state made of its fields; None for a method without state."""
        return rebuilt(self._template, iter(values))

    def on_host(self) -> list[Tensor]:
        """The tensors of :meth:`fields` on the host, by a transfer only where they were not written by :meth:`store` last."""
        fields = self.fields()
        written = list(self._written.values())
        is_current = len(written) == len(fields) and all(
            stored is field and version == field._version
            for field, (stored, version, _) in zip(fields, written, strict=True)
        )
        return [value for _, _, value in written] if is_current and written else to_host(fields)

    def store(self, state: Any) -> None:
        """Write the method's next state."""
        self._written = {}
        for name, value in named_tensors(state).items():
            stored = self.tensors[f"state_{name}"]
            if stored is None or stored.shape != value.shape:  # rows of n numbers, made when n is known
                self.tensors[f"state_{name}"] = value.clone()
            elif stored.device.type == value.device.type or value.device.type != "cpu":
                stored.copy_(value)
            else:
                stored.copy_(to_device(value.to(stored.dtype), stored.device))
                if stored.dtype == value.dtype:
                    self._written[name] = stored, stored._version, value

    def rows_fit(self, length: int) -> bool:
        """Whether the rows have this length, or no step was taken yet."""
        return all(self._tensor(f"state_{name}").shape[1] in (0, length) for name in self.row_fields)

    def snapshot(self) -> dict[str, Tensor]:
        """Copies of the tensors, for :meth:`restore`."""
        return {
            name: value.clone() for name, value in self.tensors.items() if value is not None and name != "task_names"
        }

    def restore(self, before: dict[str, Tensor]) -> None:
        """Write the tensors of an earlier :meth:`snapshot` back."""
        for name, value in before.items():
            tensor = self._tensor(name)
            if tensor.shape == value.shape:
                tensor.copy_(value)
            else:  # rows of n numbers, of which n was not known
                self.tensors[name] = value
        self.tensors_changed()

    def keep_where(self, condition: Tensor, before: dict[str, Tensor]) -> None:
        """Write the tensors of an earlier :meth:`snapshot` back where the () condition is False, without a wait for the device.

        The copies on the host are those of the case True; in the other case :meth:`tensors_changed` discards them.
        """
        for name, value in before.items():
            tensor = self._tensor(name)
            tensor.copy_(torch.where(condition, tensor, value))
        self._written = {name: (stored, stored._version, value) for name, (stored, _, value) in self._written.items()}

    # --- steps, and weights that are reused ------------------------------------------------------------------------------

    def steps(self) -> int:
        """The number of steps so far, on which random draws depend."""
        if self._steps is None:
            self._steps = int(self._tensor("steps"))
        return self._steps

    def count_step(self) -> None:
        """Count a step, where the number of steps is stored."""
        if "steps" in self.tensors:
            self._steps = self.steps() + 1
            self._tensor("steps").fill_(self._steps)

    def last_weights(self) -> LastWeights:
        """The weights of the last step whose weights were computed."""
        if self._last_weights is None:
            weights, heads = (
                self._tensor(name).to("cpu", torch.float64).numpy().copy() for name in ("last_weights", "last_heads")
            )
            self._last_weights = LastWeights(int(self._tensor("age")), weights, heads)
        return self._last_weights

    def count_reuse(self) -> None:
        """Count a step that reused the last weights."""
        last = self.last_weights()
        self._tensor("age").add_(1)
        self._last_weights = last._replace(age=last.age + 1)

    def store_weights(self, weights: Array, heads: Array) -> None:
        """Store (all,) weights and head weights of a step for reuse."""
        self._last_weights = LastWeights(1, weights, heads)
        self._tensor("age").fill_(1)
        for name, values in (("last_weights", weights), ("last_heads", heads)):
            stored = self._tensor(name)
            stored.copy_(to_device(torch.from_numpy(values).to(stored.dtype), stored.device))

    def _tensor(self, name: str) -> Tensor:
        tensor = self.tensors[name]
        assert tensor is not None
        return tensor

    # --- tensors that were written from outside --------------------------------------------------------------------------

    def verify(self) -> None:
        """Check that the tensors are of the declared tasks; called in every step, and free where the names are unchanged.

        Buffers of a module can be written without the module's knowledge: ``to_empty`` leaves arbitrary memory, and so do
        loaders that make the missing tensors of a checkpoint; torch.distributed.checkpoint loads another order of tasks in
        place.
        """
        stored = self.tensors.get("task_names")
        if stored is None or (
            self._verified is not None and stored is self._verified[0] and stored._version == self._verified[1]
        ):
            return
        names = decoded(stored)
        if names is None or set(names) != set(self.tasks):
            self.reset()
            warnings.warn(
                f"the state of this {self.owner} is not that of the tasks {self.tasks}: its buffers were never initialised, or "
                "were overwritten. The state is reset, as by reset_state(); a checkpoint that has the state restores it with "
                "load_state_dict()",
                stacklevel=3,
            )
        elif names != self.tasks:
            order = [names.index(name) for name in self.tasks]
            for name, value in self.tensors.items():
                if value is not None and name != "task_names":
                    value.copy_(self._ordered(name, value, order))
            stored.copy_(encoded(self.tasks))
            self.tensors_changed()
        stored = self._tensor("task_names")
        self._verified = stored, stored._version

    def prepare_load(self, state_dict: dict[str, Any], prefix: str = "") -> None:
        """Bring a stored state into the order of the declared tasks, in ``state_dict``; undeclared tasks are declared.

        Raises:
            ValueError: it is of other tasks.
        """
        stored = state_dict.get(prefix + "task_names")
        if not isinstance(stored, Tensor):
            return
        names = decoded(stored)
        if names is not None and not self.tasks:
            self.declare(names)
        if "task_names" not in self.tensors:  # torch reports the unexpected keys
            return
        if names is None:
            self._replace_unreadable(state_dict, prefix)
        else:
            self._reorder(state_dict, prefix, names)
        state_dict[prefix + "task_names"] = encoded(self.tasks).to(stored.device)

    def _replace_unreadable(self, state_dict: dict[str, Any], prefix: str) -> None:
        """Replace a state whose task names cannot be read by that before the first step."""
        warnings.warn(
            f"the stored task names of this {self.owner} cannot be read, so it is not used and the state is reset: "
            "the buffers were not initialised when they were saved, or were averaged as whole numbers",
            stacklevel=4,
        )
        self.reset()
        state_dict |= {prefix + name: value.clone() for name, value in self.tensors.items() if value is not None}

    def _reorder(self, state_dict: dict[str, Any], prefix: str, names: tuple[str, ...]) -> None:
        """Bring stored tensors with a row for each task into the declared order."""
        if set(names) != set(self.tasks):
            raise ValueError(f"the stored state is of the tasks {names}, this {self.owner} has {self.tasks}")
        order = [names.index(name) for name in self.tasks]
        for name, tensor in self.tensors.items():
            value = state_dict.get(prefix + name)
            if tensor is None or not isinstance(value, Tensor) or name == "task_names":
                continue
            if 0 in (tensor.numel(), value.numel()):
                # Rows of n numbers, of which n was not known.
                self.tensors[name] = tensor.new_empty(value.shape, dtype=value.dtype)
            if order != sorted(order):
                state_dict[prefix + name] = self._ordered(name, value, order)

    def _ordered(self, name: str, value: Tensor, order: list[int]) -> Tensor:
        """The value of a tensor with its tasks in another order; unchanged where it has no row for each task."""
        count = len(order)
        if value.shape[:1] != (count,):
            return value
        first = {f"state_{field}": like.shape for field, like in named_tensors(self._template).items()}
        square = first.get(name) == (count, count)  # rows of n numbers have no columns at first
        return value[order][:, order] if square else value[order]


def encoded(tasks: Sequence[str]) -> Tensor:
    """(n,) the names as bytes, in float64 like the state.

    Whole numbers up to 255 are exact in float16 and bfloat16, and the rounded average of equal ones is the same number: so names
    survive casts, safetensors, broadcasts and averages of buffers, which turn 97 into 96 where they are integers.
    """
    return torch.tensor(list("\n".join(tasks).encode()), dtype=torch.float64)


def decoded(names: Tensor) -> tuple[str, ...] | None:
    """The names that :func:`encoded` wrote, in any dtype; None where these are not names."""
    if names.is_meta:
        return None
    values = names.detach().to("cpu", torch.float64)
    codes = values.round()
    if not bool(((codes - values).abs() <= 0.25).all() & (codes >= 0).all() & (codes <= 255).all()):  # False for nan
        return None
    try:
        return tuple(bytes(codes.to(torch.int64).tolist()).decode().split("\n"))
    except UnicodeDecodeError:
        return None
