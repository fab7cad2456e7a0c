"""Conditional models approximate known fronts, and their members are those of the definition."""

from __future__ import annotations

import copy
import importlib.util
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import paretorch as pt
from front_points import late_fall
from paretorch.pareto import COSMOS, NSGA2, PHNEPO, PHNLS, FrontAlgorithm, PaMaL, rays
from paretorch.pareto.models.conditional_model import Hypernetwork, ModelSimplex
from paretorch.workloads.synthetic import Synthetic
from training_workload import Tiny

F64 = torch.float64


def adam(rate: float) -> Any:
    return lambda parameters: torch.optim.Adam(parameters, lr=rate)


def on_vlmop2(algorithm: FrontAlgorithm, rate: float, epochs: int) -> pt.Front:
    return pt.fit_front(
        Synthetic("vlmop2"),
        algorithm,
        preferences=pt.preferences(2, 5, margin=0.15),
        epochs=epochs,
        optimizer=adam(rate),
        schedule=late_fall,
        every=10**6,
    )


def off_the_front(front: pt.Front, problem: str = "vlmop2") -> float:
    truth = Synthetic(problem).truth
    assert truth is not None
    return float(torch.cdist(front.losses, truth.front.double()).min(dim=1).values.max())


@pytest.mark.long
def test_phn_epo_models_are_on_their_rays() -> None:
    front = on_vlmop2(PHNEPO(hidden=32), 3e-3, 500)
    assert off_the_front(front) <= 0.02
    unit = torch.nn.functional.normalize(rays(front.preferences), dim=1)
    cosines = (torch.nn.functional.normalize(front.losses, dim=1) * unit).sum(dim=1).clamp(max=1)
    assert math.degrees(float(cosines.acos().max())) <= 6.0


@pytest.mark.long
@pytest.mark.parametrize("algorithm", [PHNLS(hidden=32), PaMaL(order=0.1)], ids=["PHN-LS", "PaMaL"])
def test_conditional_models_approximate_the_front_of_the_regression(algorithm: FrontAlgorithm) -> None:
    workload = Synthetic(samples=256)
    front = pt.fit_front(
        workload,
        algorithm,
        preferences=pt.preferences(2, 4, margin=0.1),
        epochs=100,
        batch_size=64,
        optimizer=adam(5e-3),
        every=10**6,
    )
    assert front.losses[:, 0].tolist() == sorted(front.losses[:, 0].tolist())
    assert float(front.losses[-1, 0] - front.losses[0, 0]) > 0.1
    truth = workload.truth
    assert truth is not None
    assert float(torch.cdist(front.losses, truth.front).min(dim=1).values.max()) <= 0.15


def test_simplex_members_are_convex_combinations_of_its_vertices() -> None:
    front = pt.fit_front(
        Synthetic(samples=64),
        PaMaL(),
        preferences=[(1.0, 0.0), (0.25, 0.75), (0.0, 1.0)],
        epochs=2,
        batch_size=32,
        starts="independent",
    )
    first, middle, last = front.states
    assert not torch.equal(first["encoder.0.weight"], last["encoder.0.weight"])
    for name, value in middle.items():
        torch.testing.assert_close(value, 0.25 * first[name] + 0.75 * last[name])


def test_pamal_penalizes_losses_in_the_wrong_order() -> None:
    wanted = torch.tensor([[0.8, 0.2], [0.2, 0.8]])
    right, wrong = torch.tensor([[0.1, 0.9], [0.9, 0.1]]), torch.tensor([[0.9, 0.1], [0.1, 0.9]])
    algorithm = PaMaL(window=2, order=2.0)
    assert float(algorithm.objective(right, wanted)) == pytest.approx(0.26)
    # each task has one pair, whose loss is larger by .8 where it matters more
    assert float(algorithm.objective(wrong, wanted)) == pytest.approx(0.74 + 2 * 2.0 * 0.8)


def test_conditional_models_support_batch_norm_and_dropout() -> None:
    for algorithm in (PHNLS(hidden=8), PaMaL()):
        front = pt.fit_front(Tiny(), algorithm, preferences=pt.preferences(2, 2), epochs=2, batch_size=16)
        assert bool(front.losses.isfinite().all())
        assert front.model(0)(torch.zeros(3, 4))["sign"].shape == (3, 2)


def test_conditional_model_is_initialized_as_the_workloads_model() -> None:
    models = [Tiny().model(), Tiny().model()]
    weights = torch.tensor([0.3, 0.7], dtype=F64)
    for name, value in Hypernetwork(models[0], 2, 4).at(weights).items():
        assert torch.equal(value, models[0].get_parameter(name))
    for name, value in ModelSimplex(models).at(weights).items():
        expected: Tensor = 0.3 * models[0].get_parameter(name) + 0.7 * models[1].get_parameter(name)
        torch.testing.assert_close(value, expected)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: PHNLS(alpha=0.0), "alpha is above 0"),
        (lambda: PHNLS(hidden=0), "at least 1 unit"),
        (lambda: PHNEPO(margin=0.5), "margin"),
        (lambda: PaMaL(window=0), "at least 1 preference"),
        (lambda: PaMaL(order=-1.0), "order is at least 0"),
        (lambda: NSGA2(population=2), "at least 4"),
    ],
)
def test_conditional_algorithms_refuse_invalid_options(make: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        make()


def test_nsga2_requires_bounds_and_has_no_checkpoints() -> None:
    with pytest.raises(ValueError, match="searches a box of parameters"):
        pt.fit_front(Synthetic(samples=64), NSGA2(population=4), preferences=[(0.5, 0.5)], epochs=1)
    with pytest.raises(ValueError, match="leave checkpoint out"):
        pt.fit_front(Synthetic("zdt1"), NSGA2(population=4), preferences=[(0.5, 0.5)], epochs=1, checkpoint="nowhere")
    with pytest.raises(ValueError, match="need a population of at least that size"):
        pt.fit_front(Synthetic("zdt1"), NSGA2(population=4), preferences=pt.preferences(2, 5), epochs=1)


@pytest.mark.skipif(importlib.util.find_spec("pymoo") is not None, reason="pymoo is installed")
def test_nsga2_without_pymoo_names_the_install_command() -> None:
    with pytest.raises(ImportError, match=r"pip install .*fronts"):
        pt.fit_front(Synthetic("zdt1"), NSGA2(population=4), preferences=[(0.5, 0.5)], epochs=1)


@pytest.mark.long
@pytest.mark.skipif(importlib.util.find_spec("pymoo") is None, reason="needs pymoo, of paretorch[fronts]")
def test_nsga2_approximates_the_front_of_zdt1() -> None:
    front = pt.fit_front(
        Synthetic("zdt1", size=8), NSGA2(population=40), preferences=pt.preferences(2, 10), epochs=120, every=40
    )
    truth = Synthetic("zdt1").truth
    assert truth is not None
    assert off_the_front(front, "zdt1") <= 0.05
    assert front.hypervolume(partial=True) >= 0.9 * truth.hypervolume
    assert len({tuple(row) for row in front.losses.tolist()}) == 10
    assert front.facts["gradient evaluations"] == 0


class TiedTiny(Tiny):
    """Two layers of the encoder have one weight."""

    def model(self) -> nn.Module:
        model = super().model()
        encoder = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 6))
        encoder[4].weight = encoder[2].weight
        model.encoder = encoder
        return model


def test_cosmos_direction_has_the_stated_bound_on_the_weights() -> None:
    losses, weights = torch.tensor([[3.0, 4.0]]), torch.tensor([[0.0, 1.0]])
    inverse = torch.tensor([1 / 0.02, 1.0])
    cosine = (inverse @ losses[0] / (inverse.norm() * losses.norm())).item()
    assert COSMOS(penalty=2.0).objective(losses, weights).item() == pytest.approx(4.0 - 2.0 * cosine)


@pytest.mark.parametrize("algorithm", [PHNLS(hidden=8), PHNEPO(hidden=8), PaMaL(), COSMOS()], ids=repr)
def test_conditional_models_support_tied_weights(algorithm: FrontAlgorithm) -> None:
    front = pt.fit_front(
        TiedTiny(),
        algorithm,
        preferences=pt.preferences(2, 3, margin=0.1),
        epochs=2,
        batch_size=16,
        optimizer=adam(0.01),
    )
    model: Any = front.pick((0.5, 0.5))
    layers = model.inner.encoder if isinstance(algorithm, COSMOS) else model.encoder
    torch.manual_seed(0)
    start: Any = TiedTiny().model()
    assert layers[4].weight is layers[2].weight
    assert not torch.equal(layers[4].weight, start.encoder[4].weight)
    assert set(model(torch.randn(5, 4))) == {"sign", "size"}


@pytest.mark.parametrize("algorithm", [PHNLS(hidden=8), PHNEPO(hidden=8), PaMaL(), COSMOS()], ids=repr)
def test_conditional_models_have_the_dtype_of_the_model(algorithm: FrontAlgorithm) -> None:
    before = torch.get_default_dtype()
    try:
        torch.set_default_dtype(F64)
        data = Tiny().data()
        model = Tiny().model()
    finally:
        torch.set_default_dtype(before)

    class Wide(Tiny):
        def data(self) -> Any:
            return data

        def model(self) -> nn.Module:
            return copy.deepcopy(model)

    front = pt.fit_front(
        Wide(), algorithm, preferences=pt.preferences(2, 3, margin=0.1), epochs=1, batch_size=16, optimizer=adam(0.01)
    )
    assert all(value.dtype == F64 for value in front.pick((0.5, 0.5)).parameters())
