"""Worker processes on this machine, each of which trains many runs and imports torch once."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from paretorch.storage import atomic
from paretorch.storage.locks import check_held, locks_above
from paretorch.storage.regular_files import open_regular
from paretorch.studies.failure_record import FailureRecord, write_failure
from paretorch.studies.job import Job
from paretorch.studies.launching.contract import Event, WorkerSetup, order
from paretorch.training.tracking.contract import Tracking

TAIL = 1 << 16  # bytes at the end of a log that are read
WorkerEvents = queue.SimpleQueue[tuple["Worker", Event | None]]  # None: the process has ended


@dataclass(frozen=True)
class LocalProcesses:
    """A :class:`~paretorch.studies.launching.contract.Launcher`: a process for each job at a time."""

    def start(self, setup: WorkerSetup, jobs: Sequence[Job]) -> WorkerPool:
        """No process yet: each is started with the first job that needs it."""
        del jobs
        # -P: -m alone puts the current folder first on the import path, with any json.py or torch.py in it
        command = [sys.executable, "-P", "-m", "paretorch.studies.worker", setup.train, str(setup.threads)]
        threads = str(setup.threads)
        environment = os.environ | {"OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads}
        slots = max(1, processors() // setup.threads)
        return WorkerPool(slots, command, environment, setup.logs, setup.tracking)


def processors() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Worker:
    """A worker process with its log and its job. A thread puts its events into a queue."""

    def __init__(self, command: list[str], environment: dict[str, str], log: Path, events: WorkerEvents) -> None:
        self.job: Job | None = None
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

    def _read_events(self, events: WorkerEvents) -> None:
        assert self.process.stdout is not None
        with self.process.stdout as lines:
            for line in lines:
                events.put((self, json.loads(line)))
        events.put((self, None))

    def assign(self, job: Job, tracking: Tracking) -> None:
        """Sends a job to the process."""
        assert self.process.stdin is not None
        self.job = job
        with contextlib.suppress(BrokenPipeError):  # the idle process has ended: its last event follows
            self.process.stdin.write(json.dumps(order(job, tracking) | {"locks": locks_above(job.folder)}) + "\n")
            self.process.stdin.flush()

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
        try:
            check_held(self.log)
            with open_regular(self.log) as file:
                file.seek(-min(TAIL, os.fstat(file.fileno()).st_size), os.SEEK_END)
                printed = file.read().decode("utf-8", errors="replace")
            if not printed:
                self.log.unlink()
        except OSError:  # the log was removed, or the study's folder moved: the other workers are stopped all the same
            return ""
        return "\n".join(printed.splitlines()[-20:])


@dataclass
class WorkerPool:
    """The :class:`~paretorch.studies.launching.contract.Workers`: a process of ``command`` for each job at a time."""

    slots: int  # by default: as many jobs as have a core for each thread
    command: list[str]
    environment: dict[str, str]
    logs: Path
    tracking: Tracking
    events: WorkerEvents = field(default_factory=queue.SimpleQueue)
    waiting: deque[Job] = field(default_factory=deque)
    workers: list[Worker] = field(default_factory=list)
    idle: list[Worker] = field(default_factory=list)
    started: int = 0

    def submit(self, job: Job) -> None:
        """Assigns the job to an idle worker, or starts one."""
        self.waiting.append(job)
        self._dispatch()

    def next_event(self) -> tuple[Job, Event]:
        """Waits for the next event of a job."""
        while True:
            worker, event = self.events.get()
            found = self._handle_exit(worker) if event is None else self._handle_event(worker, event)
            if found is not None:
                return found

    def release_idle(self) -> None:
        """Stops idle workers, whose memory the running ones can use."""
        for worker in self.idle:
            self.workers.remove(worker)
            worker.stop()
        self.idle.clear()

    def stop(self) -> None:
        """Stops all workers, and removes the folder of the logs if it is empty."""
        for worker in self.workers:
            worker.stop()
        with contextlib.suppress(OSError):  # not empty, never created, or in a folder that was moved
            check_held(self.logs)
            self.logs.rmdir()

    def _dispatch(self) -> None:
        while self.waiting and self.idle:
            self.idle.pop().assign(self.waiting.popleft(), self.tracking)
        starting = sum(worker.job is None and worker not in self.idle for worker in self.workers)
        for _ in range(len(self.waiting) - starting):
            atomic.own_folder(self.logs)
            log = self.logs / f"worker-{self.started}.txt"
            self.workers.append(Worker(self.command, self.environment, log, self.events))
            self.started += 1

    def _handle_event(self, worker: Worker, event: Event) -> tuple[Job, Event] | None:
        job = worker.job
        if event["event"] in ("ready", "finished", "failed"):
            worker.job = None
            self.idle.append(worker)
            self._dispatch()
        return None if job is None else (job, event)

    def _handle_exit(self, worker: Worker) -> tuple[Job, Event] | None:
        """Records the run of a process that ended by itself as failed."""
        if worker not in self.workers:
            return None
        self.workers.remove(worker)
        printed, job = worker.stop(), worker.job
        error = f"its process ended with code {worker.process.returncode}"
        if worker in self.idle:  # killed from outside, without a run
            self.idle.remove(worker)
        elif job is None:
            raise RuntimeError(f"a worker of the study could not start: {error}; it printed\n{printed}")
        self._dispatch()
        if job is None:
            return None
        for each in job.members:
            if not each.finished:
                write_failure(each.folder, each.run, FailureRecord(error, printed))
        return job, {"event": "failed", "error": error}
