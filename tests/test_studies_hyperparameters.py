"""Hyperparameters: search spaces of runs, settings, and proposals within the declared ranges."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from paretorch.core.search_space import Choice, Range
from paretorch.studies.tuning.hyperparameters import current_settings, search_space, with_settings
from paretorch.studies.tuning.search import HyperparameterSearch, SampledSettings
from paretorch.studies.tuning.trials import TrialOutcome
from paretorch.training.names.methods import find_method
from paretorch.training.run import Run


def test_learning_rate_range_is_the_presets_or_around_the_runs_own() -> None:
    assert search_space(Run("digits")) == {"optimizer.lr": Range(1e-5, 1e-2, log=True)}
    other = Run("digits", optimizer="NAdam", optimizer_options={"lr": 0.064})
    assert search_space(other) == {"optimizer.lr": Range(0.002, 2.048, log=True)}
    assert current_settings(Run("digits", optimizer="SGD", optimizer_options={})) == {"optimizer.lr": 1e-3}


def test_search_space_has_the_preset_options_that_the_run_states() -> None:
    assert list(search_space(Run("digits", optimizer="SGD", optimizer_options={"lr": 0.1}))) == ["optimizer.lr"]
    momentum = Run("digits", optimizer="SGD", optimizer_options={"lr": 0.1, "momentum": 0.9})
    assert list(search_space(momentum)) == ["optimizer.lr", "optimizer.momentum"]
    assert current_settings(momentum) == {"optimizer.lr": 0.1, "optimizer.momentum": 0.9}


def test_search_space_of_a_single_task_has_no_method_options() -> None:
    run = Run("digits", method="CAGrad(c=0.4)")
    assert list(search_space(run)) == ["optimizer.lr", "method.c"]
    assert current_settings(run) == {"optimizer.lr": 1e-3, "method.c": 0.4}
    assert list(search_space(Run("digits", method="CAGrad()", tasks=("left",)))) == ["optimizer.lr"]


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
def test_with_settings_writes_a_constructor_that_can_be_parsed(
    method: str, settings: dict[str, object], expected: str
) -> None:
    run = with_settings(Run("digits", method=method), settings)  # type: ignore[arg-type]
    assert run.method == expected
    find_method(run.method)
    assert run.optimizer_options["lr"] == settings.get("optimizer.lr", 1e-3)


def searched(method: str, trials: int, value: float = 1.0) -> list[Run]:
    base = Run("digits", method=method)
    search = HyperparameterSearch("a", "digits", base, SampledSettings(base, trials), seed=7)
    runs = []
    while search.remaining:
        run = search.propose()
        assert search.propose() is run, "the same until its outcome"
        runs.append(run)
        search.add_outcome("folder", value if len(runs) % 2 else math.nan, TrialOutcome.FINISHED, 1.0)
    return runs


@pytest.mark.parametrize("method", ["Equal()", "CAGrad()", "FAMO()", "MGDA()", "GradDrop()", "Uncertainty()"])
def test_search_proposals_are_in_the_space_and_reproducible(method: str) -> None:
    runs = searched(method, 12)
    assert runs == searched(method, 12)
    assert all((run.seed, run.test) == (7, False) for run in runs)
    space = search_space(runs[0])
    for run in runs:
        for name, value in current_settings(run).items():
            allowed = space[name]
            if isinstance(allowed, Choice):
                assert value in allowed.values
            else:
                assert isinstance(allowed, Range)
                assert allowed.low <= value <= allowed.high
    assert len({run.key for run in runs}) > 6


def test_search_proposes_task_weights_with_mean_one() -> None:
    drawn = [current_settings(run)["method.weights"] for run in searched("Static({'left': 3.0, 'right': 1.0})", 8)]
    assert drawn[0] == {"left": 3.0, "right": 1.0}
    for weights in drawn[1:]:
        assert set(weights) == {"left", "right"}
        assert sum(weights.values()) == pytest.approx(2.0)
        assert min(weights.values()) > 0
    assert max(weights["left"] / weights["right"] for weights in drawn) > 30
    assert min(weights["left"] / weights["right"] for weights in drawn) < 1 / 30


def test_search_tries_own_settings_outside_the_space(tmp_path: Path) -> None:
    runs = searched("CAGrad(c=0.99)", 7)
    assert runs[0].method == "CAGrad(c=0.99)"
    assert all(current_settings(run)["method.c"] <= 0.9 for run in runs[1:])


def test_search_chooses_the_earliest_of_equal_trials_or_none_without_values() -> None:
    search = HyperparameterSearch("a", "digits", Run("digits"), SampledSettings(Run("digits"), 3), seed=7)
    for value in (math.nan, 2.0, 2.0):
        search.propose()
        search.add_outcome("folder", value, TrialOutcome.FINISHED, 1.0)
    assert search.result.chosen == 1
    assert search.result.settings == search.result.trials[1].settings != {}
    failed = HyperparameterSearch("a", "digits", Run("digits"), SampledSettings(Run("digits"), 1), seed=7)
    failed.propose()
    failed.add_outcome("folder", math.nan, TrialOutcome.FAILED, 1.0)
    assert (failed.result.chosen, failed.result.settings) == (None, {})
