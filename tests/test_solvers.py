"""Solvers against closed forms, optimality conditions and general-purpose solvers."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from scipy.optimize import minimize, nnls, root
from torch import Tensor

import paretorch as pt
from matrices import SIZES, gaussian, jacobians
from paretorch.balance.mgda import frank_wolfe
from paretorch.core.contract import Status
from paretorch.core.solvers.bargaining import bargaining_weights
from paretorch.core.solvers.conflict_averse import conflict_averse
from paretorch.core.solvers.equal_products import least_squares
from paretorch.core.solvers.gramian import is_zero_combination
from paretorch.core.solvers.minimum_norm import minimum_norm
from paretorch.core.solvers.nonnegative import nonnegative_program
from paretorch.core.solvers.projections import project_on_dual_cone, project_on_simplex


def suboptimality(gramian: Tensor, weights: Tensor) -> tuple[float, float]:
    """A bound on the distance to the minimum, relative to the value and to the largest diagonal entry.

    For every point y of the convex hull <x, y> >= min_t <x, g_t> =: m, so that |y| >= m / |x|.
    """
    value = float(weights @ gramian @ weights)
    least = max(float((gramian @ weights).min()), 0.0)
    bound = least**2 / value if value > 0 else 0.0
    return (value - bound) / max(value, 1e-300), (value - bound) / float(gramian.diagonal().max())


@pytest.mark.parametrize("tasks", SIZES)
@pytest.mark.parametrize("seed", range(3))
def test_minimum_norm_is_optimal_for_all_jacobians(tasks: int, seed: int) -> None:
    for kind, jacobian in jacobians(tasks, seed):
        gramian = jacobian @ jacobian.T
        weights, converged = minimum_norm(gramian)
        relative, absolute = suboptimality(gramian, weights)
        assert converged, kind
        assert weights.min() >= 0, kind
        assert abs(float(weights.sum()) - 1) <= 1e-12, kind
        assert relative <= 1e-9 or absolute <= 1e-12, (kind, relative, absolute)


@pytest.mark.parametrize("seed", range(10))
def test_minimum_norm_equals_best_support(seed: int) -> None:
    gramian = gaussian(4, 5, seed)
    gramian = gramian @ gramian.T
    best = torch.inf
    for support in itertools.chain.from_iterable(itertools.combinations(range(4), size) for size in range(1, 5)):
        raw = torch.linalg.solve(
            gramian[list(support)][:, list(support)], torch.ones(len(support), dtype=torch.float64)
        )
        if raw.min() >= 0:
            share = raw / raw.sum()
            best = min(best, float(share @ gramian[list(support)][:, list(support)] @ share))
    weights = minimum_norm(gramian).weights
    assert float(weights @ gramian @ weights) == pytest.approx(best, rel=1e-12)


@pytest.mark.parametrize("tasks", SIZES)
@pytest.mark.parametrize("seed", range(2))
def test_dual_cone_projection_meets_optimality_conditions(tasks: int, seed: int) -> None:
    """v >= u, G v >= 0 and (v - u) G v = 0, in units of each row's length."""
    for kind, jacobian in jacobians(tasks, seed):
        gramian = jacobian @ jacobian.T
        lengths = jacobian.norm(dim=1)
        v, converged = project_on_dual_cone(gramian, torch.eye(tasks, dtype=torch.float64))
        assert converged, kind
        scale = (v * lengths).abs().sum(dim=1, keepdim=True)
        slopes = (v @ gramian) / lengths
        added = (v - torch.eye(tasks, dtype=torch.float64)) * lengths
        assert (slopes >= -1e-9 * scale).all(), kind
        assert (added >= -1e-9 * scale).all(), kind
        assert (torch.minimum(added, slopes) <= 1e-9 * scale).all(), kind


@pytest.mark.parametrize("seed", range(5))
def test_dual_cone_projection_equals_nonnegative_least_squares(seed: int) -> None:
    """By duality the projection of u is u + J^T x with x >= 0 the least-squares solution of J^T x = -u."""
    jacobian = gaussian(6, 4, seed)
    v = project_on_dual_cone(jacobian @ jacobian.T, torch.eye(6, dtype=torch.float64)).weights
    for task in range(6):
        x, _ = nnls(jacobian.T.numpy(), -jacobian[task].numpy())
        expected = jacobian[task] + torch.from_numpy(x) @ jacobian
        torch.testing.assert_close(v[task] @ jacobian, expected, atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize("tasks", [2, 3, 10, 40])
@pytest.mark.parametrize("c", [0.1, 0.5, 0.9])
def test_conflict_averse_meets_its_optimality_conditions(tasks: int, c: float) -> None:
    """At the minimum no vertex of the simplex is below the tangent plane."""
    for kind, jacobian in jacobians(tasks, 3):
        gramian = jacobian @ jacobian.T
        gramian = gramian / gramian.diagonal().max()
        equal = torch.full((tasks,), 1 / tasks, dtype=torch.float64)
        phi = c * (equal @ gramian @ equal).clamp_min(0).sqrt()
        weights, converged = conflict_averse(gramian, c)
        assert converged, kind
        length = (weights @ gramian @ weights).clamp_min(0).sqrt()
        if length < 1e-6:
            continue
        slope = gramian @ equal + phi * (gramian @ weights) / length
        assert float((weights @ slope) - slope.min()) <= 1e-7, kind


@pytest.mark.parametrize("seed", range(5))
def test_conflict_averse_is_at_most_the_value_of_slsqp(seed: int) -> None:
    jacobian = gaussian(4, 6, seed)
    gramian, equal = jacobian @ jacobian.T, torch.full((4,), 0.25, dtype=torch.float64)
    phi = 0.5 * (equal @ gramian @ equal).sqrt()

    def objective(values: object) -> float:
        w = torch.as_tensor(values, dtype=torch.float64)
        return float(w @ gramian @ equal + phi * (w @ gramian @ w).clamp_min(1e-30).sqrt())

    other = minimize(
        objective,
        equal.numpy(),
        bounds=[(0, 1)] * 4,
        constraints={"type": "eq", "fun": lambda w: w.sum() - 1},
        method="SLSQP",
    )
    assert objective(conflict_averse(gramian, 0.5).weights) <= other.fun + 1e-9


def test_nonnegative_program_columns_are_independent() -> None:
    matrix = gaussian(7, 5, 0)
    matrix = matrix / matrix.norm(dim=1, keepdim=True)
    products = matrix @ matrix.T
    cosines, right = products.numpy(), (products @ gaussian(7, 9, 1)).numpy()
    all_columns, converged = nonnegative_program(cosines, right)
    assert converged
    for column in range(9):
        one_column, _ = nonnegative_program(cosines, right[:, column : column + 1])
        torch.testing.assert_close(
            torch.from_numpy(cosines @ all_columns[:, column]),
            torch.from_numpy(cosines @ one_column[:, 0]),
            atol=1e-9,
            rtol=1e-9,
        )


@pytest.mark.parametrize("seed", range(5))
def test_least_squares_equals_pseudo_inverse(seed: int) -> None:
    for kind, rows in jacobians(5, seed):
        if kind.startswith(("norm ratio", "scale")):
            continue
        rows = rows / rows.norm(dim=1, keepdim=True)
        gramian, ones = rows @ rows.T, torch.ones(5, dtype=torch.float64)
        found = torch.from_numpy(least_squares(gramian.numpy(), ones.numpy(), 2.3e-16))
        expected = torch.linalg.pinv(gramian, hermitian=True, rtol=1e-12) @ ones
        torch.testing.assert_close(found, expected, atol=1e-8, rtol=1e-8)


@pytest.mark.parametrize("tasks", [4, 5, 7, 20, 128])
def test_least_squares_gives_equal_weights_to_parallel_gradients(tasks: int) -> None:
    generator = torch.Generator().manual_seed(tasks)
    for _ in range(20):
        rows = torch.randn(tasks, tasks + 5, dtype=torch.float64, generator=generator)
        one, other = torch.randperm(tasks, generator=generator)[:2].tolist()
        rows[other] = 10 * rows[one]
        rows = rows / rows.norm(dim=1, keepdim=True)
        ones = torch.ones(tasks, dtype=torch.float64)
        found = torch.from_numpy(least_squares((rows @ rows.T).numpy(), ones.numpy(), 2.3e-16))
        torch.testing.assert_close(
            found[one], found[other], atol=1e-7, rtol=1e-7
        )  # the shortest solution has equal weights
        torch.testing.assert_close(rows @ (rows.T @ found), ones, atol=1e-7, rtol=1e-7)


def test_minimum_norm_gives_equal_weights_to_equal_gradients() -> None:
    for seed in range(50):
        row = torch.randn(7, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
        rows = torch.stack([row / row.norm(), 3.7 * row / (3.7 * row).norm()])
        assert minimum_norm(rows @ rows.T).weights.tolist() == [0.5, 0.5]


@pytest.mark.parametrize("tasks", SIZES)
@pytest.mark.parametrize("iterations", [1, 10, 250, 10_000])
@pytest.mark.sampled(3)
def test_frank_wolfe_is_converged_only_near_minimum(tasks: int, iterations: int) -> None:
    for kind, jacobian in jacobians(tasks, seed=0):
        gramian = jacobian @ jacobian.T
        weights, converged = frank_wolfe(gramian, iterations)
        best = minimum_norm(gramian).weights
        least, square = best @ gramian @ best, weights @ gramian @ weights
        if converged:
            rounding = 1e-14 * tasks * gramian.diagonal().max()
            assert square - least <= 1e-9 * square + rounding, kind
        elif tasks == 2:  # one step with an exact line search suffices
            pytest.fail(kind)


def test_frank_wolfe_is_not_converged_when_iterations_run_out() -> None:
    gramian = torch.diag(torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64))
    assert not frank_wolfe(gramian, 20).converged
    assert frank_wolfe(torch.ones(3, 3, dtype=torch.float64), 20).converged


def test_mgda_reports_frank_wolfe_that_ran_out_of_iterations() -> None:
    method = pt.MGDA(solver="frank-wolfe", iterations=20)
    balancer, point = pt.Balancer(method), torch.ones(3, requires_grad=True)
    with pytest.warns(UserWarning, match="did not reach its tolerance"):
        balance = balancer.backward({str(task): size * point[task] for task, size in enumerate((1.0, 2.0, 3.0))})
    assert balance.status is Status.NOT_CONVERGED


def test_zero_combination_is_detected_for_opposite_gradients() -> None:
    opposite = torch.tensor([[1.0, -1.0], [-1.0, 1.0]], dtype=torch.float64)
    assert is_zero_combination(opposite, torch.tensor([0.5, 0.5], dtype=torch.float64))
    assert not is_zero_combination(opposite, torch.tensor([0.5, 0.4], dtype=torch.float64))


@pytest.mark.parametrize("tasks", [2, 3, 10])
@pytest.mark.parametrize("alpha", [0.5, 1.0, 2.0, 5.0])
@pytest.mark.parametrize("seed", range(2))
def test_bargaining_weights_equal_general_root(tasks: int, alpha: float, seed: int) -> None:
    rows = gaussian(tasks, 2 * tasks + 3, seed)
    gramian = rows @ rows.T
    weights, converged, exists = bargaining_weights(gramian, alpha)
    assert converged
    assert exists
    square = gramian.numpy()
    found = root(
        lambda logs: logs + alpha * np.log(np.maximum(square @ np.exp(logs), 1e-300)),
        weights.log().numpy() + 0.1 * gaussian(tasks, 1, seed + 1)[:, 0].numpy(),
        tol=1e-13,
    )
    assert found.success
    torch.testing.assert_close(weights, torch.from_numpy(np.exp(found.x)), rtol=1e-8, atol=0)


@pytest.mark.parametrize("tasks", SIZES)
@pytest.mark.parametrize("alpha", [1.0, 2.0])
def test_bargaining_weights_solve_system_or_report_none(tasks: int, alpha: float) -> None:
    without = {"strongly stationary", "weakly stationary", "two opposite"}
    for kind, jacobian in jacobians(tasks, 3):
        gramian = jacobian @ jacobian.T
        weights, converged, exists = bargaining_weights(gramian, alpha)
        assert converged, kind
        assert torch.isfinite(weights).all(), kind
        assert (weights > 0).all(), kind
        assert exists or kind.startswith("rank") or kind in without, kind
        assert not (exists and kind in without), kind
        if exists:
            residual = weights ** (1 / alpha) * (gramian @ weights) - 1
            assert residual.abs().max() <= (1e-8 if kind.startswith("norm ratio") else 1e-9), (kind, residual)


def test_bargaining_weights_are_zero_for_zero_gradients() -> None:
    rows = gaussian(4, 9, 0)
    rows[2] = 0
    nonzero = torch.tensor([0, 1, 3])
    weights = bargaining_weights(rows @ rows.T, 2.0).weights
    assert weights[2] == 0
    torch.testing.assert_close(weights[nonzero], bargaining_weights(rows[nonzero] @ rows[nonzero].T, 2.0).weights)
    empty = bargaining_weights(torch.zeros(2, 2, dtype=torch.float64), 2.0)
    assert empty.weights.tolist() == [0.0, 0.0]
    assert not empty.exists


@pytest.mark.parametrize("seed", range(20))
def test_simplex_projection_is_the_nearest_point(seed: int) -> None:
    """w is nearest if and only if no entry of p - w exceeds its value on the support."""
    point = gaussian(1 + seed, 1, seed)[:, 0] * 10.0 ** (seed % 5)
    weights = project_on_simplex(point)
    assert weights.min() >= 0
    assert float(weights.sum()) == pytest.approx(1.0, rel=1e-12)
    gap = point - weights
    assert gap.max() - gap[weights > 0].min() <= 1e-9 * max(1.0, float(point.abs().max()))


@pytest.mark.parametrize("seed", range(30))
def test_dual_cone_projection_of_two_equals_general_solver(seed: int) -> None:
    """The closed form for two gradients against the general solver for the same two and a zero gradient."""
    rows = gaussian(2, 3, seed) * torch.tensor([[1.0], [10.0 ** (seed % 4)]], dtype=torch.float64)
    combinations = gaussian(5, 2, seed + 100)
    if seed % 3 == 0:
        rows[1] = -2 * rows[0]
    three = torch.cat([rows, torch.zeros(1, 3, dtype=torch.float64)])
    wide = torch.cat([combinations, torch.zeros(5, 1, dtype=torch.float64)], dim=1)
    found = project_on_dual_cone(rows @ rows.T, combinations).weights @ rows
    expected = project_on_dual_cone(three @ three.T, wide).weights @ three
    torch.testing.assert_close(found, expected, atol=1e-9 * float(rows.norm()), rtol=1e-9)
