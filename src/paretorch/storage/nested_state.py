"""Any nesting of plain values and tensors as JSON plus named tensors, and back: what pickle is not needed for."""

from __future__ import annotations

from typing import Any

from torch import Tensor


def pack(tree: Any) -> tuple[Any, dict[str, Tensor]]:
    """Splits ``tree`` into a JSON value and its tensors.

    Args:
        tree: dicts with keys of any plain type, lists, tuples, numbers, strings, None, tensors.

    Raises:
        TypeError: something else is in it.

    Example:
        >>> import torch
        >>> value, tensors = pack({0: {"step": torch.tensor(3.0)}, "betas": (0.9, 0.99)})
        >>> sorted(tensors), unpack(value, tensors)
        (['0/step'], {0: {'step': tensor(3.)}, 'betas': (0.9, 0.99)})
    """
    tensors: dict[str, Tensor] = {}
    return _pack(tree, "", tensors), tensors


def _pack(tree: Any, place: str, tensors: dict[str, Tensor]) -> Any:
    if isinstance(tree, Tensor):
        # a copy: tied tensors share memory, which the file format refuses
        tensors[place] = tree.detach().to("cpu", copy=True).contiguous()
        return {"tensor": place}
    if isinstance(tree, dict):
        return {"dict": [[key, _pack(value, _below(place, key), tensors)] for key, value in tree.items()]}
    if isinstance(tree, list | tuple):
        kind = "list" if isinstance(tree, list) else "tuple"
        return {kind: [_pack(value, _below(place, index), tensors) for index, value in enumerate(tree)]}
    if tree is None or isinstance(tree, bool | int | float | str):
        return tree
    raise TypeError(f"cannot save {place or 'this'}: expected a tensor or a plain value, got {type(tree).__name__}")


def _below(place: str, key: object) -> str:
    return f"{place}/{key}" if place else str(key)


def unpack(value: Any, tensors: dict[str, Tensor]) -> Any:
    """What :func:`pack` was given."""
    if not isinstance(value, dict):
        return value
    (kind, content), *_ = value.items()
    if kind == "tensor":
        return tensors[content]
    if kind == "dict":
        return {key: unpack(below, tensors) for key, below in content}
    items = [unpack(below, tensors) for below in content]
    return items if kind == "list" else tuple(items)
