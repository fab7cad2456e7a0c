"""Rules of a search: acceptance, trials, starts, memories; and directions and metrics."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import paretorch as pt
from line_searches import SEARCHES, Point
from paretorch.linesearch import LBFGS, Identity, Kronecker, Metric, Orthogonal, Rules
from paretorch.linesearch.contract import SearchOutcome, StepLine
from paretorch.linesearch.directions.metrics import common_descent
from paretorch.linesearch.newton.newton import criticality
from small_models import Net, data, losses_of


def line(at: Callable[[float], list[float]], slopes: list[float]) -> StepLine:
    """Of T tasks, from their losses at a step."""
    names = tuple(str(place) for place in range(len(slopes)))
    made = np.array(slopes)
    return StepLine(names, tuple(range(len(slopes))), np.array(at(0.0)), made, made, lambda step: np.array(at(step)))


def parabola(curvature: float, slope: float = 1.0, offset: float = 1.0) -> Callable[[float], float]:
    return lambda step: offset - slope * step + curvature * step**2 / 2


# --- acceptance and trials -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shrink", [0.5, 0.9, "violation"])
@pytest.mark.parametrize("trial", ["backtracking", "parabolic", "golden"])
def test_rules_satisfy_the_condition_of_the_worst_task(trial: Any, shrink: Any) -> None:
    gentle, steep = parabola(1.0), parabola(50.0)
    task_line = line(lambda step: [gentle(step), steep(step)], [1.0, 1.0])
    rules = Rules(trial=trial, shrink=shrink, beta=0.25)
    found, _ = rules.search(task_line, rules.init(2), 1.0)
    # 1 - 0.25 = curvature step / 2 is the largest step of the second task
    assert found.outcome is SearchOutcome.ACCEPTED
    assert 0.2 * 0.03 < found.step <= 0.03
    if trial == "parabolic":
        assert found.trials == 3
        assert found.step == pytest.approx(0.02)  # a tenth twice at most, then the minimum itself


def test_rules_accept_the_first_acceptable_trial() -> None:
    task_line = line(lambda step: [parabola(50.0)(step)], [1.0])
    rules = Rules(beta=0.25, shrink=0.5)
    found, state = rules.search(task_line, rules.init(1), 1.0)
    assert found.step == 2**-6
    assert (found.trials, found.first, state.last) == (7, False, 2**-6)
    assert rules.search(task_line, state, 0.01)[0].first


def test_rules_shrink_by_violation_with_fewer_trials() -> None:
    task_line = line(lambda step: [parabola(5e4)(step)], [1.0])
    constant, adaptive = Rules(shrink=0.5), Rules(shrink="violation")
    assert (
        adaptive.search(task_line, adaptive.init(1), 1.0)[0].trials
        < constant.search(task_line, constant.init(1), 1.0)[0].trials / 2
    )


def test_rules_shrink_to_just_below_the_largest_acceptable_step() -> None:
    task_line = line(lambda step: [parabola(50.0)(step)], [1.0])
    rules = Rules(beta=0.25)
    found, _ = rules.search(task_line, rules.init(1), 1.0)
    assert found.trials == 2
    assert found.step == pytest.approx(
        0.875 * 2 * (1 - 0.25) / 50
    )  # the edge of the condition on a parabola of curvature 50


def test_rules_refuse_steps_with_losses_that_are_not_finite() -> None:
    task_line = line(lambda step: [math.nan if step > 0.1 else 1 - step], [1.0])
    for trial in ("backtracking", "parabolic", "golden"):
        rules = Rules(trial=trial)
        found, _ = rules.search(task_line, rules.init(1), 1.0)
        assert found.outcome is SearchOutcome.ACCEPTED
        assert 0 < found.step <= 0.1


def test_rules_distinguish_rejected_from_noise() -> None:
    rules = Rules(floor=1e-6, shrink=0.5)
    rising = line(lambda step: [1 + (step > 0)], [1.0])
    found, _ = rules.search(rising, rules.init(1), 1.0)
    assert found.outcome is SearchOutcome.REJECTED
    assert found.trials == 20
    flat = line(lambda step: [1 + 3e-16 * (step > 0)], [1e-17])
    assert rules.search(flat, rules.init(1), 1.0)[0].outcome is SearchOutcome.NOISE


@pytest.mark.parametrize("memory", ["monotone", "nonmonotone", "smoothed"])
def test_rules_accept_an_increase_only_with_a_memory(memory: Any) -> None:
    rules = Rules(memory=memory)
    state = rules.init(1)
    _, state = rules.search(line(lambda step: [10 - 5 * step], [5.0]), state, 1.0)
    state = state._replace(skip=0)
    bump = line(lambda step: [4 + step * (0.2 if step > 0.5 else -1)], [1.0])
    found, _ = rules.search(bump, state, 1.0)
    assert found.outcome is SearchOutcome.ACCEPTED
    assert (found.losses[0] > 4) == (memory != "monotone")


def test_rules_start_at_the_named_first_trial() -> None:
    task_line = line(lambda step: [3 - step, 8 - step], [1.0, 1.0])
    state = Rules().init(2)._replace(last=0.25, epoch_steps=(2, 1))
    first = {start: Rules(start=start).first_trial(task_line, state, 10.0) for start in ("reset", "keep", "grow")}
    assert first == {"reset": 10.0, "keep": 0.25, "grow": 0.25 * math.sqrt(2)}
    assert Rules(start="polyak", beta=0.5).first_trial(task_line, state, 10.0) == 3.0
    assert Rules(start="polyak", beta=0.5, lowest=2.0).first_trial(task_line, state, 10.0) == 1.0
    with pytest.raises(ValueError, match="task '0' has 3"):
        Rules(start="polyak", lowest=4.0).first_trial(task_line, state, 10.0)


# --- quadratics of any scale ---------------------------------------------------------------------------------------------


def two_quadratics(
    scale: float, ratio: float
) -> tuple[Callable[[Tensor], dict[str, Tensor]], Callable[[Tensor], float]]:
    """Two convex quadratics of one scale, the second times a ratio, and the criticality relative to the scale."""
    generator = torch.Generator().manual_seed(0)
    basis = torch.linalg.qr(torch.randn(4, 4, generator=generator, dtype=torch.float64)).Q
    matrices = [
        basis @ torch.diag(torch.tensor([1.0, 2.0, 5.0, d], dtype=torch.float64)) @ basis.T for d in (10.0, 3.0)
    ]
    centers = [torch.ones(4, dtype=torch.float64), -torch.ones(4, dtype=torch.float64)]
    factors = [scale, scale * ratio]

    def of(z: Tensor) -> dict[str, Tensor]:
        return {
            name: factor * ((z - center) @ matrix @ (z - center) / 2 + 1)
            for name, factor, matrix, center in zip("ab", factors, matrices, centers, strict=True)
        }

    def distance(z: Tensor) -> float:
        rows = torch.stack([matrix @ (z - center) for matrix, center in zip(matrices, centers, strict=True)])
        return criticality(rows.numpy())

    return of, distance


@pytest.mark.parametrize("scale", [1e-6, 1e-3, 1.0, 1e3, 1e6])
@pytest.mark.parametrize("ratio", [1.0, 3.0])
@pytest.mark.parametrize(
    "make",
    [
        *SEARCHES.values(),
        partial(pt.Backtracking, trial="parabolic"),
        partial(pt.Backtracking, trial="golden"),
        partial(pt.Backtracking, memory="nonmonotone"),
        partial(pt.Backtracking, start="grow"),
        partial(pt.Backtracking, direction=LBFGS()),
    ],
    ids=[
        *SEARCHES,
        "parabolic",
        "golden",
        "nonmonotone",
        "grow",
        "lbfgs",
    ],
)
@pytest.mark.sampled(4)
def test_search_converges_on_quadratics_of_any_scale(make: Callable[..., Any], scale: float, ratio: float) -> None:
    of, distance = two_quadratics(scale, ratio)
    start = torch.tensor([3.0, -2.0, 4.0, 1.0], dtype=torch.float64)
    if "direction" in getattr(make, "keywords", {}):
        make = partial(pt.Backtracking, direction=LBFGS())
    point = Point(start)
    search = make(point, nn.ModuleDict(), pt.MGDA())
    for _ in range(300):
        step = search.step(torch.ones(4, dtype=torch.float64), of)
        if not step.accepted:
            break
    assert distance(point.at.detach()) < 1e-5 * distance(start)


# --- directions ----------------------------------------------------------------------------------------------------------

OPTIMIZERS: dict[str, Callable[[Any], torch.optim.Optimizer]] = {
    "momentum": partial(torch.optim.SGD, lr=0.1, momentum=0.9),
    "Adam": torch.optim.Adam,
    "AdamW": torch.optim.AdamW,
    "Adagrad": torch.optim.Adagrad,
    "RMSprop": torch.optim.RMSprop,
    "Preconditioned": lambda parameters: pt.Preconditioned(parameters, pt.MGDA()),
    "MTAdam": lambda parameters: pt.MTAdam(parameters),
}


@pytest.mark.parametrize(
    "make", [pt.Backtracking, partial(pt.FastBacktracking, displacement="linearised", samples=None)]
)
@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.sampled(2)
def test_direction_of_any_optimizer_decreases_every_loss(name: str, make: Callable[..., Any]) -> None:
    model, (x, targets) = Net(), data()
    optimizer = OPTIMIZERS[name]([*model.encoder.parameters(), *model.heads.parameters()])
    search = make(model.encoder, model.heads, pt.UPGrad(), direction=optimizer, verify=1)
    first = losses_of(model(x), targets)
    for _ in range(60):
        step = search.step(x, lambda z: losses_of({t: head(z) for t, head in model.heads.items()}, targets))
        assert step.accepted
        assert all(slope > 0 for slope in step.slopes.values())
        losses = step.actual if make is pt.Backtracking else step.predicted
        assert all(losses[task] < float(loss) for task, loss in step.losses.items())
    assert all(step.actual[task] < 0.9 * float(first[task].detach()) for task in first)


def test_direction_of_a_matrix_optimizer_decreases_every_loss() -> None:
    if not hasattr(torch.optim, "Muon"):
        pytest.skip("this torch has no Muon")
    encoder = nn.Sequential(nn.Linear(5, 8, bias=False), nn.Tanh(), nn.Linear(8, 6, bias=False)).double()
    heads = nn.ModuleDict({task: nn.Linear(6, 2, bias=False) for task in "abc"}).double()
    x, targets = data()
    optimizer = torch.optim.Muon([*encoder.parameters(), *heads.parameters()], lr=0.02)
    search = pt.FastBacktracking(
        encoder, heads, pt.MGDA(), direction=optimizer, displacement="linearised", samples=None, verify=1
    )
    for _ in range(10):
        step = search.step(x, lambda z: losses_of({t: head(z) for t, head in heads.items()}, targets))
        assert step.accepted
        assert all(step.actual[task] < float(loss) for task, loss in step.losses.items())


def test_direction_of_an_optimizer_equals_its_own_steps() -> None:
    model, (x, targets) = Net(), data()
    twin = Net()
    search = pt.Backtracking(
        model.encoder,
        model.heads,
        pt.Equal(),
        direction=torch.optim.Adam(model.parameters(), lr=0.05),
        max_step=1e-4,
        start="reset",
    )
    other = torch.optim.Adam(twin.parameters(), lr=1e-4)
    for _ in range(3):
        search.step(x, lambda z: losses_of({t: head(z) for t, head in model.heads.items()}, targets))
        other.zero_grad()
        torch.stack(list(losses_of(twin(x), targets).values())).sum().backward()
        other.step()
    for one, two in zip(model.parameters(), twin.parameters(), strict=True):
        assert torch.allclose(one, two, rtol=0, atol=1e-9)


@pytest.mark.parametrize("metric", [Identity(), Kronecker(), Orthogonal()], ids=["identity", "Kronecker", "Orthogonal"])
@pytest.mark.parametrize("seed", range(5))
def test_common_descent_in_a_metric_decreases_every_loss(metric: Metric, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    draw = partial(torch.randn, generator=generator, dtype=torch.float64)
    rows: list[list[Tensor | None]] = [[draw(4, 3), draw(4) * 1e3, None if task else draw(2)] for task in range(3)]
    for _ in range(3):
        metric.learn([draw(4, 3), draw(4), draw(2)])
    direction, solution, slopes = common_descent(metric, rows)
    shortest = float(solution.weights.numpy() @ slopes)
    assert slopes.min() >= shortest * (1 - 1e-9) > 0
    for row, slope in zip(rows, slopes, strict=True):
        by_hand = sum(
            float((a * b).sum()) for a, b in zip(row, direction, strict=True) if a is not None and b is not None
        )
        assert by_hand == pytest.approx(slope, rel=1e-9)
