"""What a user sees while a study trains: all runs in one terminal, or plain lines where there is none."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from paretorch.extras import extra
from paretorch.studies.folder import Job

with extra("studies"):
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn


class Watch(Protocol):
    """What the runner tells: each call names the job and the seconds since the job's last call."""

    def start(
        self, jobs: Sequence[Job], planned: int, workers: int, later: Sequence[Job] = (), finished: Sequence[Job] = ()
    ) -> None:
        """``jobs`` are to be trained, and then as many as ``later``; of ``planned``, those ``finished`` were before."""

    def further(self, jobs: Sequence[Job], later: Sequence[Job]) -> None:
        """Now ``jobs`` are to be trained as well; ``later`` stand for those that are still unknown."""

    def advance(self, job: Job, done: int, seconds: float) -> None:
        """``done`` of the job's epochs are trained; the first call of a job says where it begins."""

    def finish(self, job: Job, error: str | None) -> None:
        """The job has its result, or failed with ``error``."""

    def close(self) -> None:
        """Nothing more will come."""


class Estimate:
    """Seconds until a study is done: epochs to go times the seconds an epoch took, per treatment where it is known.

    Args:
        jobs: what is to be trained.
        workers: how many at a time.
        later: stand for further ones.
        finished: were trained before; their results say how long that took.
    """

    def __init__(
        self, jobs: Sequence[Job], workers: int, later: Sequence[Job] = (), finished: Sequence[Job] = ()
    ) -> None:
        self.jobs, self.workers, self.later = list(jobs), workers, later
        self.done: dict[Path, int] = {}  # by folder
        self.epochs: dict[str, int] = {}  # seen, by label
        self.seconds: dict[str, float] = {}
        for job in finished:
            if seconds := job.seconds:
                self._saw(job, job.run.epochs, seconds)

    def advance(self, job: Job, done: int, seconds: float) -> None:
        """Takes in that ``done`` epochs of a job are trained, ``seconds`` after its last call."""
        before = self.done.get(job.folder)
        self.done[job.folder] = done
        if before is not None and done > before:
            self._saw(job, done - before, seconds)

    def _saw(self, job: Job, epochs: int, seconds: float) -> None:
        self.epochs[job.label] = self.epochs.get(job.label, 0) + epochs
        self.seconds[job.label] = self.seconds.get(job.label, 0.0) + seconds

    def finish(self, job: Job) -> None:
        """Takes in that nothing is left of a job, whether it failed or not."""
        self.done[job.folder] = job.run.epochs

    @property
    def left(self) -> float | None:
        """Seconds; None before the first epoch was seen."""
        if not self.epochs:
            return None
        mean = sum(self.seconds.values()) / sum(self.epochs.values())
        rates = {label: self.seconds[label] / epochs for label, epochs in self.epochs.items()}
        known = [(job.label, job.run.epochs - self.done.get(job.folder, 0)) for job in self.jobs]
        to_go = known + [(job.label, job.run.epochs) for job in self.later]
        return sum(epochs * rates.get(label, mean) for label, epochs in to_go) / self.workers


def duration(seconds: float) -> str:
    """A length of time as one says it.

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


class Display:
    """A :class:`Watch` that prints: bars in a terminal, else one line for every run that ends.

    Args:
        console: where to; standard output by default.
    """

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(highlight=False)
        self.estimate = Estimate((), 1)
        self.ended, self.total, self.said = 0, 0, False
        self.bars: Progress | None = None
        self.rows: dict[Path | None, TaskID] = {}

    def start(
        self, jobs: Sequence[Job], planned: int, workers: int, later: Sequence[Job] = (), finished: Sequence[Job] = ()
    ) -> None:
        """Says what is to be done, and how long it will take where runs that are finished tell."""
        self.estimate, self.total = Estimate(jobs, workers, later, finished), len(jobs) + len(later)
        before = f", {planned - self.total} of them finished before" if planned > self.total else ""
        known = self._left("expected time: ", "") or "the time they take is measured on the first run"
        self.said = self.estimate.left is not None
        rest = f"{workers} at a time; {known}" if self.total else "nothing is left to train"
        self._say(f"{planned} runs{before}; {rest}")
        if self.console.is_terminal and jobs:
            columns = (
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[more]}"),
            )
            self.bars = Progress(*columns, console=self.console, transient=True)
            self.rows[None] = self.bars.add_task("all runs", total=self.total, more="")
            self.bars.start()

    def further(self, jobs: Sequence[Job], later: Sequence[Job]) -> None:
        """Takes in what has become known."""
        self.estimate.jobs.extend(jobs)
        self.estimate.later = later
        self.total = len(self.estimate.jobs) + len(later)
        if self.bars is not None:
            self.bars.update(self.rows[None], total=self.total)

    def advance(self, job: Job, done: int, seconds: float) -> None:
        """Moves a bar; after the first epoch of the study, says how long it will take."""
        self.estimate.advance(job, done, seconds)
        left = self.estimate.left
        if left is not None and not self.said:
            self.said = True
            self._say(f"expected time: {duration(left)}")
        if self.bars is not None:
            if job.folder not in self.rows:
                self.rows[job.folder] = self.bars.add_task(escape(job.title), total=job.run.epochs, more="epochs")
            self.bars.update(self.rows[job.folder], completed=done)
            self._total()

    def finish(self, job: Job, error: str | None) -> None:
        """Counts a run that ended."""
        self.ended += 1
        self.estimate.finish(job)
        if self.bars is not None and job.folder in self.rows:
            self.bars.remove_task(self.rows.pop(job.folder))
        if self.bars is not None:
            self._total()
        if error is not None:
            self._say(f"failed: {job.title}: {error} (traceback in {job.folder / 'failed.json'})")
        elif self.bars is None:
            self._say(f"[{self.ended}/{self.total}] {job.title}{self._left('; ', ' left')}")

    def close(self) -> None:
        """Takes the bars away."""
        if self.bars is not None:
            self.bars.stop()

    def _left(self, before: str, after: str) -> str:
        left = self.estimate.left
        return "" if left is None else f"{before}{duration(left)}{after}"

    def _total(self) -> None:
        assert self.bars is not None
        self.bars.update(self.rows[None], completed=self.ended, more=self._left("", " left"))

    def _say(self, text: str) -> None:
        self.console.print(text, markup=False, highlight=False, soft_wrap=True)
