"""Line searches in runs: options, resumption and records."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path

import pytest
import torch

from paretorch.linesearch import SearchOutcome, Step
from paretorch.training.loop import train
from paretorch.training.record.result import Result
from paretorch.training.record.run_record import step_interval
from paretorch.training.record.search_totals import SearchTotals
from paretorch.training.run import Run
from paretorch.workloads.streams import Plain
from training_runs import stop_after

SMALL: dict[str, Plain] = {"train": 96, "validation": 32, "test": 32}


def line_search_run(options: dict[str, Plain], optimizer: str = "FastBacktracking", epochs: int = 2) -> Run:
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
def test_resumed_line_search_equals_uninterrupted_line_search(tmp_path: Path, options: dict[str, Plain]) -> None:
    whole = train(line_search_run(options, epochs=3), tmp_path / "whole", progress=None)

    with pytest.raises(KeyboardInterrupt):
        train(line_search_run(options, epochs=3), tmp_path / "cut", progress=stop_after(2, of=3))
    cut = train(line_search_run(options, epochs=3), tmp_path / "cut", progress=None)
    assert cut.test == whole.test
    assert [epoch.losses for epoch in cut.history] == [epoch.losses for epoch in whole.history]


def test_line_search_steps_are_recorded(tmp_path: Path) -> None:
    train(line_search_run({"verify": 1}, "Backtracking"), tmp_path, progress=None)
    events = [json.loads(line) for line in (tmp_path / "events.jsonl").read_text().splitlines()]
    steps = [event for event in events if event["event"] == "step"]
    assert len(steps) == 6
    for step in steps:
        values = step["search"]
        assert values["outcome"] == "accepted"
        assert values["predicted"] == values["actual"]
        assert all(values["actual"][task] < step["losses"][task] for task in ("left", "right"))
        assert 0 < values["step"] <= values["bound"]


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
def test_line_search_refuses_options_without_effect(tmp_path: Path, changed: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        train(dataclasses.replace(line_search_run({}), **changed), tmp_path, progress=None)  # type: ignore[arg-type]


def test_epoch_contains_line_search_totals(tmp_path: Path) -> None:
    result = train(line_search_run({"verify": 1}, "Backtracking"), tmp_path, progress=None)
    events = [json.loads(line) for line in (tmp_path / "events.jsonl").read_text().splitlines()]
    for epoch, values in enumerate((epoch.search for epoch in result.history), start=1):
        steps = [e for e in events if e["event"] == "step" and e["epoch"] == epoch]
        searches = [step["search"] for step in steps]
        assert values["outcomes"] == {"accepted": 3}
        assert values["trials"] == pytest.approx(sum(search["trials"] for search in searches) / 3)
        product = math.prod(search["step"] for search in searches)
        assert values["step"] == pytest.approx(product ** (1 / 3), rel=1e-5)
        assert values["bound"] == pytest.approx(searches[-1]["bound"], rel=1e-5)
        assert values["first"] == sum(search["step"] == search["bound"] for search in searches)
        assert (values["verified"], values["raised"]) == (3, 0)
        for task in ("left", "right"):
            mean = sum(search["actual"][task] for search in searches) / 3
            assert values["actual"][task] == pytest.approx(mean, rel=1e-5)
            assert values["predicted"][task] == pytest.approx(mean, rel=1e-5)
    assert Result.load(tmp_path).history == result.history


def test_lowered_bounds_are_recorded_with_step_and_reason(tmp_path: Path) -> None:
    by_hand = train(
        line_search_run({"bound": "UpperBound('manual', every=2)"}, epochs=4), tmp_path / "manual", progress=None
    )
    lowered = [epoch.search.get("lowered", []) for epoch in by_hand.history]
    assert [len(epoch) for epoch in lowered] == [0, 1, 0, 1]
    assert lowered[1][0]["step"] == 3
    assert lowered[1][0]["reason"].startswith("epoch 2: every 2 epochs: ")
    before, after = by_hand.history[1].search["bound"], by_hand.history[2].search["bound"]
    assert after == pytest.approx(before / 2)

    # so small a step that no loss decreases measurably between batches: after 20 steps, and after 20 more
    still: dict[str, Plain] = {"max_step": 1e-4, "bound": "UpperBound('regression', window=20, confidence=0.999999)"}
    found = train(
        dataclasses.replace(line_search_run(still, epochs=20), batch_size=48), tmp_path / "test", progress=None
    )
    lowerings = [(epoch.epoch, each) for epoch in found.history for each in epoch.search.get("lowered", [])]
    recorded = [(2 * (epoch - 1) + each["step"], each) for epoch, each in lowerings]
    assert [place for place, _ in recorded] == [20, 40]
    assert recorded[0][1]["reason"].startswith("no task's loss decreases over 20 steps")


def test_verified_step_that_increases_a_loss_is_counted() -> None:
    totals = SearchTotals()
    losses = {"a": torch.tensor(1.0), "b": torch.tensor(2.0)}
    predicted = {"a": 0.9, "b": 1.8}
    for actual in ({"a": 0.95, "b": 1.9}, {"a": 1.05, "b": 1.5}, {}):
        totals.add(Step(SearchOutcome.ACCEPTED, 0.1, 0.1, 1, True, losses, {}, predicted, actual))
    totals.add(Step(SearchOutcome.STATIONARY, 0.0, 0.1, 0, False, losses, reason="stationary: prevented by task 'b'"))
    read = totals.read()
    assert (read["verified"], read["raised"]) == (2, 1)
    assert read["actual"] == {"a": 1.0, "b": 1.7}
    assert read["outcomes"] == {"accepted": 3, "stationary": 1}
    assert read["step"] == pytest.approx(0.1)
    assert read["refused"] == "stationary: prevented by task 'b'"
    assert SearchTotals().read() == {}


@pytest.mark.parametrize("count", [1, 2, 40])
def test_step_lines_of_a_long_line_search_remain_small(count: int) -> None:
    tasks = tuple(f"task number {index:03d}" for index in range(count))
    values = dict.fromkeys(tasks, -1.23456e-10)
    search = {"outcome": "stationary", "step": 1.23456e-10, "bound": 1.23456e-10, "trials": 40, "predicted": values}
    optional = {"actual": values, "fallback": "x" * 90, "reason": "x" * 250, "lowered": "x" * 150}
    line = {
        "event": "step",
        "epoch": 100,
        "step": 100_000,
        "losses": values,
        "weights": values,
        "search": search | optional,
    }
    written = -(-100_000 // step_interval(100_000, tasks, line_search=True))
    assert written > 100
    assert written * len(json.dumps(line | {"status": "x" * 13, "worst_cosine": -1.23456e-10}) + "\n") < 4_000_000
