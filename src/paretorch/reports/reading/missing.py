"""Runs without a result: those that failed, with their traceback, and those that are not finished."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from paretorch.studies.failure_record import read_failure
from paretorch.training.run import Run


@dataclass(frozen=True)
class Missing:
    """A run without a result.

    Args:
        label: of its treatment.
        run: that was planned.
        folder: of the run; None if none was planned, as in sets of single runs with different seeds.
        error: that it raised, one line; empty if it did not fail.
        traceback: of the error.
    """

    label: str
    run: Run
    folder: Path | None
    error: str = ""
    traceback: str = ""

    @property
    def name(self) -> str:
        """Its folder's name."""
        return self.folder.name if self.folder is not None else f"seed {self.run.seed}"

    @property
    def reason(self) -> str:
        """The reason for the missing result."""
        if self.error:
            return self.error
        return "not trained" if self.folder is None or not self.folder.exists() else "not finished"


def missing(label: str, run: Run, folder: Path | None) -> Missing:
    """The record of a run without a result.

    Raises:
        ValueError: the record of a failure is damaged, or belongs to another run.
    """
    failure = None if folder is None else read_failure(folder, run)
    if failure is None:
        return Missing(label, run, folder)
    return Missing(label, run, folder, failure.error, failure.traceback)
