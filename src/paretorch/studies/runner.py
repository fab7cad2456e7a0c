"""Training of the runs of a study in worker processes, each of which trains many runs and imports torch once."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from paretorch.storage import atomic
from paretorch.studies.failure_record import FailureRecord, write_failure
from paretorch.studies.folder import StudyFolder
from paretorch.studies.job import Job
from paretorch.studies.progress import StudyProgress

TRAIN = "paretorch.studies.worker:train_with_rare_checkpoints"
Events = queue.SimpleQueue[tuple["Worker", dict[str, Any] | None]]  # None: the process has ended


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
    folder: StudyFolder, progress: StudyProgress, *, workers: int | None = None, train: str = TRAIN
) -> list[Failure]:
    """Trains all unfinished runs of a study, after the trials if the study is to be tuned.

    Args:
        folder: the study.
        progress: receives the progress.
        workers: see :func:`train_jobs`.
        train: see :func:`train_jobs`.

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
) -> list[Failure]:
    """Trains all unfinished jobs. A run that fails is recorded, and the others are trained all the same.

    Results do not depend on ``workers``, because every run has ``threads`` threads.

    Args:
        jobs: jobs to train, in this order.
        progress: receives the progress.
        workers: number of jobs at a time; by default as many as have ``threads`` cores each.
        threads: CPU threads per run.
        logs: folder for the output of the workers.
        train: the function that trains a run, as ``module:function``; see :class:`~paretorch.studies.worker.Train`.
        dependent: jobs to train after these.

    Returns:
        The failed jobs.

    Raises:
        ValueError: fewer than one worker.
        RuntimeError: a worker process cannot start.
        KeyboardInterrupt: after Ctrl-C, when the workers have stopped; unfinished runs keep their checkpoints.
    """
    if workers is not None and workers < 1:
        raise ValueError(f"a study needs at least 1 job at a time, got {workers}")
    unfinished = [job for job in jobs if not job.finished]
    finished = [job for job in jobs if job.finished]
    placeholders = dependent.placeholders if dependent else ()
    count = min(workers or max(1, processors() // threads), max(1, len(unfinished) + len(placeholders)))
    progress.start(unfinished, dependent.planned if dependent else len(jobs), count, placeholders, finished)
    # -P: -m alone puts the current folder first on the import path, with any json.py or torch.py in it
    command = [sys.executable, "-P", "-m", "paretorch.studies.worker", train, str(threads)]
    environment = os.environ | {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
    pool = _WorkerPool(deque(unfinished), progress, dependent, count, command, environment, logs)
    try:
        return pool.run()
    finally:
        pool.stop()
        progress.close()


def processors() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Worker:
    """A worker process with its log and its job. A thread puts its events into a queue."""

    def __init__(self, command: list[str], environment: dict[str, str], log: Path, events: Events) -> None:
        self.job: Job | None = None
        self.last_event = time.perf_counter()
        self.log = log
        with atomic.create(log) as file:
            # a session of its own, so that Ctrl-C reaches the runner alone, which then stops the workers in order
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=file,
                env=environment,
                encoding="utf-8",
                start_new_session=True,
            )
        self.reader = threading.Thread(target=self._read_events, args=(events,), daemon=True)
        self.reader.start()

    def _read_events(self, events: Events) -> None:
        assert self.process.stdout is not None
        with self.process.stdout as lines:
            for line in lines:
                events.put((self, json.loads(line)))
        events.put((self, None))

    def assign(self, job: Job) -> None:
        """Sends a job to the process."""
        assert self.process.stdin is not None
        self.job, self.last_event = job, time.perf_counter()
        with contextlib.suppress(BrokenPipeError):  # the idle process has ended: its last event follows
            order = {"run": job.run.to_json(), "folder": str(job.folder), "trial": job.trial is not None}
            self.process.stdin.write(json.dumps(order) + "\n")
            self.process.stdin.flush()

    def seconds_since_last_event(self) -> float:
        """Seconds since the last call, or since the job was assigned."""
        now = time.perf_counter()
        before, self.last_event = self.last_event, now
        return now - before

    def stop(self) -> str:
        """Ends the process if it is running, and returns the last lines of its log; an empty log is removed."""
        self.process.terminate()
        try:
            self.process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        self.reader.join()
        printed = self.log.read_text(encoding="utf-8", errors="replace")
        if not printed:
            self.log.unlink()
        return "\n".join(printed.splitlines()[-20:])


@dataclass
class _WorkerPool:
    """The workers of one call of :func:`train_jobs`: at most ``count`` processes of ``command``."""

    pending: deque[Job]
    progress: StudyProgress
    dependent: DependentJobs | None
    count: int
    command: list[str]
    environment: dict[str, str]
    logs: Path
    events: Events = field(default_factory=queue.SimpleQueue)
    workers: list[Worker] = field(default_factory=list)
    idle: list[Worker] = field(default_factory=list)
    started: int = 0
    failures: list[Failure] = field(default_factory=list)

    def run(self) -> list[Failure]:
        self.dispatch()
        while self.workers:
            worker, event = self.events.get()
            if event is not None:
                self.handle_event(worker, event)
            elif worker in self.workers:
                self.handle_exit(worker)
        return self.failures

    def dispatch(self) -> None:
        """Assigns pending jobs to idle workers, starts workers for the others, and stops idle workers without a future job."""
        while self.pending and self.idle:
            self.idle.pop().assign(self.pending.popleft())
        starting = sum(worker.job is None and worker not in self.idle for worker in self.workers)
        for _ in range(min(self.count - len(self.workers), len(self.pending) - starting)):
            self.start_worker()
        busy = any(worker.job is not None for worker in self.workers)
        if not (self.pending or (busy and self.dependent and self.dependent.placeholders)):
            for worker in self.idle:
                self.workers.remove(worker)
                worker.stop()
            self.idle.clear()

    def start_worker(self) -> None:
        atomic.own_folder(self.logs)
        log = self.logs / f"worker-{self.started}.txt"
        self.workers.append(Worker(self.command, self.environment, log, self.events))
        self.started += 1

    def handle_event(self, worker: Worker, event: dict[str, Any]) -> None:
        if event["event"] == "progress":
            assert worker.job is not None
            self.progress.advance(worker.job, event["done"], worker.seconds_since_last_event())
            return
        job, worker.job = worker.job, None
        self.idle.append(worker)
        if job is not None:
            self.end_job(job, event.get("error"), worker.seconds_since_last_event())
        self.dispatch()

    def handle_exit(self, worker: Worker) -> None:
        """Records the run of a process that ended by itself as failed."""
        self.workers.remove(worker)
        printed = worker.stop()
        if worker in self.idle:  # killed from outside, without a run
            self.idle.remove(worker)
            self.dispatch()
            return
        error = f"its process ended with code {worker.process.returncode}"
        if worker.job is None:
            raise RuntimeError(f"a worker of the study could not start: {error}; it printed\n{printed}")
        write_failure(worker.job.folder, worker.job.run, FailureRecord(error, printed))
        self.end_job(worker.job, error, worker.seconds_since_last_event())
        self.dispatch()

    def end_job(self, job: Job, error: str | None, seconds: float) -> None:
        self.progress.finish(job, error, seconds)
        if error is not None:
            self.failures.append(Failure(job, error))
        if self.dependent is not None:
            jobs = [new for new in self.dependent.next_jobs(job) if not new.finished]
            self.pending.extend(jobs)
            self.progress.add_jobs(jobs, self.dependent.placeholders)

    def stop(self) -> None:
        for worker in self.workers:
            worker.stop()
        with contextlib.suppress(OSError):  # not empty, or never created
            self.logs.rmdir()
