"""Runs as tasks of a Ray cluster, retried where a worker or a node is lost."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from paretorch.extras import extra
from paretorch.storage.folder_archive import check_writable, download
from paretorch.studies.failure_record import FailureRecord, write_failure
from paretorch.studies.job import Job
from paretorch.studies.launching.contract import Event, WorkerSetup, order
from paretorch.studies.launching.ray_task import train_events
from paretorch.studies.worker import LAST_EVENTS

RETRIES = 3  # of a run whose worker or node is lost
SECONDS = 5.0  # to connect to an address; Ray itself tries for minutes
MEMORY = 100_000_000  # bytes for the objects of a cluster that is started here: events are small


@dataclass(frozen=True)
class RayCluster:
    """A :class:`~paretorch.studies.launching.contract.Launcher`: a Ray task for each job.

    Paretorch, the data and the files of workloads are on every node, at the same paths.

    Args:
        address: of a running cluster, ``"HOST:PORT"``, or ``"auto"`` for that of this machine; empty: ``RAY_ADDRESS`` if it is
            set, else a cluster that is started on this machine and stopped after the study.
        cpus: CPU cores that Ray reserves for a run; None: the threads of the study's runs.
        gpus: GPUs that Ray reserves for a run on ``cuda``; with a fraction, runs share one.
        storage: an fsspec URL below which the runs are kept while they are trained, for nodes that do not share the study's
            folder; empty: they do.

    Raises:
        ValueError: a number of CPUs or GPUs that is not positive.
    """

    address: str = ""
    cpus: float | None = None
    gpus: float = 1.0
    storage: str = ""

    def __post_init__(self) -> None:
        if self.gpus <= 0 or (self.cpus is not None and self.cpus <= 0):
            raise ValueError(f"a run needs more than 0 CPUs and GPUs, got {self.cpus} and {self.gpus}")

    def start(self, setup: WorkerSetup, jobs: Sequence[Job]) -> RayTasks:
        """A connection to the cluster, or to one that is started for it.

        Raises:
            ValueError: the cluster cannot be reached, no node has the resources of a run, or the storage cannot be written.
            ModuleNotFoundError: Ray is not installed.
        """
        needs = [self.resources(job, setup.threads) for job in jobs]
        if self.storage:
            check_writable(self.storage)
        own = _connect(self.address)
        tasks = RayTasks(self, setup, own)
        try:
            tasks.slots = _slots({name: max(need.get(name, 0.0) for need in needs) for need in needs for name in need})
        except BaseException:
            tasks.stop()
            raise
        return tasks

    def resources(self, job: Job, threads: int) -> dict[str, float]:
        """What a job needs, by the names that Ray has for resources.

        Raises:
            ValueError: its device names one of several GPUs, which Ray assigns itself.
        """
        device, _, index = job.run.device.partition(":")
        if index:
            raise ValueError(
                f"{job.title}: Ray assigns a GPU to each run, so its device is 'cuda', got {job.run.device!r}"
            )
        return {"CPU": self.cpus or threads} | ({"GPU": self.gpus} if device == "cuda" else {})


@dataclass
class _Task:
    """A job with the stream of its events."""

    job: Job
    stream: Any
    lost: int = 0  # workers


class RayTasks:
    """The :class:`~paretorch.studies.launching.contract.Workers`: each job is a task, which Ray queues until it has resources.

    Args:
        cluster: resources and storage.
        setup: how runs are trained.
        own: whether the connection ends with the study.
    """

    def __init__(self, cluster: RayCluster, setup: WorkerSetup, own: bool) -> None:
        self.cluster, self.setup, self.own = cluster, setup, own
        self.slots = 1
        self.tasks: list[_Task] = []

    def submit(self, job: Job) -> None:
        """Queues a task."""
        self.tasks.append(_Task(job, self._stream(job)))

    def next_event(self) -> tuple[Job, Event]:
        """Waits for the next event of a job; a job whose worker was lost is queued again."""
        import ray
        from ray import exceptions

        (ready,), _ = ray.wait([task.stream for task in self.tasks], num_returns=1)
        task = next(task for task in self.tasks if task.stream is ready)
        self.tasks.remove(task)
        try:
            event: Event = ray.get(next(task.stream))
        except (exceptions.WorkerCrashedError, exceptions.NodeDiedError, exceptions.OutOfMemoryError) as error:
            return task.job, self._retry(task, str(error).strip())
        except exceptions.RayError as error:
            raise RuntimeError(
                f"a Ray worker could not start {task.job.title}; every node needs paretorch and what the study imports: {error}"
            ) from error
        if event["event"] not in LAST_EVENTS:
            self.tasks.append(task)  # at the end, so that no other job waits for its events
        elif self.cluster.storage:
            download(self._url(task.job), task.job.folder)
        return task.job, event

    def release_idle(self) -> None:
        """Does nothing: Ray ends idle workers."""

    def stop(self) -> None:
        """Cancels all tasks at once; their last checkpoints are complete."""
        import ray

        for task in self.tasks:
            with contextlib.suppress(Exception):  # the cluster may be lost
                ray.cancel(task.stream, force=True)
        if self.own:
            ray.shutdown()

    def _retry(self, task: _Task, reason: str) -> Event:
        job, lost = task.job, task.lost + 1
        if lost > RETRIES:
            error = f"its worker was lost {lost} times"
            write_failure(job.folder, job.run, FailureRecord(error, reason))
            return {"event": "failed", "error": error}
        self.tasks.append(_Task(job, self._stream(job), lost))
        return {"event": "note", "text": f"{job.title}: its worker was lost, and the run continues on another one"}

    def _stream(self, job: Job) -> Any:
        """The events of a task that is submitted to Ray."""
        import ray

        needs = self.cluster.resources(job, self.setup.threads)
        threads = str(self.setup.threads)
        variables = {"OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads}  # as in the processes of this machine
        options: dict[str, Any] = {
            "num_cpus": needs["CPU"],
            "num_gpus": needs.get("GPU", 0),
            "num_returns": "streaming",
            "max_retries": 0,  # here, because a retried run continues from its checkpoint, with other events
            "runtime_env": {"env_vars": variables},
            "name": job.title,
        }
        # without a shared folder, local stores of trackers are in the run's folder, and so in its archive
        tracking = replace(self.setup.tracking, folder="") if self.cluster.storage else self.setup.tracking
        shared = order(job, tracking) | {"folder": str(job.folder.absolute())}
        task = ray.remote(train_events).options(**options)
        return task.remote(shared, self.setup.train, self.setup.threads, os.getcwd(), self._url(job))

    def _url(self, job: Job) -> str:
        """The archive of a run; empty without a storage."""
        inside = job.folder.relative_to(self.setup.logs.parent).as_posix()
        return f"{self.cluster.storage.rstrip('/')}/{inside}.zip" if self.cluster.storage else ""


def _slots(needed: Mapping[str, float]) -> int:
    """The number of jobs for which the nodes have resources.

    Raises:
        ValueError: there is no node for a job.
    """
    import ray

    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    found = sum(min(int(node.get(name, 0) // amount) for name, amount in needed.items()) for node in nodes)
    if not found:
        wanted = " and ".join(f"{amount:g} {name}" for name, amount in needed.items())
        raise ValueError(
            f"no node of the Ray cluster has the {wanted} of a run: add such a node, or change --cpus-per-run, --gpus-per-run "
            "or the device"
        )
    return found


def _connect(address: str) -> bool:
    """Connects to a cluster, or starts one; returns whether this connection is new."""
    with extra("ray"):
        import ray
    if ray.is_initialized():
        return False
    address = address or os.environ.get("RAY_ADDRESS", "")
    _check_address(address)
    options: dict[str, Any] = {"logging_level": "ERROR", "log_to_driver": False}
    if not address:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        options |= {"include_dashboard": False, "object_store_memory": MEMORY}
    try:
        ray.init(address or "local", **options)
    except (Exception, SystemExit) as error:
        raise ValueError(f"{_unreachable(address)}: {error}") from error
    return True


def _check_address(address: str) -> None:
    """Checks that something listens at an address of the form HOST:PORT.

    Raises:
        ValueError: nothing does, or it is an address of another form.
    """
    if address in ("", "auto"):
        return
    host, _, port = address.rpartition(":")
    if "://" in address or not host or not port.isdecimal():
        raise ValueError(
            f"--address is HOST:PORT of the head node of a Ray cluster, such as 10.0.0.1:6379, or auto; got {address!r}. From a "
            "machine outside the cluster, submit this command with `ray job submit`"
        )
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=SECONDS).close()
    except OSError as error:
        raise ValueError(f"{_unreachable(address)}: {error.strerror or error}") from None


def _unreachable(address: str) -> str:
    if not address:
        return (
            "no Ray cluster could be started on this machine; start one with `ray start --head` and give --address auto"
        )
    return (
        f"no Ray cluster can be reached at {address}; start one there with `ray start --head`, correct --address, or leave it "
        "out for a cluster on this machine"
    )
