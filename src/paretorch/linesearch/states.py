"""States of searches as plain values and tensors, which checkpoints can hold, and back."""

from __future__ import annotations

from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

S = TypeVar("S", bound=tuple[Any, ...])


def packed(state: Any) -> dict[str, Any]:
    """A NamedTuple of numbers and arrays, field by field; arrays as tensors."""
    return {
        name: torch.from_numpy(value.copy()) if isinstance(value, np.ndarray) else value
        for name, value in state._asdict().items()
    }


def unpacked(like: S, stored: dict[str, Any]) -> S:
    """The NamedTuple that :func:`packed` was given.

    Raises:
        ValueError: the stored fields are others, or of another size.
    """
    own = packed(like)
    shapes = {name: tuple(v.shape) if isinstance(v, Tensor) else () for name, v in own.items()}
    found = {name: tuple(v.shape) if isinstance(v, Tensor) else () for name, v in stored.items()}
    if shapes != found:
        raise ValueError(f"the stored search is another: expected the fields {shapes}, got {found}")
    values = {name: v.double().numpy().copy() if isinstance(v, Tensor) else v for name, v in stored.items()}
    return type(like)(**{name: tuple(v) if isinstance(v, list) else v for name, v in values.items()})
