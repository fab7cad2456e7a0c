"""Backends of an ensemble compute the same front, and the fastest one is chosen."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn

import paretorch as pt
from front_points import sgd
from paretorch.pareto import EPO, FrontAlgorithm
from paretorch.pareto.models.autotune import autotune
from paretorch.pareto.models.ensemble import BACKENDS
from paretorch.workloads.base import MultiTaskModel
from training_workload import Tiny


class Branches(nn.Module):
    """Features as a nesting of tensors."""

    def forward(self, x: Tensor) -> dict[str, list[Tensor]]:
        return {"both": [x, x.square()]}


class Joined(nn.Module):
    def forward(self, features: dict[str, list[Tensor]]) -> Tensor:
        first, second = features["both"]
        return first + 0.1 * second


@dataclass(frozen=True)
class NoisyTiny(Tiny):
    """Batch norm and dropout on both sides of the features, which are a nesting of tensors."""

    def model(self) -> nn.Module:
        made = super().model()
        encoder, heads = made.get_submodule("encoder"), made.get_submodule("heads")
        return MultiTaskModel(
            nn.Sequential(encoder, nn.Dropout(0.3), Branches()),
            {
                task: nn.Sequential(
                    Joined(), nn.Linear(self.width, self.width), nn.BatchNorm1d(self.width), nn.Dropout(0.2), head
                )
                for task, head in heads.named_children()
            },
        )


@pytest.mark.parametrize("own_inputs", [False, True])
@pytest.mark.parametrize("algorithm", [pt.MT2O(), EPO()], ids=["losses", "gradients"])
def test_every_backend_trains_the_same_front(algorithm: FrontAlgorithm, own_inputs: bool) -> None:
    fronts = {
        backend: pt.fit_front(
            NoisyTiny(own_inputs=own_inputs),
            algorithm,
            preferences=pt.preferences(2, 3, margin=0.1),
            epochs=2,
            batch_size=15,
            optimizer=sgd(0.002),
            starts="independent",
            execution=backend,
        )
        for backend in BACKENDS
    }
    for backend in BACKENDS[1:]:
        assert fronts[backend].facts["execution"] == backend
        for state, expected in zip(fronts[backend].states, fronts["loop"].states, strict=True):
            for name, value in expected.items():
                assert torch.allclose(state[name], value, rtol=1e-3, atol=1e-5), (backend, name)


class MisleadingClock:
    """A clock whose steps are drawn, so that any measured function may appear to be the fastest one."""

    def __init__(self, seed: int) -> None:
        self.now, self.draws = 0.0, random.Random(seed)

    def __call__(self) -> float:
        self.now += 10 ** self.draws.uniform(-6, 2)
        return self.now


def fit_by_clock(monkeypatch: pytest.MonkeyPatch, seed: int, execution: str) -> pt.Front:
    with monkeypatch.context() as patch:
        for name in ("perf_counter", "monotonic", "time"):
            patch.setattr(time, name, MisleadingClock(seed))
        return pt.fit_front(
            NoisyTiny(), pt.MT2O(), preferences=pt.preferences(2, 3, margin=0.1), epochs=2, batch_size=15,
            optimizer=sgd(0.002), execution=execution,
        )  # fmt: skip


def test_automatic_execution_is_independent_of_the_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    first, *others = (fit_by_clock(monkeypatch, seed, "auto") for seed in range(4))
    for other in others:
        assert torch.equal(other.losses, first.losses)
        assert other.facts["execution"] == first.facts["execution"]
        for state, expected in zip(other.states, first.states, strict=True):
            assert all(torch.equal(state[name], value) for name, value in expected.items())
    measured = {fit_by_clock(monkeypatch, seed, "measured").facts["execution"] for seed in range(12)}
    assert len(measured) > 1, "the clock decides a measurement"


def test_measured_execution_is_refused_where_results_are_deterministic() -> None:
    torch.use_deterministic_algorithms(True)
    try:
        with pytest.raises(ValueError, match="'measured' depends on times"):
            pt.fit_front(Tiny(), pt.MT2O(), preferences=pt.preferences(2, 3), epochs=1, execution="measured")
    finally:
        torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize(("width", "expected"), [(64, "vmap"), (1100, "loop")])
def test_automatic_execution_depends_on_the_size_of_a_model(width: int, expected: str) -> None:
    class Wide(Tiny):
        def model(self) -> nn.Module:
            made = super().model()
            heads = {
                task: nn.Sequential(
                    nn.Linear(self.width, width), nn.Linear(width, width), nn.Linear(width, self.width), head
                )
                for task, head in made.get_submodule("heads").named_children()
            }
            return MultiTaskModel(made.get_submodule("encoder"), heads)

    front = pt.fit_front(Wide(), pt.MT2O(), preferences=[(0.5, 0.5)], epochs=1, batch_size=30, optimizer=sgd(1e-5))
    assert front.facts["execution"] == expected
    assert "parameters" in front.facts["execution because"]


def test_automatic_execution_is_the_loop_where_vmap_cannot_run() -> None:
    class Counting(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x * (1.0 if x.sum().item() > 0 else 2.0)

    class Branching(Tiny):
        def model(self) -> nn.Module:
            made = super().model()
            return MultiTaskModel(
                nn.Sequential(made.get_submodule("encoder"), Counting()),
                dict(made.get_submodule("heads").named_children()),
            )

    front = pt.fit_front(Branching(), pt.MT2O(), preferences=[(0.5, 0.5)], epochs=1, batch_size=30, optimizer=sgd(1e-3))
    assert front.facts["execution"] == "loop"
    assert "vmap cannot run this model" in front.facts["execution because"]


def multiply(times: int) -> list[list[Tensor]]:
    matrix = torch.ones(200, 200)
    for _ in range(times):
        matrix = matrix @ torch.full((200, 200), 0.005)
    return [[matrix]]


def test_autotune_chooses_the_clearly_faster_function_and_reports_excluded_ones() -> None:
    def fails() -> list[list[Tensor]]:
        raise RuntimeError("no rule for this\nand more")

    chosen, why = autotune(
        {
            "slow": lambda: multiply(400),
            "fast": lambda: multiply(4),
            "fails": fails,
            "wrong": lambda: [[torch.zeros(200, 200)]],
        }
    )
    assert chosen == "fast"
    assert "fast takes 0." in why
    assert "x the time of the slow" in why
    assert "fails cannot run this model: no rule for this" in why
    assert "and more" not in why
    assert "wrong gives other numbers" in why
    assert autotune({"fast": lambda: multiply(4), "slow": lambda: multiply(400)})[0] == "fast"


def test_autotune_raises_errors_of_the_reference() -> None:
    def fails() -> list[list[Tensor]]:
        raise ValueError("batch norm cannot train on one sample")

    with pytest.raises(ValueError, match="batch norm"):
        autotune({"fails": fails, "works": lambda: multiply(1)})


def test_autotune_accepts_differences_of_rounding_only() -> None:
    large, rounding = torch.full((3,), 2.0), torch.tensor([1e-8, -1e-8, 0.0])

    def candidates(second: Tensor) -> dict[str, object]:
        return {"a": lambda: [[large, rounding]], "b": lambda: [[large, second]]}

    assert "other numbers" not in autotune(candidates(-rounding))[1]  # type: ignore[arg-type]
    assert "other numbers" in autotune(candidates(rounding + 1e-3))[1]  # type: ignore[arg-type]
    alone = {"a": lambda: [[large], [rounding]], "b": lambda: [[large], [-rounding]]}
    assert "other numbers" in autotune(alone)[1]  # of another group, with its own scale
