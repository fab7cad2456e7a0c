"""The training of a study's worker that receives a signal where a file names it.

The folder in the environment variable ``WORKER_FAULTS`` has a file for each signal, whose name is the number of the operation on
files of the run and the signal: ``17-SIGSEGV``. A worker that begins a run removes one of the files and receives that signal.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from paretorch.studies.worker import train_with_rare_checkpoints
from paretorch.training.run import Run

FAULTS = "WORKER_FAULTS"


def train(run: Run, folder: Path, *, progress: Callable[[int, int], None]) -> object:
    """Trains a run as the worker of every study does."""
    for path in sorted(Path(os.environ[FAULTS]).iterdir()):
        with contextlib.suppress(FileNotFoundError):  # another worker has removed it
            path.unlink()
            number, _, name = path.name.partition("-")
            sys.addaudithook(_Countdown(str(folder), int(number), signal.Signals[name]))
            break
    return train_with_rare_checkpoints(run, folder, progress=progress)


class _Countdown:
    """Sends a signal to its own process at an operation on a file of a folder."""

    def __init__(self, folder: str, number: int, sent: signal.Signals) -> None:
        self.folder, self.left, self.sent = folder, number, sent

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event in ("open", "os.rename", "os.mkdir") and str(arguments[0]).startswith(self.folder):
            self.left -= 1
            if self.left == 0:
                os.kill(os.getpid(), self.sent)
