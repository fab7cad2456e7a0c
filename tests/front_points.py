"""Fronts for tests: of points on known problems, and a small one of networks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

import paretorch as pt
from paretorch.pareto import (
    Front,
    FrontAlgorithm,
    Sweep,
)
from paretorch.workloads.synthetic import Synthetic


def sgd(rate: float, momentum: float = 0.0) -> Callable[[list[Tensor]], torch.optim.Optimizer]:
    return lambda parameters: torch.optim.SGD(parameters, lr=rate, momentum=momentum)


def late_fall(progress: float) -> float:
    return min(1.0, 2 * (1 - progress) + 0.01)


def on_points(algorithm: FrontAlgorithm, given: Tensor, problem: str = "vlmop2", **options: Any) -> Front:
    options = {"epochs": 300, "optimizer": sgd(0.2), "starts": "independent", "every": 10**6, **options}
    front: Front = pt.fit_front(
        Synthetic(problem), algorithm, preferences=given, schedule=late_fall, execution="vmap", **options
    )
    return front


def small_front(**options: Any) -> Front:
    front: Front = pt.fit_front(Synthetic(samples=64), Sweep(), preferences=pt.preferences(2, 3), epochs=2, **options)
    return front
