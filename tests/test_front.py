"""Training of fronts: members without transfer are independent, and errors are reported."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import paretorch as pt
from front_points import on_points, sgd, small_front
from paretorch.pareto import (
    EPO,
    DivergedWarning,
    Fixed,
    Gated,
    HypervolumeAscent,
    MGDAStarts,
    Neighbours,
    SmoothTchebycheff,
    Sweep,
)
from paretorch.pareto.fitting.exchange import Exchange
from paretorch.pareto.models.rank_partition import RankPartition
from paretorch.workloads.generated.analytic_problems import vlmop2
from paretorch.workloads.streams import combined_seed, training_batches
from paretorch.workloads.synthetic import Synthetic
from training_workload import Tiny

F64 = torch.float64


class Gaps(Tiny):
    """A task is absent from about every second batch, and now and then both are."""

    def losses(self, outputs: Mapping[str, Any], targets: Mapping[str, Any]) -> dict[str, Tensor]:
        found = super().losses(outputs, targets)
        for task, place in {"size": 0, "sign": 1}.items():
            if task in found and int(targets["sign"][place]) == 1:
                del found[task]
        return found


@pytest.mark.parametrize("rate", ["sgd", "momentum", "adam"])
@pytest.mark.parametrize(
    "workload", [Synthetic(samples=64), Tiny(), Gaps()], ids=["regression", "dropout and batch norm", "absent tasks"]
)
def test_members_without_transfer_equal_separate_runs_bit_for_bit(workload: Any, rate: str) -> None:
    make = {
        "sgd": sgd(0.01),
        "momentum": sgd(0.01, 0.9),
        "adam": lambda parameters: torch.optim.Adam(parameters, lr=1e-2),
    }[rate]
    weights = pt.preferences(2, 3)
    algorithm = pt.MT2O(transfer=None)
    front = pt.fit_front(
        workload, algorithm, preferences=weights, epochs=3, batch_size=16, optimizer=make, execution="loop", seed=5
    )
    for member, preference in enumerate(weights):
        alone = plain_run(workload, algorithm, preference, make)
        for name, value in alone.items():
            assert torch.equal(value, front.states[member][name]), name


def plain_run(workload: Any, algorithm: pt.MT2O, preference: Tensor, make: Any) -> Mapping[str, Tensor]:
    """An ordinary loop around an ordinary model, without any code of fronts."""
    with torch.random.fork_rng():
        torch.manual_seed(5)
        model = workload.model().train()
        optimizer = make(list(model.parameters()))
        step = 0
        for epoch in range(3):
            for (samples,) in training_batches(workload.data().train, 16, 5, epoch):
                torch.manual_seed(combined_seed(5, 1, step))
                losses = workload.losses(model(samples.inputs), samples.targets)
                optimizer.zero_grad()
                if losses:
                    there = [place for place, task in enumerate(workload.tasks) if task in losses]
                    values = torch.stack(list(losses.values()))
                    own = preference[there] / preference[there].sum().clamp_min(1e-300)
                    with torch.no_grad():
                        slopes = algorithm.scalarization.weights(values.detach().double()[None], own[None])[0]
                    (slopes.to(values) * values).sum().backward()
                optimizer.step()
                step += 1
    state: Mapping[str, Tensor] = model.state_dict()
    return state


def test_executions_train_the_same_front() -> None:
    fronts = [
        pt.fit_front(
            Synthetic(samples=64),
            pt.MT2O(),
            preferences=pt.preferences(2, 4),
            epochs=5,
            batch_size=16,
            execution=execution,
        )
        for execution in ("loop", "vmap")
    ]
    assert torch.allclose(fronts[0].losses, fronts[1].losses, rtol=1e-4)


class ScaledSynthetic(Synthetic):
    """Its encoder ends with a factor that is a single number."""

    def model(self) -> nn.Module:
        made = super().model()
        made.encoder = nn.Sequential(made.encoder, Factor())  # type: ignore[arg-type]
        return made


class Factor(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(1.0))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.factor


@pytest.mark.parametrize("execution", ["loop", "vmap"])
def test_scalar_parameters_are_trained_and_checked_for_divergence(execution: str) -> None:
    options = {"preferences": pt.preferences(2, 3), "epochs": 2, "batch_size": 16, "execution": execution}
    front = pt.fit_front(ScaledSynthetic(samples=64), pt.MT2O(), starts="independent", **options)
    factors = {float(state["encoder.1.factor"]) for state in front.states}
    assert len(factors) == 3
    with pytest.warns(DivergedWarning):
        front = pt.fit_front(ScaledSynthetic(samples=64), pt.MT2O(), optimizer=sgd(1e20), **options)
    assert len(front.diverged) == 3


def test_batch_norm_statistics_are_separate_for_each_member() -> None:
    front = pt.fit_front(Tiny(), pt.MT2O(), preferences=pt.preferences(2, 2), epochs=2, batch_size=16)
    assert not torch.equal(front.states[0]["encoder.1.running_mean"], front.states[1]["encoder.1.running_mean"])
    assert int(front.states[0]["encoder.1.num_batches_tracked"]) == 6


def test_fixed_matrix_averages_members_by_its_rows() -> None:
    fixed = Fixed(((0.5, 0.5), (0.0, 1.0)))
    start = on_points(Sweep(), pt.preferences(2, 2), epochs=1, optimizer=sgd(0.0))
    front = on_points(pt.MT2O(transfer=fixed), pt.preferences(2, 2), epochs=1, optimizer=sgd(0.0))
    first, second = (state["encoder.point"] for state in start.states)
    assert torch.allclose(front.states[0]["encoder.point"], (first + second) / 2)
    assert torch.equal(front.states[1]["encoder.point"], second)


def test_gate_keeps_the_guaranteed_decrease() -> None:
    """On a quadratic, whose smoothness is known: F decreases by at least 3/4 eta |g|^2 for any neighbours."""
    workload = Synthetic(conflict=80.0, hidden=0)
    given = pt.preferences(2, 8)
    plain = on_points(Sweep(), given, epochs=1, optimizer=sgd(0.0))
    assert float(plain.losses.max()) < 1.0
    for seed in range(5):
        front = on_points(pt.MT2O(transfer=Gated(Neighbours(rho=1.0, tau=1.0))), given, epochs=30, seed=seed)
        alone = on_points(pt.MT2O(transfer=None), given, epochs=30, seed=seed)
        value = SmoothTchebycheff(0.02, 0.0003).value
        assert float((value(front.losses, given) - value(alone.losses, given)).mean()) <= 0.01
    assert workload.truth is not None


def test_trust_increases_after_the_required_decrease_and_decreases_otherwise() -> None:
    sharing = pt.MT2O(SmoothTchebycheff(0.1)).sharing()
    assert sharing is not None
    exchange = Exchange(sharing, {"encoder.a": torch.zeros(3, 2)}, {}, RankPartition(3, group=None))
    weights = torch.full((3, 2), 0.5, dtype=F64)
    exchange.update_trust(torch.ones(3, 2, dtype=F64), weights)
    assert exchange.trust.tolist() == [1, 1, 1]
    exchange.required_decrease = torch.tensor([0.1, 0.1, math.nan], dtype=F64)
    exchange.update_trust(torch.tensor([[0.5, 0.5], [0.95, 0.95], [0.1, 0.1]], dtype=F64), weights)
    assert exchange.trust.tolist() == [2, 1, 1]  # kept; broken, at the floor; nothing was transferred
    exchange.required_decrease = torch.tensor([0.1, 0.1, 0.1], dtype=F64)
    exchange.update_trust(torch.full((3, 2), math.nan, dtype=F64), weights)
    assert exchange.trust.tolist() == [2, 1, 1]  # unknown losses


def test_residuals_are_the_norm_of_the_shortest_combination() -> None:
    front = on_points(MGDAStarts(), pt.preferences(2, 2), optimizer=sgd(0.5))
    assert float(front.residuals(Synthetic("vlmop2")).max()) <= 0.02
    start = on_points(Sweep(), pt.preferences(2, 2), epochs=1, optimizer=sgd(0.0))
    for member, found in enumerate(start.residuals(Synthetic("vlmop2")).tolist()):
        point = start.states[member]["encoder.point"].double().requires_grad_()
        values = vlmop2(point)
        one, two = (torch.autograd.grad(value, point, retain_graph=True)[0] for value in values)
        lengths = [float((share * one + (1 - share) * two).norm()) for share in torch.linspace(0, 1, 2001)]
        assert found == pytest.approx(min(lengths), rel=1e-3)


class Fragile(Synthetic):
    """The first objective's value is not a number near its minimum."""

    def losses(self, outputs: Mapping[str, Any], targets: Mapping[str, Any]) -> dict[str, Tensor]:
        found = super().losses(outputs, targets)
        return {**found, "f1": torch.where(found["f1"] < 0.3, torch.nan, found["f1"])}


@pytest.mark.filterwarnings("ignore:step 8 of the front. the loss or gradient of 'f1' of model 0 is not finite")
def test_diverged_member_is_excluded_and_warned_of() -> None:
    options: dict[str, Any] = {
        "preferences": [(0.99, 0.01), (0.3, 0.7), (0.25, 0.75)],
        "epochs": 150,
        "optimizer": sgd(0.3),
        "reference": (1.0, 1.0),
    }
    with pytest.warns(DivergedWarning, match=r"model 0 .*diverged"):
        front = pt.fit_front(Fragile("vlmop2"), pt.MT2O(transfer=Neighbours(rho=0.1)), **options)
    assert front.diverged == (0,)
    assert front.losses[0].isnan().all()
    assert bool(front.losses[1:].isfinite().all())
    assert front.choose((1.0, 0.0)) != 0
    assert 0 < front.hypervolume() < 1


def test_front_of_one_model_is_trained() -> None:
    front = pt.fit_front(Synthetic(samples=64), pt.MT2O(), preferences=[(0.5, 0.5)], epochs=2)
    assert len(front) == 1
    assert front.choose((0.3, 0.7)) == 0


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"preferences": [(0.6, 0.6)]}, "sum to 1"),
        ({"preferences": [(1.0,)]}, "got 1 values"),
        ({"epochs": 0}, "epochs is at least 1"),
        ({"starts": "same"}, "starts is"),
        ({"execution": "fast"}, "execution is"),
        ({"reference": (1.0,)}, "reference has 1 values"),
        ({"optimizer": torch.optim.LBFGS}, "optimizer"),
        ({"algorithm": EPO(), "preferences": [(1.0, 0.0)]}, "preferences above 0"),
        ({"algorithm": pt.MT2O(transfer=Fixed(((1.0,),)))}, "1 rows for 2 models"),
    ],
)
def test_fit_front_refuses_invalid_arguments(options: dict[str, Any], words: str) -> None:
    given = {"algorithm": pt.MT2O(), "preferences": pt.preferences(2, 2), "epochs": 1, **options}
    with pytest.raises(ValueError, match=words):
        pt.fit_front(Synthetic(samples=64), **given)


def test_adaptation_for_hypervolume_requires_a_reference() -> None:
    with pytest.raises(ValueError, match="give reference="):
        pt.fit_front(Tiny(), pt.MT2O(adapt="hypervolume"), preferences=pt.preferences(2, 2), epochs=1)


def test_random_state_of_the_caller_is_unchanged() -> None:
    before = torch.get_rng_state()
    with warnings.catch_warnings():
        small_front()
    assert torch.equal(before, torch.get_rng_state())


def clipped(parameters: list[Tensor]) -> torch.optim.Optimizer:
    class NormalisedSGD(torch.optim.SGD):
        def step(self, closure: Any = None) -> Any:
            for group in self.param_groups:
                for value in group["params"]:
                    value.grad = value.grad / value.grad.norm()
            return super().step(closure)

    return NormalisedSGD(parameters, lr=0.1)


def test_optimizer_that_is_not_elementwise_is_refused() -> None:
    with pytest.raises(ValueError, match="NormalisedSGD mixes the models"):
        small_front(optimizer=clipped)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda: Fixed(3), "rows of numbers"),  # type: ignore[arg-type]
        (lambda: Fixed(((1.0, 0.0), (0.0, "a"))), "rows of numbers"),  # type: ignore[arg-type]
        (lambda: pt.MT2O(transfer="neighbours"), r"such as Gated\(\), or None, got 'neighbours'"),
        (lambda: pt.MT2O("tchebycheff"), "scalarization is an instance"),
        (lambda: pt.fit_front(Synthetic(), "mt2o", preferences=[(0.5, 0.5)], epochs=1), r"such as MT2O\(\), got 'mt2o'"),
        (lambda: pt.fit_front(Synthetic(), pt.MT2O, preferences=[(0.5, 0.5)], epochs=1), r"an instance of a class of"),
        (lambda: pt.fit_front(Synthetic(), pt.MT2O(), preferences=[("a", "b")], epochs=1), "preferences are rows of numbers"),
        (lambda: HypervolumeAscent(reference=(1.0, "a")).check(pt.preferences(2, 2), ("a", "b")), "a finite number for each"),  # type: ignore[arg-type]
    ],
)  # fmt: skip
def test_arguments_of_wrong_type_are_refused(wrong: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        wrong()


def test_preference_is_accepted_by_name_and_reference_must_be_finite() -> None:
    front = small_front()
    first, second = front.tasks
    tensor: Any = torch.tensor([0.8, 0.2])
    assert front.choose({second: 0.2, first: 0.8}) == front.choose((0.8, 0.2)) == front.choose(tensor)
    with pytest.raises(ValueError, match="expected a weight for each of"):
        front.choose({first: 1.0})
    with pytest.raises(ValueError, match="a reference is a finite number"):
        front.hypervolume((math.nan, 1.0))
