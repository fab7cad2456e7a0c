"""Estimate of the time that a study still takes."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from paretorch.core.contract import Need
from paretorch.studies.job import Job
from paretorch.studies.study import workload_title
from paretorch.training.names.methods import find_method
from paretorch.training.run import Run

TASKS = 3  # of a workload, while no job names one of its tasks
FORWARD, BACKWARD = 1.0, 2.0  # relative costs of a step
MODELS = 10  # of a front, unless its options give a number

Group = tuple[str, str, tuple[str, ...]]  # workload, label and tasks: jobs of equal cost per epoch


@dataclass
class _Timed:
    """Epochs and seconds of the timed jobs of a group."""

    cost: float
    epochs: int = 0
    seconds: float = 0.0


class RemainingTime:
    """Estimate of the seconds until all jobs are finished.

    A job takes its remaining epochs times the seconds per epoch, and the time before its first and after its last epoch. The
    seconds per epoch are those of the timed epochs of the same workload, treatment and tasks. Where there are none, they are
    proportional to the cost of a step, which is that of a forward pass and one backward pass for each gradient that the method
    compares on the parameters; the factor is that of the workload's timed jobs, of those on the same surface if there are any,
    and of all workloads if this one has no timed job. Jobs are divided among the workers; the longest one is not.

    Args:
        jobs: jobs to train.
        workers: number of jobs at a time.
        placeholders: stand-ins for further jobs.
        finished: jobs with a result, which contains the seconds of their epochs.
    """

    def __init__(
        self, jobs: Sequence[Job], workers: int, placeholders: Sequence[Job] = (), finished: Sequence[Job] = ()
    ) -> None:
        self.jobs, self.workers, self.placeholders = list(jobs), workers, placeholders
        self.trained: dict[Path, int] = {}  # epochs, by folder
        self.ended: set[Path] = set()
        self.timed: dict[Group, _Timed] = {}
        self.surfaces: dict[Group, str] = {}
        self.before: dict[Path, float] = {}  # seconds before the first epoch of a job
        self.outside: dict[
            str, list[float]
        ] = {}  # by workload: seconds of a job before its first and after its last epoch
        named: dict[str, set[str]] = {}
        for job in (*jobs, *placeholders, *finished):
            named.setdefault(workload_title(job.run), set()).update(job.run.tasks)
        self.tasks = {title: len(tasks) for title, tasks in named.items() if tasks}
        for job in finished:
            if seconds := job.seconds:
                self._add(job, job.run.epochs, seconds)

    def advance(self, job: Job, epochs: int, seconds: float) -> None:
        """Updates a job that has trained ``epochs`` epochs, ``seconds`` after its last update, or after its start."""
        before = self.trained.get(job.folder)
        self.trained[job.folder] = epochs
        if before is None:
            self.before[job.folder] = seconds
        elif epochs > before:
            self._add(job, epochs - before, seconds)

    def finish(self, job: Job, seconds: float = 0.0) -> None:
        """Removes a job that finished or failed, ``seconds`` after its last update."""
        if job.folder in self.before and self.trained[job.folder] == job.run.epochs:
            self.outside.setdefault(workload_title(job.run), []).append(self.before[job.folder] + seconds)
        self.trained[job.folder] = job.run.epochs
        self.ended.add(job.folder)

    @property
    def seconds(self) -> float | None:
        """The estimate; None before the first epoch was timed."""
        if not self.timed:
            return None
        rates: dict[Group, tuple[float, float]] = {}  # seconds per epoch, and outside epochs

        def seconds(job: Job, trained: int | None = None) -> float:
            group = _group(job)
            if group not in rates:
                rates[group] = self._per_epoch(job), self._outside(job)
            per_epoch, outside = rates[group]
            return per_epoch * (job.run.epochs - (trained or 0)) + (outside if trained is None else 0.0)

        left = [seconds(job, self.trained.get(job.folder)) for job in self.jobs if job.folder not in self.ended]
        left += [seconds(job) for job in self.placeholders]
        return max(sum(left) / self.workers, max(left, default=0.0))

    def _add(self, job: Job, epochs: int, seconds: float) -> None:
        group = _group(job)
        timed = self.timed.setdefault(group, _Timed(self._cost(job.run)))
        timed.epochs += epochs
        timed.seconds += seconds
        self.surfaces[group] = job.run.surface

    def _per_epoch(self, job: Job) -> float:
        """Seconds per epoch."""
        group = _group(job)
        if group in self.timed:
            return self.timed[group].seconds / self.timed[group].epochs
        of_workload = [each for each in self.timed if each[0] == group[0]]
        of_surface = [each for each in of_workload if self.surfaces[each] == job.run.surface]
        factor = self._factor(of_surface) or self._factor(of_workload) or self._mean_factor()
        return self._cost(job.run) * factor

    def _factor(self, groups: Iterable[Group]) -> float:
        """The mean of the seconds per epoch in units of the cost; zero without groups."""
        factors = [self.timed[each].seconds / self.timed[each].epochs / self.timed[each].cost for each in groups]
        return statistics.fmean(factors) if factors else 0.0

    def _mean_factor(self) -> float:
        titles = {each[0] for each in self.timed}
        return statistics.fmean(self._factor(each for each in self.timed if each[0] == title) for title in titles)

    def _outside(self, job: Job) -> float:
        own = self.outside.get(workload_title(job.run)) or [each for found in self.outside.values() for each in found]
        return statistics.median(own) if own else 0.0

    def _cost(self, run: Run) -> float:
        """The relative cost of a step."""
        tasks = len(run.tasks) or self.tasks.get(workload_title(run), TASKS)
        if run.front:
            models = run.front_options.get("models")
            return (models if isinstance(models, int) else MODELS) * (FORWARD + BACKWARD)
        gradients = tasks if run.surface == "parameters" and tasks > 1 and _compares_gradients(run.method) else 1
        return FORWARD + BACKWARD * gradients


def _group(job: Job) -> Group:
    return workload_title(job.run), job.label, job.run.tasks


def _compares_gradients(method: str) -> bool:
    """Whether a step on parameters computes a gradient for each task."""
    try:
        return bool(find_method(method).needs & (Need.GRAMIAN | Need.JACOBIAN))
    except ValueError:  # the method of another trainer
        return False
