"""Progress of a study on a console: bars in a terminal, otherwise one line per finished run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from paretorch.display import ProgressBars
from paretorch.extras import extra
from paretorch.studies.job import Job

with extra("studies"):
    from rich.console import Console


class StudyProgress(Protocol):
    """Receives the progress of a study from its runner.

    ``placeholders`` are stand-ins, with the same labels and numbers of epochs, for jobs that become known only when others
    have ended.
    """

    def start(
        self,
        jobs: Sequence[Job],
        planned: int,
        workers: int,
        placeholders: Sequence[Job] = (),
        finished: Sequence[Job] = (),
    ) -> None:
        """``jobs`` are to be trained by ``workers`` processes; ``finished`` ones of all ``planned`` have a result."""

    def add_jobs(self, jobs: Sequence[Job], placeholders: Sequence[Job]) -> None:
        """``jobs`` are to be trained as well; ``placeholders`` replace the earlier ones."""

    def advance(self, job: Job, epochs: int, seconds: float) -> None:
        """A job has trained ``epochs`` epochs, ``seconds`` after its last call; its first call is before its first epoch."""

    def finish(self, job: Job, error: str | None) -> None:
        """A job has a result, or failed with ``error``."""

    def close(self) -> None:
        """No further call follows."""


class RemainingTime:
    """Estimate of the seconds until all jobs are finished.

    It is the number of remaining epochs times the seconds per epoch, by treatment where one of its epochs was timed, divided by
    the number of workers.

    Args:
        jobs: jobs to train.
        workers: number of jobs at a time.
        placeholders: stand-ins for further jobs.
        finished: jobs with a result, which contains their seconds.
    """

    def __init__(
        self, jobs: Sequence[Job], workers: int, placeholders: Sequence[Job] = (), finished: Sequence[Job] = ()
    ) -> None:
        self.jobs, self.workers, self.placeholders = list(jobs), workers, placeholders
        self.trained: dict[Path, int] = {}  # epochs, by folder
        self.timed_epochs: Counter[str] = Counter()  # by label
        self.timed_seconds: dict[str, float] = {}
        for job in finished:
            if seconds := job.seconds:
                self._add(job, job.run.epochs, seconds)

    def advance(self, job: Job, epochs: int, seconds: float) -> None:
        """Updates a job that has trained ``epochs`` epochs, ``seconds`` after its last update."""
        before = self.trained.get(job.folder)
        self.trained[job.folder] = epochs
        if before is not None and epochs > before:
            self._add(job, epochs - before, seconds)

    def _add(self, job: Job, epochs: int, seconds: float) -> None:
        self.timed_epochs[job.label] += epochs
        self.timed_seconds[job.label] = self.timed_seconds.get(job.label, 0.0) + seconds

    def finish(self, job: Job) -> None:
        """Removes the remaining epochs of a job that finished or failed."""
        self.trained[job.folder] = job.run.epochs

    @property
    def seconds(self) -> float | None:
        """The estimate; None before the first epoch was timed."""
        if not self.timed_epochs:
            return None
        mean = sum(self.timed_seconds.values()) / sum(self.timed_epochs.values())
        rates = {label: self.timed_seconds[label] / epochs for label, epochs in self.timed_epochs.items()}
        remaining = [(job.label, job.run.epochs - self.trained.get(job.folder, 0)) for job in self.jobs]
        remaining += [(job.label, job.run.epochs) for job in self.placeholders]
        return sum(epochs * rates.get(label, mean) for label, epochs in remaining) / self.workers


def duration(seconds: float) -> str:
    """A duration in its two largest units.

    Example:
        >>> duration(4.2), duration(83), duration(7300)
        ('4 s', '1 min 23 s', '2 h 1 min')
    """
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


class ConsoleProgress:
    """A :class:`StudyProgress` that prints bars in a terminal, otherwise one line for every run that ends.

    Args:
        console: the console; standard output by default.
    """

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(highlight=False)
        self.remaining = RemainingTime((), 1)
        self.ended, self.total, self.estimate_printed = 0, 0, False
        self.bars: ProgressBars | None = None  # by the job's folder; None is the bar of all runs

    def start(
        self,
        jobs: Sequence[Job],
        planned: int,
        workers: int,
        placeholders: Sequence[Job] = (),
        finished: Sequence[Job] = (),
    ) -> None:
        """Prints the number of runs, and the expected time if finished runs give an estimate."""
        self.remaining = RemainingTime(jobs, workers, placeholders, finished)
        self.total = len(jobs) + len(placeholders)
        before = f", {planned - self.total} of them finished before" if planned > self.total else ""
        time = self._time("expected time: {}") or "the time they take is measured on the first run"
        self.estimate_printed = self.remaining.seconds is not None
        self._print(
            f"{planned} runs{before}; " + (f"{workers} at a time; {time}" if self.total else "none is left to train")
        )
        if self.console.is_terminal and jobs:
            self.bars = ProgressBars("count", "more", console=self.console, transient=True)
            self.bars.add(None, "all runs", total=self.total)

    def add_jobs(self, jobs: Sequence[Job], placeholders: Sequence[Job]) -> None:
        """Updates the total number of runs."""
        self.remaining.jobs.extend(jobs)
        self.remaining.placeholders = placeholders
        self.total = len(self.remaining.jobs) + len(placeholders)
        if self.bars is not None:
            self.bars.update(None, total=self.total)

    def advance(self, job: Job, epochs: int, seconds: float) -> None:
        """Updates the job's bar; prints the expected time after the first timed epoch."""
        self.remaining.advance(job, epochs, seconds)
        if not self.estimate_printed and (time := self._time("expected time: {}")):
            self.estimate_printed = True
            self._print(time)
        if self.bars is not None:
            if job.folder not in self.bars:
                self.bars.add(job.folder, job.title, total=job.run.epochs, more="epochs")
            self.bars.update(job.folder, completed=epochs)
            self._update_total()

    def finish(self, job: Job, error: str | None) -> None:
        """Counts a run that ended, and prints it if there are no bars or if it failed."""
        self.ended += 1
        self.remaining.finish(job)
        if self.bars is not None:
            if job.folder in self.bars:
                self.bars.remove(job.folder)
            self._update_total()
        if error is not None:
            self._print(f"failed: {job.title}: {error} (traceback in {job.folder / 'failed.json'})")
        elif self.bars is None:
            self._print(f"[{self.ended}/{self.total}] {job.title}{self._time('; {} left')}")

    def close(self) -> None:
        """Removes the bars."""
        if self.bars is not None:
            self.bars.close()

    def _time(self, text: str) -> str:
        """The text with the remaining time; empty while there is no estimate."""
        seconds = self.remaining.seconds
        return "" if seconds is None else text.format(duration(seconds))

    def _update_total(self) -> None:
        assert self.bars is not None
        self.bars.update(None, completed=self.ended, more=self._time("{} left"))

    def _print(self, text: str) -> None:
        self.console.print(text, markup=False, highlight=False, soft_wrap=True)
