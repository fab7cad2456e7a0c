"""Two processes on one folder, locks that remain, folders that are moved: each run is trained once, with the same result."""

from __future__ import annotations

import os
import random
import signal
import time
from pathlib import Path

import pytest

from faults.experiments import RUNS, Experiment, pack_experiment, run_experiment, study_experiment
from faults.processes import Fault, Outcome, run_process, start_process
from faults.test_kills import results
from image_folders import write_both
from paretorch.storage.locks import acquire_lock

KINDS = ("option-best", "front-MT2O", "packing", "study", "tuning")
LONG = [pytest.param(kind, marks=pytest.mark.long if kind in ("study", "tuning") else ()) for kind in KINDS]
LOCK = ".lock"


def experiment_of(kind: str, folder: Path) -> Experiment:
    if kind == "packing":
        return pack_experiment(write_both(folder / "data"))
    if kind in ("study", "tuning"):
        return study_experiment(folder / "faults", tune=2 * (kind == "tuning"), workers=2)
    return run_experiment(RUNS[kind])


def locked_operations(whole: Outcome) -> range:
    """The numbers of the operations while a process has its first lock, from 1; the one before opens the file of the lock."""
    paths = [path for _, path in whole.operations]
    first = next(place for place, path in enumerate(paths) if path.endswith(LOCK))
    inside = [place for place, path in enumerate(paths) if path.startswith(os.path.dirname(paths[first]))]
    return range(first + 2, max(inside) + 1)


def content(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.name != LOCK}


@pytest.mark.parametrize("kind", LONG)
def test_second_process_in_a_folder_is_refused_and_changes_nothing(kind: str, tmp_path: Path, seed: int) -> None:
    experiment, folder, draws = experiment_of(kind, tmp_path), tmp_path / "shared", random.Random(seed)
    whole = run_process(experiment.start, tmp_path / "whole")
    assert whole.finished, whole
    first = start_process(experiment.start, folder, Fault(signal.SIGSTOP, draws.choice(locked_operations(whole))))
    assert first.wait_until_stopped()
    before, finished = content(folder), results(folder)
    second = run_process(experiment.start, folder)
    if kind in ("study", "tuning"):  # whose workers continue
        assert second.error == "BlockingIOError"
    else:
        assert second.error == ("" if finished else "BlockingIOError"), second
        assert content(folder) == before
    assert second.finished or "another process" in second.message
    first.resume()
    assert first.outcome().finished
    assert experiment.numbers(folder) == experiment.numbers(tmp_path / "whole")


@pytest.mark.parametrize("kind", LONG)
def test_process_that_waits_for_no_lock_finds_what_another_one_finished(kind: str, tmp_path: Path) -> None:
    experiment, folder = experiment_of(kind, tmp_path), tmp_path / "shared"
    whole = run_process(experiment.start, tmp_path / "whole")
    opening = locked_operations(whole)[0] - 1  # the folder was read, and the lock is free
    first = start_process(experiment.start, folder, Fault(signal.SIGSTOP, operation=opening))
    assert first.wait_until_stopped()
    assert run_process(experiment.start, folder).finished
    before, finished = content(folder), results(folder)
    first.resume()
    assert first.outcome().finished
    assert results(folder) == finished, "a finished run was trained again"
    if kind not in ("study", "tuning"):  # whose file has the time of its last start
        assert content(folder) == before


@pytest.mark.long
@pytest.mark.parametrize("kind", KINDS)
def test_processes_that_start_at_once_give_the_result_of_one(
    kind: str, tmp_path: Path, given_count: int | None
) -> None:
    experiment = experiment_of(kind, tmp_path)
    assert run_process(experiment.start, tmp_path / "whole").finished
    expected = experiment.numbers(tmp_path / "whole")
    for number in range(given_count or 5):
        folder = tmp_path / f"shared-{number}"
        outcomes = [each.outcome() for each in [start_process(experiment.start, folder) for _ in range(3)]]
        assert any(outcome.finished for outcome in outcomes), outcomes
        assert {outcome.error for outcome in outcomes} <= {"", "BlockingIOError"}, outcomes
        assert experiment.numbers(folder) == expected


@pytest.mark.parametrize("kind", LONG)
@pytest.mark.parametrize("owner", ["ended", "another program"])
@pytest.mark.sampled(2)
def test_lock_that_remains_without_its_process_is_free(kind: str, owner: str, tmp_path: Path) -> None:
    experiment, folder = experiment_of(kind, tmp_path), tmp_path / "left"
    whole = run_process(experiment.start, tmp_path / "whole")
    killed = start_process(experiment.start, folder, Fault(signal.SIGKILL, operation=locked_operations(whole)[0]))
    assert killed.outcome().signal == signal.SIGKILL
    (lock,) = folder.rglob(LOCK)
    lock.write_text(str(killed.process.pid if owner == "ended" else os.getpid()))
    assert run_process(experiment.start, folder).finished
    assert experiment.numbers(folder) == experiment.numbers(tmp_path / "whole")


def wait_for_workers(folder: Path) -> None:
    """Waits until no process has a lock in the folder: the workers of a study that is killed end a moment later."""
    for path in folder.rglob(LOCK):
        while True:
            try:
                acquire_lock(path, "").release()
                break
            except BlockingIOError:
                time.sleep(0.01)


@pytest.mark.parametrize("kind", LONG)
def test_folder_that_is_moved_continues_to_the_same_result(kind: str, tmp_path: Path, seed: int) -> None:
    experiment, folder = experiment_of(kind, tmp_path), tmp_path / "killed"
    whole = run_process(experiment.start, tmp_path / "whole")
    places = locked_operations(whole)
    operation = random.Random(seed).choice(places[len(places) // 3 : 2 * len(places) // 3])
    assert run_process(experiment.start, folder, Fault(signal.SIGKILL, operation)).signal == signal.SIGKILL
    wait_for_workers(folder)
    (tmp_path / "other disk").mkdir()
    moved = folder.rename(tmp_path / "other disk" / "moved")
    before = results(moved)
    assert run_process(experiment.start, moved).finished
    assert results(moved).items() >= before.items()
    assert experiment.numbers(moved) == experiment.numbers(tmp_path / "whole")
    assert not folder.exists()
    again = moved.rename(tmp_path / "finished")
    finished = results(again)
    assert run_process(experiment.start, again).finished
    assert results(again) == finished, "a finished run was trained again"
