"""Progress of a study on a console: bars in a terminal, otherwise one line per finished run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from paretorch.display import ProgressBars
from paretorch.extras import extra
from paretorch.studies.job import Job
from paretorch.studies.remaining_time import RemainingTime
from paretorch.studies.study import short_workload_titles, workload_title

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

    def finish(self, job: Job, error: str | None, seconds: float = 0.0) -> None:
        """A job has a result, or failed with ``error``, ``seconds`` after its last call."""

    def note(self, text: str) -> None:
        """A message about a worker or a tracker; several jobs may have the same one."""

    def close(self) -> None:
        """No further call follows."""


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
        self.console = console or Console(emoji=False, highlight=False)
        self.remaining = RemainingTime((), 1)
        self.ended, self.total, self.estimate_printed = 0, 0, False
        self.workloads: dict[str, str] = {}  # their short titles by title; empty if there is one workload
        self.notes: set[str] = set()  # that were printed
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
        runs = {workload_title(job.run): job.run for job in (*jobs, *placeholders, *finished)}
        self.workloads = short_workload_titles(list(runs.values())) if len(runs) > 1 else {}
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
                self.bars.add(job.folder, self._title(job), total=job.run.epochs, more="epochs")
            self.bars.update(job.folder, completed=epochs)
            self._update_total()

    def finish(self, job: Job, error: str | None, seconds: float = 0.0) -> None:
        """Counts a run that ended, and prints it if there are no bars or if it failed."""
        self.ended += 1
        self.remaining.finish(job, seconds)
        if self.bars is not None:
            if job.folder in self.bars:
                self.bars.remove(job.folder)
            self._update_total()
        if error is not None:
            self._print(f"failed: {self._title(job)}: {error} (traceback in {job.folder / 'failed.json'})")
        elif self.bars is None:
            self._print(f"[{self.ended}/{self.total}] {self._title(job)}{self._time('; {} left')}")

    def note(self, text: str) -> None:
        """Prints a message once."""
        if text not in self.notes:
            self.notes.add(text)
            self._print(f"Note: {text}")

    def close(self) -> None:
        """Removes the bars."""
        if self.bars is not None:
            self.bars.close()

    def _title(self, job: Job) -> str:
        """The name of a job, after that of its workload if there are several."""
        workload = self.workloads.get(workload_title(job.run))
        return job.title if workload is None else f"{workload}: {job.title}"

    def _time(self, text: str) -> str:
        """The text with the remaining time; empty while there is no estimate."""
        seconds = self.remaining.seconds
        return "" if seconds is None else text.format(duration(seconds))

    def _update_total(self) -> None:
        assert self.bars is not None
        self.bars.update(None, completed=self.ended, more=self._time("{} left"))

    def _print(self, text: str) -> None:
        self.console.print(text, markup=False, highlight=False, soft_wrap=True)
