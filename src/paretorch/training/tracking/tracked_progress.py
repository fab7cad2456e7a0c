"""Tracking of a run during its training, after its progress display."""

from __future__ import annotations

import importlib.util
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from paretorch.storage.json_files import read_json, write_json
from paretorch.storage.seals import check_seal, sealed
from paretorch.storage.value_types import typed
from paretorch.training import randomness
from paretorch.training.monitoring.progress import ProgressDisplay
from paretorch.training.record.result import Epoch
from paretorch.training.run import Run
from paretorch.training.tracking.contract import TrackedRun, Tracker, Tracking, TrackingWarning
from paretorch.training.tracking.mlflow import MLflowTracker
from paretorch.training.tracking.record_reader import (
    Position,
    RecordReader,
    event_numbers,
    plain_values,
    scores_on_test_data,
)
from paretorch.training.tracking.tensorboard import TensorBoardTracker
from paretorch.training.tracking.wandb import WandbTracker
from paretorch.training.updates import StepRecord

FILE = "tracking.json"  # by tracker: the tracked run and the position up to which it has the numbers
OWNER, POSITIONS = "run", "trackers"  # keys in the file; earlier versions wrote the positions alone
POLL = 30.0  # seconds between two readings of the record within an epoch
OPEN: dict[str, Callable[[TrackedRun], Tracker]] = {
    "mlflow": MLflowTracker,
    "tensorboard": TensorBoardTracker,
    "wandb": WandbTracker,
}
CPU = torch.device("cpu")


def tracked(display: ProgressDisplay, folder: Path, tracking: Tracking) -> ProgressDisplay:
    """The display, which also logs the record in the folder; itself without trackers."""
    return TrackedProgress(display, folder, tracking) if tracking.trackers else display


def installed(tracking: Tracking) -> Tracking:
    """The trackers whose packages are installed; warns about each of the others."""
    missing = [name for name in tracking.trackers if importlib.util.find_spec(name) is None]
    for name in missing:
        _warn(name, f"{name} is not installed: pip install 'paretorch[tracking]'")
    return replace(tracking, trackers=tuple(name for name in tracking.trackers if name not in missing))


@dataclass(frozen=True)
class StoredPosition(Position):
    """The position of a tracker in ``tracking.json``, with the identifier of the tracked run."""

    identifier: str | None = None


def write_positions(folder: Path, run: Run, positions: Mapping[str, Mapping[str, Any]]) -> None:
    """Writes ``tracking.json``: the position of each tracker by its name."""
    write_json(folder / FILE, sealed({OWNER: _owner(run), POSITIONS: positions}))


def read_positions(folder: Path, run: Run) -> dict[str, dict[str, Any]]:
    """The positions of the trackers of a run, by name; empty if there are none.

    Raises:
        ValueError: the file is damaged, or belongs to another run; the message is the reason.
        OSError: it cannot be read.
    """
    try:
        content = typed(read_json(folder / FILE), Mapping[str, Any])
    except FileNotFoundError:
        return {}
    check_seal(content, required=OWNER in content)
    if content.get(OWNER, _owner(run)) != _owner(run):
        raise ValueError("it belongs to another run")
    stored = typed(content.get(POSITIONS, content), Mapping[str, Mapping[str, Any]])
    for values in stored.values():
        typed(values, StoredPosition)
    return {name: dict(values) for name, values in stored.items()}


def _owner(run: Run) -> str:
    """The key of a run, which is the same after it was continued with more epochs."""
    return replace(run, epochs=1).key


@dataclass
class _Opened:
    """A tracker with the position up to which it has the numbers."""

    tracker: Tracker
    position: Position


class TrackedProgress:
    """A :class:`~paretorch.training.monitoring.progress.ProgressDisplay` that logs the record after another display.

    A tracker that raises is left out for the remainder of the run, with one warning. Random numbers that trackers draw are not
    missing in the training.

    Args:
        display: the other display.
        folder: of the run.
        tracking: at least one tracker.
    """

    def __init__(self, display: ProgressDisplay, folder: Path, tracking: Tracking) -> None:
        self.display, self.folder, self.tracking = display, folder, tracking
        self.reader = RecordReader(folder)
        self.opened: dict[str, _Opened] = {}
        self.last_reading = time.monotonic()

    def start(self, run: Run, done: int, steps: int) -> None:
        """Opens the trackers, which continue earlier tracked runs, and logs the numbers until now where they are missing."""
        self.display.start(run, done, steps)
        self.run, stored = run, self._stored(run)
        for name in self.tracking.trackers:
            self._guarded(name, partial(self._open, name, run, stored.get(name)))
        self._follow()

    def note(self, text: str) -> None:
        """The display's."""
        self.display.note(text)

    def step(self, epoch: int, samples: int, record: StepRecord) -> None:
        """Logs new lines of the record once in a while."""
        self.display.step(epoch, samples, record)
        if time.monotonic() - self.last_reading > POLL:
            self._follow()

    def epoch(self, epoch: Epoch) -> None:
        """Logs the epoch and its steps."""
        self._follow()
        self.display.epoch(epoch)  # which may store the folder

    def close(self) -> None:
        """Logs the test scores of a finished run, and closes the trackers."""
        self.display.close()
        test = scores_on_test_data(self.folder)
        for name in list(self.opened):
            self._guarded(name, partial(self._close, name, test))

    def _open(self, name: str, run: Run, stored: dict[str, Any] | None) -> None:
        values = dict(stored or {})
        subject = TrackedRun(
            name=self.folder.name,
            folder=self.folder,
            store=Path(self.tracking.folder or self.folder),
            group=self.tracking.group or Path(run.workload).stem,
            parameters=dict(plain_values(run.to_json())),
            earlier=values.pop("identifier", None),
        )
        self.opened[name] = _Opened(OPEN[name](subject), Position(**values))

    def _follow(self) -> None:
        """Logs the new lines of the record."""
        events = self.reader.new_events()
        self.last_reading = time.monotonic()
        for name in list(self.opened):
            self._guarded(name, partial(self._log, self.opened[name], events))
        if self.opened and events:
            values = {
                name: {"identifier": each.tracker.identifier, **asdict(each.position)}
                for name, each in self.opened.items()
            }
            self._guarded("tracking.json", partial(write_positions, self.folder, self.run, values))

    @staticmethod
    def _log(opened: _Opened, events: list[dict[str, Any]]) -> None:
        for event in events:
            axis = event["event"]
            if event[axis] > getattr(
                opened.position, axis
            ):  # epochs after a checkpoint are trained again, with equal numbers
                opened.tracker.log(axis, event[axis], event_numbers(event))
                opened.position = replace(opened.position, **{axis: event[axis]})

    def _close(self, name: str, test: dict[str, float] | None) -> None:
        opened = self.opened.pop(name)
        if test:
            opened.tracker.log("epoch", opened.position.epoch, test)
        opened.tracker.close(finished=test is not None)

    def _stored(self, run: Run) -> dict[str, dict[str, Any]]:
        """The stored positions of the trackers, of which none are used if they are damaged."""
        try:
            return read_positions(self.folder, run)
        except (OSError, ValueError, RecursionError) as error:
            _warn(FILE, f"{self.folder / FILE} is damaged ({error}): the trackers begin new runs")
            return {}

    def _guarded(self, name: str, call: Callable[[], None]) -> None:
        """Calls a tracker; if it raises, it is left out from now on."""
        try:
            with randomness.preserved(CPU):
                call()
        except Exception as error:
            self.opened.pop(name, None)
            _warn(name, f"{type(error).__name__}: {error}")


def _warn(name: str, reason: str) -> None:
    warnings.warn(
        f"the tracker {name} failed, and the run continues without it: {reason}", TrackingWarning, stacklevel=3
    )
