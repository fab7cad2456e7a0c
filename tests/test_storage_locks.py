"""A folder that is moved, removed or replaced while a command writes to it: nothing at its path is changed any more."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from paretorch.pareto.files import front_folder
from paretorch.storage import atomic, checkpoint_folder
from paretorch.storage.checkpoint_file import CheckpointFile
from paretorch.storage.locks import MovedFolderError, acquire_lock, check_held, locks_above, watch_locks
from paretorch.studies.failure_record import FailureRecord, write_failure
from paretorch.studies.job import Job
from paretorch.studies.runner import train_jobs
from paretorch.training.loop import train
from paretorch.training.record.result import Result
from paretorch.training.record.run_record import RunRecord
from paretorch.training.run import Run
from studies_progress import FAKE_TRAIN, RecordedProgress, fake_jobs
from training_runs import TINY

RUN = Run(TINY, epochs=3, batch_size=8)
OTHER = Run(TINY, epochs=1, batch_size=8, seed=1)
FRONT = Run(
    "synthetic", {"samples": 64, "hidden": 8}, epochs=2, batch_size=32, front="mt2o", front_options={"models": 2}
)
EMPTY: dict[str, dict[str, object]] = {part: {} for part in checkpoint_folder.PARTS}


def move(folder: Path) -> None:
    folder.rename(folder.with_name("moved"))


def remove(folder: Path) -> None:
    shutil.rmtree(folder)


def replace(folder: Path) -> None:
    """Moves the folder, and makes another one with a lock and files of its own."""
    move(folder)
    (folder / "checkpoint").mkdir(parents=True)
    for name in (".lock", "file", ".file.writing", "checkpoint/.writing", "checkpoint/epoch-2"):
        (folder / name).write_text("theirs")


def unlock(folder: Path) -> None:
    (folder / ".lock").unlink()


CHANGES = pytest.mark.parametrize("change", [move, remove, replace, unlock])


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() if path.is_file() else b"" for path in sorted(folder.rglob("*"))}


WRITERS: dict[str, Callable[[Path], object]] = {
    "write": lambda folder: atomic.write(folder / "file", b"ours"),
    "write_through": lambda folder: atomic.write_through(folder / "file", b"ours"),
    "create": lambda folder: atomic.create(folder / "file"),
    "open_to_append": lambda folder: atomic.open_to_append(folder / "file"),
    "own_folder": lambda folder: atomic.own_folder(folder / "new" / "folder"),
    "check_own": lambda folder: atomic.check_own(folder),
    "remove_folder": lambda folder: atomic.remove_folder(folder / "checkpoint"),
    "checkpoint folder": lambda folder: checkpoint_folder.save(folder / "checkpoint", 1, EMPTY, {}, None),
    "checkpoint file": lambda folder: CheckpointFile(folder / "checkpoint", {}).save(1, {}),
    "failure": lambda folder: write_failure(folder, RUN, FailureRecord("", "")),
    "front": lambda folder: front_folder.write(folder, {}, [{"weight": torch.zeros(1)}]),
    "run below": lambda folder: RunRecord(folder / "run", RUN, {}),
}


@CHANGES
@pytest.mark.parametrize("writer", WRITERS.values(), ids=WRITERS)
def test_writers_change_nothing_in_a_folder_that_is_no_longer_the_locked_one(
    tmp_path: Path, writer: Callable[[Path], object], change: Callable[[Path], None]
) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    with acquire_lock(folder / ".lock", "locked"):
        check_held(folder / "file")
        change(folder)
        before = contents(tmp_path)
        with pytest.raises(MovedFolderError, match="was moved, removed or replaced") as caught:
            writer(folder)
    assert caught.value.errno == errno.ESTALE
    assert contents(tmp_path) == before


@CHANGES
def test_lock_of_a_relative_path_and_of_a_linked_folder_is_checked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: Callable[[Path], None]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("disk/run").mkdir(parents=True)
    Path("runs").symlink_to("disk")
    with acquire_lock(Path("runs/run/.lock"), "locked"):
        paths = [Path("runs/run/file"), tmp_path / "runs/run/checkpoint/epoch-1"]
        for path in paths:
            check_held(path)
        change(Path("disk/run"))
        for path in paths:
            with pytest.raises(MovedFolderError):
                check_held(path)
        check_held(Path("other"))


def test_released_lock_is_not_checked(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    acquire_lock(tmp_path / "run" / ".lock", "locked").release()
    remove(tmp_path / "run")
    check_held(tmp_path / "run" / "file")
    assert locks_above(tmp_path / "run") == {}


def test_lock_of_the_process_that_started_this_one_is_checked(tmp_path: Path) -> None:
    study = tmp_path / "study"
    study.mkdir()
    with acquire_lock(study / ".lock", "locked"):
        locks = locks_above(study / "run" / "file")
    watch_locks(locks)
    check_held(study / "run" / "file")
    move(study)
    with pytest.raises(MovedFolderError):
        check_held(study / "run" / "file")
    assert list(locks) == [str(study)]


def test_temporary_file_of_the_new_owner_is_not_removed_when_the_folder_is_replaced_during_a_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    write_through = atomic.write_through

    def replaced_after(path: Path, content: bytes) -> None:
        write_through(path, content)
        replace(folder)

    monkeypatch.setattr(atomic, "write_through", replaced_after)
    with acquire_lock(folder / ".lock", "locked"), pytest.raises(MovedFolderError):
        atomic.write(folder / "file", b"ours")
    assert (folder / ".file.writing").read_text() == (folder / "file").read_text() == "theirs"


@CHANGES
@pytest.mark.parametrize("run", [RUN, FRONT], ids=["train", "front"])
def test_training_stops_when_its_folder_is_moved_removed_or_replaced(
    tmp_path: Path, run: Run, change: Callable[[Path], None]
) -> None:
    folder = tmp_path / "run"
    after: dict[str, bytes] = {}

    def progress(done: int, of: int) -> None:
        del of
        if done == 1:
            change(folder)
            after.update(contents(folder))

    with pytest.raises(MovedFolderError, match="the command has stopped"):
        train(run, folder, progress=progress)
    assert contents(folder) == after
    assert folder.exists() == bool(after)


def test_training_that_was_moved_leaves_the_run_that_another_one_trains_at_its_path(tmp_path: Path) -> None:
    folder, other = tmp_path / "run", tmp_path / "other"
    train(OTHER, other, progress=None)
    expected = list(contents(other).values())

    def progress(done: int, of: int) -> None:
        del of
        if done == 1:
            move(folder)
            other.rename(folder)

    with pytest.raises(MovedFolderError):
        train(RUN, folder, progress=progress)
    assert Result.load(folder).run == OTHER
    assert list(contents(folder).values()) == expected
    assert train(RUN, tmp_path / "moved", progress=None).run == RUN, "the moved folder does not resume"


@pytest.mark.parametrize("epoch", [1, 3])
@pytest.mark.parametrize("kind", ["removed", "replaced"])
def test_training_stops_when_its_events_are_removed_or_replaced(tmp_path: Path, kind: str, epoch: int) -> None:
    events = tmp_path / "events.jsonl"

    def progress(done: int, of: int) -> None:
        del of
        if done == epoch:
            content = events.read_bytes()
            events.unlink()
            if kind == "replaced":
                events.write_bytes(content)

    with pytest.raises(OSError, match=r"events\.jsonl was moved, removed or replaced"):
        train(RUN, tmp_path, progress=progress)
    assert not (tmp_path / "result.json").exists()


@pytest.mark.usefixtures("tests_on_worker_path")
@pytest.mark.parametrize("change", [move, remove])
def test_study_stops_when_its_folder_is_moved_or_removed(tmp_path: Path, change: Callable[[Path], None]) -> None:
    study = tmp_path / "study"
    study.mkdir()

    class Changing(RecordedProgress):
        def advance(self, job: Job, epochs: int, seconds: float) -> None:
            super().advance(job, epochs, seconds)
            if epochs == 1 and study.exists():
                change(study)

    progress = Changing()
    with acquire_lock(study / ".lock", "locked"), pytest.raises(MovedFolderError, match="study, or the file"):
        train_jobs(fake_jobs(study, ("Slow", "A"), 600), progress, workers=2, logs=study / "logs", train=FAKE_TRAIN)
    assert not study.exists()
    assert ("Slow", 600) not in progress.steps, "it trained on to the end"
