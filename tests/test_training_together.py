"""Runs that differ in the seed alone, trained together: results of separate runs, in the same files, resumed or separate."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from paretorch.training import load_model
from paretorch.training.loop import train
from paretorch.training.record.result import Result
from paretorch.training.record.together import TOGETHER
from paretorch.training.run import Run
from paretorch.training.together.conditions import check_runs
from paretorch.training.together.loop import train_together
from training_runs import TINY

RUN = Run(TINY, {"dropout": 0.0}, epochs=3, batch_size=12, optimizer_options={"lr": 1e-2}, schedule="cosine")
SEEDS = 3
# Batch norm makes the gradient of the bias before it zero but for rounding, which Adam scales.
CANCELLED = ("encoder.0.bias", "encoder.1.running_mean")
CASES: dict[str, dict[str, Any]] = {
    "sum": {},
    "mgda": {"method": "MGDA()"},
    "mgda every second step": {"method": "MGDA()", "door": {"every": 2}},
    "famo, which observes the losses after the step": {"method": "FAMO()"},
    "uncertainty, with weights of its own": {"method": "Uncertainty(kinds={'size': 'regression'})"},
    "pcgrad, with draws of its own": {"method": "PCGrad()"},
    "graddrop, on the gradients themselves": {"method": "GradDrop()"},
    "dwa, which counts epochs": {"method": "DWA()"},
    "one task": {"tasks": ("size",)},
    "own inputs": {
        "options": {"dropout": 0.0, "own_inputs": True},
        "method": "Uncertainty(kinds={'size': 'regression'})",
    },
    "missing labels": {"options": {"dropout": 0.0, "missing": True}, "method": "MGDA()"},
    "momentum, clipped, with warm-up": {
        "optimizer": "SGD",
        "optimizer_options": {"lr": 0.01, "momentum": 0.9, "weight_decay": 1e-3},
        "clip": 0.5,
        "warmup": 0.2,
    },
    "rmsprop, steps": {"optimizer": "RMSprop", "schedule": "step(0.5, 1)"},
    "best epoch": {"keep": "best", "stationarity": 24},
}


@pytest.fixture
def double() -> Iterator[None]:
    """Models and data in float64, so that rounding is far below any difference in what is computed."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)


def seeded(run: Run, count: int = SEEDS) -> list[Run]:
    return [replace(run, seed=seed) for seed in range(count)]


def together(runs: Sequence[Run], folder: Path, stop: int | None = None) -> list[Result]:
    """The results of runs that are trained together; ``stop``: interrupted after so many epochs."""

    def progress(places: Sequence[int], done: int, of: int) -> None:
        if done == stop:
            raise KeyboardInterrupt

    found = train_together(runs, [folder / str(run.seed) for run in runs], progress=progress, checkpoint_every=1)
    for each in found:
        if isinstance(each, Exception):
            raise each
    return found  # type: ignore[return-value]


def numbers(result: Result) -> dict[str, Any]:
    """The losses, scores, weights and cosines of a run."""
    found: dict[str, Any] = {}
    for epoch in result.history:
        for name in ("losses", "weights"):
            found |= {f"{epoch.epoch} {name} {task}": value for task, value in getattr(epoch, name).items()}
        found |= {f"{epoch.epoch} validation {task}": value for task, value in epoch.validation.losses.items()}
        found |= {
            f"{epoch.epoch} cosine {task} {i}": v for task, row in epoch.cosines.items() for i, v in enumerate(row)
        }
    return found | {f"test {task}": value for task, value in result.test.losses.items()}


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize("name", CASES)
@pytest.mark.sampled(3)
def test_runs_together_have_the_numbers_of_separate_runs(name: str, tmp_path: Path) -> None:
    runs = seeded(replace(RUN, **CASES[name]))
    separate = [train(run, tmp_path / f"alone-{run.seed}", progress=None) for run in runs]
    found = together(runs, tmp_path)
    for run, one, other in zip(runs, found, separate, strict=True):
        assert one.facts[TOGETHER] == [0, 1, 2]
        assert numbers(one) == pytest.approx(numbers(other), rel=1e-8, nan_ok=True)
        assert [epoch.statuses for epoch in one.history] == [epoch.statuses for epoch in other.history]
        assert one.facts.keys() - {TOGETHER} == other.facts.keys()
        model, expected = (load_model(tmp_path / folder) for folder in (str(run.seed), f"alone-{run.seed}"))
        for key, value in expected.state_dict().items():
            if key not in CANCELLED:
                torch.testing.assert_close(model.state_dict()[key], value, rtol=1e-7, atol=1e-9)


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize("name", ["mgda", "momentum, clipped, with warm-up", "best epoch"])
def test_runs_together_resume_together_or_alone(name: str, tmp_path: Path) -> None:
    runs = seeded(replace(RUN, **CASES[name]))
    whole = together(runs, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        together(runs, tmp_path / "stopped", stop=2)
    resumed = together(runs, tmp_path / "stopped")
    assert [result.facts[TOGETHER] for result in resumed] == [[0, 1, 2]] * SEEDS
    with pytest.raises(KeyboardInterrupt):
        together(runs, tmp_path / "alone", stop=2)
    alone = [train(run, tmp_path / "alone" / str(run.seed), progress=None) for run in runs]
    for one, two, expected in zip(resumed, alone, whole, strict=True):
        assert numbers(one) == pytest.approx(numbers(expected), rel=1e-9)
        assert numbers(two) == pytest.approx(numbers(expected), rel=1e-8)


def test_finished_runs_are_kept_and_the_others_are_trained_together(tmp_path: Path) -> None:
    runs = seeded(RUN, 4)
    first = train(runs[1], tmp_path / "1", progress=None)
    found = together(runs, tmp_path)
    assert found[1] == first
    assert [result.facts.get(TOGETHER) for result in found] == [[0, 2, 3], None, [0, 2, 3], [0, 2, 3]]


@pytest.mark.parametrize(
    "changes",
    [
        {"options": {}},  # dropout
        {"options": {"dropout": 0.0, "missing": True}, "batch_size": 2},  # some batches have no label of a task
        {"surface": "parameters", "method": "MGDA()"},
        {"optimizer": "MTAdam"},
        {"precision": "bfloat16"},
        {"deterministic": True},
        {"door": {"nonfinite": "skip"}, "method": "MGDA()"},
    ],
    ids=str,
)
def test_runs_that_cannot_be_trained_together_are_those_of_separate_training(
    changes: dict[str, Any], tmp_path: Path
) -> None:
    runs = seeded(replace(RUN, **changes), 2)
    found = together(runs, tmp_path / "together")
    for run, result in zip(runs, found, strict=True):
        assert TOGETHER not in result.facts
        assert numbers(result) == numbers(train(run, tmp_path / f"alone-{run.seed}", progress=None))


def test_run_that_fails_does_not_end_the_others(tmp_path: Path) -> None:
    runs = seeded(replace(RUN, optimizer="SGD", optimizer_options={"lr": 3e-2}), 4)
    separate: list[Result | Exception] = []
    for run in runs:
        try:
            separate.append(train(run, tmp_path / f"alone-{run.seed}", progress=None))
        except Exception as error:
            separate.append(error)
    found = train_together(
        runs, [tmp_path / str(run.seed) for run in runs], progress=lambda *_: None, checkpoint_every=1
    )
    assert [type(each) for each in found] == [type(each) for each in separate]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"method": "MGDA()", "surface": "parameters"}, "the gradients are balanced on the parameters"),
        ({"precision": "bfloat16"}, "the precision is bfloat16"),
        ({}, None),
    ],
)
def test_reason_for_separate_training_is_noted(changes: dict[str, Any], reason: str | None, tmp_path: Path) -> None:
    notes: list[str] = []
    runs = seeded(replace(RUN, epochs=1, **changes), 2)
    for _ in range(2):  # nothing is trained, and nothing noted, in the second call
        train_together(runs, [tmp_path / str(run.seed) for run in runs], progress=lambda *_: None, note=notes.append)
    assert notes == ([] if reason is None else [f"some runs are trained separately: {reason}"])


def test_runs_of_another_kind_are_not_grouped() -> None:
    with pytest.raises(Exception, match="more than the seed"):
        check_runs([RUN, replace(RUN, seed=1, epochs=4)])


def test_progress_counts_every_run_to_its_last_epoch(tmp_path: Path) -> None:
    calls: list[tuple[tuple[int, ...], int]] = []
    runs = seeded(RUN, 2)
    train_together(
        runs,
        [tmp_path / str(run.seed) for run in runs],
        progress=lambda places, done, of: calls.append((tuple(places), done)),
    )
    assert calls == [((0, 1), epoch) for epoch in range(4)]
