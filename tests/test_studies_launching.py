"""Launchers without Ray: the runner with any workers, the errors of the Ray launcher, the archives of its storage."""

from __future__ import annotations

import io
import socket
import sys
import zipfile
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from command_line import call
from paretorch.storage.folder_archive import check_writable, download, upload
from paretorch.studies.job import Job
from paretorch.studies.launching.contract import Event, WorkerSetup, order
from paretorch.studies.launching.ray_cluster import RayCluster
from paretorch.studies.launching.ray_task import train_events
from paretorch.studies.progress import ConsoleProgress
from paretorch.studies.runner import train_jobs
from paretorch.training.run import Run
from paretorch.training.tracking.contract import NO_TRACKING, Tracking
from studies_progress import FAKE_TRAIN, RecordedProgress, fake_jobs
from training_runs import TINY


class InOrder:
    """Workers that train in this process, one job after the other, when an event is requested."""

    slots = 3

    def __init__(self, setup: WorkerSetup, threads: int = 1) -> None:
        self.setup, self.threads = setup, threads
        self.events: deque[tuple[Job, Event]] = deque()
        self.waiting: deque[Job] = deque()
        self.most, self.released, self.stopped, self.noted = 0, 0, False, False

    def submit(self, job: Job) -> None:
        self.waiting.append(job)
        self.most = max(self.most, len(self.waiting))

    def next_event(self) -> tuple[Job, Event]:
        if not self.events:
            job = self.waiting.popleft()
            events = train_events(order(job, NO_TRACKING), self.setup.train, self.threads, ".", "")
            self.events.extend((job, event) for event in events)
        return self.events.popleft()

    def release_idle(self) -> None:
        self.released += 1

    def stop(self) -> None:
        self.stopped = True


class InOrderLauncher:
    def __init__(self) -> None:
        self.team: InOrder | None = None
        self.jobs: Sequence[Job] = ()

    def start(self, setup: WorkerSetup, jobs: Sequence[Job]) -> InOrder:
        self.team, self.jobs = InOrder(setup), jobs
        return self.team


def test_runner_submits_no_more_jobs_than_there_are_slots(tmp_path: Path) -> None:
    launcher, progress = InOrderLauncher(), RecordedProgress()
    jobs = fake_jobs(tmp_path, ("A", "Raise", "B", "C", "D"))
    failed = train_jobs(jobs, progress, logs=tmp_path / "logs", train=FAKE_TRAIN, launcher=launcher)
    assert [(each.job.label, each.error) for each in failed] == [("Raise", "ValueError: the loss of task 'a' is nan")]
    assert progress.started == (5, 5, 3)
    assert launcher.team is not None
    assert (launcher.team.most, launcher.team.stopped) == (3, True)
    assert launcher.team.released
    assert all(job.finished for job in jobs if job.label != "Raise")


def test_runner_starts_no_workers_if_every_job_is_finished(tmp_path: Path) -> None:
    jobs = fake_jobs(tmp_path, ("A",))
    train_jobs(jobs, RecordedProgress(), logs=tmp_path / "logs", train=FAKE_TRAIN, launcher=InOrderLauncher())
    launcher, progress = InOrderLauncher(), RecordedProgress()
    train_jobs(jobs, progress, logs=tmp_path / "logs", train=FAKE_TRAIN, launcher=launcher)
    assert launcher.team is None
    assert progress.closed


def test_ray_task_sends_a_last_event_where_the_failure_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    (job,) = fake_jobs(tmp_path / "file", ("A",))
    events = list(train_events(order(job, NO_TRACKING), FAKE_TRAIN, 1, str(tmp_path / "nowhere"), ""))
    assert [event["event"] for event in events] == ["started", "failed"]
    assert "NotADirectoryError" in events[-1]["error"]


def test_ray_task_continues_from_its_storage_on_another_node(tmp_path: Path) -> None:
    url = f"file://{tmp_path / 'storage'}/A.zip"
    job = fake_jobs(tmp_path / "one", ("A",), epochs=2)[0]
    longer = fake_jobs(tmp_path / "two", ("A",), epochs=5)[0]
    for each in (job, longer):
        upload_events = list(train_events(order(each, NO_TRACKING), FAKE_TRAIN, 1, ".", url))
    assert [event["done"] for event in upload_events if event["event"] == "progress"] == [2, 3, 4, 5]
    assert not job.folder.exists()
    assert download(url, longer.folder)
    assert longer.finished


# --- errors of the Ray launcher ------------------------------------------------------------------------------------------


def start(**options: Any) -> None:
    RayCluster(**options).start(WorkerSetup(FAKE_TRAIN, 1, Path("logs")), fake_jobs(Path("runs")))


def test_ray_that_is_not_installed_is_an_error_with_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ModuleNotFoundError, match=r"ray is not installed: pip install 'paretorch\[ray\]'"):
        start()


class NoRay:
    """Ray, which is installed and not connected."""

    @staticmethod
    def is_initialized() -> bool:
        return False


def unused_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


def test_ray_cluster_that_cannot_be_reached_is_an_error_with_the_cure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", NoRay)
    address = f"127.0.0.1:{unused_port()}"
    with pytest.raises(
        ValueError, match=f"no Ray cluster can be reached at {address}; start one there with `ray start"
    ):
        start(address=address)
    monkeypatch.setenv("RAY_ADDRESS", address)
    with pytest.raises(ValueError, match=f"no Ray cluster can be reached at {address}"):
        start()


@pytest.mark.parametrize("address", ["ray://10.0.0.1:10001", "nonsense", "host:", "host:first"])
def test_ray_address_of_another_form_is_an_error_with_the_cure(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    monkeypatch.setitem(sys.modules, "ray", NoRay)
    with pytest.raises(ValueError, match="--address is HOST:PORT of the head node of a Ray cluster"):
        start(address=address)


def test_ray_run_on_one_of_several_gpus_is_an_error_with_the_cure() -> None:
    job = Job("sum", Run("fake", device="cuda:1"), Path("runs/sum"))
    with pytest.raises(
        ValueError, match="sum, seed 0: Ray assigns a GPU to each run, so its device is 'cuda', got 'cuda:1'"
    ):
        RayCluster().resources(job, 1)
    assert RayCluster(gpus=0.25).resources(Job("sum", Run("fake", device="cuda"), Path("runs")), 3) == {
        "CPU": 3,
        "GPU": 0.25,
    }
    with pytest.raises(ValueError, match="more than 0 CPUs and GPUs"):
        RayCluster(cpus=0)


def test_study_command_reports_a_missing_ray_and_options_without_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    command = (
        "study",
        TINY,
        "--methods",
        "sum, IMTLG()",
        "--epochs",
        "1",
        "--seeds",
        "1",
        "--out",
        str(tmp_path / "s"),
    )
    code, printed = call(*command, "--launch", "ray")
    assert (code, "Error: ray is not installed: pip install 'paretorch[ray]'" in printed) == (2, True), printed
    code, printed = call(*command, "--address", "auto")
    assert (code, "are options of --launch ray" in printed) == (2, True), printed


# --- archives ------------------------------------------------------------------------------------------------------------


def test_folder_archive_replaces_a_folder_by_all_its_files(tmp_path: Path) -> None:
    folder, url = tmp_path / "run", f"file://{tmp_path / 'store' / 'deep' / 'run.zip'}"
    (folder / "checkpoint" / "epoch-2").mkdir(parents=True)
    (folder / "checkpoint" / "epoch-2" / "model").write_bytes(b"\0" * 1000)
    (folder / ".lock").touch()
    upload(folder, url)
    (folder / "result.json").write_text("{}")
    upload(folder, url)
    other = tmp_path / "other"
    other.mkdir()
    (other / "old").touch()
    assert download(url, other)
    files = sorted(str(path.relative_to(other)) for path in other.rglob("*") if path.is_file())
    assert files == ["checkpoint/epoch-2/model", "result.json"]
    assert [path.name for path in (tmp_path / "store" / "deep").iterdir()] == ["run.zip"]
    assert not download(f"{url}.none", other)
    assert (other / "result.json").exists()


def test_folder_archive_that_is_damaged_changes_nothing(tmp_path: Path) -> None:
    (tmp_path / "run.zip").write_bytes(b"PK no archive")
    (tmp_path / "run").mkdir()
    with pytest.raises(ValueError, match=r"run\.zip is damaged"):
        download(f"file://{tmp_path / 'run.zip'}", tmp_path / "run")
    assert [path.name for path in tmp_path.iterdir() if path.name != "run.zip"] == ["run"]


def test_folder_archive_writes_nothing_outside_the_folder(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "run.zip", "w") as file:
        file.writestr("../outside", "x")
    download(f"file://{tmp_path / 'run.zip'}", tmp_path / "inner" / "run")
    assert [path.name for path in tmp_path.rglob("outside")] == ["outside"]
    assert (tmp_path / "inner" / "run" / "outside").exists()


@pytest.mark.parametrize("url", ["file:///proc/no-folder", "nosuch://bucket/runs"])
def test_storage_that_cannot_be_written_is_an_error_with_the_cure(url: str) -> None:
    with pytest.raises(ValueError, match=f"the storage {url} cannot be written: .*Give an fsspec URL"):
        check_writable(url)


# --- trackers of a study -------------------------------------------------------------------------------------------------


def test_order_has_the_trackers_of_the_study(tmp_path: Path) -> None:
    tracking = Tracking(("wandb",), folder=str(tmp_path), group="mine")
    (job,) = fake_jobs(tmp_path, ("A",))
    assert Tracking.from_json(order(job, tracking)["tracking"]) == tracking


class NotingLauncher(InOrderLauncher):
    """Workers that send a note before each event."""

    def start(self, setup: WorkerSetup, jobs: Sequence[Job]) -> InOrder:
        team = super().start(setup, jobs)
        events = team.next_event

        def next_event() -> tuple[Job, Event]:
            job, event = events()
            if event["event"] == "note" or team.noted:
                team.noted = False
                return job, event
            team.noted = True
            team.events.appendleft((job, event))
            return job, {"event": "note", "text": "the tracker wandb failed"}

        team.next_event = next_event  # type: ignore[method-assign]
        return team


def test_runner_passes_notes_to_the_progress(tmp_path: Path) -> None:
    progress = RecordedProgress()
    jobs = fake_jobs(tmp_path, ("A",))
    train_jobs(jobs, progress, logs=tmp_path / "logs", train=FAKE_TRAIN, launcher=NotingLauncher())
    assert set(progress.notes) == {"the tracker wandb failed"}
    assert progress.errors == {"A": None}


def test_console_prints_a_note_once() -> None:
    file = io.StringIO()
    progress = ConsoleProgress(Console(file=file, force_terminal=False, width=200))
    for text in ("the worker was lost", "the tracker failed", "the worker was lost"):
        progress.note(text)
    assert file.getvalue() == "Note: the worker was lost\nNote: the tracker failed\n"
