"""Line searches in runs: named where an optimizer is, resumed exactly, recorded step by step."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from paretorch.training.loop import train
from paretorch.training.spec import Run
from paretorch.workloads.streams import Plain

SMALL: dict[str, Plain] = {"train": 96, "validation": 32, "test": 32}


def run(options: dict[str, Plain], optimizer: str = "FastBacktracking", epochs: int = 2) -> Run:
    return Run(
        "digits",
        options=SMALL,
        method="MGDA()",
        optimizer=optimizer,
        optimizer_options=options,
        epochs=epochs,
        batch_size=32,
    )


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"displacement": "linearised", "bound": "UpperBound('regression', window=20)"},
        {"direction": "Adam(lr=0.01)", "start": "grow"},
        {"direction": "Kronecker(every=2)", "bound": "sasa"},
    ],
)
def test_a_stopped_run_continues_as_if_it_had_not_been(tmp_path: Path, options: dict[str, Plain]) -> None:
    whole = train(run(options, epochs=3), tmp_path / "whole", progress=None)

    class StopError(Exception):
        pass

    def stop(done: int, of: int) -> None:
        if done == 2:
            raise StopError

    with pytest.raises(StopError):
        train(run(options, epochs=3), tmp_path / "cut", progress=stop)
    cut = train(run(options, epochs=3), tmp_path / "cut", progress=None)
    assert cut.test == whole.test
    assert [epoch.losses for epoch in cut.history] == [epoch.losses for epoch in whole.history]


def test_steps_are_recorded(tmp_path: Path) -> None:
    train(run({"verify": 1}, "Backtracking"), tmp_path, progress=None)
    events = [json.loads(line) for line in (tmp_path / "events.jsonl").read_text().splitlines()]
    steps = [event for event in events if event["event"] == "step"]
    assert len(steps) == 6
    for step in steps:
        said = step["search"]
        assert said["outcome"] == "accepted"
        assert said["predicted"] == said["actual"]
        assert all(said["actual"][task] < step["losses"][task] for task in ("left", "right"))
        assert 0 < said["step"] <= said["bound"]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"clip": 1.0}, "clip"),
        ({"schedule": "cosine"}, "schedule"),
        ({"door": {"every": 2}}, "Fork or Balancer"),
        ({"precision": "bfloat16"}, "float32"),
        ({"optimizer_options": {"lr": 0.1}}, "lr"),
        ({"optimizer_options": {"max_step": -1.0}}, "max_step"),
        ({"optimizer_options": {"direction": "Adamm"}}, "Adam"),
        ({"optimizer_options": {"bound": "UpperBond(3)"}}, "UpperBound"),
    ],
)
def test_what_a_search_has_no_use_for_is_refused(tmp_path: Path, changed: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        train(dataclasses.replace(run({}), **changed), tmp_path, progress=None)  # type: ignore[arg-type]
