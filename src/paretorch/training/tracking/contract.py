"""What a tracker receives, and how a run names its trackers."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from paretorch.storage.value_types import typed

TRACKERS = ("mlflow", "tensorboard", "wandb")


class TrackingWarning(UserWarning):
    """A tracker failed, and the run continues without it."""


@dataclass(frozen=True)
class Tracking:
    """Where the numbers of a run are logged in addition to its folder.

    Args:
        trackers: of :data:`TRACKERS`.
        folder: of local stores that several runs share; empty: the folder of the run.
        group: name of the study; empty: the run is in no study.

    Raises:
        ValueError: an unknown tracker.

    Example:
        >>> Tracking.named("tensorboard, wandb").trackers
        ('tensorboard', 'wandb')
    """

    trackers: tuple[str, ...] = ()
    folder: str = ""
    group: str = ""

    def __post_init__(self) -> None:
        for name in self.trackers:
            if name not in TRACKERS:
                raise ValueError(
                    f"no tracker {name!r}: expected one or several of {', '.join(TRACKERS)}, as in mlflow,wandb"
                )

    @classmethod
    def named(cls, text: str, folder: str = "", group: str = "") -> Tracking:
        """The trackers that a text names, with commas between."""
        names = dict.fromkeys(name.strip() for name in text.split(",") if name.strip())
        return cls(tuple(names), folder, group)

    def to_json(self) -> dict[str, Any]:
        """The values as a JSON object."""
        return dataclasses.asdict(self) | {"trackers": list(self.trackers)}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Tracking:
        """The inverse of :meth:`to_json`."""
        tracking: Tracking = typed(values, cls)
        return tracking


NO_TRACKING = Tracking()


@dataclass(frozen=True)
class TrackedRun:
    """A run as trackers see it.

    Args:
        name: of its folder.
        folder: of the run.
        store: folder of local stores.
        group: name of the study, or of the workload.
        parameters: plain values by name; those of options have names such as ``optimizer_options/lr``.
        earlier: the identifier of the tracked run that is continued; None: a new one.
    """

    name: str
    folder: Path
    store: Path
    group: str
    parameters: Mapping[str, Any]
    earlier: str | None = None


class Tracker(Protocol):
    """A run in the store of another package."""

    @property
    def identifier(self) -> str:
        """Names the tracked run within its store."""

    def log(self, axis: str, position: int, numbers: Mapping[str, float]) -> None:
        """Adds numbers by name, of which some may not be finite, at a position of an axis: ``step`` or ``epoch``."""

    def close(self, finished: bool) -> None:
        """The training has ended: it is finished, or may be resumed."""
