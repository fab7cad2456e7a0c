"""Searches on random convex quadratics: convergence to the Pareto set at any scale and in any units."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import paretorch as pt
from line_searches import SEARCHES, Point
from paretorch.linesearch import LineSearch, LossScaling
from paretorch.linesearch.contract import SearchOutcome, SearchResult, StepLine
from paretorch.linesearch.newton.newton import criticality


@dataclass
class Quadratics:
    """Convex, each with its matrix, minimum and unit."""

    matrices: list[Tensor]
    centers: list[Tensor]
    units: list[float]
    start: Tensor
    condition: float

    def losses(self, z: Tensor) -> dict[str, Tensor]:
        return {
            f"task {place}": unit * ((z - center) @ matrix @ (z - center)) / 2
            for place, (unit, matrix, center) in enumerate(zip(self.units, self.matrices, self.centers, strict=True))
        }

    def criticality(self, z: Tensor) -> float:
        """The shortest convex combination of the gradients, all in one unit."""
        rows = [matrix @ (z - center) for matrix, center in zip(self.matrices, self.centers, strict=True)]
        return criticality(torch.stack(rows).numpy())


def draw_quadratics(seed: int, **fixed: float) -> Quadratics:
    """Two to four tasks in two to six dimensions; condition up to 100, scale 1e-6 to 1e6, units up to 1000 apart."""
    draws, generator = random.Random(seed), torch.Generator().manual_seed(seed)
    tasks, size = draws.randint(2, 4), draws.randint(2, 6)
    exponents = {"condition": draws.uniform(0, 2), "scale": draws.uniform(-6, 6), "ratio": draws.uniform(0, 3)} | fixed
    normal = partial(torch.randn, generator=generator, dtype=torch.float64)
    curvatures = torch.logspace(0, exponents["condition"], size, dtype=torch.float64)
    bases = [torch.linalg.qr(normal(size, size)).Q for _ in range(tasks)]
    units = [10 ** (exponents["scale"] + exponents["ratio"] * place / (tasks - 1)) for place in range(tasks)]
    draws.shuffle(units)
    return Quadratics(
        [basis @ torch.diag(curvatures) @ basis.T for basis in bases],
        [2 * normal(size) for _ in range(tasks)],
        units,
        5 * normal(size),
        10 ** exponents["condition"],
    )


def remaining_criticality(make: Callable[..., LineSearch], problem: Quadratics, steps: int, method: Any) -> float:
    """The criticality after the steps relative to the first; ends below a hundred-thousandth."""
    point = Point(problem.start)
    search, before = make(point, nn.ModuleDict(), method), problem.criticality(problem.start)
    for _ in range(steps):
        step = search.step(torch.ones_like(problem.start), problem.losses)
        if not step.accepted or problem.criticality(point.at.detach()) < 1e-5 * before:
            break
    return problem.criticality(point.at.detach()) / before


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("name", SEARCHES)
@pytest.mark.sampled(3)
def test_search_converges_on_quadratics_of_any_scale_and_units(name: str, seed: int) -> None:
    assert remaining_criticality(SEARCHES[name], draw_quadratics(seed), 400, pt.MGDA()) < 1e-5


@pytest.mark.long
@pytest.mark.parametrize("seed", range(6, 40))
@pytest.mark.parametrize("name", SEARCHES)
def test_search_converges_on_more_quadratics(name: str, seed: int) -> None:
    """At the rate of gradient descent with the step 1 / L, (1 - 1 / condition), after 150 steps that find scale and bound."""
    problem = draw_quadratics(seed)
    steps = min(800, 150 + math.ceil(problem.condition * math.log(1e5)))
    for make in (SEARCHES[name], partial(SEARCHES[name], beta=0.1)):
        assert remaining_criticality(make, problem, steps, pt.MGDA()) < 1e-5


@pytest.mark.parametrize("method", [pt.UPGrad(), pt.IMTLG(), pt.Equal()], ids=repr)
def test_search_converges_with_other_methods(method: pt.Method[Any]) -> None:
    for seed in (0, 1):
        problem = draw_quadratics(seed, condition=1.0)
        assert remaining_criticality(pt.FastBacktracking, problem, 400, method) < 1e-5


def test_search_without_loss_scaling_is_slow_for_different_units() -> None:
    problem = draw_quadratics(2, condition=1.0, ratio=3.0)
    assert remaining_criticality(pt.FastBacktracking, problem, 150, pt.MGDA()) < 1e-5
    assert remaining_criticality(partial(pt.FastBacktracking, imbalance=math.inf), problem, 150, pt.MGDA()) > 1e-4


@pytest.mark.parametrize("name", SEARCHES)
def test_search_points_are_independent_of_the_scale(name: str) -> None:
    """Powers of two change no digit, so that the points are the same bit by bit."""
    ends = []
    for exponent in (-40, 0, 40):
        problem = draw_quadratics(3, scale=0.0, condition=1.0)
        problem.units = [2.0**exponent * unit for unit in problem.units]
        point = Point(problem.start)
        search = SEARCHES[name](point, nn.ModuleDict(), pt.MGDA())
        for _ in range(25):
            search.step(torch.ones_like(problem.start), problem.losses)
        ends.append(point.at.detach().clone())
    assert torch.allclose(ends[0], ends[1], rtol=1e-9, atol=0)
    assert torch.allclose(ends[2], ends[1], rtol=1e-9, atol=0)


# --- divisors ------------------------------------------------------------------------------------------------------------


def exponents_after(units: LossScaling, curvatures: list[float], steps: int) -> list[list[float]]:
    """The exponents after each of so many steps on parabolas of these curvatures."""
    count, made, exponents = len(curvatures), np.array(curvatures), []
    state = units.init(count)
    for step in range(steps):
        length = 0.5 + 0.1 * step  # steps differ in length: only what the tasks are to each other counts
        line = StepLine(
            tuple("abcd"[:count]), tuple(range(count)), np.ones(count), np.ones(count), np.ones(count), lambda _: made
        )
        found = SearchResult(SearchOutcome.ACCEPTED, length, 1 - length + made * length**2 / 2, 1)
        state = units.after(state, line, found)
        exponents.append(state.exponents.tolist())
    return exponents


def test_loss_scaling_divides_curvatures_beyond_the_imbalance() -> None:
    exponents = exponents_after(LossScaling(imbalance=4.0), [1.0, 8.0, 1024.0], 8)
    assert exponents[3] == [0, 0, 0]  # a few curvatures first
    assert exponents[-1] == [0, 1, 8]
    assert exponents_after(LossScaling(imbalance=4.0), [1.0, 3.0, 8.0], 8)[-1] == [
        0,
        0,
        0,
    ]  # less than two doublings beyond
    assert exponents_after(LossScaling(imbalance=math.inf), [1.0, 1e6], 8)[-1] == [0, 0]


def test_loss_scaling_ignores_tasks_without_a_curvature() -> None:
    assert exponents_after(LossScaling(), [1.0, 0.0], 8)[-1] == [0, 0]
    assert exponents_after(LossScaling(), [1e-30, 1e6], 8)[-1] == [0, 0]
    assert exponents_after(LossScaling(), [1.0, -1e3, 1e6], 8)[-1] == [0, 0, 17]


@pytest.mark.parametrize("unit", [1e-6, 1e6])
@pytest.mark.parametrize("search", [pt.Backtracking, pt.FastBacktracking])
def test_float32_search_decreases_all_losses_if_one_is_not_resolvable(search: Any, unit: float) -> None:
    torch.manual_seed(0)
    encoder, heads = nn.Linear(4, 6), nn.ModuleDict({name: nn.Linear(6, 1) for name in "abc"})
    x, y = torch.randn(64, 4), torch.randn(64, 3)

    def losses(z: Tensor) -> dict[str, Tensor]:
        return {
            name: (head(z)[:, 0] - y[:, place]).square().mean() * (unit if name == "a" else 1)
            for place, (name, head) in enumerate(heads.items())
        }

    found = search(encoder, heads, pt.MGDA())
    before = {name: float(loss.detach()) for name, loss in losses(encoder(x)).items()}
    steps = [found.step(x, losses) for _ in range(120)]
    after = {name: float(loss.detach()) for name, loss in losses(encoder(x)).items()}
    assert sum(step.outcome is SearchOutcome.ACCEPTED for step in steps) >= 100
    for name in "abc":
        assert after[name] <= 0.97 * before[name], name
