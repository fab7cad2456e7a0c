"""Continuation of a run with more epochs."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from paretorch.storage.locks import acquire_lock
from paretorch.training.loop import train
from paretorch.training.record import continuation
from paretorch.training.record.continuation import continue_run, copy_run
from paretorch.training.record.run_identity import verified_result
from paretorch.training.run import Run
from training_runs import TINY, check_equal_results, stop_after

RUN = Run(TINY, method="FAMO()", epochs=5, batch_size=10, seed=4, optimizer_options={"lr": 0.02})


@pytest.mark.parametrize("schedule", ["constant", "step(0.5, 2)"])
def test_continuation_of_a_finished_run_equals_an_uninterrupted_run(schedule: str, tmp_path: Path) -> None:
    run = replace(RUN, schedule=schedule)
    whole = train(run, tmp_path / "whole", progress=None)
    for epochs in (2, 3, 5):
        result = train(replace(run, epochs=epochs), tmp_path / "continued", progress=None)
        assert len(result.history) == epochs
    check_equal_results(result, whole)
    assert verified_result(tmp_path / "continued", run) == result


def test_continuation_trains_only_the_added_epochs(tmp_path: Path) -> None:
    train(replace(RUN, epochs=3), tmp_path, progress=None)
    counted: list[int] = []
    train(RUN, tmp_path, progress=lambda done, of: counted.append(done))
    assert counted == [3, 4, 5]


def test_continuation_of_an_interrupted_run_equals_an_uninterrupted_run(tmp_path: Path) -> None:
    whole = train(RUN, tmp_path / "whole", progress=None)
    with pytest.raises(KeyboardInterrupt):
        train(replace(RUN, epochs=4), tmp_path / "stopped", progress=stop_after(2, of=4))
    check_equal_results(train(RUN, tmp_path / "stopped", progress=None), whole)


def test_continuation_that_is_killed_between_its_two_steps_leaves_the_shorter_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shorter = replace(RUN, epochs=2)
    before = train(shorter, tmp_path, progress=None)

    def full(*_: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(continuation, "write_run", full)
    with pytest.raises(OSError, match="no space"):
        train(RUN, tmp_path, progress=None)
    monkeypatch.undo()
    check_equal_results(train(shorter, tmp_path, progress=None), before)
    assert len(train(RUN, tmp_path, progress=None).history) == 5


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"schedule": "cosine"}, "cosine schedule depends on the number of all epochs"),
        ({"warmup": 0.25}, "warmup=0.25 is a share of all epochs"),
    ],
)
def test_continuation_is_refused_where_the_rate_depends_on_all_epochs(
    change: dict[str, object], reason: str, tmp_path: Path
) -> None:
    run = replace(RUN, **change)  # type: ignore[arg-type]
    before = train(replace(run, epochs=2), tmp_path, progress=None)
    with pytest.raises(ValueError, match=f"{reason}.*--out"):
        train(run, tmp_path, progress=None)
    assert train(replace(run, epochs=2), tmp_path, progress=None) == before


def test_continuation_is_refused_after_a_change_of_the_workload(tmp_path: Path) -> None:
    workload = tmp_path / "mine.py"
    workload.write_text(Path(TINY).read_text())
    run = replace(RUN, workload=str(workload))
    train(replace(run, epochs=1), tmp_path / "run", progress=None)
    workload.write_text(Path(TINY).read_text() + "\n")
    with pytest.raises(ValueError, match="has changed since the run"):
        train(run, tmp_path / "run", progress=None)
    assert json.loads((tmp_path / "run" / "run.json").read_text())["run"]["epochs"] == 1


def test_continued_run_cannot_be_shortened(tmp_path: Path) -> None:
    train(replace(RUN, epochs=2), tmp_path, progress=None)
    with pytest.raises(ValueError, match="with 2 epochs, which cannot be reduced to 1"):
        train(replace(RUN, epochs=1), tmp_path, progress=None)


def test_continue_run_leaves_another_run_unchanged(tmp_path: Path) -> None:
    train(replace(RUN, epochs=1), tmp_path, progress=None)
    files = {path: path.read_bytes() for path in tmp_path.glob("*.json*")}
    continue_run(tmp_path, replace(RUN, epochs=2, seed=5))
    assert {path: path.read_bytes() for path in tmp_path.glob("*.json*")} == files


def test_copied_run_continues_and_its_source_is_unchanged(tmp_path: Path) -> None:
    before = train(replace(RUN, epochs=2), tmp_path / "source", progress=None)
    copy_run(tmp_path / "source", tmp_path / "copies" / "longer")
    assert not (tmp_path / "copies" / "longer" / "result.json").exists()
    continued = train(RUN, tmp_path / "copies" / "longer", progress=None)
    check_equal_results(continued, train(RUN, tmp_path / "whole", progress=None))
    assert verified_result(tmp_path / "source") == before


def test_copy_of_a_run_is_made_by_one_process_at_a_time(tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "copies" / "longer"
    train(replace(RUN, epochs=1), source, progress=None)
    partial = target.with_name(".longer.partial")
    partial.mkdir(parents=True)
    (partial / "run.json").write_text("of another process")
    lock = acquire_lock(source / ".lock", "")
    with pytest.raises(BlockingIOError, match="another process"):
        copy_run(source, target)
    assert (partial / "run.json").read_text() == "of another process"
    lock.release()
    copy_run(source, target)
    before = {path: path.stat().st_mtime_ns for path in target.rglob("*")}
    copy_run(source, target)
    assert {path: path.stat().st_mtime_ns for path in target.rglob("*")} == before
    assert not partial.exists()
