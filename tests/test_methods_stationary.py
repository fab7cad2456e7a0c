"""Methods near Pareto stationary points: status and conflicts do not depend on rounding."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import paretorch as pt
from matrices import answer, gaussian
from methods import METHODS, MethodEntry
from paretorch.core.contract import Balance, Evidence, Need, Status
from paretorch.core.gradients.rounding import product_rounding
from paretorch.core.gradients.task_gradients import Gradients

SINGLE = torch.finfo(torch.float32).eps
LEAST = {torch.float64: -1e-7, torch.float32: -1e-4, torch.bfloat16: -1e-4}  # bfloat16 is summed in float32
KINDS = ("opposite pair", "opposite pairs", "scaled pair", "zero sum", "zero sum of some", "rank deficient", "one side")
CONFLICT_FREE = [entry for entry in METHODS if entry.conflict_free]
CONFLICT_FREE_FROM_GRAMIAN = [entry for entry in CONFLICT_FREE if Need.GRAMIAN in entry.method.needs]
SEEDS = [pytest.param(range(63), id="few"), pytest.param(range(63, 400), id="many", marks=pytest.mark.long)]


def parametrize_methods(entries: list[MethodEntry]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("entry", entries, ids=lambda entry: entry.name)


def near_stationary(seed: int) -> tuple[str, Tensor]:
    """A (T, n) Jacobian of 2 to 40 tasks at a stationary point, exactly or up to a shift of 1e-9 to 1 of the longest gradient."""
    kind = KINDS[seed % len(KINDS)]
    draw = np.random.default_rng(seed)
    tasks = int(draw.integers(2, 41 if seed % 2 else 7))
    size = int(
        draw.choice([draw.integers(2, 9), draw.integers(9, 60), draw.integers(60, 400), draw.integers(1000, 3000)])
    )
    rows = draw.standard_normal((tasks, size))
    if kind == "opposite pair":
        rows[1] = -rows[0]
    elif kind == "opposite pairs":
        half = tasks // 2
        rows[half : 2 * half] = -rows[:half]
    elif kind == "scaled pair":
        rows[1] = -rows[0] * 10 ** draw.uniform(-4, 4)
    elif kind == "zero sum":
        rows -= draw.dirichlet(np.ones(tasks)) @ rows
    elif kind == "zero sum of some":
        count = int(draw.integers(2, tasks + 1))
        rows[count - 1] = -rows[: count - 1].sum(axis=0)
    else:
        rank = max(tasks // 2, 1)
        shares = draw.standard_normal((tasks, rank))
        rows = (np.abs(shares) if kind == "one side" else shares) @ draw.standard_normal((rank, size))
    if draw.random() < 0.6:
        common = draw.standard_normal(size)
        shift = 10 ** draw.uniform(-9, 0) * np.linalg.norm(rows, axis=1).max()
        rows += shift * common / np.linalg.norm(common)
    if draw.random() < 0.3:
        rows *= 10 ** draw.uniform(0, 3, size=(tasks, 1))
    return kind, torch.from_numpy(rows * draw.choice([1.0, 1.0, 1e-9, 1e9]))


def with_other_rounding(rows: Tensor, seed: int) -> Tensor:
    """The same numbers with errors of at most one unit in the last place."""
    generator = torch.Generator().manual_seed(seed)
    unit = torch.finfo(rows.dtype).eps * torch.randint(-1, 2, rows.shape, generator=generator)
    return (rows.double() * (1 + unit)).to(rows.dtype)


def independent(rows: Tensor, resolution: float) -> bool:
    """Whether the unit gradients are linearly independent within the rounding of their inner products."""
    units = rows / rows.norm(dim=1, keepdim=True)
    if len(rows) > rows.shape[1]:
        return False
    values = torch.linalg.svdvals(units).square()
    return bool(values[-1] > 4 * len(rows) * resolution * values[0])


def has_no_conflict(entry: MethodEntry, balance: Balance, update: Tensor, rows: Tensor, least: float) -> bool:
    if balance.status is Status.STATIONARY or update.norm() == 0:
        return True
    cosines = (rows @ update) / (rows.norm(dim=1) * update.norm())
    return bool(cosines.min() >= least)


@parametrize_methods(CONFLICT_FREE)
@pytest.mark.parametrize("seeds", SEEDS)
@pytest.mark.sampled(2)
def test_conflict_free_near_stationary_points_for_any_rounding(entry: MethodEntry, seeds: range) -> None:
    solved = 0
    for seed in seeds:
        kind, jacobian = near_stationary(seed)
        for dtype, least in LEAST.items():
            exact = jacobian.to(dtype)
            for rounding, rows in enumerate(
                (exact, with_other_rounding(exact, 2 * seed), with_other_rounding(exact, 2 * seed + 1))
            ):
                resolution = Gradients([[row] for row in rows], [rows[0]]).resolution
                if entry.conflict_free == "independent" and not independent(rows.double(), resolution):
                    continue
                balance, update = answer(entry.method, rows)
                solved += balance.status is Status.SOLVED
                assert balance.status in (Status.SOLVED, Status.STATIONARY), (seed, kind, dtype, rounding)
                assert has_no_conflict(entry, balance, update, rows.double(), least), (seed, kind, dtype, rounding)
    assert solved > len(seeds)  # of up to 9 results for each seed: not all updates are zero


def balance_from_gramian(method: pt.Method[Any], gramian: Tensor, resolution: float) -> Balance:
    tasks = tuple(map(str, range(len(gramian))))
    ones = torch.ones(len(tasks), dtype=torch.float64)
    evidence = Evidence(tasks, ones > 0, losses=ones, gramian=gramian, factor=ones, resolution=resolution)
    return method.balance(evidence, method.init(tasks, ones[0]))[0]


def with_other_summation(gramian: Tensor, spacing: float, seed: int) -> Tensor:
    """The Gramian from another order of summation: its entries have independent errors, so that it is not symmetric."""
    lengths = gramian.diagonal().sqrt()
    noise = 2 * torch.rand(gramian.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) - 1
    return gramian + spacing * noise * lengths[:, None] * lengths


@parametrize_methods(CONFLICT_FREE_FROM_GRAMIAN)
@pytest.mark.parametrize("seeds", SEEDS)
@pytest.mark.sampled(2)
def test_conflict_free_near_stationary_points_for_any_summation(entry: MethodEntry, seeds: range) -> None:
    for seed in seeds:
        kind, rows = near_stationary(seed)
        resolution = product_rounding(SINGLE, rows.shape[1])
        if entry.conflict_free == "independent" and not independent(rows, resolution):
            continue
        for order in range(3):
            balance = balance_from_gramian(
                entry.method, with_other_summation(rows @ rows.T, SINGLE, 10 * seed + order), resolution
            )
            assert balance.weights is not None
            assert balance.status in (Status.SOLVED, Status.STATIONARY), (seed, kind, order)
            assert has_no_conflict(entry, balance, balance.weights @ rows, rows, -1e-4), (seed, kind, order)


SHORTEST = [
    pt.MGDA(),
    pt.CRMOGM(pt.MGDA()),
    pt.NashMTL(),
    pt.FairGrad(2.0),
]  # without an update where some gradients cancel
PROJECTIONS = [pt.UPGrad(), pt.DualProjection()]  # without an update where all gradients cancel


@pytest.mark.parametrize("method", SHORTEST + PROJECTIONS, ids=repr)
@pytest.mark.parametrize("size", [9, 300, 100_000])
def test_stationary_status_is_robust_to_errors_within_bound(method: pt.Method[Any], size: int) -> None:
    """For inner products with errors within the bound, of gradients of which two of three, or all three, cancel."""
    resolution = product_rounding(SINGLE, size)
    for seed in range(20):
        rows = gaussian(3, 30, seed)
        rows[1] = -rows[0] * 10.0 ** (seed % 5 - 2)
        if seed % 2 or method in PROJECTIONS:
            rows[1] -= rows[2]
        for order in range(5):
            gramian = with_other_summation(rows @ rows.T, resolution, 10 * seed + order)
            assert balance_from_gramian(method, gramian, resolution).status is Status.STATIONARY, (seed, order)


@pytest.mark.parametrize("method", SHORTEST, ids=repr)
def test_stationary_status_for_two_opposite_gradients_of_three(method: pt.Method[Any]) -> None:
    for seed in range(300):
        rows = gaussian(3, 3 + seed % 37, seed).float()
        rows[1] = -rows[0]
        for given in (rows, with_other_rounding(rows, seed)):
            assert answer(method, given)[0].status is Status.STATIONARY, seed


@parametrize_methods(CONFLICT_FREE)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("ratio", [1.0, 1e2, 1e4, 1e6])
def test_solved_status_far_from_stationary_points(entry: MethodEntry, dtype: torch.dtype, ratio: float) -> None:
    for seed, tasks in enumerate((2, 3, 10, 40)):
        rows = gaussian(tasks, 2 * tasks + 3, seed)
        lengths = torch.logspace(0, -math.log10(ratio), tasks, dtype=torch.float64)
        balance, update = answer(entry.method, (rows / rows.norm(dim=1, keepdim=True) * lengths[:, None]).to(dtype))
        assert balance.status is Status.SOLVED, tasks
        assert update.norm() > 0, tasks


@parametrize_methods(CONFLICT_FREE_FROM_GRAMIAN)
@pytest.mark.parametrize("tasks", [2, 40, 128])
def test_solved_status_for_orthogonal_gradients_of_a_billion_numbers(entry: MethodEntry, tasks: int) -> None:
    gramian = torch.eye(tasks, dtype=torch.float64)
    assert balance_from_gramian(entry.method, gramian, product_rounding(SINGLE, 10**9)).status is Status.SOLVED


@pytest.mark.parametrize("size", [7, 100, 1000, 20_000, 300_000])
def test_resolution_bounds_errors_of_float32_products(size: int) -> None:
    """Independent, parallel and one-sided gradients, whose errors accumulate most, also at unaligned addresses."""
    for seed in range(6):
        draw = torch.Generator().manual_seed(seed)
        rows = torch.randn(5, size + seed, generator=draw)
        rows[1], rows[2], rows[3] = -rows[0], 3 * rows[0], rows[3].abs()
        rows = rows[:, seed:]
        gradients = Gradients([[row] for row in rows], [rows[0]])
        exact = (rows.double() @ rows.double().T).numpy()
        lengths = np.sqrt(exact.diagonal())
        error = np.abs(gradients.gramian()[0] - exact) / lengths / lengths[:, None]
        assert error.max() <= gradients.resolution


def test_product_rounding_increases_to_a_limit() -> None:
    sizes = [1, 10, 1000, 10**6, 10**9]
    bounds = [product_rounding(SINGLE, size) / SINGLE for size in sizes]
    assert bounds == sorted(bounds)
    assert bounds[2] == pytest.approx(math.sqrt(1000), rel=1e-3)
    assert bounds[-1] < 1000


def test_mgda_solves_indefinite_gramians() -> None:
    """Inner products in float32 give Gramians that are neither symmetric nor semidefinite."""
    for seed in range(200):
        rows = near_stationary(seed)[1]
        balance = balance_from_gramian(
            pt.MGDA(), with_other_summation(rows @ rows.T, SINGLE, seed), product_rounding(SINGLE, rows.shape[1])
        )
        assert balance.weights is not None
        assert balance.status is not Status.NOT_CONVERGED, seed
        shortest = balance_from_gramian(pt.MGDA(), rows @ rows.T, 0.0).weights
        assert shortest is not None
        scale = (rows.norm(dim=1) * (balance.weights + shortest)).sum()
        above = float((balance.weights @ rows).norm() - (shortest @ rows).norm()) / float(scale)
        assert above <= 4 * math.sqrt(SINGLE), seed
