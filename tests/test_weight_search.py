"""Searches of static weights: their weights, their cost, and the weights that they find on a problem with a known optimum."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any

import pytest

import studies_tuned as synthetic
from paretorch.studies.folder import StudyFolder, open_folder, read_folder
from paretorch.studies.lookup import find_study
from paretorch.studies.runner import train_study
from paretorch.studies.study import Combine, Study, Treatment, best_of_trials
from paretorch.studies.trial_plan import Generations, Halving, Sampled
from paretorch.studies.tuning.search import EvolvedSettings, HalvedSettings
from paretorch.studies.weight_search import (
    GRID_WEIGHTS,
    POPULATION_WEIGHTS,
    RANDOM_WEIGHTS,
    grid_of_cost,
    grid_search,
    grid_size,
    population_search,
    random_search,
    random_weights,
    simplex_grid,
    whole_runs,
)
from paretorch.studies.workload_study import workload_study
from paretorch.training.fronts.options import FrontOptions
from paretorch.training.run import Run
from studies_progress import RecordedProgress

HERE = Path(__file__).parent
TASKS = ("left", "right")
BASE = Run("digits", epochs=9, optimizer_options={"lr": 1e-2})


# --- weights -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("distribution", ["log", "simplex"])
def test_random_weights_have_a_mean_of_one_and_depend_on_the_seed_alone(distribution: str) -> None:
    names = ("a", "b", "c")
    drawn = random_weights(names, 50, distribution, seed=3)
    assert drawn == random_weights(names, 50, distribution, seed=3)
    assert drawn != random_weights(names, 50, distribution, seed=4)
    assert drawn[:20] == random_weights(names, 20, distribution, seed=3)  # a longer search begins with a shorter one
    for each in drawn:
        assert tuple(each) == names
        assert sum(each.values()) == pytest.approx(3.0, abs=1e-5)
        assert all(weight >= 0 for weight in each.values())


def test_random_weights_on_the_log_scale_span_more_decades_than_on_the_simplex() -> None:
    def share_below_a_hundredth(distribution: str) -> float:
        ratios = [each["left"] / each["right"] for each in random_weights(TASKS, 400, distribution)]
        return sum(ratio < 0.01 for ratio in ratios) / len(ratios)

    # of two uniform logarithms three decades apart at most, the difference exceeds two decades with probability 1/18
    assert share_below_a_hundredth("log") == pytest.approx(1 / 18, abs=0.03)
    assert share_below_a_hundredth("simplex") == pytest.approx(1 / 101, abs=0.012)


def test_simplex_grid_has_every_point_once() -> None:
    points = [tuple(each.values()) for each in simplex_grid(("a", "b", "c"), parts=6)]
    assert len(points) == len(set(points)) == grid_size(3, 6) == 10
    assert all(sum(point) == pytest.approx(3.0, abs=1e-5) and min(point) >= 0.5 for point in points)
    assert [list(each.values()) for each in simplex_grid(("a", "b", "c"), parts=3)] == [[1.0, 1.0, 1.0]]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: random_weights(("a",), 3), "two tasks or more"),
        (lambda: random_weights(TASKS, 0), "at least one set of weights, got 0"),
        (lambda: random_weights(TASKS, 1, "normal"), "one of .*'log', 'simplex'.*got 'normal'"),
        (lambda: list(simplex_grid(TASKS, 1)), "at least 2 parts, got 1"),
        (lambda: random_search(BASE, TASKS, trials=1), "at least 2 trials"),
        (lambda: Sampled(10**9), "at most 10,000 trials, got 1,000,000,000"),
        (lambda: workload_study("digits", "small", searches="random", trials=10**9), "at most 10,000 trials"),
        (lambda: FrontOptions(models=10**9), "at most 10,000 models"),
        (lambda: Halving(factor=1), "factor at least 2, got 1"),
        (lambda: Halving(shortest=0.0), r"in \(0, 1\], got 0.0"),
        (lambda: Generations(1), "at least 2, got 1"),
        (lambda: Generations(2, spread=0.0), "above 0, got 0.0"),
        (lambda: Treatment("one", (BASE,), plan=Halving()), "'one': a plan is for tuned alternatives"),
    ],
)
def test_searches_refuse_numbers_out_of_range(call: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


# --- cost ----------------------------------------------------------------------------------------------------------------


def test_halving_rounds_end_with_all_epochs_and_cost_what_they_train() -> None:
    assert Halving(3, 1 / 9).rounds(21, 9) == ((21, 1), (7, 3), (3, 9))
    assert Halving(2, 0.25).rounds(5, 8) == ((5, 2), (3, 4), (2, 8))
    assert Halving(3, 1 / 27).rounds(9, 2) == ((9, 1), (3, 2))  # an epoch is the shortest
    assert Halving(3, 1.0).rounds(4, 5) == ((4, 5),)
    treatment = grid_search(BASE, TASKS, parts=22, pruned=Halving(3, 1 / 9))
    assert whole_runs(treatment, "digits") == pytest.approx((21 * 1 + 7 * 3 + 3 * 9) / 9)


def test_searches_of_equal_cost_have_as_many_whole_runs() -> None:
    assert whole_runs(random_search(BASE, TASKS, 12), "digits") == 12
    assert whole_runs(population_search(BASE, TASKS, members=4, generations=3), "digits") == 12
    grid = grid_of_cost(BASE, TASKS, 12)
    assert 9 < whole_runs(grid, "digits") <= 12
    assert len(grid.runs) > 12  # pruning permits a finer grid


def test_grid_over_many_tasks_states_the_number_of_runs_and_the_time_and_refuses() -> None:
    names = tuple(f"attribute {number}" for number in range(40))
    with pytest.raises(
        ValueError, match=r"42 parts over 40 tasks.*820 points.*cost 274.* whole runs, about 137.*hours"
    ) as error:
        grid_search(BASE, names, parts=42, seconds_per_run=1800.0)
    assert "random_search() or population_search()" in str(error.value)
    assert "most_runs=math.inf" in str(error.value)
    with pytest.raises(ValueError, match="has 820 points, whose trials cost 820"):
        grid_search(BASE, names, parts=42, pruned=None)
    with pytest.raises(ValueError, match="40 points"):
        grid_of_cost(BASE, names, runs=8)


def test_grid_over_many_tasks_is_made_where_it_is_wanted() -> None:
    names = tuple("abcde")
    with pytest.raises(ValueError, match="the limit is 100"):
        grid_search(BASE, names, parts=12)
    assert len(grid_search(BASE, names, parts=12, most_runs=math.inf).runs) == grid_size(5, 12) == 330


# --- plans ---------------------------------------------------------------------------------------------------------------


def test_halved_settings_keep_the_best_of_each_round_and_put_nan_last() -> None:
    settings = [{"method.c": float(number)} for number in range(6)]
    found = HalvedSettings(settings, Halving(3, 1 / 3), whole=9)
    first = []
    for value in (5.0, math.nan, 1.0, 4.0, 0.5, 7.0):
        first.append(found.propose())
        found.add_value(value)
    assert first == settings
    assert [found.epochs(trial, 9) for trial in range(found.number)] == [3] * 6 + [9] * 2
    second = []
    for value in (2.0, 3.0):
        second.append(found.propose())
        found.add_value(value)
    assert second == [settings[2], settings[4]]


def test_evolved_settings_vary_the_best_quarter_and_repeat_exactly() -> None:
    run = random_search(BASE, TASKS, 8).runs[0]
    weights = random_weights(TASKS, 8, seed=1)

    def search(spread: float) -> list[Any]:
        found = EvolvedSettings(run, [{"method.weights": dict(each)} for each in weights], Generations(2, spread))
        proposed = []
        for trial in range(found.number):
            proposed.append(found.propose()["method.weights"])
            found.add_value(float(trial))  # the first two are the best quarter
        return proposed

    proposed = search(1e-9)
    assert proposed[:8] == [dict(each) for each in weights]
    for each in proposed[8:]:
        assert min(abs(each["left"] - parent["left"]) for parent in weights[:2]) < 2e-6
    wide = search(1.0)
    assert wide == search(1.0)
    assert len({each["left"] for each in wide[8:]}) == 8
    assert all(sum(each.values()) == pytest.approx(2.0, abs=1e-5) for each in wide)


# --- in a study ----------------------------------------------------------------------------------------------------------


def searched_study() -> Study:
    """Single tasks and the searches, on the problem whose optimum is 1.5 to 0.5."""
    base = Run("digits", epochs=synthetic.EPOCHS, optimizer_options={"lr": 1e-2})
    single = best_of_trials("single task", [Run.from_json(base.to_json() | {"tasks": [task]}) for task in TASKS])
    searches = (
        random_search(base, TASKS, 12),
        population_search(base, TASKS, members=4, generations=3),
        grid_search(base, TASKS, parts=8),
    )
    return Study("searched", "Which search?", (single, *searches), reference=RANDOM_WEIGHTS, baseline="single task")


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> StudyFolder:
    path = tmp_path_factory.mktemp("searched") / "study"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(HERE), prepend=os.pathsep)
        folder = open_folder(path, searched_study(), "smoke", 2, resume=True, tune=0)
        train_study(folder, RecordedProgress(), workers=1, train="studies_tuned:train")
    return read_folder(path)


def distance(run: Run) -> float:
    """How far the weights of a run are from the best."""
    return synthetic.error(run)


def test_searches_train_every_seed_with_the_best_weights_found(searched: StudyFolder) -> None:
    assert searched.tuning is not None
    found = {search.label: search for search in searched.tuning.searches if search.label != "single task"}
    assert {label: len(search.trials) for label, search in found.items()} == {
        RANDOM_WEIGHTS: 12,
        POPULATION_WEIGHTS: 12,
        GRID_WEIGHTS: 7 + 3,
    }
    equal = distance(random_search(BASE, TASKS).runs[0])
    for treatment in searched.study.treatments[1:]:
        assert treatment.combine is Combine.ONE
        assert treatment.plan is None
        (run,) = treatment.runs
        trials = [trial.run for trial in found[treatment.label].trials]
        assert distance(run) == min(map(distance, trials))
        assert distance(run) < equal
        assert run.epochs == synthetic.EPOCHS
    grid = next(treatment for treatment in searched.study.treatments if treatment.label == GRID_WEIGHTS)
    assert distance(grid.runs[0]) == pytest.approx(0.0, abs=1e-9)  # 6 and 2 of 8 parts are the optimum


def test_searches_count_the_epochs_that_they_train(searched: StudyFolder) -> None:
    assert searched.tuning is not None
    planned = {treatment.label: treatment for treatment in searched_study().treatments[1:]}
    for label, treatment in planned.items():
        cost = searched.tuning.cost(label)
        assert cost.epochs == pytest.approx(whole_runs(treatment, "digits") * synthetic.EPOCHS)
        assert cost.seconds == pytest.approx(2.5 * cost.epochs)
    assert searched.tuning.cost(GRID_WEIGHTS).epochs == 7 * 1 + 3 * 3


def test_searches_do_not_read_the_test_set(searched: StudyFolder) -> None:
    assert searched.tuning is not None
    for search in searched.tuning.searches:
        for trial in search.trials:
            assert not trial.run.test
            assert not json.loads((searched.path / trial.folder / "result.json").read_text())["test"]["metrics"]


def test_study_with_plans_survives_json() -> None:
    study = searched_study()
    read = Study.from_json(json.loads(json.dumps(study.to_json())))
    assert read.to_json() == study.to_json()
    assert [treatment.plan for treatment in read.treatments] == [None, None, Generations(3), Halving()]
    plain = Study("s", "?", (best_of_trials("sum", [BASE]),), reference="sum", baseline="sum")
    assert "plan" not in json.dumps(plain.to_json())  # so that earlier folders resume


def test_study_of_a_workload_adds_searches_of_the_same_cost() -> None:
    options = {"methods": "sum, IMTLG()", "searches": "random, population, grid", "trials": 6, "epochs": 9}
    study = find_study("digits", "small", options)
    labels = [treatment.label for treatment in study.treatments]
    assert labels == ["sum", "IMTLG", "single task", RANDOM_WEIGHTS, POPULATION_WEIGHTS, GRID_WEIGHTS]
    assert study.baseline == "single task"
    costs = [whole_runs(treatment, "digits") for treatment in study.treatments[3:]]
    assert costs[:2] == [6, 6]
    assert 4 < costs[2] <= 6
    with pytest.raises(ValueError, match="'random', 'population' and 'grid', got 'bayes'"):
        find_study("digits", "small", {**options, "searches": "bayes"})
