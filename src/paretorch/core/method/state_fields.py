"""The tensors of a method's state by name: a state is a NamedTuple of tensors, or of such states where methods compose."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import Tensor


def named_tensors(state: Any) -> dict[str, Tensor]:
    """The tensors of a state by name, field by field; the fields of a nested state are called ``outer__inner``.

    Example:
        >>> from typing import NamedTuple
        >>> import torch
        >>> class Inner(NamedTuple):
        ...     mean: Tensor
        >>> class Outer(NamedTuple):
        ...     count: Tensor
        ...     nested: Inner | None
        >>> list(named_tensors(Outer(torch.zeros(1), Inner(torch.zeros(2)))))
        ['count', 'nested__mean']
    """
    if state is None:
        return {}
    found: dict[str, Tensor] = {}
    for name, value in state._asdict().items():
        if isinstance(value, Tensor):
            found[name] = value
        else:
            found |= {f"{name}__{inner}": tensor for inner, tensor in named_tensors(value).items()}
    return found


def rebuilt(like: Any, tensors: Iterator[Tensor]) -> Any:
    """A state of the structure of ``like``, with the next of the tensors in the order of :func:`named_tensors`."""
    if like is None:
        return None
    parts = [next(tensors) if isinstance(value, Tensor) else rebuilt(value, tensors) for value in like]
    return type(like)(*parts)
