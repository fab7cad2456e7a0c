"""A front as a set of models: files, choice, hypervolume; and the truths of workloads."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from front_points import small_front
from paretorch import pareto
from paretorch.pareto import (
    Front,
)
from paretorch.pareto.preferences import checked_preferences
from paretorch.workloads.synthetic import Synthetic

F64 = torch.float64


def test_front_is_saved_and_loaded(tmp_path: Path) -> None:
    front = small_front()
    front.save(tmp_path / "front")
    again = Front.load(tmp_path / "front", Synthetic(samples=64).model())
    assert torch.equal(again.losses, front.losses)
    assert torch.equal(again.preferences, front.preferences)
    assert again.history == front.history
    inputs = torch.randn(5, 20)
    for member in range(3):
        one, two = front.model(member)(inputs), again.model(member)(inputs)
        assert all(torch.equal(one[task], two[task]) for task in front.tasks)


def test_front_of_another_architecture_is_refused(tmp_path: Path) -> None:
    small_front().save(tmp_path)
    with pytest.raises(ValueError, match=r"model-000.safetensors is of another architecture: .*shape \(7, 20\)"):
        Front.load(tmp_path, Synthetic(hidden=7).model())
    (tmp_path / "model-001.safetensors").write_bytes(b"no")
    with pytest.raises(ValueError, match=r"model-001.safetensors is damaged"):
        Front.load(tmp_path, Synthetic(samples=64).model())
    with pytest.raises(FileNotFoundError, match="expected a folder"):
        Front.load(tmp_path / "nothing", nn.Linear(1, 1))


@pytest.mark.parametrize("change", ["other losses", "fewer losses", "no losses", "not finite"])
def test_front_with_edited_values_is_refused(tmp_path: Path, change: str) -> None:
    small_front().save(tmp_path)
    values = json.loads((tmp_path / "front.json").read_text())
    losses = values.pop("losses")
    if change != "no losses":
        values["losses"] = [[0.0, 0.0]] * 3 if change == "other losses" else losses[:2]
    if change == "not finite":
        values["losses"] = [[math.nan, math.inf]] * 3
    (tmp_path / "front.json").write_text(json.dumps(values))
    with pytest.raises(ValueError, match=r"front\.json is damaged"):
        Front.load(tmp_path, Synthetic(samples=64).model())


def test_front_with_diverged_models_only_raises() -> None:
    front = front_of([[math.nan, math.nan]] * 2)
    for call in (lambda: front.hypervolume((1.0, 1.0)), lambda: front.nadir, lambda: front.ideal):
        with pytest.raises(ValueError, match="all models of the front have diverged"):
            call()


@pytest.mark.parametrize(
    "losses", [(math.nan, 1.0), (math.inf, 1.0), {"a": 1.0}, {"a": 1.0, "b": 1.0, "c": 1.0}], ids=str
)
def test_front_closest_requires_finite_losses_of_all_tasks(losses: Any) -> None:
    with pytest.raises(ValueError, match="for each of"):
        front_of([[0.0, 1.0], [1.0, 0.0]]).closest(losses)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([0.5, 0.5], "got a flat list"),
        (torch.tensor([0.5, 0.5]), "got a flat list"),
        ([[-0.5, 1.5]], r"expected finite values of at least 0 that sum to 1$"),
        ([[math.nan, 1.0]], r"expected finite values of at least 0 that sum to 1$"),
        ([[0.7, 0.7]], "divide by it"),
    ],
    ids=str,
)
def test_preferences_off_the_simplex_are_refused_with_a_reason(given: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        checked_preferences(given, ("a", "b"))


def front_of(losses: list[list[float]]) -> Front:
    values = torch.tensor(losses, dtype=F64)
    states = tuple({"weight": torch.full((1, 1), float(i)), "bias": torch.zeros(1)} for i in range(len(losses)))
    even = torch.full_like(values, 1 / values.shape[1])
    return Front(("a", "b"), even, values, ({},) * len(losses), states, nn.Linear(1, 1))


def test_front_choose_returns_the_best_model_for_a_preference() -> None:
    front = front_of([[0.0, 1.0], [0.4, 0.4], [1.0, 0.0], [0.9, 0.9]])
    assert [front.choose(w) for w in ((1.0, 0.0), (0.5, 0.5), (0.0, 1.0))] == [0, 1, 2]
    assert front.closest((0.9, 0.2)) == 2
    assert front.closest({"b": 0.95, "a": 0.8}) == 1  # 3 is nearer, and dominated
    assert float(front.interpolate(0, 2, 0.25).state_dict()["weight"]) == 0.5
    with pytest.raises(ValueError, match="sum to 1"):
        front.pick((0.7, 0.7))


def test_front_interpolation_is_exact_at_both_ends() -> None:
    weights = [{"weight": torch.tensor([[value]]), "bias": torch.tensor([-0.0])} for value in (1.0, 1e-9)]
    front = replace(front_of([[0.0, 1.0], [1.0, 0.0]]), states=tuple(weights))
    for share, wanted in enumerate(weights):
        found = front.interpolate(0, 1, share).state_dict()
        for name, value in wanted.items():
            assert torch.equal(found[name].view(torch.int32), value.view(torch.int32))


def test_front_hypervolume_refuses_a_reference_below_a_member() -> None:
    front = front_of([[0.0, 1.0], [0.5, 0.5]])
    assert front.hypervolume((2.0, 2.0)) == pytest.approx(2 * 1 + 1.5 * 0.5)
    with pytest.raises(ValueError, match=r"is not above model 0 .*'b': 1.0"):
        front.hypervolume((1.0, 1.0))
    assert front.hypervolume((1.0, 1.0), partial=True) == 0.25
    with pytest.raises(ValueError, match="has 3 values"):
        front.hypervolume((1.0, 1.0, 1.0))
    with pytest.raises(ValueError, match="needs a reference"):
        front.hypervolume()


def test_front_spread_is_one_for_even_points() -> None:
    assert front_of([[0.0, 1.0], [0.5, 0.5], [1.0, 0.0]]).evenness == pytest.approx(1.0)
    assert front_of([[0.0, 1.0], [0.01, 0.99], [1.0, 0.0]]).evenness < 0.5
    assert math.isnan(front_of([[0.0, 1.0]]).evenness)


@pytest.mark.parametrize(("problem", "expected"), [("zdt1", 0.21 + 2 / 3), ("zdt2", 0.21 + 1 / 3), ("vlmop2", 0.3421)])
def test_truth_hypervolume_is_that_of_the_formula(problem: str, expected: float) -> None:
    truth = Synthetic(problem).truth
    assert truth is not None
    assert truth.hypervolume == pytest.approx(expected, abs=1e-3)
    volume = pareto.hypervolume(truth.front, torch.tensor(truth.reference, dtype=F64))
    assert volume == pytest.approx(truth.hypervolume, rel=1e-3)


@pytest.mark.parametrize("problem", ["vlmop2", "zdt1", "zdt2", "zdt3", "dtlz2", "two_valley", "regression"])
def test_truth_is_dominated_by_no_point(problem: str) -> None:
    workload = Synthetic(problem, samples=64)
    truth = workload.truth
    assert truth is not None
    assert bool(pareto.non_dominated(truth.front[:: max(1, len(truth.front) // 300)]).all())
    inputs = workload.data().train[0]
    for seed in range(30):
        torch.manual_seed(seed)
        model = workload.model()
        samples = next(iter(inputs.batches(64, order=None)))
        losses = workload.losses(model(samples.inputs), samples.targets)
        point = torch.stack(list(losses.values())).detach().double()
        assert not bool((point < truth.front - 1e-6).all(dim=1).any())
