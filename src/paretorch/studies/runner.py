"""Trains the runs of a study in worker processes that stay alive: imports are paid once per worker."""

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
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from paretorch.storage import atomic
from paretorch.studies.folder import Job, StudyFolder, write_json
from paretorch.studies.progress import Watch

TRAIN = "paretorch.studies.worker:train_sparingly"
Inbox = queue.SimpleQueue[tuple["Worker", dict[str, Any] | None]]


@dataclass(frozen=True)
class Failure:
    """A run that raised, or whose process died; the traceback is in its folder's ``failed.json``."""

    job: Job
    error: str


def processors() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def run_folder(folder: StudyFolder, watch: Watch, *, workers: int | None = None, train: str = TRAIN) -> list[Failure]:
    """Trains all runs of a study that are not finished; before that, where it is to be tuned, its trials.

    Args:
        folder: the study.
        watch: is told how it goes.
        workers: see :func:`run_jobs`.
        train: see :func:`run_jobs`.

    Returns:
        What failed, trials included.

    Raises:
        ValueError: a result that is there is damaged, or of another version of the workload's file; see also
            :func:`run_jobs` and :mod:`paretorch.studies.tuning.tuning`.
    """
    logs, threads = folder.path / "logs", folder.study.threads
    if not folder.tune or folder.tuning is not None:
        for job in folder.jobs():
            job.check()
        return run_jobs(folder.jobs(), watch, workers=workers, threads=threads, logs=logs, train=train)
    from paretorch.studies.tuning.tuning import Tuner  # Optuna, which other studies do not need

    tuner = Tuner(folder)
    return run_jobs(
        tuner.begin(),
        watch,
        workers=workers,
        threads=threads,
        logs=logs,
        train=train,
        more=Further(tuner.follow, lambda: tuner.later, tuner.planned),
    )


@dataclass(frozen=True)
class Further:
    """Runs that become known only while others are trained.

    Args:
        follow: called with a job that has ended, finished or failed; returns what can be trained now.
        later: stand-ins for what is still unknown.
        planned: how many runs there are in all.
    """

    follow: Callable[[Job], Sequence[Job]]
    later: Callable[[], Sequence[Job]]
    planned: int


def run_jobs(
    jobs: Sequence[Job],
    watch: Watch,
    *,
    workers: int | None = None,
    threads: int = 1,
    logs: Path,
    train: str = TRAIN,
    more: Further | None = None,
) -> list[Failure]:
    """Trains all that are not finished; a run that fails is recorded while the others go on.

    Results do not depend on ``workers``, for every run has ``threads`` threads whatever runs beside it.

    Args:
        jobs: what to train, in this order.
        watch: is told how it goes.
        workers: runs at a time; by default as many as have ``threads`` cores each.
        threads: CPU threads per run.
        logs: folder for what the workers print.
        train: what trains, as ``module:function``; see :class:`~paretorch.studies.worker.Train`.
        more: what is to be trained after them.

    Returns:
        What failed.

    Raises:
        ValueError: fewer than one worker.
        RuntimeError: a worker that cannot start.
        KeyboardInterrupt: after Ctrl-C, when the workers have stopped; unfinished runs keep their checkpoints.
    """
    if workers is not None and workers < 1:
        raise ValueError(f"a study needs at least 1 job at a time, got {workers}")
    waiting = [job for job in jobs if not job.finished]
    later = more.later() if more else ()
    count = min(workers or max(1, processors() // threads), max(1, len(waiting) + len(later)))
    finished = [job for job in jobs if job.finished]
    watch.start(waiting, more.planned if more else len(jobs), count, later, finished)
    pool = _Pool(waiting, watch, count, threads, logs, train, more)
    try:
        return pool.work()
    finally:
        pool.stop()
        watch.close()


class Worker:
    """One process, its log, and the job it has; a thread passes its events on to the inbox."""

    def __init__(self, command: list[str], environment: dict[str, str], log: Path, inbox: Inbox) -> None:
        self.job: Job | None = None
        self.heard = time.perf_counter()
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
        self.listener = threading.Thread(target=self._listen, args=(inbox,), daemon=True)
        self.listener.start()

    def _listen(self, inbox: Inbox) -> None:
        assert self.process.stdout is not None
        with self.process.stdout as events:
            for line in events:
                inbox.put((self, json.loads(line)))
        inbox.put((self, None))

    def give(self, job: Job) -> None:
        """Sends a job."""
        assert self.process.stdin is not None
        self.job, self.heard = job, time.perf_counter()
        with contextlib.suppress(BrokenPipeError):  # it died while idle: the inbox will say so
            order = {"run": job.run.to_json(), "folder": str(job.folder), "trial": job.trial is not None}
            self.process.stdin.write(json.dumps(order) + "\n")
            self.process.stdin.flush()

    def since(self) -> float:
        """Seconds since this was last asked or a job was given."""
        now = time.perf_counter()
        before, self.heard = self.heard, now
        return now - before

    def stop(self) -> str:
        """Ends the process, if it has not ended, and returns the last lines of its log; an empty log is removed."""
        self.process.terminate()
        try:
            self.process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        self.listener.join()
        printed = self.log.read_text(encoding="utf-8", errors="replace")
        if not printed:
            self.log.unlink()
        return "\n".join(printed.splitlines()[-20:])


class _Pool:
    """The workers of one call of :func:`run_jobs`."""

    def __init__(
        self,
        jobs: Sequence[Job],
        watch: Watch,
        count: int,
        threads: int,
        logs: Path,
        train: str,
        more: Further | None,
    ) -> None:
        self.waiting, self.watch, self.count, self.logs, self.more = deque(jobs), watch, count, logs, more
        # -P: -m alone puts the current folder first, where a json.py or torch.py of anybody's would be imported
        self.command = [sys.executable, "-P", "-m", "paretorch.studies.worker", train, str(threads)]
        self.environment = os.environ | {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
        self.inbox: Inbox = queue.SimpleQueue()
        self.workers: list[Worker] = []
        self.idle: list[Worker] = []
        self.hired = 0
        self.failures: list[Failure] = []

    def work(self) -> list[Failure]:
        self.dispatch()
        while self.workers:
            worker, event = self.inbox.get()
            if event is not None:
                self.hear(worker, event)
            elif worker in self.workers:
                self.bury(worker)
        return self.failures

    def dispatch(self) -> None:
        """Gives what waits to whoever is free, hires while there is more, and lets go whom nothing awaits."""
        while self.waiting and self.idle:
            self.idle.pop().give(self.waiting.popleft())
        starting = sum(worker.job is None and worker not in self.idle for worker in self.workers)
        for _ in range(min(self.count - len(self.workers), len(self.waiting) - starting)):
            self.hire()
        busy = any(worker.job is not None for worker in self.workers)
        if not (self.waiting or (busy and self.more and self.more.later())):
            for worker in self.idle:
                self.workers.remove(worker)
                worker.stop()
            self.idle.clear()

    def hire(self) -> None:
        atomic.own_folder(self.logs)
        log = self.logs / f"worker-{self.hired}.txt"
        self.workers.append(Worker(self.command, self.environment, log, self.inbox))
        self.hired += 1

    def hear(self, worker: Worker, event: dict[str, Any]) -> None:
        if event["event"] == "progress":
            assert worker.job is not None
            self.watch.advance(worker.job, event["done"], worker.since())
            return
        job, worker.job = worker.job, None
        self.idle.append(worker)
        if job is not None:
            self.end(job, event.get("error"))
        self.dispatch()

    def bury(self, worker: Worker) -> None:
        """A process that ended by itself: its run failed, the others go on."""
        self.workers.remove(worker)
        printed = worker.stop()
        if worker in self.idle:  # killed from outside, with nothing in its hands
            self.idle.remove(worker)
            self.dispatch()
            return
        error = f"its process ended with code {worker.process.returncode}"
        if worker.job is None:
            raise RuntimeError(f"a worker of the study could not start: {error}; it printed\n{printed}")
        record = {"run": worker.job.run.to_json(), "error": error, "traceback": printed}
        worker.job.folder.mkdir(parents=True, exist_ok=True)
        write_json(worker.job.folder / "failed.json", record)
        self.end(worker.job, error)
        self.dispatch()

    def end(self, job: Job, error: str | None) -> None:
        self.watch.finish(job, error)
        if error is not None:
            self.failures.append(Failure(job, error))
        if self.more is not None:
            further = [new for new in self.more.follow(job) if not new.finished]
            self.waiting.extend(further)
            self.watch.further(further, self.more.later())

    def stop(self) -> None:
        for worker in self.workers:
            worker.stop()
        with contextlib.suppress(OSError):  # not empty, or never made
            self.logs.rmdir()
