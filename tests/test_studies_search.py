"""Searching settings: what of a run may be tuned, and proposals that stay within what is declared."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from paretorch.core.search_space import Choice, Range
from paretorch.studies.tuning.hyperparameters import present, settled, space_of
from paretorch.studies.tuning.proposals import Searching
from paretorch.studies.tuning.tuned import Outcome
from paretorch.training.names.methods import find_method
from paretorch.training.run import Run


def test_the_learning_rate_is_searched_in_the_presets_range_or_around_the_runs_own() -> None:
    assert space_of(Run("digits")) == {"optimizer.lr": Range(1e-5, 1e-2, log=True)}
    other = Run("digits", optimizer="NAdam", optimizer_options={"lr": 0.064})
    assert space_of(other) == {"optimizer.lr": Range(0.002, 2.048, log=True)}
    assert present(Run("digits", optimizer="SGD", optimizer_options={})) == {"optimizer.lr": 1e-3}


def test_of_a_presets_space_the_options_count_that_the_run_writes_down() -> None:
    assert list(space_of(Run("digits", optimizer="SGD", optimizer_options={"lr": 0.1}))) == ["optimizer.lr"]
    momentum = Run("digits", optimizer="SGD", optimizer_options={"lr": 0.1, "momentum": 0.9})
    assert list(space_of(momentum)) == ["optimizer.lr", "optimizer.momentum"]
    assert present(momentum) == {"optimizer.lr": 0.1, "optimizer.momentum": 0.9}


def test_a_single_task_has_no_method_to_tune() -> None:
    run = Run("digits", method="CAGrad(c=0.4)")
    assert list(space_of(run)) == ["optimizer.lr", "method.c"]
    assert present(run) == {"optimizer.lr": 1e-3, "method.c": 0.4}
    assert list(space_of(Run("digits", method="CAGrad()", tasks=("left",)))) == ["optimizer.lr"]


@pytest.mark.parametrize(
    ("method", "settings", "expected"),
    [
        ("CAGrad(0.4, rescale=2)", {"method.c": 0.25}, "CAGrad(c=0.25, rescale=2)"),
        ("MGDA()", {"method.normalize": "loss+"}, "MGDA(normalize='loss+')"),
        ("MGDA(normalize='l2')", {"method.normalize": None}, "MGDA(normalize=None)"),
        ("FAMO()", {"optimizer.lr": 0.5}, "FAMO()"),
        ("Static({'left': 1})", {"method.weights": {"left": 0.5}}, "Static(weights={'left': 0.5})"),
    ],
)
def test_settings_are_written_as_a_constructor_that_is_read_back(
    method: str, settings: dict[str, object], expected: str
) -> None:
    run = settled(Run("digits", method=method), settings)  # type: ignore[arg-type]
    assert run.method == expected
    find_method(run.method)
    assert run.optimizer_options["lr"] == settings.get("optimizer.lr", 1e-3)


def searched(method: str, trials: int, value: float = 1.0) -> list[Run]:
    search = Searching("a", "digits", Run("digits", method=method), trials, seed=7)
    runs = []
    while search.left:
        run = search.ask()
        assert search.ask() is run, "the same until its end is told"
        runs.append(run)
        search.tell("folder", value if len(runs) % 2 else math.nan, Outcome.FINISHED, 1.0)
    return runs


@pytest.mark.parametrize("method", ["Equal()", "CAGrad()", "FAMO()", "MGDA()", "GradDrop()", "Uncertainty()"])
def test_proposals_stay_within_the_space_and_repeat(method: str) -> None:
    runs = searched(method, 12)
    assert runs == searched(method, 12)
    assert all((run.seed, run.test) == (7, False) for run in runs)
    space = space_of(runs[0])
    for run in runs:
        for name, value in present(run).items():
            allowed = space[name]
            if isinstance(allowed, Choice):
                assert value in allowed.values
            else:
                assert isinstance(allowed, Range)
                assert allowed.low <= value <= allowed.high
    assert len({run.key for run in runs}) > 6


def test_weights_of_tasks_sum_to_their_number() -> None:
    drawn = [present(run)["method.weights"] for run in searched("Static({'left': 3.0, 'right': 1.0})", 8)]
    assert drawn[0] == {"left": 3.0, "right": 1.0}
    for weights in drawn[1:]:
        assert set(weights) == {"left", "right"}
        assert sum(weights.values()) == pytest.approx(2.0)
        assert min(weights.values()) > 0
    assert max(weights["left"] / weights["right"] for weights in drawn) > 30
    assert min(weights["left"] / weights["right"] for weights in drawn) < 1 / 30


def test_own_settings_outside_the_space_are_tried_all_the_same(tmp_path: Path) -> None:
    runs = searched("CAGrad(c=0.99)", 7)
    assert runs[0].method == "CAGrad(c=0.99)"
    assert all(present(run)["method.c"] <= 0.9 for run in runs[1:])


def test_the_earliest_of_equal_trials_is_chosen_and_none_where_none_has_a_value() -> None:
    search = Searching("a", "digits", Run("digits"), 3, seed=7)
    for value in (math.nan, 2.0, 2.0):
        search.ask()
        search.tell("folder", value, Outcome.FINISHED, 1.0)
    assert search.found.chosen == 1
    assert search.found.settings == search.found.trials[1].settings != {}
    lost = Searching("a", "digits", Run("digits"), 1, seed=7)
    lost.ask()
    lost.tell("folder", math.nan, Outcome.FAILED, 1.0)
    assert (lost.found.chosen, lost.found.settings) == (None, {})
