"""Interruption of a training at the end of an epoch, as by Ctrl-C."""

from __future__ import annotations

from collections.abc import Callable


def stop_after(epochs: int, of: int) -> Callable[[int, int], None]:
    """A progress function that interrupts a run of ``of`` epochs after ``epochs`` epochs."""

    def progress(done: int, planned: int) -> None:
        assert planned == of
        if done == epochs:
            raise KeyboardInterrupt

    return progress
