"""Runs of the small workload of ``training_workload.py``, and their interruption at the end of an epoch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from paretorch.training.loop import train
from paretorch.training.record.result import Result
from paretorch.training.run import Run

TINY_FILE = Path(__file__).parent / "training_workload.py"
TINY = str(TINY_FILE)


class KilledError(Exception):
    """Represents a signal that kills a training."""


def stop_after(epochs: int, of: int) -> Callable[[int, int], None]:
    """A progress function that interrupts a run of ``of`` epochs after ``epochs`` epochs."""

    def progress(done: int, planned: int) -> None:
        assert planned == of
        if done == epochs:
            raise KeyboardInterrupt

    return progress


def check_resumed_run(run: Run, folder: Path, epochs: int) -> None:
    """Trains a run, and again with an interruption after ``epochs`` epochs; losses and test scores must be equal.

    Args:
        run: of more than ``epochs`` epochs.
        folder: for both runs.
        epochs: before the interruption.
    """
    whole = train(run, folder / "whole", progress=None)
    with pytest.raises(KeyboardInterrupt):
        train(run, folder / "stopped", progress=stop_after(epochs, of=run.epochs))
    check_equal_results(train(run, folder / "stopped", progress=None), whole)


def check_equal_results(result: Result, expected: Result) -> None:
    assert result.test == expected.test
    assert [epoch.losses for epoch in result.history] == [epoch.losses for epoch in expected.history]
