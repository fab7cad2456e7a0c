"""What the runner of a study needs from a launcher."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from paretorch.studies.job import Job
from paretorch.training.tracking.contract import NO_TRACKING, Tracking

Event = Mapping[str, Any]
"""``event`` is ``started``; ``progress``, with ``done`` and ``of`` epochs; ``note``, with a ``text`` for the user; ``finished``;
or ``failed``, with ``error``. The last two are the last event of a job. Of a job with others, ``progress`` has ``members``, the
places of those that have advanced, and the last event has ``errors``, by the place of those that failed."""


@dataclass(frozen=True)
class WorkerSetup:
    """How the workers of a study train.

    Args:
        train: the function that trains a run, as ``module:function``; see :class:`~paretorch.studies.worker.Train`.
        threads: CPU threads per run.
        logs: folder for the output of the workers, in the folder of the study.
        tracking: where the numbers of the runs are logged in addition to their folders.
    """

    train: str
    threads: int
    logs: Path
    tracking: Tracking = NO_TRACKING


class Workers(Protocol):
    """Running workers, to which jobs are submitted one by one."""

    @property
    def slots(self) -> int:
        """The number of jobs that can be trained at a time."""

    def submit(self, job: Job) -> None:
        """Trains a job as soon as there is a worker for it; returns at once."""

    def next_event(self) -> tuple[Job, Event]:
        """Waits for the next event of a submitted job.

        Raises:
            RuntimeError: a worker cannot start.
        """

    def release_idle(self) -> None:
        """Stops workers without a job, because no further job follows."""

    def stop(self) -> None:
        """Stops all workers. Unfinished jobs keep their checkpoints."""


class Launcher(Protocol):
    """A place to train jobs."""

    def start(self, setup: WorkerSetup, jobs: Sequence[Job]) -> Workers:
        """Workers that can train each of these jobs.

        Raises:
            ValueError: there can be none; the message names the cure.
        """


def order(job: Job, tracking: Tracking) -> dict[str, Any]:
    """A job as plain values, for :func:`paretorch.studies.worker.train_order`."""
    return {
        "run": job.run.to_json(),
        "folder": str(job.folder),
        "trial": job.trial is not None,
        "tracking": tracking.to_json(),
        "others": [{"run": other.run.to_json(), "folder": str(other.folder)} for other in job.others],
    }
