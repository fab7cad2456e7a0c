"""When a training writes a checkpoint."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager


class CheckpointSchedule:
    """Decides which epochs are followed by a checkpoint.

    Args:
        every: epochs between two checkpoints; None: as many as keep the time for checkpoints below one hundredth of all time.
        estimate: seconds per checkpoint, before the first is measured.
        last: an epoch that always has a checkpoint; None: no epoch.

    Example:
        >>> schedule = CheckpointSchedule(3)
        >>> [epoch for epoch in range(1, 8) if schedule(epoch)]
        [3, 6]
    """

    SHARE = 0.01

    def __init__(self, every: int | None, estimate: float = 0.05, last: int | None = None) -> None:
        self.every, self.cost, self.last = every, estimate, last
        self.written = time.perf_counter()

    def __call__(self, epoch: int) -> bool:
        """Whether a checkpoint follows this epoch, counted from 1."""
        if epoch == self.last:
            return True
        if self.every is not None:
            return epoch % self.every == 0
        return self.cost <= self.SHARE * (time.perf_counter() - self.written)

    @contextmanager
    def measure(self) -> Iterator[None]:
        """Measures the time for a checkpoint that is written within the block."""
        began = time.perf_counter()
        yield
        self.written = time.perf_counter()
        self.cost = self.written - began
