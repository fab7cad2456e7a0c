"""Running sums over a split, which stay on the device until they are read."""

from __future__ import annotations

import torch
from torch import Tensor


def counted(cells: Tensor, count: int) -> Tensor:
    """(count,) numbers of elements in each cell, as ``torch.bincount``, which waits for the device.

    Args:
        cells: integers in [0, count), of any shape.
        count: of the cells.

    Example:
        >>> counted(torch.tensor([0, 2, 2]), 4)
        tensor([1, 0, 2, 0])
    """
    flat = cells.flatten().long()
    return flat.new_zeros(count).scatter_add_(0, flat, torch.ones_like(flat))


def sum_dtype(values: Tensor) -> torch.dtype:
    """The dtype of sums over a split: float64, or float32 on MPS, which does not have it."""
    return torch.float32 if values.device.type == "mps" else torch.float64


def plus(total: Tensor | None, value: Tensor) -> Tensor:
    """A running sum with one more term; None is an empty sum."""
    return value if total is None else total + value


def ratio(total: Tensor | None, count: Tensor | int | None) -> float:
    """The quotient of two running sums, which waits for the device; nan if the count is zero or an empty sum."""
    return float("nan") if total is None or count is None or not int(count) else float(total) / int(count)
