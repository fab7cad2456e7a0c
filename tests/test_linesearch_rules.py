"""The rules by themselves: quadratics of any scale, trials, starts, memories, bounds, metrics, Newton."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import paretorch as pt
from models import Net, data, losses_of
from paretorch.core.nonnegative import Array
from paretorch.linesearch import LBFGS, Identity, Kronecker, Metric, Rules, newton, newton_step
from paretorch.linesearch.bound import student_quantile, trend
from paretorch.linesearch.contract import Line, Outcome
from paretorch.linesearch.metrics import common_descent
from paretorch.linesearch.newton import criticality


def line(at: Callable[[float], list[float]], slopes: list[float]) -> Line:
    """Of T tasks, from their losses at a step."""
    names = tuple(str(place) for place in range(len(slopes)))
    made = np.array(slopes)
    return Line(names, tuple(range(len(slopes))), np.array(at(0.0)), made, made, lambda step: np.array(at(step)))


def parabola(curvature: float, slope: float = 1.0, offset: float = 1.0) -> Callable[[float], float]:
    return lambda step: offset - slope * step + curvature * step**2 / 2


# --- acceptance and trials -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shrink", [0.5, 0.9, "violation"])
@pytest.mark.parametrize("trial", ["backtracking", "parabolic", "golden"])
def test_the_worst_task_decides(trial: Any, shrink: Any) -> None:
    gentle, steep = parabola(1.0), parabola(50.0)
    seen = line(lambda step: [gentle(step), steep(step)], [1.0, 1.0])
    rules = Rules(trial=trial, shrink=shrink, beta=0.25)
    found, _ = rules.search(seen, rules.init(2), 1.0)
    # 1 - 0.25 = curvature step / 2 is the largest step of the second task
    assert found.outcome is Outcome.ACCEPTED
    assert 0.2 * 0.03 < found.step <= 0.03
    if trial == "parabolic":
        assert found.trials == 3
        assert found.step == pytest.approx(0.02)  # a tenth twice at most, then the minimum itself


def test_backtracking_takes_the_first_step_that_fits() -> None:
    seen = line(lambda step: [parabola(50.0)(step)], [1.0])
    rules = Rules(beta=0.25)
    found, state = rules.search(seen, rules.init(1), 1.0)
    assert found.step == 2**-6
    assert (found.trials, found.first, state.last) == (7, False, 2**-6)
    assert rules.search(seen, state, 0.01)[0].first


def test_violation_shrinks_more_where_more_is_missing() -> None:
    seen = line(lambda step: [parabola(5e4)(step)], [1.0])
    constant, adaptive = Rules(), Rules(shrink="violation")
    assert (
        adaptive.search(seen, adaptive.init(1), 1.0)[0].trials
        < constant.search(seen, constant.init(1), 1.0)[0].trials / 2
    )


def test_steps_to_where_losses_are_not_finite_are_refused() -> None:
    seen = line(lambda step: [math.nan if step > 0.1 else 1 - step], [1.0])
    for trial in ("backtracking", "parabolic", "golden"):
        rules = Rules(trial=trial)
        found, _ = rules.search(seen, rules.init(1), 1.0)
        assert found.outcome is Outcome.ACCEPTED
        assert 0 < found.step <= 0.1


def test_rejected_and_noise_are_told_apart() -> None:
    rules = Rules(floor=1e-6)
    rising = line(lambda step: [1 + (step > 0)], [1.0])
    found, _ = rules.search(rising, rules.init(1), 1.0)
    assert found.outcome is Outcome.REJECTED
    assert found.trials == 20
    flat = line(lambda step: [1 + 3e-16 * (step > 0)], [1e-17])
    assert rules.search(flat, rules.init(1), 1.0)[0].outcome is Outcome.NOISE


@pytest.mark.parametrize("memory", ["monotone", "nonmonotone", "smoothed"])
def test_a_rise_is_taken_only_where_the_past_allows_it(memory: Any) -> None:
    rules = Rules(memory=memory)
    state = rules.init(1)
    _, state = rules.search(line(lambda step: [10 - 5 * step], [5.0]), state, 1.0)
    state = state._replace(skip=0)
    bump = line(lambda step: [4 + step * (0.2 if step > 0.5 else -1)], [1.0])
    found, _ = rules.search(bump, state, 1.0)
    assert found.outcome is Outcome.ACCEPTED
    assert (found.losses[0] > 4) == (memory != "monotone")


def test_starts() -> None:
    seen = line(lambda step: [3 - step, 8 - step], [1.0, 1.0])
    state = Rules().init(2)._replace(last=0.25, epoch_steps=(2, 1))
    first = {start: Rules(start=start).first_trial(seen, state, 10.0) for start in ("reset", "keep", "grow")}
    assert first == {"reset": 10.0, "keep": 0.25, "grow": 0.25 * math.sqrt(2)}
    assert Rules(start="polyak", beta=0.5).first_trial(seen, state, 10.0) == 3.0
    assert Rules(start="polyak", beta=0.5, lowest=2.0).first_trial(seen, state, 10.0) == 1.0
    with pytest.raises(ValueError, match="task '0' has 3"):
        Rules(start="polyak", lowest=4.0).first_trial(seen, state, 10.0)


# --- quadratics of any scale ---------------------------------------------------------------------------------------------


class Point(nn.Module):
    def __init__(self, at: Tensor) -> None:
        super().__init__()
        self.at = nn.Parameter(at.clone())

    def forward(self, x: Tensor) -> Tensor:
        return self.at * x


def quadratics(scale: float, ratio: float) -> tuple[Callable[[Tensor], dict[str, Tensor]], Callable[[Tensor], float]]:
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

    def left(z: Tensor) -> float:
        rows = torch.stack([matrix @ (z - center) for matrix, center in zip(matrices, centers, strict=True)])
        return criticality(rows.numpy())

    return of, left


@pytest.mark.parametrize("scale", [1e-6, 1e-3, 1.0, 1e3, 1e6])
@pytest.mark.parametrize("ratio", [1.0, 3.0])
@pytest.mark.parametrize(
    "make",
    [
        pt.Backtracking,
        *(
            partial(pt.FastBacktracking, displacement=name)
            for name in ("gradient", "linearised", "difference", "calibrated")
        ),
        partial(pt.Backtracking, trial="parabolic"),
        partial(pt.Backtracking, trial="golden"),
        partial(pt.Backtracking, memory="nonmonotone"),
        partial(pt.Backtracking, start="grow"),
        partial(pt.Backtracking, direction=LBFGS()),
    ],
    ids=[
        "classical",
        "gradient",
        "linearised",
        "difference",
        "calibrated",
        "parabolic",
        "golden",
        "nonmonotone",
        "grow",
        "lbfgs",
    ],
)
def test_quadratics_of_any_scale_become_stationary_without_any_constant(
    make: Callable[..., Any], scale: float, ratio: float
) -> None:
    of, left = quadratics(scale, ratio)
    start = torch.tensor([3.0, -2.0, 4.0, 1.0], dtype=torch.float64)
    if "direction" in getattr(make, "keywords", {}):
        make = partial(pt.Backtracking, direction=LBFGS())
    point = Point(start)
    search = make(point, nn.ModuleDict(), pt.MGDA())
    for _ in range(300):
        step = search.step(torch.ones(4, dtype=torch.float64), of)
        if not step.accepted:
            break
    assert left(point.at.detach()) < 1e-5 * left(start)


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
def test_any_optimizer_gives_the_direction_and_no_task_is_raised(name: str, make: Callable[..., Any]) -> None:
    model, (x, targets) = Net(), data()
    optimizer = OPTIMIZERS[name]([*model.encoder.parameters(), *model.heads.parameters()])
    search = make(model.encoder, model.heads, pt.UPGrad(), direction=optimizer, verify=1)
    first = losses_of(model(x), targets)
    for _ in range(30):
        step = search.step(x, lambda z: losses_of({t: head(z) for t, head in model.heads.items()}, targets))
        assert step.accepted
        assert all(slope > 0 for slope in step.slopes.values())
        seen = step.actual if make is pt.Backtracking else step.predicted
        assert all(seen[task] < float(loss) for task, loss in step.losses.items())
    assert all(step.actual[task] < 0.9 * float(first[task].detach()) for task in first)


def test_matrix_optimizers_give_the_direction_of_matrices() -> None:
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


def test_an_optimizer_without_a_search_is_what_its_direction_follows() -> None:
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


@pytest.mark.parametrize("metric", [Identity(), Kronecker()], ids=["identity", "Kronecker"])
@pytest.mark.parametrize("seed", range(5))
def test_the_minimum_norm_in_a_metric_descends_for_every_task(metric: Metric, seed: int) -> None:
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


# --- bounds --------------------------------------------------------------------------------------------------------------


def fed(
    bound: pt.UpperBound, losses: Callable[[int], float], first: bool = True, motion: Callable[[int], float] = float
) -> list[int]:
    """The steps of 400 at which the bound was lowered."""
    state, lowered = bound.init(1, 1.0), []
    for step in range(400):
        state, reason = bound.after(state, np.array([losses(step)]), first, motion(step))
        if reason:
            lowered.append(step)
    return lowered


def test_the_regression_test_sees_the_end_of_the_decrease() -> None:
    noise = np.random.default_rng(0).normal(size=400) * 0.1
    bound = pt.UpperBound("regression", window=50)
    falling = fed(bound, lambda step: math.exp(-0.02 * step + noise[step]))
    stalled = fed(bound, lambda step: math.exp(-0.02 * min(step, 150) + noise[step]))
    assert falling == []
    assert stalled
    assert 150 < stalled[0] < 250
    assert all(later - earlier >= 50 for earlier, later in pairwise(stalled))
    assert fed(bound, lambda step: math.exp(noise[step]), first=False) == []  # the condition limits, not the bound


def test_sasa_sees_stationary_motion() -> None:
    noise = np.random.default_rng(0).normal(size=400)
    bound = pt.UpperBound("sasa", window=100)
    assert fed(bound, lambda step: 1.0, motion=lambda step: 3.0 + float(noise[step])) == []
    assert fed(bound, lambda step: 1.0, motion=lambda step: 3.0 * (step < 150) + float(noise[step]))[0] >= 150


def test_manual_and_fixed() -> None:
    manual = pt.UpperBound("manual", factor=0.5, every=2)
    state = manual.init(1, 1.0)
    bounds = []
    for _ in range(4):
        state, reason = manual.end_epoch(state)
        bounds.append((state.bound, bool(reason)))
    assert bounds == [(1.0, False), (0.5, True), (0.5, False), (0.25, True)]
    assert fed(pt.UpperBound(), lambda step: 1.0) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rule": "never"}, "rule"),
        ({"factor": 1.0}, "factor"),
        ({"every": 0}, "every"),
        ({"window": 5}, "window"),
        ({"confidence": 1.0}, "confidence"),
    ],
)
def test_bounds_refuse_what_is_out_of_range(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        pt.UpperBound(**options)


def test_statistics_are_those_of_scipy() -> None:
    stats = pytest.importorskip("scipy.stats")
    values = np.random.default_rng(0).normal(size=50).cumsum()
    fit = stats.linregress(np.arange(50), values)
    assert trend(values) == pytest.approx(fit.slope / fit.stderr, rel=1e-9)
    for share in (0.9, 0.95, 0.975):
        assert student_quantile(share, 9) == pytest.approx(stats.t.ppf(share, 9), rel=5e-3)


# --- Newton --------------------------------------------------------------------------------------------------------------


def vlmop2(x: Tensor) -> dict[str, Tensor]:
    center = 1 / math.sqrt(len(x))
    return {"first": 1 - torch.exp(-((x - center) ** 2).sum()), "second": 1 - torch.exp(-((x + center) ** 2).sum())}


def quartic(x: Tensor) -> dict[str, Tensor]:
    return {
        "a": ((x - 1) ** 4).sum() + (x**2).sum(),
        "b": ((x + 1) ** 2).sum() + x.exp().sum(),
        "c": (x[0] - 3) ** 2 + (x**2).sum(),
    }


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize(("objectives", "size", "reach"), [(vlmop2, 20, 0.5), (quartic, 6, 4.0)])
def test_newton_converges_superlinearly(
    objectives: Callable[[Tensor], dict[str, Tensor]], size: int, reach: float, seed: int
) -> None:
    start = torch.empty(size, dtype=torch.float64).uniform_(
        -reach, reach, generator=torch.Generator().manual_seed(seed)
    )
    left = newton(objectives, start).criticalities
    assert left[-1] <= 1e-8
    assert len(left) - 1 <= 15
    assert left[-1] <= 1e-2 * left[-2]


@pytest.mark.parametrize("seed", range(5))
def test_the_newton_dual_is_solved(seed: int) -> None:
    generator = np.random.default_rng(seed)
    roots = generator.normal(size=(3, 5, 5))
    hessians: Array = roots @ roots.transpose(0, 2, 1) + 0.1 * np.eye(5)
    gradients = generator.normal(size=(3, 5)) + 1.0
    found = newton_step(gradients, hessians)
    models = gradients @ found.direction + np.einsum("i,tij,j->t", found.direction, hessians, found.direction) / 2
    # optimal: the models of the tasks that carry weight are equal and largest, and no step does better
    assert models[found.weights > 1e-9] == pytest.approx(models.max(), rel=1e-6)
    assert found.value == pytest.approx(models.max())
    for _ in range(200):
        other = found.direction + 1e-2 * generator.normal(size=5)
        assert (gradients @ other + np.einsum("i,tij,j->t", other, hessians, other) / 2).max() >= found.value
