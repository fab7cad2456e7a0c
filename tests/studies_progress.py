"""A progress that records its calls, and jobs for the substitute of training."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from paretorch.studies.job import Job
from paretorch.training.run import Run

FAKE_TRAIN = "studies_fake_training:train"


class RecordedProgress:
    """A :class:`~paretorch.studies.progress.StudyProgress` that records its calls."""

    def __init__(self) -> None:
        self.started: tuple[int, int, int] = (0, 0, 0)  # jobs, planned, workers
        self.added = 0
        self.placeholders: list[int] = []  # at the start, and after each addition
        self.steps: list[tuple[str, int]] = []  # label and epochs
        self.ended: list[str] = []  # titles
        self.errors: dict[str, str | None] = {}  # by label
        self.notes: list[str] = []
        self.closed = False

    def start(
        self,
        jobs: Sequence[Job],
        planned: int,
        workers: int,
        placeholders: Sequence[Job] = (),
        finished: Sequence[Job] = (),
    ) -> None:
        self.started = (len(jobs), planned, workers)
        self.placeholders.append(len(placeholders))

    def add_jobs(self, jobs: Sequence[Job], placeholders: Sequence[Job]) -> None:
        self.added += len(jobs)
        self.placeholders.append(len(placeholders))

    def advance(self, job: Job, epochs: int, seconds: float) -> None:
        assert seconds >= 0
        self.steps.append((job.label, epochs))

    def finish(self, job: Job, error: str | None, seconds: float = 0.0) -> None:
        assert seconds >= 0
        self.ended.append(job.title)
        self.errors[job.label] = error

    def note(self, text: str) -> None:
        self.notes.append(text)

    def close(self) -> None:
        self.closed = True


def fake_jobs(root: Path, methods: Sequence[str] = ("A", "B", "C"), epochs: int = 3) -> list[Job]:
    runs = [Run("fake", method=method, epochs=epochs, seed=place) for place, method in enumerate(methods)]
    return [Job(run.method, run, root / run.method) for run in runs]
