"""The files of a run and the lock on its folder."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

import paretorch
from paretorch.training.loop import train
from paretorch.training.record.result import Epoch, Result, Scores
from paretorch.training.record.run_record import RunRecord, step_interval
from paretorch.training.run import Run
from training_runs import TINY, stop_after

RUN = Run(TINY, method="MGDA()", epochs=2, batch_size=8)


def lines(folder: Path, kind: str) -> list[dict[str, object]]:
    events = [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]
    return [event for event in events if event["event"] == kind]


def test_run_writes_its_record(tmp_path: Path) -> None:
    result = train(RUN, tmp_path, progress=None)
    started = json.loads((tmp_path / "run.json").read_text())
    assert Run.from_json(started["run"]) == RUN == result.run
    assert started["key"] == RUN.key
    assert started["versions"]["paretorch"] == paretorch.__version__
    assert {"torch", "python"} <= set(started["versions"])
    assert {"system", "cores", "threads"} <= set(started["machine"])
    assert len(lines(tmp_path, "epoch")) == 2
    steps = lines(tmp_path, "step")
    assert [step["step"] for step in steps] == list(range(14))
    assert set(steps[0]) == {"event", "epoch", "step", "losses", "status", "weights", "worst_cosine"}


def test_result_contains_scores_times_memory_and_sizes(tmp_path: Path) -> None:
    result = train(RUN, tmp_path, progress=None)
    assert result.tasks == ("sign", "size")
    assert [epoch.epoch for epoch in result.history] == [1, 2]
    for epoch in result.history:
        assert set(epoch.losses) == set(epoch.weights) == set(epoch.validation.losses) == {"sign", "size"}
        assert sum(epoch.statuses.values()) == 7
        assert epoch.samples == 56
        assert sum(epoch.weights.values()) == pytest.approx(2)
        assert [len(row) for row in epoch.cosines.values()] == [1, 0]
    assert result.validation == result.history[-1].validation
    assert result.test.metrics.keys() == {"sign", "size"}
    assert result.test != result.validation
    assert result.higher_is_better == {"sign": {"accuracy": True}, "size": {"error": False}}
    assert result.parameters == {"encoder": 42, "head sign": 14, "head size": 7, "total": 63}
    assert result.peak_memory["bytes"] > 0
    assert result.facts["passes per epoch of each stream"] == [1]
    assert Result.load(tmp_path) == result


def test_single_task_run_has_one_head_and_no_weights(tmp_path: Path) -> None:
    result = train(Run(TINY, tasks=("size",), batch_size=8), tmp_path, progress=None)
    assert set(result.test.losses) == set(result.higher_is_better) == {"size"}
    assert result.parameters == {"encoder": 42, "head size": 7, "total": 49}
    assert result.history[0].weights == {}
    assert result.history[0].statuses == {"plain": 7}


def test_result_contains_the_repeats_of_shorter_streams(tmp_path: Path) -> None:
    run = Run(TINY, {"own_inputs": True, "samples": 48}, surface="parameters", batch_size=8)
    assert train(run, tmp_path, progress=None).facts["passes per epoch of each stream"] == [1, 3]


def test_finished_run_is_returned_unchanged(tmp_path: Path) -> None:
    result = train(RUN, tmp_path, progress=None)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    assert train(RUN, tmp_path, progress=lambda *_: pytest.fail("trained again")) == result
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


@pytest.mark.parametrize("epochs", [1, 2], ids=["unfinished", "finished"])
def test_folder_of_another_run_is_refused_with_the_difference(tmp_path: Path, epochs: int) -> None:
    if epochs == 1:
        with pytest.raises(KeyboardInterrupt):
            train(RUN, tmp_path, progress=stop_after(1, of=2))
    else:
        train(RUN, tmp_path, progress=None)
    other = Run(TINY, method="PCGrad()", epochs=2, batch_size=8)
    with pytest.raises(ValueError, match=r"contains another run: its method is 'MGDA\(\)', expected 'PCGrad\(\)'"):
        train(other, tmp_path, progress=None)


def test_run_of_a_changed_workload_file_is_not_resumed(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text(Path(TINY).read_text())
    run = Run(str(path), batch_size=8)
    train(run, tmp_path / "run", progress=None)
    path.write_text(path.read_text().replace("30 *", "31 *"))
    with pytest.raises(ValueError, match=r"mine\.py has changed since"):
        train(run, tmp_path / "run", progress=None)


FORKING = """
import os, sys, time
from pathlib import Path
from paretorch.training.record.run_record import RunRecord
from paretorch.training.run import Run
record = RunRecord(Path(sys.argv[1]), Run(sys.argv[2]), {})
if not os.fork():
    print("forked", flush=True)
    time.sleep(60)
    os._exit(0)
time.sleep(60)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are forked")
def test_lock_ends_with_its_process_even_if_a_forked_process_lives(tmp_path: Path) -> None:
    arguments = [sys.executable, "-c", FORKING, str(tmp_path), TINY]
    process = subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True, start_new_session=True)
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == "forked\n"
        with pytest.raises(BlockingIOError, match="another process is training in"):
            RunRecord(tmp_path, Run(TINY), {})
        process.kill()
        process.wait()
        with RunRecord(tmp_path, Run(TINY), {}):
            pass
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.stdout.close()


def test_lock_refuses_a_second_training_in_a_folder(tmp_path: Path) -> None:
    with RunRecord(tmp_path, RUN, {}), pytest.raises(BlockingIOError, match="another process is training in"):
        train(RUN, tmp_path, progress=None)
    train(RUN, tmp_path, progress=None)


def test_missing_events_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        train(RUN, tmp_path, progress=stop_after(1, of=2))
    (tmp_path / "events.jsonl").write_text("")
    with pytest.raises(ValueError, match=r"events\.jsonl is damaged: expected the epochs 1 to 1"):
        train(RUN, tmp_path, progress=None)


@pytest.mark.parametrize("count", [1, 2, 40, 128])
def test_step_lines_of_a_long_run_remain_small(count: int) -> None:
    tasks = tuple(f"task number {index:03d}" for index in range(count))
    values = dict.fromkeys(tasks, -1.23456e-10)
    line = {"event": "step", "epoch": 100, "step": 100_000, "losses": values, "weights": values, "status": "x" * 13}
    written = -(-100_000 // step_interval(100_000, tasks))
    assert written > 100
    assert written * len(json.dumps(line | {"worst_cosine": -1.23456e-10}) + "\n") < 5_000_000


@pytest.mark.parametrize("count", [2, 10, 40])
def test_events_of_100_000_steps_remain_below_5_mb(tmp_path: Path, count: int) -> None:
    tasks, epochs, steps = tuple(f"task {index}" for index in range(count)), 100, 100_000
    values = dict.fromkeys(tasks, -1.23456e-10)
    line = {"losses": values, "status": "not converged", "weights": values, "worst_cosine": -1.23456e-10}
    every = step_interval(steps, tasks)
    scores = Scores(
        dict.fromkeys(tasks, -1.2345678901234567e-10), {t: {"accuracy": 0.12345678901234567} for t in tasks}
    )
    seconds = {"training": 123.45678901234567, "evaluation": 1.2345678901234567, "loading": 1.2345678901234567}
    cosines = {task: [-0.1234] * (count - 1 - place) for place, task in enumerate(tasks)}
    with RunRecord(tmp_path, RUN, {}) as record:
        for epoch in range(1, epochs + 1):
            for step in range((epoch - 1) * 1000, epoch * 1000):
                if step % every == 0:
                    record.step(epoch, step, partial(dict, line))
            record.epoch(Epoch(epoch, scores.losses, scores, scores.losses, {"solved": 1000}, 1000, seconds, cosines))
        record.sync()
    assert len(lines(tmp_path, "step")) == -(-steps // every) > 100
    assert len(lines(tmp_path, "epoch")) == epochs
    assert (tmp_path / "events.jsonl").stat().st_size < 5_000_000


def test_step_lines_are_written_after_an_error(tmp_path: Path) -> None:
    def fail() -> None:
        with RunRecord(tmp_path, RUN, {}) as record:
            record.step(1, 0, lambda: {"losses": {"sign": 1.0}})
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert [line["step"] for line in lines(tmp_path, "step")] == [0]


def test_step_interval_is_one_for_short_runs() -> None:
    assert step_interval(1, ("a",)) == step_interval(150, ("a",)) == step_interval(300, ("a",), line_search=True) == 1
    assert step_interval(151, ("a",)) == step_interval(301, ("a",), line_search=True) == 2


def test_result_with_nonfinite_numbers_is_strict_json(tmp_path: Path) -> None:
    scores = Scores({"a": math.inf}, {"a": {"error": math.nan}})
    epoch = Epoch(1, {"a": -math.inf}, scores, {}, {"plain": 1}, 8, {"training": 1.0, "evaluation": 1.0})
    result = Result(
        RUN, ("a",), (epoch,), scores, scores, {}, {}, 1.0, {"bytes": None, "measures": "nothing"}, {"total": 1}, {}
    )
    result.save(tmp_path)
    assert not {"NaN", "Infinity"} & set((tmp_path / "result.json").read_text().replace(",", " ").split())
    back = Result.load(tmp_path)
    assert back.history[0].losses == {"a": -math.inf}
    assert back.test.losses == {"a": math.inf}
    assert math.isnan(back.test.metrics["a"]["error"])


@pytest.mark.parametrize("content", ["", "{", "[]", '{"format": 99}'])
def test_result_load_names_an_invalid_file(tmp_path: Path, content: str) -> None:
    (tmp_path / "result.json").write_text(content)
    with pytest.raises(ValueError, match=r"result\.json is (damaged|not a result)"):
        Result.load(tmp_path)


@pytest.mark.parametrize(
    ("name", "edit"),
    [
        ("result.json", lambda text: text.replace('"seconds_per_epoch": ', '"seconds_per_epoch": 1')),
        ("result.json", lambda text: text.replace('"checksum"', '"no_checksum"')),
        ("events.jsonl", lambda text: text.replace('"epoch": 1', '"epoch": 7', 1)),
        ("events.jsonl", lambda text: text[: len(text) // 2]),
        ("events.jsonl", None),
    ],
    ids=["a number", "without checksum", "an event", "cut", "removed"],
)
def test_result_that_was_edited_is_refused(tmp_path: Path, name: str, edit: Callable[[str], str] | None) -> None:
    train(RUN, tmp_path, progress=None)
    path = tmp_path / name
    if edit is None:
        path.unlink()
    else:
        before = path.read_text()
        path.write_text(edit(before))
        assert path.read_text() != before
    reason = "is missing" if edit is None else "differs from what the run wrote"
    with pytest.raises(ValueError, match=rf"{name} {reason}.*Restore the file, or remove the folder"):
        Result.load(tmp_path)


def test_result_checksum_ignores_indentation(tmp_path: Path) -> None:
    result = train(RUN, tmp_path, progress=None)
    path = tmp_path / "result.json"
    path.write_text(json.dumps(json.loads(path.read_text()), indent=4, sort_keys=True))
    assert Result.load(tmp_path) == result


def test_run_without_test_does_not_read_the_test_set(tmp_path: Path) -> None:
    run = dataclasses.replace(RUN, test=False)
    result = train(run, tmp_path, progress=None)
    assert result.test == Scores({}, {})
    assert result.validation == train(RUN, tmp_path / "tested", progress=None).validation
    assert Run.from_json(json.loads(json.dumps(run.to_json()))) == run
    assert run.key != RUN.key
    assert "test" not in RUN.to_json(), "the keys of earlier runs change"


def test_unfinished_run_has_no_result(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="is not finished"):
        Result.load(tmp_path)
