"""Preferences, scalarizations, transfer matrices, hypervolume, and linear programs: closed forms and slow oracles."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from torch import Tensor

from paretorch.pareto import (
    PBI,
    AugmentedTchebycheff,
    Cosine,
    Fixed,
    Gated,
    Neighbours,
    Scalarization,
    SmoothTchebycheff,
    Tchebycheff,
    WeightedSum,
    best_subset,
    hypervolume,
    hypervolume_gradient,
    non_dominated,
    preferences,
    rays,
)
from paretorch.pareto.algorithms.linear_program import best_weights
from paretorch.pareto.preferences import checked_preferences
from paretorch.pareto.subset import gains

F64 = torch.float64


def points(count: int, tasks: int, seed: int = 0) -> Tensor:
    return torch.rand(count, tasks, generator=torch.Generator().manual_seed(seed), dtype=F64)


@pytest.mark.parametrize(("tasks", "count"), [(2, 2), (2, 10), (3, 3), (3, 21), (4, 20)])
def test_preferences_even_are_the_whole_lattice(tasks: int, count: int) -> None:
    found = preferences(tasks, count)
    steps = next(h for h in range(1, 100) if math.comb(h + tasks - 1, tasks - 1) == count)
    assert torch.allclose((found * steps).round(), found * steps)
    assert len({tuple(row) for row in found.tolist()}) == count
    assert torch.allclose(found.sum(dim=1), torch.ones(count, dtype=F64))


def test_preferences_of_other_counts_contain_the_corners() -> None:
    found = preferences(3, 8)
    assert found.shape == (8, 3)
    assert int((found == 1).sum()) == 3
    assert float(torch.pdist(found).min()) > 0.35  # eight points of a triangle of edge 1.41


@pytest.mark.parametrize("kind", ["even", "uniform", "dirichlet"])
def test_preferences_respect_the_margin(kind: str) -> None:
    found = preferences(3, 30, kind=kind, margin=0.1, seed=3)
    assert float(found.min()) >= 0.1 - 1e-12
    assert torch.allclose(found.sum(dim=1), torch.ones(30, dtype=F64))


def test_preferences_uniform_have_the_moments_of_the_simplex() -> None:
    found = preferences(3, 20_000, kind="uniform")
    assert found.mean(dim=0).tolist() == pytest.approx([1 / 3] * 3, abs=0.01)
    assert found.var(dim=0).tolist() == pytest.approx([1 / 18] * 3, abs=0.002)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"tasks": 1, "count": 3}, "at least 2 tasks"),
        ({"tasks": 2, "count": 0}, "at least 1 preference"),
        ({"tasks": 2, "count": 3, "margin": 0.5}, "margin"),
        ({"tasks": 2, "count": 3, "kind": "evn"}, "kind is"),
        ({"tasks": 2, "count": 3, "concentration": 0.0, "kind": "dirichlet"}, "concentration"),
    ],
)
def test_preferences_refuse_invalid_arguments(arguments: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        preferences(**arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ([(0.5, 0.5, 0.0)], "got 3 values"),
        ([(0.5, 0.5), (1.0,)], "got 1 values"),
        ([(0.6, 0.6)], "sum to 1, got the sum 1.2"),
        ([(1.5, -0.5)], "at least 0"),
        ([(math.nan, 1.0)], "at least 0"),
        ([], "N >= 1"),
    ],
)
def test_preferences_given_must_be_on_the_simplex(given: list[tuple[float, ...]], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        checked_preferences(given, ("a", "b"))


def test_rays_are_where_weighted_losses_are_equal() -> None:
    weights = torch.tensor([[0.2, 0.3, 0.5]], dtype=F64)
    weighted = weights * rays(weights)
    assert weighted[0].tolist() == pytest.approx([float(weighted.mean())] * 3)
    assert torch.allclose(rays(rays(weights)), weights)


SCALARIZATIONS = [
    WeightedSum(),
    Tchebycheff(),
    AugmentedTchebycheff(),
    SmoothTchebycheff(0.1),
    SmoothTchebycheff(0.01, augment=0.1),
    PBI(),
]


@pytest.mark.parametrize("scalarization", SCALARIZATIONS, ids=repr)
def test_scalarization_weights_are_the_derivatives_of_the_value(scalarization: Scalarization) -> None:
    losses, weights = points(5, 3), preferences(3, 5, kind="uniform")
    found = scalarization.weights(losses, weights)
    for task in range(3):
        step = torch.zeros(3, dtype=F64)
        step[task] = 1e-6
        slope = (scalarization.value(losses + step, weights) - scalarization.value(losses - step, weights)) / 2e-6
        assert torch.allclose(found[:, task], slope, atol=1e-5)


def test_smooth_tchebycheff_is_above_the_maximum_by_at_most_mu_log_t() -> None:
    losses, weights = points(50, 3), preferences(3, 50, kind="uniform")
    gap = SmoothTchebycheff(0.05).value(losses, weights) - Tchebycheff().value(losses, weights)
    assert float(gap.min()) >= 0
    assert float(gap.max()) <= 0.05 * math.log(3) + 1e-12


def test_pbi_on_its_ray_is_the_norm_with_finite_derivatives() -> None:
    weights = torch.tensor([[0.25, 0.75]], dtype=F64)
    losses = 2 * torch.nn.functional.normalize(rays(weights), dim=1)
    assert float(PBI().value(losses, weights)) == pytest.approx(2.0)
    assert bool(PBI().weights(losses, weights).isfinite().all())


def grid_volume(losses: Tensor, reference: Tensor, steps: int) -> float:
    """The share of a grid's cells whose centre is dominated: an oracle without geometry."""
    axis = (torch.arange(steps, dtype=F64) + 0.5) / steps
    cells = torch.cartesian_prod(*[axis * float(edge) for edge in reference])
    hit = (losses[None] <= cells[:, None]).all(dim=2).any(dim=1)
    return float(hit.double().mean() * reference.prod())


@pytest.mark.parametrize(("tasks", "steps"), [(2, 400), (3, 60), (4, 24)])
def test_hypervolume_equals_a_grid_estimate(tasks: int, steps: int) -> None:
    losses, reference = points(6, tasks, seed=tasks), torch.full((tasks,), 1.1, dtype=F64)
    assert hypervolume(losses, reference) == pytest.approx(grid_volume(losses, reference, steps), abs=0.02)


@pytest.mark.parametrize("tasks", [2, 3, 4, 5])
def test_hypervolume_equals_inclusion_and_exclusion(tasks: int) -> None:
    losses, reference = points(7, tasks, seed=tasks), torch.full((tasks,), 0.9, dtype=F64)
    expected = 0.0
    for size in range(1, 8):
        for chosen in itertools.combinations(range(7), size):
            corner = losses[list(chosen)].max(dim=0).values
            expected -= (-1) ** size * float((reference - corner).clamp_min(0).prod())
    assert hypervolume(losses, reference) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("tasks", [2, 3, 4])
def test_hypervolume_gradient_equals_the_difference_quotient(tasks: int) -> None:
    losses, reference = points(8, tasks, seed=7), torch.full((tasks,), 1.1, dtype=F64)
    found = hypervolume_gradient(losses, reference)
    for row, task in itertools.product(range(8), range(tasks)):
        above, below = losses.clone(), losses.clone()
        above[row, task] += 1e-6
        below[row, task] -= 1e-6
        slope = (hypervolume(below, reference) - hypervolume(above, reference)) / 2e-6
        assert float(found[row, task]) == pytest.approx(slope, abs=1e-7)


def test_dominance_follows_the_definition() -> None:
    losses = torch.tensor([[1.0, 1.0], [1.0, 1.0], [0.0, 2.0], [1.0, 2.0], [math.nan, 0.0]])
    assert non_dominated(losses).tolist() == [True, True, True, False, False]


def test_neighbours_are_row_stochastic_and_proportional_to_the_rate() -> None:
    weights = preferences(3, 15)
    for transfer in (Neighbours(), Neighbours(rho=1.0, tau=0.01, nearest=3), Gated(Neighbours(tau=1.0))):
        matrix = transfer.matrix(weights, 1.0, None)
        assert float(matrix.min()) >= 0
        assert torch.allclose(matrix.sum(dim=1), torch.ones(15, dtype=F64))
    assert torch.equal(Neighbours().matrix(weights, 0.0, None), torch.eye(15, dtype=F64))
    assert ((Neighbours(rho=1.0, tau=0.01, nearest=3).matrix(weights, 1.0, None) > 0).sum(dim=1) == 4).all()


@pytest.mark.parametrize("count", [3, 11, 101])
def test_neighbours_default_tau_fits_every_number_of_models(count: int) -> None:
    """By default the coefficient of the nearest model is e^(-1/2) times the own one, at every distance."""
    middle = Neighbours(rho=1.0).matrix(preferences(2, count), 1.0, None)[count // 2]
    assert float(middle[count // 2 + 1] / middle[count // 2]) == pytest.approx(math.exp(-0.5))


def test_neighbours_of_equal_preferences_have_equal_coefficients() -> None:
    matrix = Neighbours(rho=1.0).matrix(torch.full((4, 2), 0.5, dtype=F64), 1.0, None)
    assert torch.allclose(matrix, torch.full((4, 4), 0.25, dtype=F64))


@pytest.mark.parametrize(("growth", "words"), [(0.5, "growth is at least 1"), (math.inf, "growth is at least 1")])
def test_gate_refuses_a_growth_below_one_and_a_gated_transfer(growth: float, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Gated(growth=growth)
    with pytest.raises(ValueError, match="cannot be gated again"):
        Gated(Gated())


def brute_best(candidates: Tensor, count: int, reference: Tensor) -> float:
    return max(
        hypervolume(candidates[list(chosen)], reference)
        for chosen in itertools.combinations(range(len(candidates)), count)
    )


@pytest.mark.parametrize(("tasks", "count"), [(2, 4), (3, 3), (4, 2)])
def test_best_subset_approximates_the_best_of_all_subsets(tasks: int, count: int) -> None:
    reference = torch.full((tasks,), 1.1, dtype=F64)
    for seed in range(3):
        candidates = points(12, tasks, seed=seed)
        found = candidates[best_subset(candidates, count, reference)]
        assert hypervolume(found, reference) >= 0.99 * brute_best(candidates, count, reference)


@pytest.mark.parametrize("tasks", [2, 3, 4])
def test_gains_equal_differences_of_hypervolumes(tasks: int) -> None:
    candidates, chosen = points(20, tasks, seed=1), points(5, tasks, seed=2)
    reference = torch.full((tasks,), 1.2, dtype=F64)
    found = gains(candidates, chosen, reference)
    before = hypervolume(chosen, reference)
    for point, gain in zip(candidates, found.tolist(), strict=True):
        assert gain == pytest.approx(hypervolume(torch.cat([chosen, point[None]]), reference) - before, abs=1e-12)


@pytest.mark.parametrize("count", [3, 4])
def test_best_subset_points_are_distinct(count: int) -> None:
    candidates = torch.tensor([[0.2, 0.4], [0.5, 0.5], [0.4, 0.2], [0.2, 0.4]], dtype=F64)
    rows = best_subset(candidates, count, torch.ones(2)).tolist()
    assert len(set(rows)) == count
    assert 2 in rows


def test_best_subset_refuses_too_few_points() -> None:
    with pytest.raises(ValueError, match="count is at least 1, got 0"):
        best_subset(torch.tensor([[0.5, 0.5]]), 0, torch.ones(2))
    with pytest.raises(ValueError, match="1 points lie below"):
        best_subset(torch.tensor([[0.5, 0.5], [2.0, 0.0]]), 2, torch.ones(2))


def test_cosine_rows_are_stochastic_for_many_models() -> None:
    matrix = Cosine(amount=2.0).matrix(preferences(2, 30), 1.0, torch.ones(30, 30, dtype=F64))
    assert float(matrix.min()) >= -1e-12
    assert torch.allclose(matrix.sum(dim=1), torch.ones(30, dtype=F64))
    opposed = Cosine().matrix(preferences(2, 2), 1.0, torch.tensor([[1.0, -1.0], [-1.0, 1.0]], dtype=F64))
    assert torch.equal(opposed, torch.eye(2, dtype=F64))


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        (((0.5, 0.4), (0.0, 1.0)), "row 0 of the transfer matrix"),
        (((1.5, -0.5), (0.0, 1.0)), "at least 0"),
        (((1.0,), (0.0, 1.0)), "square"),
    ],
)
def test_fixed_refuses_a_matrix_that_is_not_row_stochastic(rows: tuple[tuple[float, ...], ...], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Fixed(rows)


@pytest.mark.parametrize("seed", range(20))
def test_best_weights_equal_the_best_vertex(seed: int) -> None:
    draws = np.random.default_rng(seed)
    tasks = 2 + seed % 3
    gain, matrix = draws.normal(size=tasks), draws.normal(size=(tasks, tasks))
    least = np.where(draws.random(tasks) < 0.3, -np.inf, draws.normal(size=tasks) - 0.8)
    found = best_weights(gain, matrix, least)
    best = None
    planes = [*np.eye(tasks), *matrix[np.isfinite(least)]]
    rights = [*np.zeros(tasks), *least[np.isfinite(least)]]
    for chosen in itertools.combinations(range(len(planes)), tasks - 1):
        left = np.array([np.ones(tasks), *(planes[each] for each in chosen)])
        if abs(np.linalg.det(left)) < 1e-9:
            continue
        vertex = np.linalg.solve(left, [1.0, *(rights[each] for each in chosen)])
        if vertex.min() >= -1e-9 and (matrix @ vertex >= least - 1e-9).all():
            best = vertex if best is None or gain @ vertex > gain @ best else best
    assert (found is None) == (best is None)
    if found is not None and best is not None:
        assert gain @ found == pytest.approx(gain @ best, abs=1e-8)
        assert (matrix @ found >= least - 1e-7).all()
    units = 2.0 ** draws.integers(-60, 60, size=tasks)  # what is small is no rounding
    again = best_weights(gain * 2.0**-70, matrix * units[:, None], least * units)
    assert np.array_equal(again, found) if found is not None and again is not None else again is found
