"""EPO's linear program against exact rational vertices, and EPO's step on its ray."""

from __future__ import annotations

import itertools
import sys
from fractions import Fraction

import numpy as np
import pytest
import torch

import paretorch as pt
from paretorch.core.arrays import Array
from paretorch.pareto import EPO, PHNEPO
from paretorch.pareto.algorithms.linear_program import best_weights

Row = list[Fraction]


def solved(rows: list[Row], right: Row) -> Row | None:
    """The solution of a square rational system by Gauss-Jordan elimination; None where it is singular."""
    table = [[*row, value] for row, value in zip(rows, right, strict=True)]
    for column in range(len(table)):
        pivot = next((row for row in range(column, len(table)) if table[row][column] != 0), None)
        if pivot is None:
            return None
        table[column], table[pivot] = table[pivot], table[column]
        table[column] = [value / table[column][column] for value in table[column]]
        for row, share in enumerate([line[column] for line in table]):
            if row != column and share:
                table[row] = [a - share * b for a, b in zip(table[row], table[column], strict=True)]
    return [line[-1] for line in table]


def best_gain(gain: Row, matrix: list[Row], least: Row) -> Fraction | None:
    """The largest gain of all vertices, exactly; None where nothing is feasible."""
    tasks = len(gain)
    unit = [[Fraction(row == column) for column in range(tasks)] for row in range(tasks)]
    planes, rights = unit + matrix, [Fraction(0)] * tasks + least
    found = None
    for chosen in itertools.combinations(range(len(planes)), tasks - 1):
        vertex = solved(
            [[Fraction(1)] * tasks, *(planes[place] for place in chosen)], [Fraction(1), *(rights[p] for p in chosen)]
        )
        if vertex is None or min(vertex) < 0:
            continue
        if all(sum(a * w for a, w in zip(row, vertex, strict=True)) >= b for row, b in zip(matrix, least, strict=True)):
            value = sum((c * w for c, w in zip(gain, vertex, strict=True)), Fraction(0))
            found = value if found is None else max(found, value)
    return found


def whole_rows(tasks: int, size: int, seed: int, stationary: bool) -> list[list[int]]:
    """(T, n) whole numbers; ``stationary``: a positive combination of the rows is zero."""
    draw = np.random.default_rng(seed)
    rows = draw.integers(-4, 5, size=(tasks, size))
    if stationary:
        rows[-1] = -(draw.integers(1, 4, size=(tasks - 1, 1)) * rows[:-1]).sum(axis=0)
    return [[int(value) for value in row] for row in rows]


@pytest.mark.parametrize("stationary", [False, True], ids=["anywhere", "stationary"])
@pytest.mark.parametrize("tasks", [2, 3, 4])
def test_best_weights_have_the_gain_of_the_best_rational_vertex(tasks: int, stationary: bool) -> None:
    for seed in range(25):
        rows = whole_rows(tasks, 2 + seed % 4, seed, stationary)
        gramian = [[sum(a * b for a, b in zip(one, other, strict=True)) for other in rows] for one in rows]
        if not any(map(any, gramian)):
            continue
        exact = [[Fraction(value) for value in row] for row in gramian]
        gain = [sum(column, Fraction(0)) for column in zip(*exact, strict=True)]
        best = best_gain(gain, exact, [Fraction(0)] * tasks)
        matrix = np.array(gramian, dtype=np.float64)
        found = best_weights(matrix.sum(axis=0), matrix, np.zeros(tasks))
        assert best is not None  # the shortest combination is feasible
        assert found is not None, seed
        assert found.sum() == pytest.approx(1)
        assert found.min() >= 0
        assert matrix.sum(axis=0) @ found == pytest.approx(float(best), abs=1e-7 * np.abs(matrix).max())
        assert (matrix @ found).min() >= -1e-8 * np.abs(matrix).max()


def test_best_weights_are_none_without_a_feasible_rational_vertex() -> None:
    matrix = np.array([[1.0, -2.0], [-2.0, 1.0]])
    assert (
        best_gain([Fraction(1)] * 2, [[Fraction(1), Fraction(-2)], [Fraction(-2), Fraction(1)]], [Fraction(0)] * 2)
        is None
    )
    assert best_weights(np.ones(2), matrix, np.zeros(2)) is None


def changes(losses: Array, gradients: Array, dtype: torch.dtype) -> Array:
    """(T,) by how much EPO's step on its ray raises each loss, relative to the longest gradient and its own."""
    gramian = (torch.from_numpy(gradients).to(dtype) @ torch.from_numpy(gradients).to(dtype).T).double()
    ray = torch.from_numpy((1 / losses) / (1 / losses).sum())
    weights = EPO()._member(torch.from_numpy(losses), ray, gramian).numpy()
    lengths = np.linalg.norm(gradients, axis=1)
    found: Array = -(gradients @ (weights @ gradients)) / (lengths * (weights @ lengths))
    return found


@pytest.mark.parametrize(("dtype", "most"), [(torch.float64, 1e-7), (torch.float32, 2e-5)])
def test_epo_increases_no_loss_at_stationary_points_on_its_ray(dtype: torch.dtype, most: float) -> None:
    draw = np.random.default_rng(1)
    for _ in range(300):
        tasks = int(draw.integers(2, 7))
        gradients = draw.normal(size=(tasks, int(draw.integers(1, tasks + 3))))
        gradients -= draw.dirichlet(np.ones(tasks)) @ gradients
        rise = changes(draw.uniform(0.1, 3.0, size=tasks), gradients, dtype)
        assert rise.max() <= most


def test_epo_decreases_the_sum_of_losses_on_its_ray() -> None:
    gradients = np.array([[1.0, 0.0], [0.6, 0.8]])
    rise = changes(np.array([1.0, 1.0]), gradients, torch.float64)
    assert rise.max() <= -0.5


@pytest.mark.parametrize("algorithm", [EPO(), PHNEPO()], ids=repr)
def test_epo_without_scipy_raises_before_training(algorithm: EPO | PHNEPO, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "scipy.optimize", None)
    with pytest.raises(ModuleNotFoundError, match=r"scipy.*pip install 'paretorch\[fronts\]'"):
        algorithm.check(pt.preferences(2, 3, margin=0.1), ("a", "b"))
