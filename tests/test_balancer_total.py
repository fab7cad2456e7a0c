"""Balancer.total: an ordinary backward of a number that equals the sum of the losses."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import paretorch as pt
from methods import METHODS, TASKS2
from small_models import Net, data, gradients, losses_of
from small_models import total as total_of
from tensors import equal_tensors

ONE_BATCH = [entry.method for entry in METHODS if entry.method.batches == 1]


def batch(step: int, tasks: tuple[str, ...] = TASKS2) -> tuple[Tensor, dict[str, Tensor]]:
    x, targets = data(seed=10 + step)
    return x, dict(zip(tasks, targets.values(), strict=False))


def train(
    method: pt.Method[Any], descend: Callable[[pt.Balancer, dict[str, Tensor]], object], steps: int = 3, **options: Any
) -> tuple[nn.Module, pt.Balancer]:
    """A few steps of SGD, with the gradients that ``descend`` leaves."""
    model, balancer = Net(TASKS2), pt.Balancer(method, TASKS2, **options)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02)
    for step in range(steps):
        x, targets = batch(step)
        optimizer.zero_grad()
        descend(balancer, losses_of(model(x), targets))
        optimizer.step()
        if method.observes:
            with torch.no_grad():
                balancer.observe(losses_of(model(x), targets))
    return model, balancer


@pytest.mark.parametrize("method", ONE_BATCH, ids=repr)
def test_total_backward_equals_balancer_backward_bit_for_bit(method: pt.Method[Any]) -> None:
    first, one = train(method, lambda balancer, losses: balancer.backward(losses))
    second, other = train(method, lambda balancer, losses: balancer.total(losses).backward())
    assert equal_tensors(first.parameters(), second.parameters())
    torch.testing.assert_close(dict(other.state_dict()), dict(one.state_dict()), rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("method", ONE_BATCH, ids=repr)
def test_total_passes_the_factor_to_the_method(method: pt.Method[Any]) -> None:
    scale = 2.0**12

    def scaled(balancer: pt.Balancer, losses: dict[str, Tensor]) -> None:
        (scale * balancer.total(losses)).backward()
        assert balancer.balance is not None
        assert balancer.balance.losses is not None
        torch.testing.assert_close(balancer.balance.losses, torch.stack(list(losses.values())).detach())

    def unscaled(optimizer_model: nn.Module) -> None:
        for parameter in optimizer_model.parameters():
            assert parameter.grad is not None
            parameter.grad.div_(scale)

    first, _ = train(method, lambda balancer, losses: balancer.backward(losses), steps=1)
    second, _ = train(method, scaled, steps=1)
    unscaled(second)
    torch.testing.assert_close(gradients(second), gradients(first), rtol=1e-12, atol=1e-14)


def test_total_has_the_value_of_the_sum_and_is_plain_without_gradients() -> None:
    model, balancer = Net(), pt.Balancer(pt.UPGrad())
    x, targets = data()
    losses = losses_of(model(x), targets)
    expected = sum(loss.item() for loss in losses.values())
    total = balancer.total({**losses, "absent": None})
    assert total.requires_grad
    assert total.item() == pytest.approx(expected, rel=1e-14)
    with torch.no_grad():
        evaluated = balancer.total(losses_of(model(x), targets))
    assert not evaluated.requires_grad
    assert evaluated.item() == pytest.approx(expected, rel=1e-14)
    assert balancer.balance is None  # neither is a step


def test_total_works_with_a_gradscaler_that_skips_an_overflow() -> None:
    model, balancer = Net().float(), pt.Balancer(pt.MGDA(), nonfinite="pass")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    scaler = torch.amp.GradScaler("cpu", init_scale=1e38)
    x, targets = data()
    before = [parameter.detach().clone() for parameter in model.parameters()]

    def step() -> None:
        optimizer.zero_grad()
        outputs = model(x.float())
        losses = {task: 10 * loss.float() for task, loss in losses_of(outputs, targets).items()}
        scaler.scale(balancer.total(losses)).backward()
        scaler.step(optimizer)
        scaler.update()

    step()
    assert equal_tensors(before, model.parameters())
    for _ in range(8):  # the scale is halved until nothing overflows
        step()
    assert not equal_tensors(before, model.parameters())
    assert all(parameter.isfinite().all() for parameter in model.parameters())


@pytest.mark.parametrize("absent", [None, 0.0, torch.tensor(0.0)], ids=repr)
def test_total_leaves_out_an_absent_task(absent: Tensor | float | None) -> None:
    x, targets = data()
    expected_model, expected = Net(), pt.Balancer(pt.UPGrad(), ("a", "b", "c"))
    losses: Any = {**losses_of(expected_model(x), targets), "b": absent}
    expected.backward(losses)
    model, balancer = Net(), pt.Balancer(pt.UPGrad(), ("a", "b", "c"))
    losses = {**losses_of(model(x), targets), "b": absent}
    balancer.total(losses).backward()
    assert torch.equal(gradients(model), gradients(expected_model))
    assert balancer.balance is not None
    assert balancer.balance.present is not None
    assert balancer.balance.present.tolist() == [True, False, True]


def test_total_times_zero_counts_every_task_as_absent() -> None:
    model, balancer = Net(), pt.Balancer(pt.IMTLG())
    x, targets = data()
    (0 * balancer.total(losses_of(model(x), targets))).backward()
    assert balancer.balance is not None
    assert balancer.balance.status is pt.Status.ABSENT
    assert gradients(model).abs().max() == 0


def test_second_backward_of_a_total_needs_retain_graph() -> None:
    model, balancer = Net(), pt.Balancer(pt.UPGrad())
    x, targets = data()
    total = balancer.total(losses_of(model(x), targets))
    total.backward(retain_graph=True)
    once = gradients(model)
    total.backward()
    torch.testing.assert_close(gradients(model), 2 * once, rtol=1e-12, atol=0)
    with pytest.raises(RuntimeError, match="retain_graph=True"):
        total.backward()


def test_total_refuses_second_derivatives_before_gradients_change() -> None:
    model, balancer = Net(), pt.Balancer(pt.UPGrad())
    x, targets = data()
    with pytest.raises(RuntimeError, match="create_graph"):
        balancer.total(losses_of(model(x), targets)).backward(create_graph=True)
    assert gradients(model).abs().max() == 0


def test_autograd_grad_of_a_total_is_an_error_and_no_step() -> None:
    model, balancer = Net(), pt.Balancer(pt.UPGrad())
    x, targets = data()
    with pytest.raises(RuntimeError, match="not have been used"):
        torch.autograd.grad(balancer.total(losses_of(model(x), targets)), list(model.parameters()))
    assert balancer.balance is None
    assert gradients(model).abs().max() == 0


def test_another_term_may_share_the_graph_where_it_is_retained() -> None:
    x, targets = data()
    model, balancer = Net(), pt.Balancer(pt.UPGrad())
    losses = losses_of(model(x), targets)
    balancer.backward(losses, retain_graph=True)
    (0.1 * total_of(losses)).backward()
    expected = gradients(model)
    model, balancer = Net(), pt.Balancer(pt.UPGrad())
    losses = losses_of(model(x), targets)
    (balancer.total(losses, retain_graph=True) + 0.1 * total_of(losses)).backward()
    torch.testing.assert_close(gradients(model), expected, rtol=1e-12, atol=1e-15)


def test_nonfinite_loss_raises_in_the_backward_and_changes_nothing() -> None:
    model, balancer = Net(), pt.Balancer(pt.FAMO(), ("a", "b", "c"))
    x, targets = data()
    losses = losses_of(model(x), targets)
    state = copy.deepcopy(balancer.state_dict())
    total = balancer.total({**losses, "b": losses["b"] * float("inf")})
    with pytest.raises(FloatingPointError, match="'b'"):
        total.backward()
    assert gradients(model).abs().max() == 0
    torch.testing.assert_close(dict(balancer.state_dict()), dict(state), rtol=0, atol=0, equal_nan=True)


def test_total_names_wrong_losses_when_it_is_made() -> None:
    balancer = pt.Balancer(pt.UPGrad(), ("a", "b"))
    x, targets = data()
    losses = losses_of(Net()(x), targets)
    with pytest.raises(ValueError, match="unknown task 'c'"):
        balancer.total(losses)
    with pytest.raises(ValueError, match=r"balancer\.total takes a dict"):
        balancer.total(list(losses.values()))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="'a' must be a scalar"):
        balancer.total({"a": torch.ones(3, requires_grad=True)})


def test_total_takes_the_further_batches_of_a_method() -> None:
    def run(descend: Callable[[pt.Balancer, Any, Any], object]) -> Tensor:
        model, balancer = Net(), pt.Balancer(pt.MoDo())
        batches = [losses_of(model(x), targets) for x, targets in (data(seed=seed) for seed in (1, 2, 3))]
        descend(balancer, batches[0], batches[1:])
        return gradients(model)

    expected = run(lambda balancer, losses, others: balancer.backward(losses, others=others))
    found = run(lambda balancer, losses, others: balancer.total(losses, others=others).backward())
    halved = run(lambda balancer, losses, others: (balancer.total(losses, others=others) / 2).backward())
    assert torch.equal(found, expected)
    torch.testing.assert_close(2 * halved, expected, rtol=1e-12, atol=1e-15)


def test_total_that_is_kept_for_a_log_releases_the_graph() -> None:
    model, balancer = Net(), pt.Balancer(pt.UPGrad())
    x, targets = data()
    losses = losses_of(model(x), targets)
    total = balancer.total(losses)
    total.backward()
    import weakref

    graph = weakref.ref(losses["a"])
    del losses
    balancer.reset_state()
    assert graph() is None
    assert total.isfinite()


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("method", [pt.MGDA(), pt.GradDrop(), pt.DWA()], ids=repr)
def test_total_with_another_term_on_its_graph_names_total_and_the_option(method: pt.Method[Any], first: bool) -> None:
    model, balancer = Net(), pt.Balancer(method)
    x, targets = data(seed=3)

    def sums(**options: Any) -> Tensor:
        z = model.encoder(x)
        losses = losses_of({task: head(z) for task, head in model.heads.items()}, targets)
        loss = balancer.total(losses, **options) if first else z.square().mean()
        return loss.add(z.square().mean() if first else balancer.total(losses, **options))

    with pytest.raises(RuntimeError, match=r"backward of balancer.total\(losses\).*retain_graph=True") as caught:
        sums().backward()
    assert "balancer.backward" not in str(caught.value)
    balancer = pt.Balancer(method)
    model.zero_grad()
    sums(retain_graph=True).backward()
    found = gradients(model)
    model.zero_grad()
    pt.Balancer(method).backward(losses_of(model(x), targets))
    model.encoder(x).square().mean().backward()
    torch.testing.assert_close(found, gradients(model), rtol=1e-12, atol=1e-12)


def test_total_with_a_term_of_the_parameters_alone_needs_no_option() -> None:
    model, balancer = Net(), pt.Balancer(pt.MGDA())
    x, targets = data(seed=4)
    (balancer.total(losses_of(model(x), targets)) + model.encoder[0].weight.square().sum()).backward()
    found = gradients(model)
    model.zero_grad()
    balancer.backward(losses_of(model(x), targets))
    model.encoder[0].weight.square().sum().backward()
    torch.testing.assert_close(found, gradients(model), rtol=1e-12, atol=1e-12)
