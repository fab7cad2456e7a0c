"""The gradients of several tasks in one block of memory."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

FEWEST_ROWS = 3  # fewer are read one by one: to bring them together would cost more than it saves
WIDE = (torch.float32, torch.float64)


class RowStack:
    """A (k, n) block with the gradients of k tasks on the same leaves, leaf after leaf.

    Each gradient is copied when it is computed and can then be freed. Products and combinations then read contiguous rows, and
    the memory of one block is returned as a whole, while that of many tensors stays with the allocator in parts.

    Args:
        tasks: k.
        leaves: of one dtype, on one device.
    """

    def __init__(self, tasks: int, leaves: Sequence[Tensor]) -> None:
        self._shapes = [leaf.shape for leaf in leaves]
        self._sizes = [leaf.numel() for leaf in leaves]
        self.rows = torch.empty(tasks, sum(self._sizes), dtype=leaves[0].dtype, device=leaves[0].device)

    def store(self, place: int, row: Sequence[Tensor | None]) -> list[Tensor | None]:
        """Copy one task's gradient, leaf by leaf, into a row; the result has the same form, in the memory of the block."""
        views = self.rows[place].split(self._sizes)
        for view, part in zip(views, row, strict=True):
            if part is None:
                view.zero_()
            else:
                view.copy_(part.reshape(-1))
        return [
            None if part is None else view.view(shape)
            for view, part, shape in zip(views, row, self._shapes, strict=True)
        ]


def can_stack(tasks: int, leaves: Sequence[Tensor]) -> bool:
    """Whether a :class:`RowStack` of so many tasks is of use for these leaves."""
    first = leaves[0]
    return (
        tasks >= FEWEST_ROWS
        and first.dtype in WIDE
        and all(leaf.dtype == first.dtype and leaf.device == first.device for leaf in leaves)
    )
