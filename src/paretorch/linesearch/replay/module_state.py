"""State of modules in addition to parameters and buffers: plain attributes and random number generators."""

from __future__ import annotations

import dataclasses
import random
import sys
from collections import deque
from collections.abc import Callable, Iterable
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

OWN = frozenset(vars(nn.Module())) | {"forward"}  # attributes of every module; replays assign ``forward``
PLAIN = frozenset({
    int, float, bool, complex, str, bytes, type(None), type(Ellipsis), range, slice, type, torch.dtype, torch.device,
    torch.Size, nn.Parameter, FunctionType, MethodType, BuiltinFunctionType, ModuleType,
})  # fmt: skip
GENERATORS = (np.random.Generator, np.random.RandomState, random.Random, torch.Generator)
# Packages whose objects are not recorded.
FOREIGN = frozenset({"torch", "torchvision", "numpy"}) | sys.stdlib_module_names

ABSENT = object()

Restore = Callable[[], None]


class ModuleState:
    """Snapshot of the state of modules outside parameters and buffers.

    It contains tensors, arrays and generators of random numbers in attributes, in lists, dicts, sets and deques, and in the
    fields of objects of the user's own classes. Numbers and strings are part of it where one of these in the same module changed
    (a position in a cache); a number that changes alone is not, since it can count calls.

    Args:
        modules: with all their submodules.
    """

    def __init__(self, modules: Iterable[nn.Module]) -> None:
        self._visited: set[int] = set()
        self._dicts: list[tuple[dict[str, Any], dict[str, Any]]] = []
        self._containers: list[tuple[Any, Any]] = []
        self._tensors: list[tuple[Tensor, Tensor]] = []
        self._arrays: list[tuple[Any, Any]] = []
        self._generators: list[tuple[Any, Any]] = []
        for module in modules:
            for each in module.modules():
                self._module(each)

    def changed(self) -> tuple[Restore, Restore]:
        """Two functions that restore what has changed since the snapshot: one the snapshot, one the present state."""
        before: list[Restore] = []
        after: list[Restore] = []
        changed_ids: set[int] = set()
        for tensor, value in self._tensors:
            if not torch.equal(tensor.detach(), value):
                changed_ids.add(id(tensor))
                before.append(_setting_tensor(tensor, value))
                after.append(_setting_tensor(tensor, tensor.detach().clone()))
        for array, value in self._arrays:
            if not np.array_equal(array, value):
                changed_ids.add(id(array))
                before.append(_setting_array(array, value))
                after.append(_setting_array(array, array.copy()))
        for generator, state in self._generators:
            if not same_state(now := generator_state(generator), state):
                changed_ids.add(id(generator))
                before.append(_setting_generator(generator, state))
                after.append(_setting_generator(generator, now))
        for container, old in self._containers:
            new = _contents(container)
            same = len(old) == len(new) and all(a is b for a, b in zip(_items(old), _items(new), strict=True))
            if not same and any(_is_state(part) for part in (*_items(old), *_items(new))):
                changed_ids.add(id(container))
                before.append(_setting_contents(container, old))
                after.append(_setting_contents(container, new))
        for owner, old in self._dicts:
            new = _fields(owner)
            keys = [key for key in {**old, **new} if old.get(key, ABSENT) is not new.get(key, ABSENT)]
            if not keys:
                continue
            values = (*(old[key] for key in keys if key in old), *(new[key] for key in keys if key in new))
            if any(map(_is_state, values)) or any(_contains_changed(value, changed_ids) for value in old.values()):
                before.append(_setting_fields(owner, keys, old))
                after.append(_setting_fields(owner, keys, new))
        return _in_order(before), _in_order(after)

    def _module(self, module: nn.Module) -> None:
        if id(module) not in self._visited:
            self._visited.add(id(module))
            fields = _fields(vars(module))
            self._dicts.append((vars(module), fields))
            for value in fields.values():
                if type(value) not in PLAIN:
                    self._value(value, inside=False)

    def _value(self, value: Any, inside: bool) -> None:
        """Records a value; within objects, only tensors, arrays, containers and generators."""
        if type(value) in PLAIN or id(value) in self._visited:
            return
        if isinstance(value, nn.Module):  # in a container, so not a submodule
            for each in value.modules():
                self._module(each)
            return
        self._visited.add(id(value))
        if isinstance(value, Tensor):
            if not isinstance(value, nn.Parameter) and value.layout is torch.strided and value.device.type != "meta":
                self._tensors.append((value, value.detach().clone()))
        elif isinstance(value, np.ndarray):
            if not value.dtype.hasobject:
                self._arrays.append((value, value.copy()))
        elif isinstance(value, GENERATORS):
            self._generators.append((value, generator_state(value)))
        elif isinstance(value, (list, dict, set, deque)):
            self._containers.append((value, _contents(value)))
            for part in _items(value):
                self._value(part, inside)
        elif isinstance(value, (tuple, frozenset)):
            for part in value:
                self._value(part, inside)
        elif not inside and _is_users(value):
            fields = vars(value)
            self._dicts.append((fields, dict(fields)))
            for part in fields.values():
                self._value(part, inside=True)


def _is_state(value: Any) -> bool:
    """Whether a value is state of a forward; plain numbers are not, since they can count calls."""
    if type(value) in PLAIN:
        return False
    if isinstance(value, (Tensor, np.ndarray, *GENERATORS)):
        return True
    if isinstance(value, (list, tuple, dict, set, frozenset, deque)):
        return any(_is_state(part) for part in _items(value))
    return _is_users(value)


def _contains_changed(value: Any, changed_ids: set[int]) -> bool:
    if type(value) in PLAIN:
        return False
    inside = _items(value) if isinstance(value, (list, tuple, dict, set, frozenset, deque)) else ()
    return id(value) in changed_ids or any(_contains_changed(part, changed_ids) for part in inside)


def _fields(owner: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in owner.items() if key not in OWN}


def _is_users(value: Any) -> bool:
    if not hasattr(value, "__dict__") or isinstance(value, (type, ModuleType)):
        return False
    return dataclasses.is_dataclass(value) or type(value).__module__.partition(".")[0] not in FOREIGN


def _contents(container: Any) -> Any:
    """A shallow copy; its items are compared by identity."""
    return dict(container) if isinstance(container, dict) else list(container)


def _items(contents: Any) -> Iterable[Any]:
    return contents.values() if isinstance(contents, dict) else contents


def _setting_fields(owner: dict[str, Any], keys: list[str], values: dict[str, Any]) -> Restore:
    def restore() -> None:
        for key in keys:
            if key in values:
                owner[key] = values[key]
            else:
                owner.pop(key, None)

    return restore


def _setting_contents(container: Any, values: Any) -> Restore:
    def restore() -> None:
        container.clear()
        (container.extend if isinstance(container, (list, deque)) else container.update)(values)

    return restore


def _setting_tensor(tensor: Tensor, value: Tensor) -> Restore:
    def restore() -> None:
        # graphs of the first forward can contain it; its version is kept, since every value is restored
        with torch.no_grad(), torch.autograd._unsafe_preserve_version_counter(tensor):  # type: ignore[attr-defined]
            tensor.copy_(value)

    return restore


def _setting_array(array: Any, value: Any) -> Restore:
    def restore() -> None:
        array[...] = value

    return restore


def _setting_generator(generator: Any, state: Any) -> Restore:
    return lambda: set_generator_state(generator, state)


def _in_order(actions: list[Restore]) -> Restore:
    def restore() -> None:
        for action in actions:
            action()

    return restore


def generator_state(generator: Any) -> Any:
    """The state of a generator of random numbers of Python, numpy or torch."""
    if isinstance(generator, torch.Generator):
        return generator.get_state()
    if isinstance(generator, np.random.Generator):
        return generator.bit_generator.state
    return generator.get_state() if isinstance(generator, np.random.RandomState) else generator.getstate()


def set_generator_state(generator: Any, state: Any) -> None:
    """Sets what :func:`generator_state` returned."""
    if isinstance(generator, np.random.Generator):
        generator.bit_generator.state = state
    elif isinstance(generator, random.Random):
        generator.setstate(state)
    else:
        generator.set_state(state)


def same_state(one: Any, other: Any) -> bool:
    """Whether two states of a generator are equal; they are nested in dicts and tuples, with tensors and arrays."""
    if isinstance(one, Tensor):
        return torch.equal(one, other)
    if isinstance(one, np.ndarray):
        return np.array_equal(one, other)
    if isinstance(one, dict):
        return all(same_state(one[key], other[key]) for key in one)
    if isinstance(one, tuple) and not (one and isinstance(one[0], int)):
        return len(one) == len(other) and all(same_state(*pair) for pair in zip(one, other, strict=True))
    return bool(one == other)
