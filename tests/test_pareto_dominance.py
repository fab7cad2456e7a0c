"""Dominance and nearest distances against their definitions, and in bounded memory."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from torch import Tensor

from paretorch.pareto import non_dominated
from paretorch.pareto.dominance import BLOCK, nearest_distances


def by_definition(losses: Tensor) -> Tensor:
    """Point by point: at most as large in every task and smaller in one, among finite rows."""
    finite = losses.isfinite().all(dim=1)
    rows = losses[finite]
    kept = [not bool(((rows <= row).all(dim=1) & (rows < row).any(dim=1)).any()) for row in rows]
    result = finite.clone()
    result[finite] = torch.tensor(kept, dtype=torch.bool)
    return result


def clouds(tasks: int, seed: int) -> dict[str, Tensor]:
    draw = torch.Generator().manual_seed(seed)
    cloud = torch.randn(300, tasks, generator=draw, dtype=torch.float64)
    ties = torch.randint(0, 4, (400, tasks), generator=draw).double()
    broken = cloud.clone()
    broken[::7, -1], broken[::11, 0], broken[::13, 0] = torch.nan, torch.inf, -torch.inf
    zeros = torch.where(torch.rand(60, tasks, generator=draw) < 0.5, 0.0, -0.0)
    front = torch.randn(200, tasks, generator=draw, dtype=torch.float64).abs()
    return {
        "cloud": cloud,
        "ties": ties,
        "twice": cloud[torch.randint(0, 40, (300,), generator=draw)],
        "broken": broken,
        "signed zeros": zeros,
        "front": front / front.norm(dim=1, keepdim=True),
        "one task equal": torch.cat([torch.ones(300, 1, dtype=torch.float64), cloud[:, 1:]], dim=1),
        "half": cloud.half(),
        "bfloat16": cloud.bfloat16(),
        "whole": ties.long(),
        "tiny": cloud * 1e-310,
        "one": cloud[:1],
        "none": cloud[:0],
    }


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("tasks", [1, 2, 3, 5])
def test_dominance_follows_the_definition_with_ties_and_non_finite_rows(tasks: int, seed: int) -> None:
    for kind, losses in clouds(tasks, seed).items():
        assert torch.equal(non_dominated(losses), by_definition(losses)), kind


@pytest.mark.parametrize("tasks", [2, 3])
def test_dominance_across_blocks_follows_the_definition(tasks: int) -> None:
    draw = torch.Generator().manual_seed(tasks)
    shell = torch.randn(BLOCK + 50, tasks, generator=draw, dtype=torch.float64).abs()
    shell /= shell.norm(dim=1, keepdim=True)
    points = torch.cat([shell, shell[:700] + 1e-3, shell[:300]])[torch.randperm(BLOCK + 1050, generator=draw)]
    found = non_dominated(points)
    assert torch.equal(found, by_definition(points))
    assert 300 < int(found.sum()) < len(points)


def test_dominance_keeps_points_without_tasks() -> None:
    assert non_dominated(torch.zeros(3, 0)).tolist() == [True, True, True]


def test_nearest_distances_equal_those_of_all_pairs() -> None:
    points = torch.randn(BLOCK + 200, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    expected = (points[:, None] - points[None]).norm(dim=2).fill_diagonal_(torch.inf).min(dim=1).values
    torch.testing.assert_close(nearest_distances(points), expected, rtol=1e-6, atol=1e-9)


IN_LITTLE_MEMORY = """
import resource, torch
from paretorch.pareto.dominance import nearest_distances, non_dominated
draw = torch.Generator().manual_seed(0)
cloud = torch.randn(100_000, {tasks}, generator=draw)
shell = torch.randn(10_000, {tasks}, generator=draw).abs()
shell /= shell.norm(dim=1, keepdim=True)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
kept = int(non_dominated(cloud).sum()), int(non_dominated(shell).sum()), len(nearest_distances(shell))
print(*kept, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss is in kilobytes on Linux")
@pytest.mark.parametrize("tasks", [2, 3, 4])
@pytest.mark.sampled(3)
def test_dominance_memory_is_not_quadratic(tasks: int) -> None:
    """1e5 points of a cloud and 1e4 points of a front; the square of their number would take 20 GB and more."""
    made = subprocess.run(
        [sys.executable, "-c", IN_LITTLE_MEMORY.format(tasks=tasks)],
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
    )
    cloud, shell, distances, megabytes = made.stdout.split()
    assert 0 < int(cloud) < 100_000
    assert int(shell) > 9_900
    assert int(distances) == 10_000
    assert float(megabytes) < 300
