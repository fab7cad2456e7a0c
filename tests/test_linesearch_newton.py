"""Newton's method for several objectives: its dual, and its convergence on problems with known fronts."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from paretorch.core.arrays import Array
from paretorch.linesearch import newton, newton_step
from paretorch.workloads.generated.analytic_problems import PROBLEMS


def vlmop2(x: Tensor) -> dict[str, Tensor]:
    center = 1 / math.sqrt(len(x))
    return {"first": 1 - torch.exp(-((x - center) ** 2).sum()), "second": 1 - torch.exp(-((x + center) ** 2).sum())}


def quartic(x: Tensor) -> dict[str, Tensor]:
    return {
        "a": ((x - 1) ** 4).sum() + (x**2).sum(),
        "b": ((x + 1) ** 2).sum() + x.exp().sum(),
        "c": (x[0] - 3) ** 2 + (x**2).sum(),
    }


def shipped(name: str) -> Callable[[Tensor], dict[str, Tensor]]:
    return lambda x: {str(place): value for place, value in enumerate(PROBLEMS[name].losses(x))}


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize(
    ("objectives", "size", "low", "high"),
    [
        (vlmop2, 20, -0.5, 0.5),
        (quartic, 6, -4.0, 4.0),
        (shipped("two_valley"), 2, -9.0, 9.0),
        (shipped("dtlz2"), 12, 0.25, 0.75),  # further out it leaves the box, beyond which it has no minimum
    ],
)
@pytest.mark.sampled(3)
def test_newton_converges_superlinearly(
    objectives: Callable[[Tensor], dict[str, Tensor]], size: int, low: float, high: float, seed: int
) -> None:
    start = torch.empty(size, dtype=torch.float64).uniform_(low, high, generator=torch.Generator().manual_seed(seed))
    norms = newton(objectives, start).criticalities
    assert norms[-1] <= 1e-8
    assert len(norms) - 1 <= 15
    assert norms[-1] <= 1e-2 * norms[-2]


@pytest.mark.parametrize("seed", range(5))
def test_newton_dual_is_solved(seed: int) -> None:
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


@pytest.mark.parametrize("tasks", [2, 3, 4])
def test_newton_dual_is_solved_for_models_of_different_scale(tasks: int) -> None:
    generator = np.random.default_rng(tasks)
    for _ in range(40):
        factors = generator.normal(size=(tasks, 6, 6))
        hessians = (factors @ factors.transpose(0, 2, 1) + 0.1 * np.eye(6)) * 10.0 ** generator.uniform(
            -3, 3, (tasks, 1, 1)
        )
        gradients = generator.normal(size=(tasks, 6)) * 10.0 ** generator.uniform(-3, 3, (tasks, 1))
        step = newton_step(gradients, hessians)
        mean = step.weights @ gradients
        dual = -mean @ np.linalg.solve(np.tensordot(step.weights, hessians, 1), mean) / 2
        models = gradients @ step.direction + np.einsum("i,tij,j->t", step.direction, hessians, step.direction) / 2
        assert models.max() - dual <= 1e-6 * abs(dual)


@pytest.mark.parametrize("scales", [(1.0, 1e-4), (1e-3, 10.0), (1e3, 1e-3), (1.0, 1.0)])
def test_newton_converges_as_fast_for_objectives_of_different_scale(scales: tuple[float, float]) -> None:
    generator = torch.Generator().manual_seed(0)
    centres = torch.randn(2, 4, dtype=torch.float64, generator=generator)
    roots = torch.randn(2, 4, 4, dtype=torch.float64, generator=generator)
    curvatures = roots @ roots.transpose(1, 2) + 0.1 * torch.eye(4, dtype=torch.float64)

    def objectives(x: Tensor) -> dict[str, Tensor]:
        away = [x - centre for centre in centres]
        return {str(i): scales[i] * (a @ curvatures[i] @ a + 0.1 * (a**4).sum()) for i, a in enumerate(away)}

    for _ in range(8):
        run = newton(
            objectives, 3 * torch.randn(4, dtype=torch.float64, generator=generator), tolerance=1e-8 * min(scales)
        )
        assert run.criticalities[-1] <= 1e-8 * min(scales)
        assert len(run.criticalities) <= 16
