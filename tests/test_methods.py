"""The properties of the method table, on gradients of every awkward kind."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch

import paretorch as pt
from matrices import SIZES, answer, gaussian, jacobians
from methods import METHODS, Entry
from paretorch import balance
from paretorch.core.contract import Need, Status

DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
GENERAL = [entry for entry in METHODS if not isinstance(entry.method, pt.Static)]
J = torch.tensor([[-4.0, 1.0, 1.0], [6.0, 1.0, 1.0]], dtype=torch.float64)


def entries(claim: str) -> pytest.MarkDecorator:
    chosen = [entry for entry in GENERAL if getattr(entry, claim)]
    return pytest.mark.parametrize("entry", chosen, ids=lambda entry: entry.name)


def sizes(entry: Entry) -> tuple[int, ...]:
    return SIZES if Need.GRAMIAN in entry.method.needs else SIZES[:4]


def test_every_exported_method_has_an_entry() -> None:
    listed = {type(entry.method).__name__ for entry in METHODS}
    exported = {name for name in balance.__all__ if isinstance(getattr(pt, name), type)}
    assert exported == listed


@pytest.mark.parametrize("entry", METHODS, ids=lambda entry: entry.name)
def test_frozen_answer(entry: Entry) -> None:
    result, update = answer(entry.method, J, losses=torch.tensor([1.0, 2.0], dtype=torch.float64))
    if entry.weights is not None:
        assert result.weights is not None
        torch.testing.assert_close(result.weights, torch.tensor(entry.weights, dtype=torch.float64), atol=1e-6, rtol=0)
    if entry.update is not None:
        torch.testing.assert_close(update, torch.tensor(entry.update, dtype=torch.float64), atol=1e-6, rtol=0)


@pytest.mark.parametrize("entry", GENERAL, ids=lambda entry: entry.name)
def test_finite_on_every_input(entry: Entry) -> None:
    for tasks in sizes(entry):
        for kind, jacobian in jacobians(tasks):
            result, update = answer(entry.method, jacobian, calibrated=True)
            assert bool(torch.isfinite(update).all()), (tasks, kind)
            assert result.status in (Status.SOLVED, Status.STATIONARY), (tasks, kind, result.status)


@pytest.mark.parametrize("dtype", DTYPES[1:], ids=str)
@pytest.mark.parametrize("entry", GENERAL, ids=lambda entry: entry.name)
def test_finite_in_lower_precision(entry: Entry, dtype: torch.dtype) -> None:
    for tasks, (kind, jacobian) in itertools.product((1, 2, 10), list(jacobians(10))):
        rows = jacobian[:tasks].to(dtype)
        if bool(torch.isfinite(rows).all()):
            _, update = answer(entry.method, rows, calibrated=True)
            assert bool(torch.isfinite(update).all()), (tasks, kind)


@entries("conflict_free")
def test_no_conflict_where_claimed(entry: Entry) -> None:
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


@entries("equivariant")
def test_permuting_tasks_permutes_the_answer(entry: Entry) -> None:
    order = torch.tensor([2, 0, 3, 1])
    jacobian, losses = gaussian(4, 9, 5), torch.tensor([1.0, 2.0, 3.0, 4.0], dtype=torch.float64)
    _, update = answer(entry.method, jacobian, losses=losses)
    _, permuted = answer(entry.method, jacobian[order], losses=losses[order])
    torch.testing.assert_close(permuted, update, atol=1e-10, rtol=1e-9)


@entries("single")
def test_one_task_alone_gives_its_gradient(entry: Entry) -> None:
    gradient = gaussian(1, 9, 3)
    _, update = answer(entry.method, gradient, calibrated=True, losses=torch.tensor([2.0], dtype=torch.float64))
    torch.testing.assert_close(update, gradient[0], atol=1e-12, rtol=1e-10)


@entries("calibrated")
@pytest.mark.parametrize("tasks", [2, 3, 40])
def test_equal_gradients_give_their_sum(entry: Entry, tasks: int) -> None:
    gradient = gaussian(1, 9, 3)
    _, update = answer(entry.method, gradient.expand(tasks, -1), calibrated=True)
    torch.testing.assert_close(update, tasks * gradient[0], atol=1e-7, rtol=1e-7)


@entries("homogeneous")
@pytest.mark.parametrize("scale", [1e-9, 3.0, 1e9])
def test_homogeneous_of_degree_one(entry: Entry, scale: float) -> None:
    jacobian = gaussian(5, 9, 4)
    _, update = answer(entry.method, jacobian, calibrated=True)
    _, scaled = answer(entry.method, scale * jacobian, calibrated=True)
    torch.testing.assert_close(scaled / scale, update, atol=1e-8, rtol=1e-8)


@entries("scale_free")
def test_direction_does_not_depend_on_a_tasks_scale(entry: Entry) -> None:
    jacobian = gaussian(5, 9, 4)
    _, update = answer(entry.method, jacobian)
    _, scaled = answer(entry.method, jacobian * torch.tensor([1.0, 1e-3, 10.0, 1e4, 2.0], dtype=torch.float64)[:, None])
    torch.testing.assert_close(scaled / scaled.norm(), update / update.norm(), atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize(
    "entry", [entry for entry in GENERAL if Need.GRAMIAN in entry.method.needs], ids=lambda e: e.name
)
def test_update_vanishes_only_at_stationary_points(entry: Entry) -> None:
    for kind, jacobian in jacobians(3, seed=7):
        _, shortest = answer(pt.MGDA(), jacobian)
        _, update = answer(entry.method, jacobian)
        if shortest.norm() > 1e-6 * jacobian.norm(dim=1).max():
            assert update.norm() > 0, kind


@pytest.mark.parametrize("method", [pt.MGDA(), pt.PCGrad(), pt.UPGrad(), pt.IMTLG()], ids=repr)
def test_opposite_gradients_cancel(method: pt.Method[Any]) -> None:
    gradient = gaussian(1, 9, 3)
    _, update = answer(method, torch.cat([gradient, -gradient]))
    assert update.norm() <= 1e-12


def test_zero_gradient_stops_mgda_and_is_left_out_by_methods_that_divide_by_norms() -> None:
    jacobian = gaussian(3, 9, 3)
    jacobian[1] = 0
    assert answer(pt.MGDA(), jacobian)[1].norm() == 0
    for method in (pt.IMTLG(), pt.PCGrad(), pt.UPGrad()):
        result, _ = answer(method, jacobian)
        assert result.weights is not None
        assert result.weights[1] == 0 or isinstance(method, pt.UPGrad), method


@pytest.mark.parametrize("seed", range(20))
def test_upgrad_is_pcgrad_for_two_tasks(seed: int) -> None:
    jacobian = gaussian(2, 5, seed) * torch.tensor([[1.0], [30.0]], dtype=torch.float64)
    torch.testing.assert_close(
        2 * answer(pt.UPGrad(), jacobian)[1], answer(pt.PCGrad(), jacobian)[1], atol=1e-9, rtol=1e-9
    )


def test_imtlg_does_not_ascend_where_the_papers_normalisation_does() -> None:
    jacobian = torch.tensor([[1.0, 0, 0], [0, 1, 0], [0.02, 0.02, 0.01]], dtype=torch.float64)
    _, update = answer(pt.IMTLG(), jacobian)
    projections = (jacobian @ update) / jacobian.norm(dim=1)
    assert projections.min() > 0
    torch.testing.assert_close(projections, projections[:1].expand(3))


def test_pcgrad_projects_on_the_original_gradients_in_the_drawn_order() -> None:
    jacobian = gaussian(4, 3, 11)
    generator = torch.Generator().manual_seed(5)
    order = torch.rand(4, 4, generator=generator, dtype=torch.float64).argsort(dim=1)
    expected = torch.zeros(3, dtype=torch.float64)
    for i in range(4):
        own = jacobian[i].clone()
        for j in order[i].tolist():
            if j != i and own @ jacobian[j] < 0:
                own -= (own @ jacobian[j]) / jacobian[j].square().sum() * jacobian[j]
        expected += own
    torch.testing.assert_close(answer(pt.PCGrad(), jacobian, seed=5)[1], expected)


def test_min_norm_pair_is_the_nearest_point_of_the_segment() -> None:
    for seed in range(10):
        a, b = gaussian(2, 4, seed)
        shares = torch.linspace(0, 1, 10001, dtype=torch.float64)[:, None]
        lengths = (shares * a + (1 - shares) * b).norm(dim=1)
        assert abs(float(pt.min_norm_pair(a, b)) - float(shares[lengths.argmin()])) <= 1e-4
    assert float(pt.min_norm_pair(a, a)) == 0.5


def test_famo_takes_weight_from_the_task_that_improved_most() -> None:
    method = pt.FAMO()
    state = method.init(("a", "b"), torch.zeros((), dtype=torch.float64))
    before = torch.tensor([1.0, 1.0], dtype=torch.float64)
    for _ in range(20):
        evidence = pt.Evidence(("a", "b"), torch.ones(2, dtype=torch.bool), losses=before)
        _, state = method.balance(evidence, state)
        state = method.observe(torch.tensor([0.5, 0.9], dtype=torch.float64), state)
    result, _ = method.balance(evidence, state)
    assert result.weights is not None
    assert result.weights[0] < result.weights[1]


def test_uncertainty_converges_to_its_closed_form() -> None:
    """At the optimum k_t exp(-s_t) L_t = 1/2, so the weight is 1 / (2 L_t)."""
    method = pt.Uncertainty({"b": "regression"})
    state = method.init(("a", "b"), torch.zeros((), dtype=torch.float64))
    losses = torch.tensor([0.2, 3.0], dtype=torch.float64)
    for _ in range(2000):
        result, state = method.balance(pt.Evidence(("a", "b"), torch.ones(2, dtype=torch.bool), losses=losses), state)
    torch.testing.assert_close(result.weights, 1 / (2 * losses), rtol=1e-3, atol=0)


def test_dwa_weighs_the_task_that_falls_slowest_most() -> None:
    method = pt.DWA(window=2)
    state = method.init(("a", "b"), torch.zeros((), dtype=torch.float64))
    for values in ([4.0, 4.0], [4.0, 4.0], [1.0, 4.0], [1.0, 4.0], [1.0, 4.0]):
        losses = torch.tensor(values, dtype=torch.float64)
        result, state = method.balance(pt.Evidence(("a", "b"), torch.ones(2, dtype=torch.bool), losses=losses), state)
    expected = 2 * torch.softmax(torch.tensor([0.25, 1.0], dtype=torch.float64) / 2, dim=0)
    torch.testing.assert_close(result.weights, expected)


def test_graddrop_keeps_one_sign_in_each_coordinate_with_the_right_chance() -> None:
    jacobian = torch.tensor([[3.0, 1.0, 0.0], [-1.0, 2.0, 0.0]], dtype=torch.float64)
    draws = torch.stack([answer(pt.GradDrop(), jacobian, seed=seed)[1] for seed in range(4000)])
    assert set(draws[:, 0].tolist()) == {3.0, -1.0}
    assert set(draws[:, 1].tolist()) == {3.0}
    assert set(draws[:, 2].tolist()) == {0.0}
    assert abs(float((draws[:, 0] == 3.0).double().mean()) - 0.75) < 0.03  # P = (1 + 2/4) / 2
    torch.testing.assert_close(answer(pt.GradDrop(leak=1.0), jacobian)[1], jacobian.sum(dim=0))


def test_graddrop_draws_one_mask_for_the_whole_batch_of_features() -> None:
    features = gaussian(6, 4, 1)
    rows = gaussian(2, 24, 2)
    evidence = pt.Evidence(
        ("a", "b"),
        torch.ones(2, dtype=torch.bool),
        jacobian=rows,
        features=features,
        generator=torch.Generator().manual_seed(3),
    )
    result, _ = pt.GradDrop().balance(evidence, None)
    assert result.update is not None
    update, samples = result.update.view(6, 4), rows.view(2, 6, 4)
    signs = (features.sign() * samples).sum(dim=1)
    for column in range(4):
        kept = [samples[task, :, column] for task in range(2)]
        options = []
        for sign in (1, -1):
            agreeing = [k for k, s in zip(kept, signs[:, column], strict=True) if s.sign() == sign]
            options.append(sum(agreeing, start=torch.zeros(6, dtype=torch.float64)))
        assert any(torch.allclose(update[:, column], option) for option in options)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: pt.CAGrad(c=1.5), "c must be in"),
        (lambda: pt.CAGrad(rescale=3), "rescale"),
        (lambda: pt.MGDA(normalize="L2"), "normalize"),
        (lambda: pt.MGDA(solver="qp"), "solver"),
        (lambda: pt.MGDA(iterations=0), "iterations"),
        (lambda: pt.PCGrad(reduction="avg"), "reduction"),
        (lambda: pt.GradDrop(leak=2.0), "leak"),
        (lambda: pt.DWA(temperature=0.0), "temperature"),
        (lambda: pt.DWA(window=0), "window"),
        (lambda: pt.FAMO(rate=0.0), "rate"),
        (lambda: pt.FAMO(gamma=-1.0), "gamma"),
        (lambda: pt.Uncertainty({"a": "ranking"}), "classification"),
        (lambda: pt.Static({"a": -1.0}), "at least 0"),
        (lambda: pt.Static({}), "by task name"),
        (lambda: pt.UPGrad(preference=(0.0, 0.0)), "preference"),
        (lambda: pt.Fork(pt.Static({"left": 1.0}), ("left", "right")), "right"),
        (lambda: pt.Fork(pt.Static({"left": 1.0, "rigth": 1.0}), ("left", "right")), "did you mean 'right'"),
        (lambda: pt.Fork(pt.UPGrad(preference=(1.0,)), ("left", "right")), "preference has 1 values for 2"),
    ],
)
def test_hyperparameters_out_of_range_are_named(make: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        make()
