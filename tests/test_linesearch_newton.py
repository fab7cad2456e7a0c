"""Newton's method for several objectives: its dual, and how fast it comes to rest on problems of known fronts."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from paretorch.core.solvers.nonnegative import Array
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
def test_newton_converges_superlinearly(
    objectives: Callable[[Tensor], dict[str, Tensor]], size: int, low: float, high: float, seed: int
) -> None:
    start = torch.empty(size, dtype=torch.float64).uniform_(low, high, generator=torch.Generator().manual_seed(seed))
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
