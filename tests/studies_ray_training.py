"""Training for the tests of lost workers: that of the package, with a checkpoint each epoch and a record of its processes."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from paretorch.training.loop import train as train_run
from paretorch.training.run import Run

PROCESSES = "STUDY_TEST_PROCESSES"  # the environment variable that names the folder of the record


def train(run: Run, folder: Path, *, progress: Callable[[int, int], None]) -> None:
    """Trains a run, or resumes it."""
    with (Path(os.environ[PROCESSES]) / folder.name).open("a") as file:
        file.write(f"{os.getpid()}\n")
    train_run(run, folder, progress=progress)


def last_process(folder: Path) -> int:
    """The process that trained last in a folder of this name."""
    return int((Path(os.environ[PROCESSES]) / folder.name).read_text().split()[-1])
