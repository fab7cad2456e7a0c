"""Writing of ``run.json``, ``events.jsonl`` and ``result.json`` during a run."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from paretorch.storage import atomic
from paretorch.storage.json_files import parse_json, to_json
from paretorch.storage.locks import acquire_lock, check_held
from paretorch.storage.regular_files import read_regular
from paretorch.storage.seals import Chain
from paretorch.training.names.workloads import data_digest, digest
from paretorch.training.record.result import Epoch, Result
from paretorch.training.record.run_identity import (
    DATA,
    RUN,
    accepted_owners,
    check_data,
    check_run,
    check_source,
    foreign_file_error,
    plain_values,
    read_run,
    run_digest,
    verified_result,
    write_run,
)
from paretorch.training.run import Run

CHAINED = "events are chained"  # in run.json: each line about an epoch has a digest of all lines before and of itself
STEP_LINES = 150  # at most, for any number of steps: enough for a curve
SEARCH_LINES = 300  # at most with a line search, whose steps are points of a plot
STEP_SECONDS = 1.0  # between two writes of lines about steps; those after the last checkpoint are written again anyway
STEP_BYTES = 3_000_000  # of all lines about steps, at most: a line grows with the number of tasks


StepNumbers = Callable[[], Mapping[str, Any]]
"""Returns the numbers of a step that are written."""


class RunRecord:
    """The files of one run during training; they are locked, so that one process at a time writes them.

    Args:
        folder: the run's folder; made if necessary.
        run: what is trained.
        about: further facts for ``run.json``: versions, commit, machine.

    Raises:
        ValueError: the folder contains another run, files of a run without ``run.json``, or a run whose workload's file has
            changed since.
        BlockingIOError: another process trains in this folder.
        OSError: a file that the run writes is a link.
        MovedFolderError: the folder of the study that contains it was moved, removed or replaced.

    Attributes:
        digest: of the run; None if an earlier version started it. See :mod:`paretorch.training.record.run_identity`.
        owners: the runs, as JSON objects, to which its files may belong, with their digests; the run itself is the first.
    """

    def __init__(self, folder: Path, run: Run, about: Mapping[str, Any]) -> None:
        self.folder = folder
        self._steps: list[tuple[int, int, StepNumbers]] = []  # that are not written yet
        self._flushed = time.monotonic()
        atomic.make_folder(folder)  # not below a study's folder that was moved
        message = f"another process is training in {folder}: wait for it, or train into another folder"
        self._lock = acquire_lock(folder / ".lock", message)
        try:
            source = digest(run.workload)
            started = read_run(folder)
            if started is None:
                _check_unused(folder)
                data = data_digest(run.workload, run.options)
                self.digest: str | None = run_digest(plain_values(run), source, data)
                names = {"key": run.key, "source": source, DATA: data, "digest": self.digest, CHAINED: True}
                started = {"run": run.to_json(), **names} | dict(about)
                write_run(folder, started)
            else:
                check_run(folder, started["run"], run)
                check_source(folder, run, started.get("source"), source)
                check_data(folder, run, started.get(DATA))
                self.digest = started.get("digest")
            self.owners = accepted_owners(started)
            self._chain = Chain() if started.get(CHAINED) else None
            self._events = atomic.open_to_append(folder / "events.jsonl")
        except BaseException:
            self._lock.release()
            raise

    def __enter__(self) -> RunRecord:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if self._events.closed or error is None:
                return
            with contextlib.suppress(OSError):  # the error that ended the run is raised
                self._flush()
        finally:
            self._events.close()
            self._lock.release()

    def rewind(self, epochs: int) -> tuple[Epoch, ...]:
        """Removes the lines after the first ``epochs`` epochs, which are trained again, and returns those epochs.

        Raises:
            ValueError: lines of these epochs are missing, or belong to another run.
        """
        path = self.folder / "events.jsonl"
        kept: list[bytes] = []
        history: list[Epoch] = []
        content = read_regular(path)
        chain = None if self._chain is None else Chain()
        for line in content.splitlines(keepends=True):
            if len(history) == epochs:
                break
            event = _parse_event(line)
            if event is None or event["epoch"] > epochs:
                break
            kept.append(line)
            is_linked = chain is not None and chain.verify(line)
            if event.pop("event") == "epoch":
                if event.pop(RUN, None) not in [digest for _, digest in self.owners]:
                    raise foreign_file_error(path)
                if chain is not None and not is_linked:
                    raise self._damaged(f"a line up to epoch {event['epoch']} differs from what was written")
                try:
                    history.append(Epoch.from_json({name: value for name, value in event.items() if name != "chain"}))
                except (ValueError, RecursionError) as error:
                    raise self._damaged(f"a line is no epoch ({error})") from None
        if epochs and not content:
            raise self._damaged(
                f"expected the epochs 1 to {epochs} of the checkpoint, got none: it was removed or emptied"
            )
        if [epoch.epoch for epoch in history] != list(range(1, epochs + 1)):
            found = [epoch.epoch for epoch in history]
            raise self._damaged(f"expected the epochs 1 to {epochs} of the checkpoint, got {found}")
        if b"".join(kept) != content:
            self._events.close()
            atomic.write(path, b"".join(kept))
            self._events = atomic.open_to_append(path)
        self._chain = chain
        return tuple(history)

    def _damaged(self, reason: str) -> ValueError:
        cure = f"Remove the folder {self.folder} to start this run again"
        return ValueError(f"{self.folder / 'events.jsonl'} is damaged: {reason}. {cure}")

    def step(self, epoch: int, step: int, numbers: StepNumbers) -> None:
        """Adds a line about a step, counted from 0 over the whole run; written after a second or with the epoch's line.

        ``numbers`` is called when the line is written: reading the numbers of many steps at a time costs a fraction.
        """
        self._steps.append((epoch, step, numbers))
        if time.monotonic() - self._flushed > STEP_SECONDS:
            self._flush()

    def epoch(self, epoch: Epoch) -> None:
        """Writes a line about an epoch."""
        owner = {} if self.digest is None else {RUN: self.digest}
        self._flush({"event": "epoch"} | to_json(epoch) | owner)

    def sync(self) -> None:
        """Forces all lines to the disk: a checkpoint that follows relies on them.

        Raises:
            MovedFolderError: the run's folder was moved, removed or replaced.
            OSError: ``events.jsonl`` was, or the disk is full.
        """
        self._check_events()
        os.fsync(self._events.fileno())

    def finish(self, result: Result) -> None:
        """Writes ``result.json``, which marks the run as finished.

        Raises:
            OSError: see :meth:`sync`.
        """
        self._check_events()
        result.save(self.folder)

    def _check_events(self) -> None:
        """Checks that ``events.jsonl`` is the file to which this object writes."""
        path = self.folder / "events.jsonl"
        check_held(path)
        try:
            is_open = os.path.samestat(path.lstat(), os.fstat(self._events.fileno()))
        except FileNotFoundError:
            is_open = False
        if not is_open:
            raise OSError(
                errno.ESTALE,
                f"{path} was moved, removed or replaced while this run was writing to it, so the run has stopped. Restore it and "
                f"run the same command again, which resumes; or remove the folder {self.folder} to start this run again",
            )

    def _flush(self, *last: Mapping[str, Any]) -> None:
        self._check_events()
        waiting, self._steps = self._steps, []
        events = [
            to_json({"event": "step", "epoch": epoch, "step": step} | dict(numbers()))
            for epoch, step, numbers in waiting
        ]
        chain = None if self._chain is None else self._chain.copy()
        lines = [*map(_line, events), *map(_line, last)]
        if chain is not None:
            lines = [chain.add(line) for line in lines[: len(events)]] + [
                chain.linked(line) for line in lines[len(events) :]
            ]
        text = b"".join(lines)
        self._flushed = time.monotonic()
        end = self._events.seek(0, os.SEEK_END)
        try:
            written = self._events.write(text)
            if written != len(text):  # a disk that fills up accepts a part and raises with the next write
                self._events.write(text[written:])
        except OSError as error:
            with contextlib.suppress(OSError):
                self._events.truncate(end)
            raise atomic.disk_full_error(error, self.folder / "events.jsonl") from error
        self._chain = chain


class SilentRecord:
    """The record of a rank that writes no files.

    Args:
        folder: the run's folder.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.digest: str | None = None
        self.owners: list[tuple[Mapping[str, Any], str | None]] = []

    def __enter__(self) -> SilentRecord:
        return self

    def __exit__(self, *error: object) -> None:
        """Does nothing."""

    def rewind(self, epochs: int) -> tuple[Epoch, ...]:
        """Returns no epochs: the first rank has them."""
        del epochs
        return ()

    def step(self, epoch: int, step: int, numbers: StepNumbers) -> None:
        """Does nothing."""

    def epoch(self, epoch: Epoch) -> None:
        """Does nothing."""

    def finish(self, result: Result) -> None:
        """Does nothing."""


def step_interval(steps: int, tasks: tuple[str, ...], line_search: bool = False) -> int:
    """The number of steps between two lines about steps, chosen so that all lines together remain small.

    Args:
        steps: of the whole run.
        tasks: (T,) names; each line has numbers for each task.
        line_search: whether each line has the numbers and reasons of a line search.

    Example:
        >>> step_interval(100_000, ("left", "right"))
        667
    """
    numbers, fixed, most = (4, 700, SEARCH_LINES) if line_search else (2, 160, STEP_LINES)
    line = fixed + sum(numbers * (len(task) + 18) for task in tasks)
    lines = max(1, min(most, STEP_BYTES // line))
    return max(1, -(-steps // lines))


def _check_unused(folder: Path) -> None:
    """Refuses a folder with files of a run but no ``run.json``: whether they belong to this run is unknown."""
    for name in ("events.jsonl", "result.json", "checkpoint"):
        if os.path.lexists(folder / name):
            raise ValueError(
                f"{folder} contains {name} but no run.json, so the run that it belongs to is unknown. Restore run.json, train "
                "into another folder, or remove this one"
            )


def _line(event: Mapping[str, Any]) -> bytes:
    return json.dumps(event, allow_nan=False).encode() + b"\n"


def _parse_event(line: bytes) -> dict[str, Any] | None:
    """The event in a line; None if the line is incomplete or no event."""
    try:
        event = parse_json(line)
    except ValueError:
        return None
    is_event = isinstance(event, dict) and isinstance(event.get("epoch"), int) and isinstance(event.get("event"), str)
    return event if is_event and line.endswith(b"\n") else None


def finished_result(folder: Path, run: Run) -> Result | None:
    """The result of ``run`` if ``folder`` contains it; None if it is not finished.

    Raises:
        ValueError: a file in the folder belongs to another run, or the workload's file or a data file has changed since.
    """
    if not (folder / "result.json").exists():
        return None
    result = verified_result(folder, run)
    started = read_run(folder) or {}
    check_source(folder, run, started.get("source"), digest(run.workload))
    check_data(folder, run, started.get(DATA))
    return result
