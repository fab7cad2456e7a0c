"""The properties of the methods table, on Jacobians of many kinds."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch

import paretorch as pt
from matrices import SIZES, answer, gaussian, jacobians
from methods import METHODS, MethodEntry
from paretorch import balance
from paretorch.core.contract import Need, Status

DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
GENERAL = [entry for entry in METHODS if not isinstance(entry.method, pt.Static)]
J = torch.tensor([[-4.0, 1.0, 1.0], [6.0, 1.0, 1.0]], dtype=torch.float64)


def methods_that_claim(claim: str) -> pytest.MarkDecorator:
    chosen = [entry for entry in GENERAL if getattr(entry, claim)]
    return pytest.mark.parametrize("entry", chosen, ids=lambda entry: entry.name)


def sizes(entry: MethodEntry) -> tuple[int, ...]:
    return SIZES if Need.GRAMIAN in entry.method.needs else SIZES[:4]


def test_methods_table_lists_every_exported_method() -> None:
    listed = {type(entry.method).__name__ for entry in METHODS}
    exported = {name for name in balance.__all__ if isinstance(getattr(pt, name), type)}
    assert exported == listed


@pytest.mark.parametrize("entry", METHODS, ids=lambda entry: entry.name)
def test_method_reproduces_recorded_result(entry: MethodEntry) -> None:
    result, update = answer(entry.method, J, losses=torch.tensor([1.0, 2.0], dtype=torch.float64))
    if entry.weights is not None:
        assert result.weights is not None
        torch.testing.assert_close(result.weights, torch.tensor(entry.weights, dtype=torch.float64), atol=1e-6, rtol=0)
    if entry.update is not None:
        torch.testing.assert_close(update, torch.tensor(entry.update, dtype=torch.float64), atol=1e-6, rtol=0)


@pytest.mark.parametrize("entry", GENERAL, ids=lambda entry: entry.name)
@pytest.mark.sampled(2)
def test_method_is_finite_for_all_jacobians(entry: MethodEntry) -> None:
    for tasks in sizes(entry):
        for kind, jacobian in jacobians(tasks):
            result, update = answer(entry.method, jacobian, calibrated=True)
            assert bool(torch.isfinite(update).all()), (tasks, kind)
            assert result.status in entry.ends, (tasks, kind, result.status)


@pytest.mark.parametrize("dtype", DTYPES[1:], ids=str)
@pytest.mark.parametrize("entry", GENERAL, ids=lambda entry: entry.name)
@pytest.mark.sampled(3)
def test_method_is_finite_in_lower_precision(entry: MethodEntry, dtype: torch.dtype) -> None:
    for tasks, (kind, jacobian) in itertools.product((1, 2, 10), list(jacobians(10))):
        rows = jacobian[:tasks].to(dtype)
        if bool(torch.isfinite(rows).all()):
            _, update = answer(entry.method, rows, calibrated=True)
            assert bool(torch.isfinite(update).all()), (tasks, kind)


@methods_that_claim("conflict_free")
@pytest.mark.sampled(2)
def test_conflict_free_method_has_no_conflict(entry: MethodEntry) -> None:
    for tasks in sizes(entry):
        for kind, jacobian in jacobians(tasks):
            for dtype, least in ((torch.float64, -1e-7), (torch.float32, -1e-4)):
                rows = jacobian.to(dtype)
                if entry.conflict_free == "independent" and torch.linalg.matrix_rank(jacobian, rtol=1e-9) < tasks:
                    continue
                result, update = answer(entry.method, rows)
                rows = rows.double()
                if result.status is Status.STATIONARY or update.norm() == 0:
                    continue
                cosines = (rows @ update) / (rows.norm(dim=1) * update.norm())
                assert cosines.min() >= least, (tasks, kind, dtype, float(cosines.min()))


@methods_that_claim("equivariant")
def test_equivariant_method_permutes_with_tasks(entry: MethodEntry) -> None:
    order = torch.tensor([2, 0, 3, 1])
    jacobian, losses = gaussian(4, 9, 5), torch.tensor([1.0, 2.0, 3.0, 4.0], dtype=torch.float64)
    _, update = answer(entry.method, jacobian, losses=losses)
    _, permuted = answer(entry.method, jacobian[order], losses=losses[order])
    torch.testing.assert_close(permuted, update, atol=1e-10, rtol=1e-9)


@methods_that_claim("single")
def test_method_with_one_task_returns_its_gradient(entry: MethodEntry) -> None:
    gradient = gaussian(1, 9, 3)
    _, update = answer(entry.method, gradient, calibrated=True, losses=torch.tensor([2.0], dtype=torch.float64))
    torch.testing.assert_close(update, gradient[0], atol=1e-12, rtol=1e-10)


@methods_that_claim("calibrated")
@pytest.mark.parametrize("tasks", [2, 3, 40])
def test_calibrated_method_sums_equal_gradients(entry: MethodEntry, tasks: int) -> None:
    gradient = gaussian(1, 9, 3)
    _, update = answer(entry.method, gradient.expand(tasks, -1), calibrated=True)
    torch.testing.assert_close(update, tasks * gradient[0], atol=1e-7, rtol=1e-7)


@methods_that_claim("homogeneous")
@pytest.mark.parametrize("scale", [1e-9, 3.0, 1e9])
def test_homogeneous_method_scales_with_gradients(entry: MethodEntry, scale: float) -> None:
    jacobian = gaussian(5, 9, 4)
    _, update = answer(entry.method, jacobian, calibrated=True)
    _, scaled = answer(entry.method, scale * jacobian, calibrated=True)
    torch.testing.assert_close(scaled / scale, update, atol=1e-8, rtol=1e-8)


@methods_that_claim("scale_free")
def test_scale_free_method_ignores_task_scale(entry: MethodEntry) -> None:
    jacobian = gaussian(5, 9, 4)
    _, update = answer(entry.method, jacobian)
    _, scaled = answer(entry.method, jacobian * torch.tensor([1.0, 1e-3, 10.0, 1e4, 2.0], dtype=torch.float64)[:, None])
    torch.testing.assert_close(scaled / scaled.norm(), update / update.norm(), atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize(
    "entry", [entry for entry in GENERAL if Need.GRAMIAN in entry.method.needs], ids=lambda e: e.name
)
def test_conflict_free_update_is_zero_at_stationary_points_only(entry: MethodEntry) -> None:
    for kind, jacobian in jacobians(3, seed=7):
        _, shortest = answer(pt.MGDA(), jacobian)
        _, update = answer(entry.method, jacobian)
        if shortest.norm() > 1e-6 * jacobian.norm(dim=1).max():
            assert update.norm() > 0, kind


@pytest.mark.parametrize("method", [pt.MGDA(), pt.PCGrad(), pt.UPGrad(), pt.IMTLG()], ids=repr)
def test_method_cancels_opposite_gradients(method: pt.Method[Any]) -> None:
    gradient = gaussian(1, 9, 3)
    _, update = answer(method, torch.cat([gradient, -gradient]))
    assert update.norm() <= 1e-12


def test_zero_gradient_stops_mgda_and_gets_zero_weight_elsewhere() -> None:
    jacobian = gaussian(3, 9, 3)
    jacobian[1] = 0
    assert answer(pt.MGDA(), jacobian)[1].norm() == 0
    for method in (pt.IMTLG(), pt.PCGrad(), pt.UPGrad()):
        result, _ = answer(method, jacobian)
        assert result.weights is not None
        assert result.weights[1] == 0 or isinstance(method, pt.UPGrad), method
