"""The record of a failed run, ``failed.json`` in its folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from paretorch.storage import atomic
from paretorch.storage.damage import naming_damaged
from paretorch.storage.json_files import read_json, write_json
from paretorch.storage.seals import SEAL, check_seal, sealed
from paretorch.storage.value_types import typed
from paretorch.training.record.run_identity import check_run
from paretorch.training.run import Run

FILE = "failed.json"


@dataclass(frozen=True)
class FailureRecord:
    """Why the last attempt of a run failed.

    Args:
        error: one line.
        traceback: of the error, or the output of a process that ended by itself.
        diverged: whether the run was stopped because its parameters became nan.
    """

    error: str
    traceback: str
    diverged: bool = False


def write_failure(folder: Path, run: Run, failure: FailureRecord) -> None:
    """Writes the record of a run's failure into its folder, which is made if necessary.

    Raises:
        MovedFolderError: the folder, or that of its study, was moved, removed or replaced during the training.
    """
    atomic.make_folder(folder)
    content: dict[str, Any] = {"run": run.to_json(), "error": failure.error, "traceback": failure.traceback}
    if failure.diverged:
        content["diverged"] = True
    write_json(folder / FILE, sealed(content), allow_nan=True)


def read_failure(folder: Path, run: Run) -> FailureRecord | None:
    """The record of a run's failure; None if there is none.

    Raises:
        ValueError: the record is damaged, or belongs to another run.
    """
    path = folder / FILE
    try:
        with naming_damaged(path, "Remove it; the study's command trains the run again"):
            record = dict(read_json(path, allow_nan=True))
            check_seal(record, required=True)
            del record[SEAL]
            found = typed(record.pop("run"), dict[str, Any])
            failure: FailureRecord = typed(record, FailureRecord)
    except FileNotFoundError:
        return None
    check_run(path, found, run)
    return failure
