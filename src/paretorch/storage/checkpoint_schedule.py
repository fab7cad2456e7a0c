"""When a training that can be killed keeps its state: so rarely that it costs next to nothing."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager


class CheckpointSchedule:
    """Whether an epoch is followed by a checkpoint.

    Args:
        every: epochs from one to the next; None: as many as keep the share of time that they take below one hundredth.
        guess: seconds that one takes, before the first was measured.

    Example:
        >>> due = CheckpointSchedule(3)
        >>> [epoch for epoch in range(1, 8) if due(epoch)]
        [3, 6]
    """

    SHARE = 0.01

    def __init__(self, every: int | None, guess: float = 0.05) -> None:
        self.every, self.cost, self.last = every, guess, time.perf_counter()

    def __call__(self, epoch: int) -> bool:
        """Whether there is one after so many epochs."""
        if self.every is not None:
            return epoch % self.every == 0
        return self.cost <= self.SHARE * (time.perf_counter() - self.last)

    @contextmanager
    def measured(self) -> Iterator[None]:
        """Learns what a checkpoint costs."""
        began = time.perf_counter()
        yield
        self.last = time.perf_counter()
        self.cost = self.last - began
