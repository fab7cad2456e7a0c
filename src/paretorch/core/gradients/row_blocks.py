"""The gradients of several tasks in blocks of memory."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

import torch
from torch import Tensor

FEWEST_ROWS = 3  # fewer are read one by one: to bring them together would cost more than it saves
WIDE = (torch.float32, torch.float64)


class RowBlock:
    """A (k, n) block with the gradients of k tasks on the same leaves, leaf after leaf.

    Each gradient is copied when it is computed and can then be freed. Products and combinations then read contiguous rows, and
    the memory of one block is returned as a whole, while that of many tensors stays with the allocator in parts.

    Args:
        tasks: k.
        leaves: of one dtype, on one device.
        places: of these leaves among all leaves.
    """

    def __init__(self, tasks: int, leaves: Sequence[Tensor], places: Sequence[int]) -> None:
        self.places = list(places)
        self._shapes = [leaf.shape for leaf in leaves]
        *self._starts, size = accumulate((leaf.numel() for leaf in leaves), initial=0)
        self.rows = torch.empty(tasks, size, dtype=leaves[0].dtype, device=leaves[0].device)

    def view(self, task: int, number: int) -> Tensor:
        """The row of a task on the leaf of this number in the block, in the leaf's shape."""
        start, shape = self._starts[number], self._shapes[number]
        return self.rows[task, start : start + shape.numel()].view(shape)

    def columns(self) -> dict[int, Tensor]:
        """(k, n_i) the rows on each leaf, by its place among all leaves."""
        parts = self.rows.split([shape.numel() for shape in self._shapes], dim=1)
        return dict(zip(self.places, parts, strict=True))


def can_block(tasks: int, leaves: Sequence[Tensor]) -> bool:
    """Whether a :class:`RowBlock` of so many tasks is of use for these leaves."""
    first = leaves[0]
    return (
        tasks >= FEWEST_ROWS
        and first.dtype in WIDE
        and all(leaf.dtype == first.dtype and leaf.device == first.device for leaf in leaves)
    )
