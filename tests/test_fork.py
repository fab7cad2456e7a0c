"""The Fork against gradients computed by hand, and every rule of what it promises."""

from __future__ import annotations

import copy
import gc
import weakref
from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import paretorch as pt
from methods import METHODS
from paretorch.core.contract import Need, Status
from small_models import TASKS, Net, data, gradients, losses_of, per_task, total
from tensors import equal_tensors

GRAMIAN = [
    e.method
    for e in METHODS
    if Need.GRAMIAN in e.method.needs and e.method.features and e.method.batches == 1 and not e.method.random
]
LOSSES = [e.method for e in METHODS if e.method.needs == Need.LOSSES and not isinstance(e.method, pt.Static)]
X, TARGETS = data()


def backward_through_fork(model: Net, *, records_losses: bool = False, **changes: Tensor | None) -> dict[str, Tensor]:
    """One step's backward through the fork; ``changes`` replaces losses."""
    losses: dict[str, Any] = losses_of(model(X), TARGETS) | changes
    given = {task: loss for task, loss in losses.items() if loss is not None}
    recorded = model.fork.losses(given) if records_losses else given
    total(recorded).backward()
    return given


def forked_net(method: pt.Method[Any] | None = None, **options: Any) -> Net:
    return Net(fork=pt.Fork(method or pt.MGDA(), TASKS, **options))


def fork_weights(model: Net) -> Tensor:
    balance: pt.Balance | None = model.fork.balance
    assert balance is not None
    assert balance.weights is not None
    return balance.weights


@pytest.mark.parametrize("method", GRAMIAN, ids=repr)
@pytest.mark.parametrize("scale", ["calibrated", "paper"])
def test_fork_gives_the_encoder_the_weighted_sum_and_heads_their_own_gradient(
    method: pt.Method[Any], scale: str
) -> None:
    model = forked_net(method, scale=scale)
    assert model.fork is not None
    backward_through_fork(model, records_losses=model.fork.needs_losses)
    on_features, on_parameters, losses = per_task(model)
    gramian = on_features @ on_features.T
    weights = fork_weights(model)
    torch.testing.assert_close(model.fork.balance.gramian, gramian, rtol=1e-12, atol=0)
    if scale == "paper":
        values = torch.stack(list(losses.values())).detach()
        expected = pt.weights(method, gramian, losses=values if Need.LOSSES in method.needs else None)
        torch.testing.assert_close(weights, expected, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(gradients(model.encoder), weights @ on_parameters, rtol=1e-12, atol=1e-12)
    plain = Net()
    total(losses_of(plain(X), TARGETS)).backward()
    torch.testing.assert_close(gradients(model.heads), gradients(plain.heads), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("method", LOSSES, ids=repr)
def test_fork_with_loss_methods_weights_encoder_and_heads_equally(method: pt.Method[Any]) -> None:
    model = forked_net(method)
    losses = backward_through_fork(model, records_losses=True)
    weights = fork_weights(model)
    plain = Net()
    own = losses_of(plain(X), TARGETS)
    total({task: weight * own[task] for weight, task in zip(weights, TASKS, strict=True)}).backward()
    torch.testing.assert_close(gradients(model), gradients(plain), rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(model.fork.balance.losses, torch.stack(list(losses.values())).detach())


def test_fork_step_is_one_backward_of_the_encoder() -> None:
    model = forked_net()
    calls = []
    model.encoder[0].weight.register_hook(lambda gradient: calls.append(1))
    backward_through_fork(model)
    assert len(calls) == 1


def test_fork_losses_returns_equal_values() -> None:
    model = forked_net()
    losses = losses_of(model(X), TARGETS)
    recorded = model.fork.losses(losses)
    assert list(recorded) == list(losses)
    for task in losses:
        assert torch.equal(recorded[task], losses[task])


@pytest.mark.parametrize("kind", ["left out", "none", "times zero", "masked"])
@pytest.mark.parametrize("records_losses", [False, True])
def test_fork_excludes_an_absent_task(kind: str, records_losses: bool) -> None:
    model = forked_net()
    losses = losses_of(model(X), TARGETS)
    changed: dict[str, Tensor | None] = dict(losses)
    if kind == "left out":
        del changed["b"]
    elif kind == "none":
        changed["b"] = None
    elif kind == "times zero":
        changed["b"] = losses["b"] * 0
    else:
        mask = torch.zeros(len(X), 1, dtype=torch.float64)
        changed["b"] = ((model(X)["b"] - TARGETS["b"]) * mask).square().mean()
        model.zero_grad()
    if records_losses:
        recorded = model.fork.losses(changed)
    else:
        recorded = {task: loss for task, loss in changed.items() if loss is not None}
    total(recorded).backward()
    rows, on_parameters, _ = per_task(model)
    kept = torch.tensor([0, 2])
    expected = pt.weights(pt.MGDA(), rows[kept] @ rows[kept].T) * 2
    torch.testing.assert_close(fork_weights(model)[kept], expected, rtol=1e-9, atol=1e-12)
    assert fork_weights(model)[1] == 0
    assert model.fork.balance.present.tolist() == [True, False, True]
    torch.testing.assert_close(gradients(model.encoder), expected @ on_parameters[kept], rtol=1e-10, atol=1e-12)


def test_fork_state_of_an_absent_task_is_unchanged() -> None:
    model = forked_net(pt.Uncertainty())
    for _ in range(3):
        backward_through_fork(model, records_losses=True)
    before = {name: value.clone() for name, value in model.fork.state_dict().items()}
    backward_through_fork(model, records_losses=True, b=None)
    after = model.fork.state_dict()
    assert after["state_log_variance"][1] == before["state_log_variance"][1]
    assert after["state_taken"].tolist() == [4, 3, 4]


def test_fork_gradient_is_zero_without_a_present_task() -> None:
    model = forked_net()
    losses = losses_of(model(X), TARGETS)
    total({task: loss * 0 for task, loss in losses.items()}).backward()
    assert gradients(model.encoder).abs().max() == 0
    assert model.fork.balance.status is Status.ABSENT


def test_fork_step_without_losses_gives_the_encoder_a_gradient() -> None:
    model = forked_net()
    outputs = model(X)
    recorded = model.fork.losses({})
    total(recorded).backward()
    assert outputs.keys() == set(TASKS)
    assert all(p.grad is not None for p in model.encoder.parameters())


@pytest.mark.parametrize(
    "method", [pt.MGDA(), pt.MGDA(normalize="loss+"), pt.UPGrad(), pt.FAMO(), pt.CAGrad()], ids=repr
)
@pytest.mark.parametrize("scale", [2.0**16, 1 / 3])
def test_fork_common_factor_changes_the_length_alone(method: pt.Method[Any], scale: float) -> None:
    plain, scaled = forked_net(method), forked_net(method)
    backward_through_fork(plain, records_losses=True)
    recorded = scaled.fork.losses(losses_of(scaled(X), TARGETS))
    (total(recorded) * scale).backward()
    torch.testing.assert_close(gradients(scaled) / scale, gradients(plain), rtol=1e-9, atol=1e-12)


def test_fork_gives_factors_of_losses_to_methods_that_are_not_homogeneous() -> None:
    model = forked_net(pt.MGDA(normalize="loss+"))
    recorded = model.fork.losses(losses_of(model(X), TARGETS))
    (recorded["a"] + 5 * recorded["b"] + recorded["c"]).backward()
    assert model.fork.balance.factor.tolist() == [1, 5, 1]
    other = forked_net(pt.MGDA(normalize="loss+"))
    backward_through_fork(other, records_losses=True)
    torch.testing.assert_close(fork_weights(model), fork_weights(other))


@pytest.mark.parametrize("method", [pt.FAMO(), pt.MGDA(normalize="loss")], ids=repr)
def test_fork_with_methods_that_need_losses_requires_recorded_losses(method: pt.Method[Any]) -> None:
    model = forked_net(method)
    with pytest.raises(RuntimeError, match=r"fork\.losses\(losses\)"):
        backward_through_fork(model)


@pytest.mark.parametrize("method", GRAMIAN, ids=repr)
def test_fork_weighted_heads_are_multiplied_by_the_weight_of_their_task(method: pt.Method[Any]) -> None:
    model, own = forked_net(method, heads="weighted"), forked_net(method)
    backward_through_fork(model, records_losses=True)
    backward_through_fork(own, records_losses=True)
    torch.testing.assert_close(gradients(model.encoder), gradients(own.encoder), rtol=1e-10, atol=1e-13)
    for index, task in enumerate(TASKS):
        expected = fork_weights(own)[index] * gradients(own.heads[task])
        torch.testing.assert_close(gradients(model.heads[task]), expected, rtol=1e-10, atol=1e-13)


def test_fork_weighted_heads_require_recorded_losses() -> None:
    with pytest.raises(RuntimeError, match=r"heads='weighted'|heads=weighted"):
        backward_through_fork(forked_net(heads="weighted"))


def test_fork_nonfinite_gradients_give_the_plain_sum_and_do_not_change_the_state() -> None:
    model = forked_net(pt.Uncertainty())
    backward_through_fork(model, records_losses=True)
    before = copy.deepcopy(model.fork.state_dict())
    model.zero_grad()
    losses = losses_of(model(X), TARGETS)
    losses["b"] = losses["b"] * torch.inf
    with pytest.warns(UserWarning, match="the loss of 'b' is inf"):
        total(model.fork.losses(losses)).backward()
    assert not torch.isfinite(gradients(model.encoder)).all()
    assert model.fork.balance.status is Status.NONFINITE
    for name, value in model.fork.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_fork_nonfinite_gradients_can_raise_with_the_task() -> None:
    model = forked_net(nonfinite="raise")
    losses = losses_of(model(X), TARGETS)
    with pytest.raises(FloatingPointError, match="'b'"):
        (losses["a"] + losses["b"] * torch.nan + losses["c"]).backward()
    assert all(p.grad is None for p in model.encoder.parameters())


@pytest.mark.parametrize("scale", [1e-25, 1e-19, 1.0, 1e19])
def test_fork_rescales_squares_outside_the_range_of_float32(scale: float) -> None:
    """1e-25 squared is no float32; and no row is taken for absent because of it."""
    fork = pt.Fork(pt.MGDA(), ("a", "b"))
    base = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
    z = base.clone().requires_grad_()
    branch = fork(z)
    rows = torch.randn(2, 4, 3, generator=torch.Generator().manual_seed(1)) * scale
    ((branch["a"] * rows[0]).sum() + (branch["b"] * rows[1]).sum()).backward()
    exact = rows.double().flatten(1)
    expected = pt.weights(pt.MGDA(), exact @ exact.T) * 2
    assert fork.balance is not None
    torch.testing.assert_close(fork.balance.weights, expected, rtol=1e-5, atol=1e-6)


def test_fork_gramian_is_independent_of_autocast_around_backward() -> None:
    def run(around: bool) -> Tensor:
        fork = pt.Fork(pt.MGDA(), ("a", "b"))
        z = torch.randn(64, 32, generator=torch.Generator().manual_seed(0)).requires_grad_()
        rows = torch.randn(2, 64, 32, generator=torch.Generator().manual_seed(1))
        branch = fork(z)
        loss = (branch["a"] * rows[0]).sum() + (branch["b"] * rows[1]).sum()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=around):
            loss.backward()
        assert fork.balance is not None
        assert fork.balance.gramian is not None
        return fork.balance.gramian

    assert torch.equal(run(True), run(False))


def test_fork_gramian_of_many_rows_is_exact_with_autocast() -> None:
    fork = pt.Fork(pt.MGDA(), tuple("abcdef"))
    z = torch.randn(16, 8).requires_grad_()
    rows = torch.randn(6, 16, 8)
    branch = fork(z)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        total({task: (branch[task] * row).sum() for task, row in zip("abcdef", rows, strict=True)}).backward()
    assert fork.balance is not None
    flat = rows.flatten(1).double()
    torch.testing.assert_close(fork.balance.gramian, flat @ flat.T, rtol=1e-5, atol=1e-4)


def test_fork_refuses_a_head_that_works_in_place_with_the_task_and_the_cure() -> None:
    fork = pt.Fork(pt.MGDA(), ("left", "right"))
    branch = fork(torch.randn(3, 4, requires_grad=True) * 1)
    with pytest.raises(RuntimeError, match=r"copies=True") as caught:
        branch["right"].relu_()
    assert "copies=True" in str(caught.value)
    assert "output 1 = task 'right'" in str(caught.value)


@pytest.mark.parametrize("training", [True, False])
def test_fork_copies_allow_heads_that_work_in_place(training: bool) -> None:
    fork = pt.Fork(pt.MGDA(), ("a", "b"), copies=True).train(training)
    z = torch.randn(3, 4, requires_grad=True) * 1
    before = z.detach().clone()
    with torch.set_grad_enabled(training):
        branch = fork(z)
        branch["a"].relu_()
    assert torch.equal(branch["b"].detach(), before)


def test_fork_adds_the_gradient_of_a_loss_that_bypasses_it_unchanged() -> None:
    model = forked_net()
    x, targets = data()
    z = model.encoder(x)
    branch = model.fork(z)
    losses = losses_of({t: model.heads[t](branch[t]) for t in TASKS}, targets)
    (total(losses) + z.square().mean()).backward()
    _, rows, _ = per_task(model)
    extra = torch.autograd.grad(model.encoder(x).square().mean(), list(model.encoder.parameters()))
    expected = fork_weights(model) @ rows + torch.cat([g.flatten() for g in extra])
    torch.testing.assert_close(gradients(model.encoder), expected, rtol=1e-11, atol=1e-13)


def test_fork_call_with_a_tuple_of_features_is_one_step() -> None:
    fork = pt.Fork(pt.MGDA(), ("a", "b"))
    encoder, head = nn.Linear(5, 4).double(), nn.Linear(4, 1).double()
    other, _ = data(seed=9)
    branch = fork((encoder(X), encoder(other)))
    losses = {
        task: factor * (head(branch[task][0]).square().mean() + head(branch[task][1]).square().mean())
        for task, factor in (("a", 1.0), ("b", -2.0))
    }
    total(losses).backward()
    assert isinstance(branch["a"], tuple)
    assert fork.balance is not None
    torch.testing.assert_close(fork.balance.weights, 2 * torch.tensor([2 / 3, 1 / 3], dtype=torch.float64))


def test_fork_branches_are_nested_like_the_features() -> None:
    fork = pt.Fork(pt.MGDA(), ("a", "b"))
    base = torch.randn(2, 3, dtype=torch.float64, requires_grad=True)
    features = {"p2": base * 2, "rest": [base * 3, {"size": 7, "index": torch.tensor([1, 2])}], "frozen": torch.ones(2)}
    branch = fork(features)
    assert branch["a"]["rest"][1]["size"] == 7
    assert branch["a"]["frozen"] is features["frozen"]
    (branch["a"]["p2"].sum() + branch["a"]["rest"][0].sum() - branch["b"]["p2"].sum()).backward()
    gramian = torch.tensor([[12.0, -6.0], [-6.0, 6.0]], dtype=torch.float64)
    assert fork.balance is not None
    torch.testing.assert_close(fork.balance.gramian, gramian)
    w = fork.balance.weights
    assert w is not None
    torch.testing.assert_close(base.grad, torch.full_like(base, float(w[0] * (2 + 3) - w[1] * 2)))


@pytest.mark.parametrize("reentrant", [True, False])
@pytest.mark.parametrize("where", ["encoder", "heads", "everything", "branches"])
def test_fork_supports_activation_checkpointing(reentrant: bool, where: str) -> None:
    model, plain = forked_net(), forked_net()
    x = X.clone().requires_grad_()
    if where == "everything":
        values = checkpoint(lambda x: tuple(model(x).values()), x, use_reentrant=reentrant)
        outputs = dict(zip(TASKS, values, strict=True))
    elif where == "branches":
        values = checkpoint(lambda x: tuple(model.fork(model.encoder(x)).values()), x, use_reentrant=reentrant)
        outputs = {task: model.heads[task](branch) for task, branch in zip(TASKS, values, strict=True)}
    else:
        z = checkpoint(model.encoder, x, use_reentrant=reentrant) if where == "encoder" else model.encoder(x)
        branch = model.fork(z)
        outputs = {
            t: checkpoint(h, branch[t], use_reentrant=reentrant) if where == "heads" else h(branch[t])
            for t, h in model.heads.items()
        }
    total(losses_of(outputs, TARGETS)).backward()
    backward_through_fork(plain)
    torch.testing.assert_close(gradients(model), gradients(plain), rtol=1e-12, atol=1e-14)


def test_fork_paused_gives_the_plain_sum_without_state() -> None:
    model, plain = forked_net(pt.Uncertainty()), Net()
    before = copy.deepcopy(model.fork.state_dict())
    with model.fork.paused():
        backward_through_fork(model, records_losses=True)
    total(losses_of(plain(X), TARGETS)).backward()
    torch.testing.assert_close(gradients(model), gradients(plain), rtol=1e-13, atol=1e-15)
    for name, value in model.fork.state_dict().items():
        torch.testing.assert_close(value, before[name], equal_nan=True)
    losses = losses_of(model(X), TARGETS)
    model.zero_grad()
    with model.fork.paused():
        total(losses).backward()
    torch.testing.assert_close(gradients(model), gradients(plain), rtol=1e-13, atol=1e-15)


def test_fork_gradient_penalties_work_if_paused_and_raise_otherwise() -> None:
    model = forked_net()
    loss = total(losses_of(model(X), TARGETS))
    with pytest.raises(RuntimeError, match=r"fork\.paused"):
        torch.autograd.grad(loss, list(model.encoder.parameters()), create_graph=True)

    def penalty(net: Net) -> Tensor:
        loss = total(losses_of(net(X), TARGETS))
        first = torch.autograd.grad(loss, list(net.encoder.parameters()), create_graph=True)
        return torch.stack([gradient.square().sum() for gradient in first]).sum()

    with model.fork.paused():
        penalty(model).backward()
    plain = Net()
    penalty(plain).backward()
    torch.testing.assert_close(gradients(model), gradients(plain), rtol=1e-12, atol=1e-14)
    # and by central differences, in the direction of the gradient
    direction, size = gradients(plain) / gradients(plain).norm(), 1e-5
    values = []
    for sign in (1, -1):
        moved, place = Net(), 0
        with torch.no_grad():
            for p, own in zip(moved.parameters(), plain.parameters(), strict=True):
                if own.grad is not None:
                    p.add_(sign * size * direction[place : place + p.numel()].view_as(p))
                    place += p.numel()
        values.append(float(penalty(moved).detach()))
    assert (values[0] - values[1]) / (2 * size) == pytest.approx(float(gradients(model).norm()), rel=1e-6)


def test_fork_refuses_functional_transforms() -> None:
    fork = pt.Fork(pt.MGDA(), ("a", "b"))
    with pytest.raises(RuntimeError, match=r"torch\.func"):
        torch.func.grad(lambda z: fork(z * 1)["a"].sum())(torch.ones(3))


@pytest.mark.parametrize("mode", ["eval", "no_grad"])
def test_fork_branches_are_the_features_outside_training(mode: str) -> None:
    model = forked_net().train(mode != "eval")
    with torch.set_grad_enabled(mode != "no_grad"):
        z = torch.ones(2, 6, dtype=torch.float64)
        branch = model.fork(z)
    assert all(branch[task] is z for task in TASKS)


def test_fork_every_reuses_weights() -> None:
    model = forked_net(every=3)
    weights = []
    for step in range(7):
        with torch.no_grad():
            for p in model.encoder.parameters():
                p.add_(0.1 * (step + 1))
        backward_through_fork(model)
        weights.append(fork_weights(model).tolist())
    assert weights[0] == weights[1] == weights[2]
    assert weights[3] == weights[4] == weights[5]
    assert weights[0] != weights[3] != weights[6]


def test_fork_every_computes_new_weights_for_a_task_without_one() -> None:
    model = forked_net(every=5)
    backward_through_fork(model, b=None)
    backward_through_fork(model)
    assert fork_weights(model)[1] > 0 or fork_weights(model)[0] > 0
    assert model.fork.balance.gramian is not None


def test_fork_every_continues_after_a_checkpoint() -> None:
    model = forked_net(every=4)
    backward_through_fork(model)
    backward_through_fork(model)
    other = forked_net(every=4)
    other.load_state_dict(model.state_dict())
    for net in (model, other):
        backward_through_fork(net)
    assert torch.equal(fork_weights(model), fork_weights(other))
    assert other.fork.balance.gramian is None


def test_fork_gap_equals_that_of_explicit_gradients() -> None:
    model = forked_net(gap=2)
    gaps = []
    for _ in range(3):
        model.zero_grad()
        backward_through_fork(model)
        gaps.append(model.fork.balance.gap)
    assert not gaps[1]
    _, rows, _ = per_task(model)
    used, exact = fork_weights(model) @ rows, pt.weights(pt.MGDA(), rows @ rows.T) @ rows
    assert gaps[0]["cosine"] == pytest.approx(float(torch.cosine_similarity(used, exact, dim=0)), abs=1e-9)
    worst = min(float(torch.cosine_similarity(used, row, dim=0)) for row in rows)
    assert gaps[0]["worst_task_cosine"] == pytest.approx(worst, abs=1e-9)


def test_fork_random_draws_depend_on_the_seed_and_the_saved_step() -> None:
    def masks(fork: pt.Fork, steps: int) -> list[Tensor]:
        found = []
        for _ in range(steps):
            z = torch.ones(4, 50, requires_grad=True)
            branch = fork(z)
            (branch["a"].sum() - branch["b"].sum()).backward()
            assert z.grad is not None
            found.append(z.grad)
        return found

    one, two = pt.Fork(pt.GradDrop(), ("a", "b"), seed=3), pt.Fork(pt.GradDrop(), ("a", "b"), seed=3)
    first = masks(one, 4)
    assert equal_tensors(first, masks(two, 4))
    assert not torch.equal(first[0], first[1])
    resumed = pt.Fork(pt.GradDrop(), ("a", "b"), seed=3)
    masks(resumed, 2)
    again = pt.Fork(pt.GradDrop(), ("a", "b"), seed=3)
    again.load_state_dict(resumed.state_dict())
    assert torch.equal(masks(again, 1)[0], first[2])


def test_fork_state_is_saved_to_safetensors_and_loaded_by_task_name(tmp_path: Any) -> None:
    from safetensors.torch import load_file, save_file

    model = forked_net(pt.FAMO())
    losses = backward_through_fork(model, records_losses=True)
    model.fork.observe({t: loss.detach() * (0.5 if t == "b" else 0.9) for t, loss in losses.items()})
    save_file(model.fork.state_dict(), tmp_path / "fork.safetensors")
    other = pt.Fork(pt.FAMO(), ("c", "a", "b"))
    other.load_state_dict(load_file(tmp_path / "fork.safetensors"))
    torch.testing.assert_close(other.state_logits, model.fork.state_logits[[2, 0, 1]])
    with pytest.raises(ValueError, match="tasks"):
        pt.Fork(pt.FAMO(), ("a", "b")).load_state_dict(load_file(tmp_path / "fork.safetensors"))


def test_fork_with_methods_without_state_adds_nothing_to_checkpoints() -> None:
    assert forked_net(pt.MGDA()).state_dict().keys() == Net().state_dict().keys()


@pytest.mark.parametrize("cast", [lambda m: m.half(), lambda m: m.float(), lambda m: m.to(torch.bfloat16)])
def test_fork_state_keeps_its_dtype_when_the_model_is_cast(cast: Any) -> None:
    model = forked_net(pt.FAMO())
    cast(model)
    assert all(value.dtype in (torch.float64, torch.uint8) for value in model.fork.state_dict().values())


def test_fork_deep_copies_are_independent() -> None:
    model = forked_net(pt.Uncertainty())
    losses_of(model(X), TARGETS)  # a forward without backward does not prevent a copy
    other = copy.deepcopy(model)
    backward_through_fork(other, records_losses=True)
    assert other.fork.state_taken.tolist() == [1, 1, 1]
    assert model.fork.state_taken.tolist() == [0, 0, 0]
    assert model.fork.balance is None


def test_fork_supports_lbfgs_closures() -> None:
    model = forked_net()
    optimizer = torch.optim.LBFGS(model.parameters(), max_iter=4, lr=0.1)

    def closure() -> float:
        optimizer.zero_grad()
        return float(sum(loss.detach() for loss in backward_through_fork(model).values()))

    first = optimizer.step(closure)
    for _ in range(5):
        last = optimizer.step(closure)
    assert last < first


def test_fork_warns_once_of_one_task_per_backward() -> None:
    model = forked_net()
    losses = losses_of(model(X), TARGETS)
    losses["a"].backward(retain_graph=True)
    with pytest.warns(UserWarning, match="backward once, on the sum"):
        losses["b"].backward(retain_graph=True)
    losses["c"].backward()


def test_fork_retained_graphs_can_be_used_again() -> None:
    model, once = forked_net(), forked_net()
    loss = total(losses_of(model(X), TARGETS))
    loss.backward(retain_graph=True)
    loss.backward()
    backward_through_fork(once)
    torch.testing.assert_close(gradients(model), 2 * gradients(once), rtol=1e-12, atol=1e-14)


def test_fork_refuses_a_branch_of_a_finished_step_with_the_cure() -> None:
    model = forked_net()
    branch = model.fork(model.encoder(X))
    total(losses_of({t: model.heads[t](branch[t]) for t in TASKS}, TARGETS)).backward()
    with pytest.raises(RuntimeError, match="retain_graph=True"):
        branch["a"].sum().backward()


def test_fork_gradients_accumulate_over_steps() -> None:
    model, once = forked_net(), forked_net()
    backward_through_fork(model)
    backward_through_fork(model)
    backward_through_fork(once)
    torch.testing.assert_close(gradients(model), 2 * gradients(once), rtol=1e-12, atol=1e-14)


def test_fork_gives_frozen_and_unused_parameters_no_gradient() -> None:
    model = forked_net()
    model.encoder[0].requires_grad_(False)
    model.unused = nn.Linear(3, 3)
    backward_through_fork(model)
    assert model.encoder[0].weight.grad is None
    rows = rows_of_unfrozen(model)
    torch.testing.assert_close(
        torch.cat([model.encoder[2].weight.grad.flatten(), model.encoder[2].bias.grad]), fork_weights(model) @ rows
    )


def rows_of_unfrozen(model: Net) -> Tensor:
    outputs = losses_of({t: h(model.encoder(X)) for t, h in model.heads.items()}, TARGETS)
    parameters = [p for p in model.encoder.parameters() if p.requires_grad]
    rows = [
        torch.cat([g.flatten() for g in torch.autograd.grad(v, parameters, retain_graph=True)])
        for v in outputs.values()
    ]
    return torch.stack(rows)


def test_fork_gives_shared_heads_the_plain_sum() -> None:
    fork = pt.Fork(pt.MGDA(), ("a", "b"))
    encoder, head = nn.Linear(5, 6).double(), nn.Linear(6, 2).double()
    branch = fork(encoder(X))
    losses = losses_of({t: head(branch[t]) for t in ("a", "b")}, TARGETS)
    total(losses).backward()
    z = encoder(X)
    plain = torch.autograd.grad(total(losses_of({t: head(z) for t in ("a", "b")}, TARGETS)), list(head.parameters()))
    torch.testing.assert_close(gradients(head), torch.cat([g.flatten() for g in plain]))


def test_fork_warns_once_of_own_inputs_and_names_the_balancer() -> None:
    fork = pt.Fork(pt.MGDA(), ("a", "b"))
    encoder = nn.Linear(5, 4).double()
    for expected in (True, False):
        branch = fork(encoder(X))
        loss = branch["a"][:6].square().mean() + branch["b"][6:].exp().mean()
        if expected:
            with pytest.warns(UserWarning, match=r"paretorch\.Balancer"):
                loss.backward()
        else:
            loss.backward()


def test_fork_releases_forwards_without_backward() -> None:
    model = forked_net()
    z = model.encoder(X)
    held = weakref.ref(z)
    branch = model.fork(z)
    del z, branch
    gc.collect()
    assert held() is None


def test_fork_calls_parameter_hooks_once_with_the_combined_gradient() -> None:
    model, plain = forked_net(), forked_net()
    backward_through_fork(plain)
    recorded_gradients: dict[Tensor, Tensor] = {}

    def record(parameter: Tensor) -> None:
        assert parameter.grad is not None
        recorded_gradients[parameter] = parameter.grad.clone()

    for p in model.parameters():
        p.register_post_accumulate_grad_hook(record)
    backward_through_fork(model)
    torch.testing.assert_close(
        torch.cat([recorded_gradients[p].flatten() for p in model.parameters()]), gradients(plain)
    )


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda m: pt.Fork(pt.MGDA(), ()), "at least one"),
        (lambda m: pt.Fork(pt.MGDA(), ("a", "a")), "more than once"),
        (lambda m: pt.Fork(pt.MGDA(), "ab"), "sequence of names"),
        (lambda m: pt.Fork(cast(Any, pt.MGDA), ("a", "b")), "expected a balancing method"),
        (lambda m: pt.Fork(pt.MGDA(), ("a", "b"), scale=cast(Any, "raw")), "scale"),
        (lambda m: pt.Fork(pt.MGDA(), ("a", "b"), heads=cast(Any, "none")), "heads"),
        (lambda m: pt.Fork(pt.MGDA(), ("a", "b"), every=0), "every"),
        (lambda m: pt.Fork(pt.GradDrop(), ("a", "b"), every=2), "every"),
        (lambda m: pt.Fork(pt.GradDrop(), ("a", "b"), heads="weighted"), "no weights"),
        (lambda m: pt.Fork(pt.FAMO(), ("a", "b"), gap=2), "gap"),
        (lambda m: pt.Fork(pt.MGDA(), ("a", "b"), gap=2, heads="weighted"), "gap"),
        (lambda m: pt.Fork(pt.MGDA(), ("a", "b"), factor=0.0), "factor"),
        (lambda m: pt.Fork(pt.MGDA(), ("a", "b"), group="world"), "group"),
        (lambda m: m.fork(torch.ones(3, 4)), "require grad"),
        (lambda m: m.fork({"z": torch.ones(3, 4, dtype=torch.int64)}), "int64"),
        (lambda m: m.fork.losses({"A": m(X)["a"].sum()}), "did you mean 'a'|declared are 'a', 'b', 'c'"),
        (lambda m: m.fork.losses({"a": m(X)["a"]}), "scalar"),
        (lambda m: m.fork.losses({"a": m(X)["a"][:0, 0]}), "left out|leave the task out"),
        (lambda m: m.fork.losses({"a": 3.0}), "scalar tensor, got float"),
        (lambda m: m.fork.losses({"a": float("nan")}), "scalar tensor, got float"),
        (lambda m: m.fork.losses({"a": False}), "scalar tensor, got bool"),
        (lambda m: m.fork.losses({"a": torch.tensor(3.0)}), "no graph"),
        (lambda m: m.fork.losses([m(X)["a"].sum()]), "dict"),
        (
            lambda m: m.fork.losses({"a": m(X)["a"].sum(), "b": torch.ones((), device="meta", requires_grad=True)}),
            "one device",
        ),
    ],
)
def test_fork_refuses_invalid_input_with_a_cure(call: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        call(forked_net())


def test_fork_refuses_losses_before_any_forward() -> None:
    with pytest.raises(RuntimeError, match="comes after"):
        forked_net().fork.losses({"a": torch.ones((), requires_grad=True) * 1})
