"""Single methods against their formulas, closed forms and each other."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

import paretorch as pt
from matrices import answer, gaussian, one_step, weights_of
from small_models import Net, data, gradients, losses_of

X, TARGETS = data()


@pytest.mark.parametrize("seed", range(20))
def test_upgrad_equals_pcgrad_for_two_tasks(seed: int) -> None:
    jacobian = gaussian(2, 5, seed) * torch.tensor([[1.0], [30.0]], dtype=torch.float64)
    torch.testing.assert_close(
        2 * answer(pt.UPGrad(), jacobian)[1], answer(pt.PCGrad(), jacobian)[1], atol=1e-9, rtol=1e-9
    )


def test_imtlg_descends_where_the_published_normalization_ascends() -> None:
    jacobian = torch.tensor([[1.0, 0, 0], [0, 1, 0], [0.02, 0.02, 0.01]], dtype=torch.float64)
    _, update = answer(pt.IMTLG(), jacobian)
    projections = (jacobian @ update) / jacobian.norm(dim=1)
    assert projections.min() > 0
    torch.testing.assert_close(projections, projections[:1].expand(3))


def test_pcgrad_projects_on_original_gradients_in_drawn_order() -> None:
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


def test_min_norm_pair_is_the_shortest_point_of_the_segment() -> None:
    for seed in range(10):
        a, b = gaussian(2, 4, seed)
        shares = torch.linspace(0, 1, 10001, dtype=torch.float64)[:, None]
        lengths = (shares * a + (1 - shares) * b).norm(dim=1)
        assert abs(float(pt.min_norm_pair(a, b)) - float(shares[lengths.argmin()])) <= 1e-4
    assert float(pt.min_norm_pair(a, a)) == 0.5


def test_famo_decreases_weight_of_fastest_task() -> None:
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


def test_uncertainty_converges_to_closed_form() -> None:
    """At the optimum k_t exp(-s_t) L_t = 1/2, so the weight is 1 / (2 L_t)."""
    method = pt.Uncertainty({"b": "regression"})
    state = method.init(("a", "b"), torch.zeros((), dtype=torch.float64))
    losses = torch.tensor([0.2, 3.0], dtype=torch.float64)
    for _ in range(2000):
        result, state = method.balance(pt.Evidence(("a", "b"), torch.ones(2, dtype=torch.bool), losses=losses), state)
    torch.testing.assert_close(result.weights, 1 / (2 * losses), rtol=1e-3, atol=0)


def test_dwa_gives_slowest_task_the_largest_weight() -> None:
    method = pt.DWA(window=2)
    state = method.init(("a", "b"), torch.zeros((), dtype=torch.float64))
    for values in ([4.0, 4.0], [4.0, 4.0], [1.0, 4.0], [1.0, 4.0], [1.0, 4.0]):
        losses = torch.tensor(values, dtype=torch.float64)
        result, state = method.balance(pt.Evidence(("a", "b"), torch.ones(2, dtype=torch.bool), losses=losses), state)
    expected = 2 * torch.softmax(torch.tensor([0.25, 1.0], dtype=torch.float64) / 2, dim=0)
    torch.testing.assert_close(result.weights, expected)


def test_graddrop_keeps_one_sign_per_coordinate_with_given_probability() -> None:
    jacobian = torch.tensor([[3.0, 1.0, 0.0], [-1.0, 2.0, 0.0]], dtype=torch.float64)
    draws = torch.stack([answer(pt.GradDrop(), jacobian, seed=seed)[1] for seed in range(4000)])
    assert set(draws[:, 0].tolist()) == {3.0, -1.0}
    assert set(draws[:, 1].tolist()) == {3.0}
    assert set(draws[:, 2].tolist()) == {0.0}
    assert abs(float((draws[:, 0] == 3.0).double().mean()) - 0.75) < 0.03  # P = (1 + 2/4) / 2
    torch.testing.assert_close(answer(pt.GradDrop(leak=1.0), jacobian)[1], jacobian.sum(dim=0))


def test_graddrop_draws_one_mask_for_all_samples() -> None:
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


def test_gradnorm_equalizes_lengths_of_weighted_gradients() -> None:
    rows, state = gaussian(3, 9, 2) * torch.tensor([[100.0], [1.0], [0.1]], dtype=torch.float64), None
    for _ in range(2000):
        balance, state = one_step(pt.GradNorm(alpha=0.0), state, rows)
        assert weights_of(balance).min() > 0
        assert float(weights_of(balance).sum()) == pytest.approx(3.0)
    lengths = weights_of(balance) * rows.norm(dim=1)
    assert float(lengths.max() / lengths.min()) <= 1.1


def test_gradnorm_increases_weight_of_slow_task() -> None:
    rows, state = torch.eye(2, dtype=torch.float64), None
    _, state = one_step(pt.GradNorm(), state, rows, torch.tensor([1.0, 1.0], dtype=torch.float64))
    for _ in range(50):
        balance, state = one_step(pt.GradNorm(), state, rows, torch.tensor([0.9, 0.3], dtype=torch.float64))
    assert weights_of(balance)[0] > weights_of(balance)[1]


def test_imtll_converges_to_closed_form() -> None:
    losses, state = torch.tensor([4.0, 0.2], dtype=torch.float64), None
    for _ in range(2000):
        balance, state = one_step(pt.IMTLL(), state, torch.eye(2, dtype=torch.float64), losses)
    torch.testing.assert_close(weights_of(balance), 1 / losses, rtol=1e-2, atol=0)


@pytest.mark.parametrize("window", [None, 3])
def test_smooth_tchebycheff_nadir_is_mean_of_last_warmup_epoch(window: int | None) -> None:
    method, rows = pt.SmoothTchebycheff(mu=0.5, warmup=2, window=window), torch.eye(2, dtype=torch.float64)
    state: Any = None
    for value in (9.0, 9.0, 9.0, 2.0, 3.0, 4.0):
        losses = torch.tensor([value, 2 * value], dtype=torch.float64)
        balance, state = one_step(method, state, rows, losses)
        torch.testing.assert_close(weights_of(balance), 1 / losses)
        if window is None and float(state.steps) == 3:
            state = method.end_epoch(state)
    losses = torch.tensor([1.5, 12.0], dtype=torch.float64)
    torch.testing.assert_close(state.nadir, torch.tensor([3.0, 6.0], dtype=torch.float64))
    balance, state = one_step(method, state, rows, losses)
    ratio = (losses / state.nadir) ** 2
    torch.testing.assert_close(weights_of(balance), 2 * ratio / ratio.sum() / losses)
    torch.testing.assert_close(method.end_epoch(state).nadir, state.nadir)


def test_smooth_tchebycheff_weights_are_gradient_of_objective() -> None:
    method = pt.SmoothTchebycheff(mu=0.3, warmup=1, window=1)
    start = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)
    _, state = one_step(method, None, torch.eye(3, dtype=torch.float64), start)
    losses = torch.tensor([0.7, 1.9, 0.4], dtype=torch.float64, requires_grad=True)
    (3 * 0.3 * torch.logsumexp((losses / start).log() / 0.3, dim=0)).backward()
    balance, _ = one_step(method, state, torch.eye(3, dtype=torch.float64), losses.detach())
    assert losses.grad is not None
    torch.testing.assert_close(weights_of(balance), losses.grad)


def test_geometric_mean_weights_are_gradient_and_finite_for_many_tasks() -> None:
    losses = torch.tensor([0.7, 1.9, 0.4], dtype=torch.float64, requires_grad=True)
    losses.prod().pow(1 / 3).backward()
    assert losses.grad is not None
    torch.testing.assert_close(pt.weights(pt.GeometricMean(), losses=losses.detach()), losses.grad)
    assert torch.isfinite(pt.weights(pt.GeometricMean(), losses=torch.full((40,), 1e-12))).all()


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("groups", [1, 2, 3])
def test_go4align_groups_are_optimal(seed: int, groups: int) -> None:
    losses = gaussian(6, 1, seed)[:, 0].exp()
    shares = torch.softmax(-1e-4 * losses, dim=0) * losses.sum() / losses
    order = shares.argsort()
    best, expected = math.inf, shares
    for first in range(1, 7):
        for second in range(first, 7):
            runs = [run for run in (order[:first], order[first:second], order[second:]) if len(run)]
            if len(runs) > groups:
                continue
            mean = shares.clone()
            for run in runs:
                mean[run] = shares[run].mean()
            if (spread := float((shares - mean).square().sum())) < best:
                best, expected = spread, mean
    found = pt.weights(pt.GO4Align(groups=groups), losses=losses)
    torch.testing.assert_close(found, expected)


def test_moco_equals_published_update() -> None:
    method, state = pt.MoCo(beta=0.25, gamma=0.01, rho=0.5), None
    rows = [gaussian(3, 5, seed) for seed in range(3)]
    tracked, weights = rows[0], torch.full((3,), 1 / 3, dtype=torch.float64)
    for step, given in enumerate(rows):
        tracked = tracked if step == 0 else tracked - 0.25 * (tracked - given)
        moved = weights - 0.01 * (tracked @ tracked.T @ weights + 0.5 * weights)
        weights = moved + (1 - moved.sum()) / 3
        assert weights.min() > 0, "the example stays inside the simplex"
        balance, state = one_step(method, state, given)
        torch.testing.assert_close(balance.update, weights @ tracked)


def test_dbmtl_equals_published_update() -> None:
    method, state = pt.DBMTL(beta=0.8, sigma=0.5), None
    mean = torch.zeros(3, 5, dtype=torch.float64)
    for step in range(4):
        rows, losses = gaussian(3, 5, step), torch.tensor([1.0, 2.0, 30.0], dtype=torch.float64) + step
        old = 0.0 if step == 0 else 0.8 / math.sqrt(step)
        mean = old * mean + (1 - old) * rows / (losses[:, None] + 1e-8)
        balance, state = one_step(method, state, rows, losses)
        lengths = mean.norm(dim=1)
        torch.testing.assert_close(balance.update, (lengths.max() / lengths) @ mean)


def test_excess_increases_weight_of_task_with_long_gradients() -> None:
    method, state = pt.ExcessMTL(step=0.1), None
    for step in range(20):
        balance, state = one_step(method, state, torch.tensor([[1.0, 0.0], [0.0, 0.5**step]], dtype=torch.float64))
    assert weights_of(balance)[0] > weights_of(balance)[1]
    assert float(weights_of(balance).sum()) == pytest.approx(2.0)


def test_momentum_equals_method_in_first_step_and_without_momentum() -> None:
    rows = gaussian(4, 9, 1)
    _, plain = answer(pt.CAGrad(), rows)
    torch.testing.assert_close(answer(pt.Momentum(pt.CAGrad(), 0.9), rows)[1], plain)
    balance, state = one_step(pt.Momentum(pt.CAGrad(), 0.0), None, gaussian(4, 9, 2))
    balance, _ = one_step(pt.Momentum(pt.CAGrad(), 0.0), state, rows)
    torch.testing.assert_close(balance.update, plain)


def test_momentum_applies_method_to_means() -> None:
    first, second = gaussian(3, 5, 1), gaussian(3, 5, 2)
    method = pt.Momentum(pt.UPGrad(), 0.75)
    _, state = one_step(method, None, first)
    balance, _ = one_step(method, state, second)
    torch.testing.assert_close(balance.update, answer(pt.UPGrad(), 0.75 * first + 0.25 * second)[1])


def test_crmogm_weights_are_running_means() -> None:
    first, second = gaussian(3, 5, 1), gaussian(3, 5, 2)
    method = pt.CRMOGM(pt.MGDA(), 0.75)
    _, state = one_step(method, None, first)
    balance, _ = one_step(method, state, second)
    one, two = (answer(pt.MGDA(), rows)[0].weights for rows in (first, second))
    assert one is not None
    assert two is not None
    torch.testing.assert_close(balance.weights, 0.75 * one + 0.25 * two)


def test_log_losses_update_is_independent_of_units() -> None:
    rows, losses = gaussian(3, 7, 4), torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)
    units = torch.tensor([1.0, 1e3, 1e-4], dtype=torch.float64)
    method = pt.LogLosses(pt.MGDA())
    _, update = answer(method, rows, losses=losses)
    torch.testing.assert_close(answer(method, units[:, None] * rows, losses=units * losses)[1], update)


def test_fairgrad_with_alpha_one_equals_nash_for_any_lengths() -> None:
    rows = gaussian(10, 23, 4)
    torch.testing.assert_close(answer(pt.FairGrad(1.0), rows)[1], answer(pt.NashMTL(), rows)[1])
    longer = torch.logspace(0, 6, 10, dtype=torch.float64)[:, None] * rows
    torch.testing.assert_close(answer(pt.NashMTL(), longer)[1], answer(pt.NashMTL(), rows)[1], rtol=1e-8, atol=1e-9)


def test_nash_at_paper_scale_ignores_loss_factor() -> None:
    def update(scale: float, factor: float | None) -> Tensor:
        model = Net()
        balancer = pt.Balancer(pt.NashMTL(), scale="paper", factor=factor)
        balancer.backward({task: scale * loss for task, loss in losses_of(model(X), TARGETS).items()})
        return gradients(model.encoder) / scale

    torch.testing.assert_close(update(1024.0, 1024.0), update(1.0, None), rtol=1e-9, atol=1e-12)
