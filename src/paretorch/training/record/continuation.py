"""Continuation of a run with more epochs than before.

Nothing is changed before the longer run could start: its data are read, and the checkpoint is valid. The folder of the run is
then changed in two steps, each of which leaves a valid folder: ``result.json`` is removed, so that the run
is unfinished, and ``run.json`` is replaced by that of the longer run, with the earlier number of epochs in it. Events and
checkpoints are unchanged. The longer run then resumes from its last checkpoint.

The numbers are those of an uninterrupted run, so schedules of the learning rate that depend on the number of all epochs are
refused.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path

from paretorch.storage import atomic, checkpoint_folder
from paretorch.storage.locks import HeldLock, acquire_lock
from paretorch.training.names.workloads import digest
from paretorch.training.record.run_identity import (
    CONTINUED,
    DATA,
    accepted_owners,
    check_data,
    check_source,
    plain_values,
    read_run,
    run_digest,
    verified_result,
    write_run,
)
from paretorch.training.run import Run

COPIED = ("run.json", "events.jsonl", "checkpoint", "best")


def can_be_continued(folder: Path, run: Run) -> bool:
    """Whether a folder has ``run`` with fewer epochs, finished or not.

    Raises:
        ValueError: it has, and the learning rate depends on the number of epochs; or a file is damaged.
    """
    earlier = shorter_run(folder, run)
    if earlier is None:
        return False
    if reason := why_not_continued(run):
        raise ValueError(
            f"{folder} contains this run with {earlier.epochs} epochs, and it cannot be continued to {run.epochs}: {reason}. "
            "Train into another folder (--out), or keep the number of epochs"
        )
    return True


def continue_run(folder: Path, run: Run) -> None:
    """Prepares the folder of a run with fewer epochs, finished or not, for ``run``; does nothing in other folders.

    Args:
        folder: of the run.
        run: the same run with more epochs.

    Raises:
        ValueError: see :func:`can_be_continued`; or the workload's file or a data file has changed.
        BlockingIOError: another process trains in this folder.
    """
    if not can_be_continued(folder, run):
        return
    with _locked(folder):
        started, earlier = read_run(folder), shorter_run(folder, run)
        if started is None or earlier is None:  # another process has continued it meanwhile
            return
        source = started.get("source")
        check_source(folder, run, source, digest(run.workload))
        check_data(folder, run, started.get(DATA))
        checkpoint_folder.load_latest(folder / "checkpoint", accepted_owners(started), previous=True)
        if (folder / "result.json").exists():
            verified_result(folder, earlier)
            atomic.remove_file(folder / "result.json")
        values = started | {"run": plain_values(run), "key": run.key}
        values[CONTINUED] = [*started.get(CONTINUED, ()), earlier.epochs]
        if started.get("digest") is not None:
            values["digest"] = run_digest(values["run"], source, started.get(DATA))
        write_run(folder, values)


def shorter_run(folder: Path, run: Run) -> Run | None:
    """The run in a folder if it differs from ``run`` only in its number of epochs, which is smaller; else None.

    Raises:
        ValueError: ``run.json`` is damaged.
    """
    started = read_run(folder)
    if started is None or run.front or {**started["run"], "epochs": run.epochs} != plain_values(run):
        return None
    epochs = started["run"]["epochs"]
    return replace(run, epochs=epochs) if epochs < run.epochs else None


def why_not_continued(run: Run) -> str:
    """Why the first epochs of a run depend on the number of all of them; an empty text if they do not."""
    if run.schedule == "cosine":
        return "a cosine schedule depends on the number of all epochs; constant and step schedules do not"
    if run.warmup:
        return f"warmup={run.warmup:g} is a share of all epochs; without warm-up, a run can be continued"
    return ""


def copy_run(source: Path, target: Path) -> None:
    """Copies the run in ``source``, without its result, to a new folder, which appears when it is complete.

    Does nothing if ``target`` exists: another process has copied it.

    Raises:
        BlockingIOError: another process trains in ``source``.
    """
    with _locked(source):
        if target.exists():
            return
        partial = target.with_name(f".{target.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        for name in COPIED:
            if (source / name).is_dir():
                shutil.copytree(source / name, partial / name)
            elif (source / name).exists():
                shutil.copy2(source / name, partial / name)
        os.replace(partial, target)


def _locked(folder: Path) -> HeldLock:
    message = f"another process is training in {folder}: wait for it, or train into another folder"
    return acquire_lock(folder / ".lock", message)
