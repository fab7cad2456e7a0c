"""The leaves of features in any nesting, objects included, and the same nesting filled with other leaves."""

from __future__ import annotations

import copy
import enum
import types
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_unflatten

Fill = Callable[[Sequence[Any]], Any]  # from the leaves to the nesting

CONTAINERS = (Mapping, list, tuple, set, frozenset)  # leaves, where they are of classes that pytree does not know
# Leaves without fields, or without fields that are features.
PLAIN = (
    Tensor, nn.Module, *CONTAINERS, str, bytes, bytearray, int, float, complex, type(None), enum.Enum, type, types.ModuleType,
    types.FunctionType, types.BuiltinFunctionType, types.MethodType, partial, np.ndarray, np.generic, range, slice,
    torch.dtype, torch.device, torch.Size, torch.layout, torch.Generator,
)  # fmt: skip


def opened(features: Any, wanted: Callable[[Any], bool]) -> tuple[list[Any], Fill]:
    """The leaves of nested features, and a function that fills the nesting with others.

    Dicts, lists, tuples and classes that are registered with ``torch.utils._pytree`` are containers. The fields of any other
    object in them are searched, at any depth; where a field contains a wanted leaf, filling makes a shallow copy of the object
    with these fields replaced.

    Args:
        features: any nesting.
        wanted: which leaves are to be replaced.

    Raises:
        ValueError: on an object that contains a wanted leaf and cannot be copied, or that contains itself.
    """
    return _opened(features, wanted, (), set())


def has_fields(leaf: Any) -> bool:
    """Whether a leaf is an object with fields that may hold tensors."""
    return not isinstance(leaf, PLAIN) and bool(_fields(leaf))


def _opened(
    nesting: Any, wanted: Callable[[Any], bool], outer: tuple[Any, ...], circles: set[int]
) -> tuple[list[Any], Fill]:
    leaves, spec = tree_flatten(nesting)
    if not any(map(has_fields, leaves)):
        return leaves, partial(tree_unflatten, treespec=spec)
    parts = [_opened_object(leaf, wanted, outer, circles) if has_fields(leaf) else ([leaf], _only) for leaf in leaves]

    def fill(values: Sequence[Any]) -> Any:
        remaining = iter(values)
        return tree_unflatten([filled([next(remaining) for _ in found]) for found, filled in parts], spec)

    return [leaf for found, _ in parts for leaf in found], fill


def _opened_object(
    whole: Any, wanted: Callable[[Any], bool], outer: tuple[Any, ...], circles: set[int]
) -> tuple[list[Any], Fill]:
    """The leaves in an object's fields, or the object as a leaf where none of them is wanted."""
    if any(whole is other for other in outer):
        circles.add(id(whole))
        return [whole], _only
    found: list[list[Any]] = []
    fills: list[tuple[str, Fill]] = []
    for name, value in _fields(whole).items():
        leaves, fill = _opened(value, wanted, (*outer, whole), circles)
        for leaf in leaves:
            if isinstance(leaf, CONTAINERS) and any(map(wanted, _content(leaf))):
                raise ValueError(
                    _refused(whole, name, f"is in a {type(leaf).__name__}, which cannot be filled with other values")
                )
        if any(map(wanted, leaves)):
            found.append(leaves)
            fills.append((name, fill))
    if not found:
        return [whole], _only
    if id(whole) in circles:  # a copy would refer to the original
        raise ValueError(_refused(whole, fills[0][0], "is in a circle of references"))

    def filled(values: Sequence[Any]) -> Any:
        remaining = iter(values)
        fields = {
            name: fill([next(remaining) for _ in leaves]) for (name, fill), leaves in zip(fills, found, strict=True)
        }
        return _replaced(whole, fields)

    return [leaf for leaves in found for leaf in leaves], filled


def _fields(whole: Any) -> dict[str, Any]:
    """An object's attributes: those of its ``__dict__`` and its slots, without properties."""
    found = dict(getattr(whole, "__dict__", {}))
    for kind in type(whole).__mro__:
        slots = kind.__dict__.get("__slots__", ())
        for slot in (slots,) if isinstance(slots, str) else slots:
            name = f"_{kind.__name__.lstrip('_')}{slot}" if slot.startswith("__") and not slot.endswith("__") else slot
            if name not in ("__dict__", "__weakref__") and name not in found and hasattr(whole, name):
                found[name] = getattr(whole, name)
    return found


def _replaced(whole: Any, fields: dict[str, Any]) -> Any:
    """A shallow copy with other values in some fields, also of an object that forbids assignment."""
    name = next(iter(fields))
    try:
        other = copy.copy(whole)
        if other is whole:
            raise TypeError("copy.copy gives the object itself")
        for name, value in fields.items():
            if name in getattr(other, "__dict__", {}):
                other.__dict__[name] = value
            else:
                object.__setattr__(other, name, value)
    except Exception as error:
        raise ValueError(_refused(whole, name, f"cannot be replaced ({type(error).__name__}: {error})")) from error
    return other


def _refused(whole: Any, name: str, why: str) -> str:
    kind = type(whole).__name__
    return (
        f"fork(features) got a {kind} whose field {name!r} contains a tensor that requires grad, which {why}: pass the "
        f"tensors themselves in a dict, list or tuple, and build the {kind} for each task from its branch"
    )


def _content(container: Any) -> list[Any]:
    return tree_flatten(list(container.values() if isinstance(container, Mapping) else container))[0]


def _only(values: Sequence[Any]) -> Any:
    return values[0]
