"""Training of the runs of a study by the workers of a launcher, and of the runs that become known meanwhile."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from paretorch.storage.locks import check_held
from paretorch.studies.folder import StudyFolder
from paretorch.studies.job import Job, grouped
from paretorch.studies.launching.contract import Event, Launcher, Workers, WorkerSetup
from paretorch.studies.launching.local_processes import LocalProcesses
from paretorch.studies.progress import StudyProgress
from paretorch.studies.worker import LAST_EVENTS
from paretorch.training.tracking.contract import NO_TRACKING, Tracking

TRAIN = "paretorch.studies.worker:train_with_rare_checkpoints"
LOCAL = LocalProcesses()


@dataclass(frozen=True)
class Failure:
    """A run that raised, or whose process ended; the traceback is in ``failed.json`` of its folder."""

    job: Job
    error: str


class DependentJobs(Protocol):
    """Jobs that become known only when others have ended."""

    @property
    def planned(self) -> int:
        """Number of all jobs, the first ones included."""

    @property
    def placeholders(self) -> Sequence[Job]:
        """Stand-ins, with the same labels and numbers of epochs, for the jobs that are not known yet."""

    def next_jobs(self, job: Job) -> Sequence[Job]:
        """Jobs that can be trained now that a job has finished or failed."""


def train_study(
    folder: StudyFolder,
    progress: StudyProgress,
    *,
    workers: int | None = None,
    train: str = TRAIN,
    launcher: Launcher = LOCAL,
    tracking: Tracking = NO_TRACKING,
    together: bool = False,
) -> list[Failure]:
    """Trains all unfinished runs of a study, after the trials if the study is to be tuned.

    Args:
        folder: the study.
        progress: receives the progress.
        workers: see :func:`train_jobs`.
        train: see :func:`train_jobs`.
        launcher: see :func:`train_jobs`.
        tracking: see :func:`train_jobs`.
        together: see :func:`train_jobs`.

    Returns:
        Failed runs and trials.

    Raises:
        ValueError: an existing result is damaged, or of another version of the workload's file; see also :func:`train_jobs`
            and :mod:`paretorch.studies.tuner`.
    """
    tuner: DependentJobs | None = None
    if folder.has_trials and folder.tuning is None:
        from paretorch.studies.tuner import Tuner  # imports Optuna, which a study without tuning does not need

        tuner = Tuner(folder)
        jobs = tuner.first_jobs()
    else:
        jobs = folder.jobs()
        for job in jobs:
            job.check()
    return train_jobs(
        jobs,
        progress,
        workers=workers,
        threads=folder.study.threads,
        logs=folder.path / "logs",
        train=train,
        dependent=tuner,
        launcher=launcher,
        tracking=tracking,
        together=together,
    )


def train_jobs(
    jobs: Sequence[Job],
    progress: StudyProgress,
    *,
    workers: int | None = None,
    threads: int = 1,
    logs: Path,
    train: str = TRAIN,
    dependent: DependentJobs | None = None,
    launcher: Launcher = LOCAL,
    tracking: Tracking = NO_TRACKING,
    together: bool = False,
) -> list[Failure]:
    """Trains all unfinished jobs. A run that fails is recorded, and the others are trained all the same.

    Results do not depend on ``workers`` and ``launcher``, because every run has ``threads`` threads.

    Args:
        jobs: jobs to train, in this order.
        progress: receives the progress.
        workers: number of jobs at a time; by default as many as the launcher has room for.
        threads: CPU threads per run.
        logs: folder for the output of the workers.
        train: the function that trains a run, as ``module:function``; see :class:`~paretorch.studies.worker.Train`.
        dependent: jobs to train after these.
        launcher: where the jobs are trained: processes of this machine, or tasks of a Ray cluster.
        tracking: where the numbers of the runs are logged in addition to their folders.
        together: runs of a treatment that differ in the seed alone are one job, see
            :func:`~paretorch.training.together.loop.train_together`.

    Returns:
        The failed jobs.

    Raises:
        ValueError: fewer than one worker, or the launcher cannot have any.
        RuntimeError: a worker cannot start.
        MovedFolderError: the folder of the study was moved, removed or replaced; all workers have stopped.
        KeyboardInterrupt: after Ctrl-C, when the workers have stopped; unfinished runs keep their checkpoints.
    """
    if workers is not None and workers < 1:
        raise ValueError(f"a study needs at least 1 job at a time, got {workers}")
    unfinished = [job for job in jobs if not job.finished]
    finished = [job for job in jobs if job.finished]
    placeholders = dependent.placeholders if dependent else ()
    planned = dependent.planned if dependent else len(jobs)
    known = [*unfinished, *placeholders]
    if not known:
        progress.start((), planned, 1, (), finished)
        progress.close()
        return []
    team = launcher.start(WorkerSetup(train, threads, logs, tracking), known)
    try:
        count = min(workers or team.slots, len(known))
        progress.start(unfinished, planned, count, placeholders, finished)
        return _Training(
            deque(grouped(unfinished) if together else unfinished), progress, dependent, count, team, together
        ).run()
    finally:
        team.stop()
        progress.close()


@dataclass
class _Training:
    """The jobs of one call of :func:`train_jobs`: at most ``count`` of them at a time."""

    pending: deque[Job]
    progress: StudyProgress
    dependent: DependentJobs | None
    count: int
    workers: Workers
    together: bool = False
    times: dict[Path, float] = field(default_factory=dict)  # of the last event of each running job, by its folder
    failures: list[Failure] = field(default_factory=list)

    def run(self) -> list[Failure]:
        self.submit()
        while self.times:
            job, event = self.workers.next_event()
            self.handle(job, event)
        return self.failures

    def submit(self) -> None:
        while self.pending and len(self.times) < self.count:
            job = self.pending.popleft()
            check_held(job.folder)
            self.times[job.folder] = time.perf_counter()
            self.workers.submit(job)
        if not (self.pending or (self.times and self.dependent and self.dependent.placeholders)):
            self.workers.release_idle()

    def handle(self, job: Job, event: Event) -> None:
        check_held(job.folder)
        if event["event"] == "note":
            self.progress.note(event["text"])
            return
        now = time.perf_counter()
        seconds, self.times[job.folder] = now - self.times[job.folder], now
        if event["event"] == "progress":
            places = event.get("members", [0])
            for place in places:
                self.progress.advance(job.members[place], event["done"], seconds / len(places))
        elif event["event"] in LAST_EVENTS:
            del self.times[job.folder]
            for place, member in enumerate(job.members):
                failed = event.get("error") if not member.finished or not job.others else None
                self.end_job(member, event.get("errors", {}).get(str(place), failed), seconds / len(job.members))
            self.submit()

    def end_job(self, job: Job, error: str | None, seconds: float) -> None:
        self.progress.finish(job, error, seconds)
        if error is not None:
            self.failures.append(Failure(job, error))
        if self.dependent is not None:
            jobs = [new for new in self.dependent.next_jobs(job) if not new.finished]
            self.pending.extend(grouped(jobs) if self.together else jobs)
            self.progress.add_jobs(jobs, self.dependent.placeholders)
