"""Conversion of nested state to a JSON value and named tensors, and back."""

from __future__ import annotations

from typing import Any

from torch import Tensor


def pack(tree: Any) -> tuple[Any, dict[str, Tensor]]:
    """Splits ``tree`` into a JSON value and its tensors by name.

    Args:
        tree: dicts with keys of any plain type, lists, tuples, numbers, strings, None, tensors.

    Raises:
        TypeError: it contains another type.

    Example:
        >>> import torch
        >>> value, tensors = pack({0: {"step": torch.tensor(3.0)}, "betas": (0.9, 0.99)})
        >>> sorted(tensors), unpack(value, tensors)
        (['0/step'], {0: {'step': tensor(3.)}, 'betas': (0.9, 0.99)})
    """
    tensors: dict[str, Tensor] = {}
    return _pack(tree, "", tensors), tensors


def _pack(tree: Any, path: str, tensors: dict[str, Tensor]) -> Any:
    if isinstance(tree, Tensor):
        # a copy: tied tensors share memory, which safetensors refuses
        tensors[path] = tree.detach().to("cpu", copy=True).contiguous()
        return {"tensor": path}
    if isinstance(tree, dict):
        return {"dict": [[key, _pack(value, _join(path, key), tensors)] for key, value in tree.items()]}
    if isinstance(tree, list | tuple):
        kind = "list" if isinstance(tree, list) else "tuple"
        return {kind: [_pack(value, _join(path, index), tensors) for index, value in enumerate(tree)]}
    if tree is None or isinstance(tree, bool | int | float | str):
        return tree
    raise TypeError(f"cannot save {path or 'this'}: expected a tensor or a plain value, got {type(tree).__name__}")


def _join(path: str, key: object) -> str:
    return f"{path}/{key}" if path else str(key)


def unpack(value: Any, tensors: dict[str, Tensor]) -> Any:
    """The inverse of :func:`pack`."""
    if not isinstance(value, dict):
        return value
    (kind, content), *_ = value.items()
    if kind == "tensor":
        return tensors[content]
    if kind == "dict":
        return {key: unpack(item, tensors) for key, item in content}
    items = [unpack(item, tensors) for item in content]
    return items if kind == "list" else tuple(items)
