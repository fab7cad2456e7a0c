"""The Balancer against explicit per-task gradients, and the graphs it must see through or refuse."""

from __future__ import annotations

import copy
from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import paretorch as pt
from methods import METHODS
from paretorch.core.contract import Method, Need, Status
from small_models import TASKS, Net, data, gradients, losses_of, per_task, total

GRAMIAN = [e.method for e in METHODS if Need.GRAMIAN in e.method.needs]
LOSSES = [e.method for e in METHODS if e.method.needs == Need.LOSSES and not isinstance(e.method, pt.Static)]
X, TARGETS = data()


def balancer_step(model: Net, balancer: pt.Balancer, **changes: Tensor | None) -> pt.Balance:
    losses = {**losses_of(model(X), TARGETS), **changes}
    further = [{**losses_of(model(X), TARGETS), **changes} for _ in range(balancer.method.batches - 1)]
    return balancer.backward(losses, others=further)


@pytest.mark.parametrize("method", GRAMIAN, ids=repr)
def test_balancer_gives_shared_parameters_the_weighted_sum_and_heads_their_own_gradient(method: pt.Method[Any]) -> None:
    model, plain = Net(), Net()
    balance = balancer_step(model, pt.Balancer(method, scale="paper", seed=4))
    _, rows, _ = per_task(model)
    torch.testing.assert_close(balance.gramian, rows @ rows.T, rtol=1e-12, atol=1e-15)
    assert balance.weights is not None
    if not method.random:
        values = torch.stack(list(losses_of(model(X), TARGETS).values())).detach()
        if method.batches == 1:
            expected = pt.weights(method, rows @ rows.T, losses=values if Need.LOSSES in method.needs else None)
            torch.testing.assert_close(balance.weights, expected, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(gradients(model.encoder), balance.weights @ rows, rtol=1e-12, atol=1e-14)
    total(losses_of(plain(X), TARGETS)).backward()
    factors = torch.ones(len(TASKS)) if balance.heads is None else balance.heads  # LogLosses divides by the loss
    for task, factor in zip(TASKS, factors, strict=True):
        own = factor * gradients(plain.heads[task])
        torch.testing.assert_close(gradients(model.heads[task]), own, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("method", GRAMIAN, ids=repr)
def test_balancer_equals_fork_where_the_features_are_the_parameters(method: pt.Method[Any]) -> None:
    """With the identity as encoder the features are the shared leaf."""
    if method.batches > 1:
        with pytest.raises(ValueError, match="cannot be used on features"):
            pt.Fork(method, TASKS)
        return
    heads = Net(seed=2).heads
    shared = torch.randn(12, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(5))

    def losses(branch: dict[str, Tensor]) -> dict[str, Tensor]:
        return losses_of({t: head(branch[t]) for t, head in heads.items()}, TARGETS)

    one, two = shared.clone().requires_grad_(), shared.clone().requires_grad_()
    fork, balancer = pt.Fork(method, TASKS, seed=1), pt.Balancer(method, seed=1)
    recorded = losses(fork(one))
    if Need.LOSSES in method.needs:
        recorded = fork.losses(recorded)
    total(recorded).backward()
    balancer.backward(losses(dict.fromkeys(TASKS, two)))
    torch.testing.assert_close(one.grad, two.grad, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("method", LOSSES, ids=repr)
def test_balancer_runs_one_backward_for_loss_methods(method: pt.Method[Any]) -> None:
    model, plain = Net(), Net()
    balance = balancer_step(model, pt.Balancer(method))
    assert balance.weights is not None
    own = losses_of(plain(X), TARGETS)
    total({task: weight * own[task] for weight, task in zip(balance.weights, TASKS, strict=True)}).backward()
    torch.testing.assert_close(gradients(model), gradients(plain), rtol=1e-12, atol=1e-14)


def test_balancer_gives_jacobian_methods_the_parameter_gradients() -> None:
    model = Net()
    balancer_step(model, pt.Balancer(pt.GradDrop(leak=1.0)))
    _, rows, _ = per_task(model)
    torch.testing.assert_close(gradients(model.encoder), rows.sum(dim=0), rtol=1e-12, atol=1e-14)


def test_balancer_accepts_own_inputs_without_common_features() -> None:
    model = Net(tasks=("a", "b"))
    other, _ = data(seed=9)
    losses = {
        "a": (model.heads["a"](model.encoder(X)) - TARGETS["a"]).square().mean(),
        "b": (model.heads["b"](model.encoder(other)) - TARGETS["b"]).square().mean(),
    }
    balance = pt.Balancer(pt.MGDA()).backward(losses)
    assert balance.gramian is not None
    assert balance.gramian[0, 1] != 0


def test_balancer_weights_partly_shared_and_reused_layers_by_their_tasks() -> None:
    """``low`` serves all, ``high`` only a and b, and twice; weights follow the tasks that reach a parameter."""
    torch.manual_seed(0)
    low, high = nn.Linear(5, 6).double(), nn.Linear(6, 6).double()
    heads = nn.ModuleDict({t: nn.Linear(6, 2) for t in TASKS}).double()
    z = low(X).tanh()
    deep = high(high(z).tanh())
    losses = losses_of({"a": heads["a"](deep), "b": heads["b"](deep), "c": heads["c"](z)}, TARGETS)
    shared = [*low.parameters(), *high.parameters()]
    rows = [
        torch.autograd.grad(loss, shared, retain_graph=True, allow_unused=True, materialize_grads=True)
        for loss in losses.values()
    ]
    full = torch.stack([torch.cat([g.flatten() for g in row]) for row in rows])
    balance = pt.Balancer(pt.UPGrad()).backward(losses)
    assert balance.weights is not None
    torch.testing.assert_close(balance.gramian, full @ full.T, rtol=1e-11, atol=1e-14)
    received = gradients(nn.ModuleList([low, high]))
    torch.testing.assert_close(received, balance.weights @ full, rtol=1e-11, atol=1e-14)


def test_balancer_shared_selects_the_compared_parameters_and_not_the_weighted_ones() -> None:
    model = Net()
    balance = balancer_step(model, pt.Balancer(pt.MGDA(), shared=model.encoder[2]))
    _, rows, _ = per_task(model)
    last = sum(p.numel() for p in model.encoder[2].parameters())
    assert balance.weights is not None
    torch.testing.assert_close(balance.gramian, rows[:, -last:] @ rows[:, -last:].T, rtol=1e-12, atol=1e-15)
    torch.testing.assert_close(gradients(model.encoder), balance.weights @ rows, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("absent", [None, 0.0])
def test_balancer_excludes_an_absent_task(absent: float | None) -> None:
    model = Net()
    losses = losses_of(model(X), TARGETS)
    balance = pt.Balancer(pt.MGDA(), TASKS).backward({**losses, "b": None if absent is None else losses["b"] * absent})
    assert balance.present is not None
    assert balance.present.tolist() == [True, False, True]
    _, rows, _ = per_task(model)
    assert balance.weights is not None
    torch.testing.assert_close(gradients(model.encoder), balance.weights @ rows, rtol=1e-12, atol=1e-14)
    assert balance.weights.sum() == pytest.approx(2.0)


def test_balancer_accepts_new_tasks_for_methods_without_state_only() -> None:
    model = Net()
    balancer = pt.Balancer(pt.MGDA())
    losses = losses_of(model(X), TARGETS)
    balancer.backward({"a": losses["a"], "c": losses["c"]}, retain_graph=True)
    assert balancer.backward(losses).tasks == ("a", "c", "b")
    balancer = pt.Balancer(pt.DWA())
    losses = losses_of(model(X), TARGETS)
    balancer.backward({"a": losses["a"]}, retain_graph=True)
    with pytest.raises(ValueError, match=r"has a state of its tasks .* tasks=\.\.\."):
        balancer.backward(losses)


@pytest.mark.parametrize("method", [pt.MGDA(), pt.FAMO()], ids=repr)
def test_balancer_nonfinite_loss_raises_and_changes_nothing(method: pt.Method[Any]) -> None:
    model = Net()
    balancer = pt.Balancer(method)
    balancer_step(model, balancer)
    before, state = gradients(model), copy.deepcopy(balancer.state_dict())
    losses = losses_of(model(X), TARGETS)
    with pytest.raises(FloatingPointError, match="'b'"):
        balancer.backward({**losses, "b": losses["b"] * torch.nan})
    assert torch.equal(gradients(model), before)
    for name, value in balancer.state_dict().items():
        torch.testing.assert_close(value, state[name], equal_nan=True)


@pytest.mark.parametrize("method", [pt.MGDA(), pt.Equal()], ids=repr)
def test_balancer_skips_and_counts_nonfinite_tasks(method: pt.Method[Any]) -> None:
    model, without = Net(), Net()
    balancer = pt.Balancer(method, nonfinite="skip")
    losses = losses_of(model(X), TARGETS)
    balancer.backward({**losses, "b": losses["b"] * torch.inf})
    pt.Balancer(method).backward({t: v for t, v in losses_of(without(X), TARGETS).items() if t != "b"})
    torch.testing.assert_close(gradients(model), gradients(without), rtol=1e-12, atol=1e-14)
    assert balancer.skipped == {"b": 1}


def test_balancer_gradient_is_zero_without_a_present_task() -> None:
    model = Net()
    losses = losses_of(model(X), TARGETS)
    balance = pt.Balancer(pt.MGDA()).backward({t: v * 0 for t, v in losses.items()})
    assert balance.status is Status.ABSENT
    assert gradients(model.encoder).abs().max() == 0


def test_balancer_calls_parameter_hooks_once_with_the_combined_gradient() -> None:
    model, plain = Net(), Net()
    received: list[Tensor] = []
    after: list[Tensor] = []

    def halve(gradient: Tensor) -> Tensor:
        received.append(gradient.clone())
        return gradient * 0.5

    balancer_step(plain, pt.Balancer(pt.MGDA()))
    weight = model.encoder[0].weight
    weight.register_hook(halve)
    weight.register_post_accumulate_grad_hook(lambda p: after.append(p.grad.clone()))
    balancer_step(model, pt.Balancer(pt.MGDA()))
    assert len(received) == len(after) == 1
    torch.testing.assert_close(received[0], plain.encoder[0].weight.grad)
    torch.testing.assert_close(weight.grad, 0.5 * plain.encoder[0].weight.grad)


def test_balancer_accumulates_gradients_and_can_retain_graphs() -> None:
    model, once = Net(), Net()
    losses = losses_of(model(X), TARGETS)
    balancer = pt.Balancer(pt.UPGrad())
    balancer.backward(losses, retain_graph=True)
    balancer.backward(losses)
    balancer_step(once, pt.Balancer(pt.UPGrad()))
    torch.testing.assert_close(gradients(model), 2 * gradients(once), rtol=1e-12, atol=1e-14)


def test_balancer_supports_activation_checkpointing() -> None:
    model, plain = Net(), Net()

    def losses(reentrant: bool) -> dict[str, Tensor]:
        z = checkpoint(model.encoder, X.clone().requires_grad_(), use_reentrant=reentrant)
        return losses_of({t: head(z) for t, head in model.heads.items()}, TARGETS)

    pt.Balancer(pt.MGDA()).backward(losses(False))
    balancer_step(plain, pt.Balancer(pt.MGDA()))
    torch.testing.assert_close(gradients(model), gradients(plain), rtol=1e-12, atol=1e-14)
    with pytest.raises(ValueError, match="use_reentrant=False"):
        pt.Balancer(pt.MGDA()).backward(losses(True))


def test_balancer_every_reuses_weights_and_factor_rescales_losses() -> None:
    model = Net()
    balancer = pt.Balancer(pt.MGDA(), every=2)
    first = balancer_step(model, balancer)
    with torch.no_grad():
        model.encoder[0].weight.mul_(3)
    second = balancer_step(model, balancer)
    assert first.weights is not None
    assert second.weights is not None
    assert torch.equal(second.weights, first.weights)
    method = pt.MGDA(normalize="loss+")
    plain, scaled = Net(), Net()
    balancer_step(plain, pt.Balancer(method))
    pt.Balancer(method, factor=1024.0).backward({t: v * 1024 for t, v in losses_of(scaled(X), TARGETS).items()})
    torch.testing.assert_close(gradients(scaled) / 1024, gradients(plain), rtol=1e-10, atol=1e-13)


def test_balancer_weighted_heads_are_multiplied_by_the_weight_of_their_task() -> None:
    model, own = Net(), Net()
    balance = balancer_step(model, pt.Balancer(pt.MGDA(), heads="weighted"))
    balancer_step(own, pt.Balancer(pt.MGDA()))
    assert balance.weights is not None
    for weight, task in zip(balance.weights, TASKS, strict=True):
        torch.testing.assert_close(gradients(model.heads[task]), weight * gradients(own.heads[task]))


def test_balancer_without_declared_tasks_loads_state() -> None:
    model = Net()
    balancer = pt.Balancer(pt.DWA(window=1))
    for _ in range(3):
        balancer_step(model, balancer)
    other = pt.Balancer(pt.DWA(window=1))
    other.load_state_dict(balancer.state_dict())
    assert other.tasks == TASKS
    torch.testing.assert_close(balancer_step(model, other).weights, balancer_step(model, balancer).weights)


def test_balancer_observe_updates_the_method() -> None:
    model = Net()
    balancer = pt.Balancer(pt.FAMO())
    balancer_step(model, balancer)
    balancer.observe({"a": torch.tensor(1e-3), "b": torch.tensor(5.0), "c": torch.tensor(1.0)})
    assert balancer.get_buffer("state_logits").abs().max() > 0
    with pytest.raises(TypeError, match="does not use the losses"):
        pt.Fork(pt.MGDA(), TASKS).observe({"a": torch.tensor(1.0)})


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda m: pt.Balancer(pt.MGDA()).backward({}), "no losses"),
        (lambda m: pt.Balancer(pt.MGDA(), ("a", "b")).backward({"d": m(X)["a"].sum()}), "'d'"),
        (lambda m: pt.Balancer(pt.MGDA()).backward({"a": m(X)["a"]}), "scalar"),
        (lambda m: pt.Balancer(pt.MGDA()).backward({"a": torch.tensor(1.0)}), "no graph"),
        (lambda m: pt.Balancer(pt.MGDA(), nonfinite=cast(Any, "ignore")), "nonfinite"),
        (lambda m: pt.Balancer(pt.MGDA(), shared=[]), "no parameter"),
        (lambda m: pt.Balancer(pt.MGDA(), shared=cast(Any, ["encoder"])), "parameters"),
        (
            lambda m: pt.Balancer(pt.MGDA()).backward({t: nn.Linear(2, 1)(torch.ones(2)).sum() for t in ("a", "b")}),
            "share no parameter",
        ),
        (lambda m: pt.Balancer(pt.MGDA()).total({}).backward(), "balancer.total got no losses"),
        (lambda m: pt.Balancer(pt.MGDA(), ("a", "b")).total({"d": m(X)["a"].sum()}), "balancer.total got the unknown"),
        (
            lambda m: pt.Balancer(pt.MGDA(), shared=m.encoder.requires_grad_(False)),
            "frozen: '0.weight', '0.bias', '2.weight'",
        ),
        (
            lambda m: pt.Balancer(pt.MGDA(), shared=[m.encoder[0].bias.requires_grad_(False)]),
            r"frozen: one of shape \(8,\) has",
        ),
    ],
)
def test_balancer_refuses_invalid_input_with_a_cure(call: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        call(Net())


@pytest.mark.parametrize("named", [False, True])
def test_balancer_of_a_frozen_encoder_names_the_cure_and_what_it_knows_of_the_parameters(named: bool) -> None:
    model = Net()
    balancer = pt.Balancer(pt.MGDA(), shared=model.encoder if named else None)
    model.encoder.requires_grad_(False)
    words = "frozen: '0.weight', '0.bias', '2.weight', '2.bias' have" if named else "Where the encoder is frozen"
    losses = losses_of(model(X), TARGETS)
    with pytest.raises(ValueError, match=words) as caught:
        balancer.backward(losses)
    assert "requires_grad_(True)" in str(caught.value)
    total(losses).backward()  # the cure
    assert all(p.grad is not None for p in model.heads.parameters())


def test_balancer_gramian_of_several_batches_has_the_products_between_them() -> None:
    """MoDo moves its weights by J1 J2^T, of two further batches, and descends a third."""
    model = Net()
    (one, own), (two, other) = data(seed=3), data(seed=4)
    first = per_task(model, seed=3)[1]
    second = per_task(model, seed=4)[1]
    balancer = pt.Balancer(pt.MoDo(gamma=0.1, rho=0.0), scale="paper")
    with pytest.raises(ValueError, match="others= with the losses on 2 more, got 0"):
        balancer.backward(losses_of(model(X), TARGETS))
    balance = balancer.backward(
        losses_of(model(X), TARGETS), others=[losses_of(model(one), own), losses_of(model(two), other)]
    )
    _, third, _ = per_task(model)
    start = torch.full((3,), 1 / 3, dtype=torch.float64)
    moved = start - 0.1 * first @ second.T @ start
    assert balance.weights is not None
    shift = torch.sort(moved, descending=True).values.cumsum(0)
    fits = torch.sort(moved, descending=True).values > (shift - 1) / torch.arange(1, 4)
    size = int(fits.sum())
    expected = (moved - (shift[size - 1] - 1) / size).clamp_min(0)
    torch.testing.assert_close(balance.weights, expected)
    torch.testing.assert_close(gradients(model.encoder), expected @ third)


@pytest.mark.parametrize("tasks", [2, 4])
@pytest.mark.parametrize("method", [pt.MGDA(), pt.GradDrop(), pt.FAMO()], ids=repr)
def test_balancer_refuses_a_second_backward_of_the_step_with_the_cause(method: Method[Any], tasks: int) -> None:
    torch.manual_seed(3)
    encoder, heads = nn.Sequential(nn.Linear(4, 5), nn.Tanh()), nn.ModuleList(nn.Linear(5, 1) for _ in range(tasks))
    balancer = pt.Balancer(method)

    def losses() -> dict[str, Tensor]:
        z = encoder(torch.randn(6, 4))
        return {str(place): (head(z) - place).square().mean() for place, head in enumerate(heads)}

    made = losses()
    balancer.backward(made)
    before = [p.grad.clone() for p in encoder.parameters() if p.grad is not None]
    for again in (lambda: torch.stack([*made.values()]).sum().backward(), lambda: balancer.backward(made)):
        with pytest.raises(RuntimeError, match=r"balancer.backward\(losses\), which is the only backward of the step"):
            again()
    assert all(torch.equal(p.grad, old) for p, old in zip(encoder.parameters(), before, strict=True))  # type: ignore[arg-type]
    made = losses()
    balancer.backward(made, retain_graph=True)
    torch.stack([*made.values()]).sum().backward()


def test_balancer_losses_without_saved_tensors_may_go_backward_again() -> None:
    w = torch.ones(3, requires_grad=True)
    z = w + 1.0
    losses = {"a": z.sum(), "b": -z.sum()}
    pt.Balancer(pt.Equal()).backward(losses)
    before = w.grad.clone()  # type: ignore[union-attr]
    losses["a"].backward()
    assert torch.equal(w.grad, before + 1)  # type: ignore[arg-type]
