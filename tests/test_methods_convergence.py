"""Convergence of methods to Pareto stationary points on convex quadratics."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import paretorch as pt
from matrices import gaussian
from methods import METHODS, MethodEntry
from paretorch.core.contract import Evidence, Need
from paretorch.core.solvers.minimum_norm import minimum_norm

TASKS = ("a", "b", "c")
STEPS = 800
CONVERGENT = [entry for entry in METHODS if entry.converges and not isinstance(entry.method, pt.Static)]


def random_quadratics(seed: int) -> tuple[Tensor, Tensor]:
    """(T, n, n) positive definite matrices and (T, n) minima."""
    factors = gaussian(len(TASKS) * 4, 4, seed).view(len(TASKS), 4, 4)
    return torch.eye(4, dtype=torch.float64) + 0.1 * factors @ factors.mT, 1.5 * gaussian(len(TASKS), 4, seed + 1)


def descended(method: pt.Method[Any], seed: int) -> tuple[float, float]:
    """The lengths of the shortest convex combination of the gradients at the start and the end of a descent."""
    matrices, minima = random_quadratics(seed)
    point = 3.0 * gaussian(1, 4, seed + 2)[0]
    state: Any = method.init(TASKS, torch.zeros((), dtype=torch.float64))
    generator = torch.Generator().manual_seed(seed)
    present, ones = torch.ones(len(TASKS), dtype=torch.bool), torch.ones(len(TASKS), dtype=torch.float64)
    lengths = []
    for step in range(STEPS):
        away = point - minima
        rows = torch.einsum("tij,tj->ti", matrices, away)
        losses = 0.5 * (rows * away).sum(dim=1) + 0.1
        gramian = rows @ rows.T
        weights = minimum_norm(gramian).weights
        lengths.append(float((weights @ gramian @ weights).clamp_min(0).sqrt()))
        cross = gramian if method.batches > 1 else None
        jacobian = rows if Need.JACOBIAN in method.needs else None
        evidence = Evidence(TASKS, present, losses, gramian, cross, jacobian, ones, generator)
        balance, state = method.calibrated(evidence, state)
        if balance.update is None:
            assert balance.weights is not None
            update = balance.weights @ rows
        else:
            update = balance.update
        point = point - 0.06 * (1 - step / STEPS) ** 2 * update
        if method.observes:
            away = point - minima
            state = method.observe(0.5 * torch.einsum("ti,tij,tj->t", away, matrices, away) + 0.1, state)
    return lengths[0], lengths[-1]


@pytest.mark.long
@pytest.mark.parametrize("entry", CONVERGENT, ids=lambda entry: entry.name)
def test_method_converges_to_stationary_point_of_quadratics(entry: MethodEntry) -> None:
    start, end = descended(entry.method, seed=0)
    assert end <= 1e-2 * start, (start, end)
