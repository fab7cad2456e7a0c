"""Trackers: they log the record of a run, continue a resumed one, and cannot stop or change a training."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from command_line import call
from paretorch.storage.json_files import read_json
from paretorch.studies.job import Job
from paretorch.studies.launching.contract import order
from paretorch.studies.worker import train_order, train_with_rare_checkpoints
from paretorch.training.loop import train
from paretorch.training.run import Run
from paretorch.training.tracking import tracked_progress
from paretorch.training.tracking.contract import TrackedRun, Tracking, TrackingWarning
from paretorch.training.tracking.record_reader import RecordReader, event_numbers, numbers_of
from paretorch.training.tracking.tracked_progress import installed
from training_runs import TINY, check_equal_results, stop_after

RUN = Run(TINY, method="IMTLG()", epochs=4, batch_size=20, optimizer_options={"lr": 0.02})
Point = tuple[str, int]


class ListTracker:
    """Keeps what it receives, in this process."""

    runs: list[ListTracker]

    def __init__(self, run: TrackedRun) -> None:
        self.identifier = run.earlier or f"run {len(self.runs)}"
        self.run, self.points = run, list[tuple[str, int, dict[str, float]]]()
        self.finished: bool | None = None
        self.runs.append(self)

    def log(self, axis: str, position: int, numbers: Mapping[str, float]) -> None:
        self.points.append((axis, position, dict(numbers)))

    def close(self, finished: bool) -> None:
        self.finished = finished

    def positions(self, axis: str) -> list[int]:
        return [position for found, position, _ in self.points if found == axis]


@pytest.fixture
def trackers(monkeypatch: pytest.MonkeyPatch) -> list[ListTracker]:
    """Replaces MLflow's adapter."""
    monkeypatch.setattr(ListTracker, "runs", [], raising=False)
    monkeypatch.setitem(tracked_progress.OPEN, "mlflow", ListTracker)
    return ListTracker.runs


def test_tracking_logs_every_number_of_the_record(tmp_path: Path, trackers: list[ListTracker]) -> None:
    result = train(RUN, tmp_path / "run", progress=None, tracking=Tracking(("mlflow",)))
    (tracker,) = trackers
    events = RecordReader(tmp_path / "run").new_events()
    assert [point[:2] for point in tracker.points[:-1]] == [(each["event"], each[each["event"]]) for each in events]
    assert [point[2] for point in tracker.points[:-1]] == [event_numbers(each) for each in events]
    last = tracker.points[-2][2]
    assert last["losses/sign"] == result.history[-1].losses["sign"]
    assert last["weights/size"] == result.history[-1].weights["size"]
    assert last["validation/metrics/sign/accuracy"] == result.validation.metrics["sign"]["accuracy"]
    assert last["seconds/training"] == result.history[-1].seconds["training"]
    assert tracker.points[-1][:2] == ("epoch", RUN.epochs)
    assert tracker.points[-1][2]["test/losses/size"] == result.test.losses["size"]
    assert tracker.finished
    assert tracker.run.parameters["optimizer_options/lr"] == 0.02
    assert (tracker.run.name, tracker.run.group) == ("run", "training_workload")


def test_tracking_continues_the_tracked_run_without_repeated_points(
    tmp_path: Path, trackers: list[ListTracker]
) -> None:
    options = {"tracking": Tracking(("mlflow",)), "checkpoint_every": 3}
    with pytest.raises(KeyboardInterrupt):  # after the second epoch, which has no checkpoint and is trained again
        train(RUN, tmp_path, progress=stop_after(2, of=RUN.epochs), **options)  # type: ignore[arg-type]
    assert trackers[0].finished is False
    train(RUN, tmp_path, progress=None, **options)  # type: ignore[arg-type]
    first, second = trackers
    assert second.run.earlier == first.identifier == "run 0"
    assert first.positions("epoch") + second.positions("epoch") == [1, 2, 3, 4, 4]  # the last one has the test scores
    steps = first.positions("step") + second.positions("step")
    assert steps == sorted(set(steps))
    assert len(steps) == len([each for each in RecordReader(tmp_path).new_events() if each["event"] == "step"])


def test_tracking_of_a_resumed_run_begins_with_its_earlier_epochs(tmp_path: Path, trackers: list[ListTracker]) -> None:
    with pytest.raises(KeyboardInterrupt):
        train(RUN, tmp_path, progress=stop_after(2, of=RUN.epochs))
    train(RUN, tmp_path, progress=None, tracking=Tracking(("mlflow",)))
    assert trackers[0].positions("epoch") == [1, 2, 3, 4, 4]


class HostileTracker(ListTracker):
    """Draws from all random generators; raises in the method that is named."""

    raises = "log"

    def __init__(self, run: TrackedRun) -> None:
        super().__init__(run)
        self.disturb("__init__")

    def log(self, axis: str, position: int, numbers: Mapping[str, float]) -> None:
        super().log(axis, position, numbers)
        self.disturb("log")

    def close(self, finished: bool) -> None:
        self.disturb("close")

    def disturb(self, method: str) -> None:
        random.random()
        np.random.rand(3)  # noqa: NPY002
        torch.rand(5)
        if method == self.raises:
            raise OSError("no space left on the disk")


@pytest.mark.parametrize("raises", ["__init__", "log", "close"])
def test_tracking_that_fails_warns_once_and_does_not_change_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trackers: list[ListTracker], raises: str
) -> None:
    plain = train(RUN, tmp_path / "plain", progress=None)
    monkeypatch.setattr(HostileTracker, "raises", raises)
    monkeypatch.setitem(tracked_progress.OPEN, "mlflow", HostileTracker)
    with pytest.warns(TrackingWarning, match="mlflow failed, and the run continues.*no space left") as warned:
        disturbed = train(RUN, tmp_path / "disturbed", progress=None, tracking=Tracking(("mlflow",)))
    assert len(warned) == 1
    check_equal_results(disturbed, plain)
    assert disturbed.validation == plain.validation


def test_tracking_of_one_tracker_is_independent_of_another_that_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trackers: list[ListTracker]
) -> None:
    monkeypatch.setitem(tracked_progress.OPEN, "wandb", HostileTracker)
    with pytest.warns(TrackingWarning, match="the tracker wandb failed"):
        train(RUN, tmp_path, progress=None, tracking=Tracking(("wandb", "mlflow")))
    kept = next(each for each in trackers if type(each) is ListTracker)
    assert kept.positions("epoch") == [1, 2, 3, 4, 4]
    assert set(read_json(tmp_path / "tracking.json")["trackers"]) == {"mlflow"}


def test_tracking_with_a_damaged_file_begins_a_new_tracked_run(tmp_path: Path, trackers: list[ListTracker]) -> None:
    (tmp_path / "tracking.json").write_text("{")
    with pytest.warns(TrackingWarning, match=r"tracking\.json is damaged"):
        train(RUN, tmp_path, progress=None, tracking=Tracking(("mlflow",)))
    assert trackers[0].run.earlier is None
    assert json.loads((tmp_path / "tracking.json").read_text())["trackers"]["mlflow"]["epoch"] == RUN.epochs


def test_tracking_of_a_missing_package_is_a_warning_with_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "wandb" else object())
    with pytest.warns(TrackingWarning, match=r"wandb is not installed: pip install 'paretorch\[tracking\]'"):
        assert installed(Tracking(("wandb", "tensorboard"))).trackers == ("tensorboard",)


def test_tracking_refuses_an_unknown_tracker() -> None:
    with pytest.raises(ValueError, match="no tracker 'neptune': expected one or several of mlflow, tensorboard, wandb"):
        Tracking.named("mlflow, neptune")


def test_tracking_reads_complete_lines_only(tmp_path: Path) -> None:
    reader = RecordReader(tmp_path)
    assert reader.new_events() == []
    (tmp_path / "events.jsonl").write_text('{"event": "step", "step": 0}\n{"event": "st')
    assert [each["step"] for each in reader.new_events()] == [0]
    with (tmp_path / "events.jsonl").open("a") as file:
        file.write('ep", "step": 7, "losses": {"a": "inf"}}\n')
    (event,) = reader.new_events()
    assert event_numbers(event) == {"losses/a": float("inf")}


def test_tracking_leaves_out_what_is_no_number() -> None:
    values = {"on": True, "cosines": [0.5], "search": {"outcome": "accepted", "trials": 2}}
    assert numbers_of(values) == {"search/trials": 2.0}


@pytest.mark.filterwarnings("default::paretorch.training.tracking.contract.TrackingWarning")
def test_tracking_that_fails_in_a_worker_is_sent_as_a_note(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trackers: list[ListTracker]
) -> None:
    monkeypatch.setitem(tracked_progress.OPEN, "mlflow", HostileTracker)
    events: list[dict[str, Any]] = []
    tracking = Tracking(("mlflow",), str(tmp_path), "mine")
    train_order(order(Job("IMTL-G", RUN, tmp_path / "run"), tracking), train_with_rare_checkpoints, events.append)
    assert [event["event"] for event in events] == ["started", "progress", "note", *["progress"] * 4, "finished"]
    assert "no space left" in events[2]["text"]
    assert (trackers[0].run.group, trackers[0].run.store) == ("mine", tmp_path)


@pytest.mark.filterwarnings("default::paretorch.training.tracking.contract.TrackingWarning")
def test_tracking_on_the_command_line_is_a_note_where_it_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trackers: list[ListTracker]
) -> None:
    monkeypatch.setitem(tracked_progress.OPEN, "wandb", HostileTracker)
    command = ("train", TINY, "--epochs", "1", "--device", "cpu", "--out", str(tmp_path))
    code, printed = call(*command, "--track", "mlflow,wandb")
    assert code == 0, printed
    assert "Note: the tracker wandb failed, and the run continues without it: OSError: no space" in printed
    assert trackers[0].positions("epoch") == [1, 1]


def test_tracking_on_the_command_line_refuses_an_unknown_tracker(tmp_path: Path) -> None:
    code, printed = call("train", TINY, "--out", str(tmp_path / "run"), "--track", "neptune")
    assert code == 2
    assert "no tracker 'neptune'" in printed
    assert not (tmp_path / "run").exists()
