"""A run on disk: ``run.json``, ``events.jsonl``, ``result.json``; the last is written last and atomically."""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from paretorch.storage import atomic
from paretorch.storage.regular_files import read_regular
from paretorch.training.names.workloads import digest
from paretorch.training.record.claims import RUN, check_run, claimed, digest_of, foreign, read_run
from paretorch.training.record.result import FORMAT, Epoch, Result, to_json
from paretorch.training.run import Run

STEP_LINES = 150  # at most, however many steps a run has: enough for a curve
SEARCH_LINES = 300  # of a line search, whose steps are points of a plot
STEP_SECONDS = 1.0  # that lines about steps may wait: those after the last checkpoint are written again anyway
STEP_BYTES = 3_000_000  # of them all together, at most: a line grows with the number of tasks


Numbers = Callable[[], Mapping[str, Any]]
"""Gives what is written about a step."""


class Record:
    """The files of one run while it is trained; only one process at a time may hold a folder.

    Args:
        folder: the run's folder; made if it is not there.
        run: what is trained.
        about: further facts for ``run.json``: versions, commit, machine.

    Raises:
        ValueError: the folder holds another run, files of a run without its ``run.json``, or the workload's file has changed
            since it was started.
        BlockingIOError: another process is training in this folder.
        OSError: a file of a run's names is a link: it is not written to.

    Attributes:
        digest: of the run; None for one that an earlier version started. See :mod:`paretorch.training.record.claims`.
    """

    def __init__(self, folder: Path, run: Run, about: Mapping[str, Any]) -> None:
        self.folder = folder
        self._steps: list[tuple[int, int, Numbers]] = []  # that are not written yet
        self._flushed = time.monotonic()
        folder.mkdir(parents=True, exist_ok=True)
        message = f"another process is training in {folder}: wait for it, or train into another folder"
        self._lock = atomic.locked(folder / ".lock", message)
        try:
            source = digest(run.workload)
            started = read_run(folder)
            if started is None:
                _check_unused(folder)
                self.digest: str | None = digest_of(json.loads(json.dumps(run.to_json())), source)
                names = {"key": run.key, "source": source, "digest": self.digest}
                values = {"format": FORMAT, "run": run.to_json(), **names} | dict(about)
                atomic.write(folder / "run.json", json.dumps(to_json(values), indent=1).encode())
            else:
                check_run(folder, started["run"], run)
                _same_source(folder, run, started.get("source"), source)
                self.digest = started.get("digest")
            self._events = atomic.appending(folder / "events.jsonl")
        except BaseException:
            atomic.unlock(self._lock)
            raise

    def __enter__(self) -> Record:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if self._events.closed or error is None:
                return
            with contextlib.suppress(OSError):  # what ended the run is the error to see
                self._flush()
        finally:
            self._events.close()
            atomic.unlock(self._lock)

    def rewind(self, epochs: int) -> tuple[Epoch, ...]:
        """Drops the lines after the first ``epochs`` epochs, which will be trained again, and returns those epochs.

        Raises:
            ValueError: the lines of these epochs are not all there, or they are of another run.
        """
        path = self.folder / "events.jsonl"
        kept: list[bytes] = []
        history: list[Epoch] = []
        content = read_regular(path)
        for line in content.splitlines(keepends=True):
            event = _event(line)
            if event is None or event["epoch"] > epochs:
                break
            kept.append(line)
            if event.pop("event") == "epoch":
                if event.pop(RUN, None) != self.digest:
                    raise foreign(path)
                history.append(Epoch.from_json(event))
        if [epoch.epoch for epoch in history] != list(range(1, epochs + 1)):
            raise ValueError(
                f"{path} is damaged: expected the epochs 1 to {epochs} that the checkpoint has seen, got "
                f"{[epoch.epoch for epoch in history]}. Remove the folder {self.folder} to start this run again"
            )
        if b"".join(kept) != content:
            self._events.close()
            atomic.write(path, b"".join(kept))
            self._events = atomic.appending(path)
        return tuple(history)

    def step(self, epoch: int, step: int, numbers: Numbers) -> None:
        """One line about a step, counted from 0 over the whole run; written within a second or so, or with the epoch's.

        The numbers are asked for then: many at a time cost a fraction.
        """
        self._steps.append((epoch, step, numbers))
        if time.monotonic() - self._flushed > STEP_SECONDS:
            self._flush()

    def epoch(self, epoch: Epoch) -> None:
        """One line about an epoch."""
        whose = {} if self.digest is None else {RUN: self.digest}
        self._flush({"event": "epoch"} | to_json(epoch) | whose)

    def settle(self) -> None:
        """Forces all lines to the disk: a checkpoint that follows relies on them."""
        os.fsync(self._events.fileno())

    def finish(self, result: Result) -> None:
        """Writes ``result.json``, whose presence means that the run is finished."""
        result.save(self.folder)

    def _flush(self, *last: Mapping[str, Any]) -> None:
        waiting, self._steps = self._steps, []
        events = [{"event": "step", "epoch": epoch, "step": step} | dict(numbers()) for epoch, step, numbers in waiting]
        text = b"".join(map(_line, [*events, *last]))
        self._flushed = time.monotonic()
        end = self._events.seek(0, os.SEEK_END)
        try:
            written = self._events.write(text)
            if written != len(text):  # a disk that fills up takes a part and says so only when asked again
                self._events.write(text[written:])
        except OSError as error:
            with contextlib.suppress(OSError):
                self._events.truncate(end)
            raise atomic.named(error, self.folder / "events.jsonl") from error


def stride(steps: int, tasks: tuple[str, ...], searched: bool = False) -> int:
    """Every how many steps a line is written, so that a run's step lines stay small.

    Args:
        steps: of the whole run.
        tasks: that each line has numbers of.
        searched: whether a line search adds its own, and its reasons.

    Example:
        >>> stride(100_000, ("left", "right"))
        667
    """
    numbers, fixed, most = (4, 700, SEARCH_LINES) if searched else (2, 160, STEP_LINES)
    line = fixed + sum(numbers * (len(task) + 18) for task in tasks)
    lines = max(1, min(most, STEP_BYTES // line))
    return max(1, -(-steps // lines))


def _check_unused(folder: Path) -> None:
    """Refuses a folder with files of a run's names and no ``run.json``: nothing says that they are this run's."""
    for name in ("events.jsonl", "result.json", "checkpoint"):
        if os.path.lexists(folder / name):
            raise ValueError(
                f"{folder} holds {name} but no run.json, so nothing says which run it is of. Put run.json back, train into "
                "another folder, or remove this one"
            )


def _same_source(folder: Path, run: Run, there: str | None, here: str | None) -> None:
    if there != here:
        raise ValueError(
            f"{run.workload} has changed since the run in {folder} was started, so it cannot be resumed. "
            f"Train into another folder, or put the file back"
        )


def _line(event: Mapping[str, Any]) -> bytes:
    try:
        line = json.dumps(event, allow_nan=False)
    except (TypeError, ValueError):  # nan, inf, or a dataclass: written another way
        line = json.dumps(to_json(event))
    return line.encode() + b"\n"


def _event(line: bytes) -> dict[str, Any] | None:
    """The event of a line; None for one that was cut off."""
    try:
        event = json.loads(line)
    except ValueError:
        return None
    return event if line.endswith(b"\n") and isinstance(event, dict) else None


def finished(folder: Path, run: Run) -> Result | None:
    """The result of ``run`` where ``folder`` holds it finished.

    Raises:
        ValueError: a file in the folder is of another run, or the workload's file has changed since.
    """
    if not (folder / "result.json").exists():
        return None
    result = claimed(folder, run)
    _same_source(folder, run, (read_run(folder) or {}).get("source"), digest(run.workload))
    return result
