"""Losses and gradients that are not finite: kept, refused, or skipped, and the effect on .grad and on the state."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any, Literal

import pytest
import torch
from torch import Tensor, nn

import paretorch as pt
from paretorch.core.contract import Method, Status

F64 = torch.float64
TASKS = ("a", "b", "c")
METHODS: list[Method[Any]] = [pt.MGDA(), pt.UPGrad(), pt.GradDrop(), pt.FAMO(), pt.Uncertainty(), pt.GradNorm()]
LOSSES: list[Method[Any]] = [pt.FAMO(), pt.Uncertainty(), pt.DWA(), pt.RLW()]
OPTIONS: tuple[Literal["raise"], Literal["pass"]] = "raise", "pass"
over_methods = pytest.mark.parametrize("method", METHODS, ids=repr)
over_losses = pytest.mark.parametrize("method", LOSSES, ids=repr)


class FeatureNet(nn.Module):
    def __init__(self, heads: bool = True) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.encoder = nn.Sequential(nn.Linear(5, 8, dtype=F64), nn.Tanh(), nn.Linear(8, 6, dtype=F64))
        self.heads = nn.ModuleDict({task: nn.Linear(6, 1, dtype=F64) if heads else nn.Identity() for task in TASKS})

    def losses(self, branch: dict[str, Tensor]) -> dict[str, Tensor]:
        return {t: (head(branch[t]) - i).square().mean() for i, (t, head) in enumerate(self.heads.items())}

    def features(self) -> Tensor:
        made: Tensor = self.encoder(torch.randn(8, 5, dtype=F64, generator=torch.Generator().manual_seed(3)))
        return made

    def grads(self) -> list[Tensor | None]:
        return [None if p.grad is None else p.grad.clone() for p in self.parameters()]


# What is added to a loss: what breaks the value, what breaks the gradient behind a finite value, and where.
BREAKS: dict[str, Callable[[FeatureNet, Tensor], Tensor]] = {
    "nan loss": lambda net, z: z.sum() * math.nan,
    "infinite loss": lambda net, z: z.sum() * math.inf,
    "gradient on the features": lambda net, z: (z.sum() * 0).sqrt(),
    "nan loss without a gradient": lambda net, z: (z * 0).sum().detach() + math.nan,
}


def on_fork(
    net: FeatureNet, fork: pt.Fork, broken: Callable[[FeatureNet, Tensor], Tensor] | None, records_losses: bool = True
) -> None:
    branch = fork(net.features())
    losses: dict[str, Tensor | None] = dict(net.losses(branch))
    if broken is not None:
        losses["b"] = losses["b"] + broken(net, branch["b"])  # type: ignore[operator]
    recorded = fork.losses(losses) if records_losses else losses
    sum(loss for loss in recorded.values() if loss is not None).backward()  # type: ignore[union-attr]


def without_b(net: FeatureNet, fork: pt.Fork) -> None:
    losses = net.losses(fork(net.features()))
    sum(fork.losses({"a": losses["a"], "c": losses["c"]}).values()).backward()  # type: ignore[union-attr]


@pytest.mark.parametrize("kind", BREAKS)
@over_methods
def test_fork_that_skips_balances_the_other_tasks(method: Method[Any], kind: str) -> None:
    found = []
    for run in (lambda n, f: on_fork(n, f, BREAKS[kind]), without_b):
        net, fork = FeatureNet(), pt.Fork(method, TASKS, nonfinite="skip")
        run(net, fork)
        found.append((net.encoder[0].weight.grad, net.heads["a"].weight.grad, fork))
    fork = found[0][2]
    assert fork.balance is not None
    assert fork.balance.present is not None
    assert fork.balance.present.tolist() == [True, False, True]
    assert fork.skipped == {"b": 1}
    known_before = "loss" in kind or not isinstance(method, pt.FAMO | pt.Uncertainty)
    if known_before:  # else the weights of the other losses include a task with a gradient that is not known yet
        for one, other in zip(found[0][:2], found[1][:2], strict=True):
            torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-14)
    assert found[0][0] is not None
    assert bool(torch.isfinite(found[0][0]).all())  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["nan loss", "infinite loss", "nan loss without a gradient"])
@over_methods
def test_fork_gives_the_head_of_a_skipped_loss_no_gradient(method: Method[Any], kind: str) -> None:
    net, fork = FeatureNet(), pt.Fork(method, TASKS, nonfinite="skip")
    on_fork(net, fork, BREAKS[kind])
    assert net.heads["b"].weight.grad is None
    assert all(bool(p.grad.isfinite().all()) for p in net.parameters() if p.grad is not None)


@pytest.mark.parametrize("kind", BREAKS)
@over_methods
def test_fork_that_raises_names_the_task_and_changes_neither_encoder_nor_state(method: Method[Any], kind: str) -> None:
    net, fork = FeatureNet(), pt.Fork(method, TASKS, nonfinite="raise")
    on_fork(net, fork, None)
    before, state, record = net.grads(), {k: v.clone() for k, v in fork.state_dict().items()}, fork.balance
    with pytest.raises(FloatingPointError, match="of 'b' is not finite"):
        on_fork(net, fork, BREAKS[kind])
    encoder = len(list(net.encoder.parameters()))
    heads = slice(0, encoder) if kind == "gradient on the features" else slice(None)  # heads are known before, or not
    for one, other in zip(net.grads()[heads], before[heads], strict=True):
        assert torch.equal(one, other)  # type: ignore[arg-type]
    for name, value in fork.state_dict().items():
        assert torch.equal(value, state[name]), name
    assert repr(fork.balance) == repr(record)


@pytest.mark.parametrize("records_losses", [True, False])
def test_fork_skips_without_recorded_losses_and_while_weights_are_reused(records_losses: bool) -> None:
    net, fork = FeatureNet(), pt.Fork(pt.MGDA(), TASKS, nonfinite="skip", every=3)
    on_fork(net, fork, None, records_losses)
    on_fork(net, fork, BREAKS["gradient on the features"], records_losses)
    assert fork.skipped == {"b": 1}
    assert bool(net.encoder[0].weight.grad.isfinite().all())  # type: ignore[union-attr, operator]


def test_fork_that_skips_every_task_does_not_change_the_encoder() -> None:
    fork = pt.Fork(pt.MGDA(), ("a", "b"), nonfinite="skip")
    z = torch.ones(3, 2, requires_grad=True)
    branch = fork(z)
    (branch["a"] * math.nan).sum().add((branch["b"] * math.inf).sum()).backward()
    assert z.grad is None
    assert fork.balance is not None
    assert fork.balance.status is Status.ABSENT


@pytest.mark.filterwarnings("ignore:the loss of 'b' is nan")
@pytest.mark.parametrize("heads", ["own", "weighted"])
@pytest.mark.parametrize("nonfinite", ["pass", "skip"])
def test_methods_agree_on_a_nan_loss_without_a_gradient(nonfinite: Any, heads: Any) -> None:
    """As cross entropy gives if every label is ignored: the step does not depend on what the method needs."""
    records = []
    for method in (pt.FAMO(), pt.MGDA(), pt.UPGrad(), pt.Uncertainty()):
        for by in ("fork", "balancer"):
            net = FeatureNet()
            if by == "fork":
                fork = pt.Fork(method, TASKS, nonfinite=nonfinite, heads=heads)
                on_fork(net, fork, BREAKS["nan loss without a gradient"])
                balance = fork.balance
            else:
                z = net.features()
                losses: dict[str, Tensor | None] = dict(net.losses(dict.fromkeys(TASKS, z)))
                logits, ignored = net.heads["b"](z).expand(8, 3), torch.full((8,), -100)
                ignored_loss = nn.functional.cross_entropy(logits, ignored)
                assert bool(ignored_loss.isnan())
                losses["b"] = ignored_loss
                balance = pt.Balancer(method, TASKS, nonfinite=nonfinite).backward(losses)
            assert balance is not None
            records.append((balance.status, balance.present.tolist()))  # type: ignore[union-attr]
            if nonfinite == "pass":
                assert balance.weights is not None
                assert balance.weights.tolist() == [1, 1, 1]
    expected = (Status.NONFINITE, [True] * 3) if nonfinite == "pass" else (Status.SOLVED, [True, False, True])
    assert set(map(repr, records)) == {repr(expected)}


# --- the Balancer ------------------------------------------------------------------------------------------------------------


def on_balancer(
    net: FeatureNet, balancer: pt.Balancer, broken: Callable[[FeatureNet, Tensor], Tensor] | None, which: str = "b"
) -> None:
    z = net.features()
    losses: dict[str, Tensor | None] = dict(net.losses(dict.fromkeys(TASKS, z)))
    if broken is not None:
        losses[which] = losses[which] + broken(net, z)  # type: ignore[operator]
    balancer.backward(losses)


PLACES = BREAKS | {
    "gradient on the encoder": lambda net, z: (next(net.encoder.parameters()).sum() * 0).sqrt(),
}


@pytest.mark.parametrize("heads", [True, False], ids=["heads", "no heads"])
@pytest.mark.parametrize("which", TASKS)
@pytest.mark.parametrize("kind", PLACES)
@pytest.mark.parametrize("method", [*LOSSES, pt.MGDA(), pt.GradDrop()], ids=repr)
def test_balancer_that_raises_names_the_task_and_changes_neither_grad_nor_state(
    method: Method[Any], kind: str, which: str, heads: bool
) -> None:
    net, balancer = FeatureNet(heads), pt.Balancer(method, TASKS)
    on_balancer(net, balancer, None)
    before, state, record = net.grads(), {k: v.clone() for k, v in balancer.state_dict().items()}, balancer.balance
    with pytest.raises(FloatingPointError, match=f"of '{which}' is not finite"):
        on_balancer(net, balancer, PLACES[kind], which)
    for one, other in zip(net.grads(), before, strict=True):
        assert torch.equal(one, other)  # type: ignore[arg-type]
    for name, value in balancer.state_dict().items():
        torch.testing.assert_close(value, state[name], rtol=0, atol=0, equal_nan=True, msg=name)
    assert repr(balancer.balance) == repr(record)
    on_balancer(net, balancer, None)


@pytest.mark.parametrize("heads", [True, False], ids=["heads", "no heads"])
@pytest.mark.parametrize("kind", PLACES)
@pytest.mark.parametrize("method", [*LOSSES, pt.MGDA(), pt.GradDrop()], ids=repr)
def test_balancer_that_skips_balances_the_other_tasks(method: Method[Any], kind: str, heads: bool) -> None:
    net, other = FeatureNet(heads), FeatureNet(heads)
    balancer, expected = pt.Balancer(method, TASKS, nonfinite="skip"), pt.Balancer(method, TASKS)
    on_balancer(net, balancer, PLACES[kind])
    losses = other.losses(dict.fromkeys(TASKS, other.features()))
    expected.backward({"a": losses["a"], "c": losses["c"]})
    assert balancer.skipped == {"b": 1}
    for one, two in zip(net.grads(), other.grads(), strict=True):
        if one is None or two is None:
            assert one is two
        else:
            torch.testing.assert_close(one, two, rtol=1e-12, atol=1e-14)
    for name, value in balancer.state_dict().items():
        torch.testing.assert_close(value, expected.state_dict()[name], equal_nan=True, msg=name)


@pytest.mark.parametrize("alone", [False, True], ids=["with features", "head alone"])
@pytest.mark.parametrize("method", [*LOSSES, pt.MGDA(), pt.GradDrop()], ids=repr)
def test_balancer_detects_a_nonfinite_gradient_on_a_head_alone(method: Method[Any], alone: bool) -> None:
    def losses(net: FeatureNet) -> dict[str, Tensor]:
        made = net.losses(dict.fromkeys(TASKS, net.features()))
        head: Tensor = net.heads["b"].weight  # type: ignore[assignment]
        return made | {"b": (1.0 if alone else made["b"]) + (head.sum() * 0).sqrt()}

    net, balancer = FeatureNet(), pt.Balancer(method, TASKS)
    with pytest.raises(FloatingPointError, match="of 'b' is not finite"):
        balancer.backward(losses(net))
    assert all(gradient is None for gradient in net.grads())
    balancer.nonfinite = "skip"
    balancer.backward(losses(net))
    assert balancer.skipped == {"b": 1}
    other = FeatureNet()
    plain = other.losses(dict.fromkeys(TASKS, other.features()))
    pt.Balancer(method, TASKS).backward({"a": plain["a"], "c": plain["c"]})
    for one, two in zip(net.grads(), other.grads(), strict=True):
        torch.testing.assert_close(torch.zeros(1) if one is None else one, torch.zeros(1) if two is None else two)


@over_losses
def test_balancer_checked_gradients_equal_those_of_an_ordinary_backward_with_its_hooks(method: Method[Any]) -> None:
    grads = []
    for nonfinite in OPTIONS:
        net = FeatureNet()
        calls: list[str] = []
        weight = net.encoder[0].weight
        weight.register_hook(lambda g: g * 2)  # type: ignore[operator]
        weight.register_post_accumulate_grad_hook(lambda p, calls=calls: calls.append("after"))  # type: ignore[operator]
        balancer = pt.Balancer(method, TASKS, nonfinite=nonfinite)
        for _ in range(2):
            on_balancer(net, balancer, None)
        assert calls == ["after"] * 2
        grads.append(net.grads())
    for one, other in zip(*grads, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-13, atol=1e-15)


def test_balancer_accumulates_sparse_and_complex_gradients_of_loss_methods_unchanged() -> None:
    grads = []
    for nonfinite in OPTIONS:
        torch.manual_seed(0)
        words, waves = nn.Embedding(9, 4, sparse=True), nn.Parameter(torch.randn(4, 4, dtype=torch.complex64))
        z = (words(torch.arange(5)).to(torch.complex64) @ waves).abs()
        balancer = pt.Balancer(pt.Uncertainty(), ("a", "b"), nonfinite=nonfinite)
        balancer.backward({"a": z.square().mean(), "b": z.exp().mean()})
        assert words.weight.grad is not None
        assert words.weight.grad.is_sparse
        grads.append((words.weight.grad.to_dense(), waves.grad))
    for one, other in zip(*grads, strict=True):
        torch.testing.assert_close(one, other)


def test_balancer_frees_a_graph_without_retain_graph() -> None:
    net = FeatureNet()
    losses = net.losses(dict.fromkeys(TASKS, net.features()))
    pt.Balancer(pt.Uncertainty(), TASKS).backward(dict(losses))
    with pytest.raises(RuntimeError, match="second time"):
        losses["a"].backward()
    losses = net.losses(dict.fromkeys(TASKS, net.features()))
    pt.Balancer(pt.Uncertainty(), TASKS).backward(dict(losses), retain_graph=True)
    losses["a"].backward()


# --- a warning where the loss or the encoder is broken, and none for an overflow under a GradScaler ----------------------------


def trained(
    method: Method[Any], records_losses: bool, bad: float | None, scaler: bool = False, steps: int = 6
) -> tuple[list[str], pt.Fork, FeatureNet]:
    """Warnings of a training in which the target of "b" is ``bad`` in the third step, or in which gradients overflow.

    Args:
        method: of the Fork.
        records_losses: whether ``fork.losses`` is called.
        bad: a value; None: no target is broken.
        scaler: whether losses are multiplied by a factor at which the gradients overflow in the first steps and, as under a
            GradScaler, such steps are skipped and the factor lowered.
        steps: number of steps.
    """
    net, fork, factor = FeatureNet().float(), pt.Fork(method, TASKS), 2.0**127 if scaler else 1.0
    fork.runner.disable_warning("observe")  # the losses after the step are not passed on
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01)
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        for step in range(steps):
            x = torch.randn(8, 5, generator=torch.Generator().manual_seed(step))
            branch = fork(net.encoder(x))
            losses = net.losses(branch)
            if bad is not None and step == 2:
                target = torch.zeros(8, 1)
                target[3] = bad
                losses["b"] = (net.heads["b"](branch["b"]) - target).square().mean()
            recorded = fork.losses(losses) if records_losses else losses
            optimizer.zero_grad()
            (factor * 40 * sum(recorded.values())).backward()  # type: ignore[union-attr]
            gradients = [p.grad for p in net.parameters() if p.grad is not None]
            if scaler and not all(bool(part.isfinite().all()) for part in gradients):
                factor /= 2.0**20
            elif scaler:
                for part in gradients:
                    part /= factor
                optimizer.step()
            else:
                optimizer.step()
    return [str(each.message) for each in found], fork, net


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize(
    ("method", "records_losses"), [(pt.MGDA(), False), (pt.MGDA(), True), (pt.GradDrop(), False), (pt.FAMO(), True)]
)
def test_fork_warns_once_of_a_broken_target_with_the_task(
    method: Method[Any], records_losses: bool, bad: float
) -> None:
    (sentence,), _, net = trained(method, records_losses, bad)
    assert "'b'" in sentence
    assert "'a'" not in sentence
    assert not bool(next(net.encoder.parameters()).isfinite().all())


@pytest.mark.parametrize(("method", "records_losses"), [(pt.MGDA(), False), (pt.MGDA(), True), (pt.FAMO(), True)])
def test_fork_does_not_warn_of_an_overflow_under_a_loss_scale(method: Method[Any], records_losses: bool) -> None:
    sentences, fork, net = trained(method, records_losses, None, scaler=True)
    assert sentences == []
    assert bool(next(net.encoder.parameters()).isfinite().all())
    assert fork.balance is not None
    overflown, after, _ = trained(method, records_losses, None, scaler=True, steps=1)
    assert overflown == []
    if method == pt.MGDA():
        assert after.balance is not None
        assert after.balance.status is Status.NONFINITE


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_record_of_a_broken_step_prints_the_norm(bad: float) -> None:
    _, fork, _ = trained(pt.MGDA(), False, bad, steps=3)
    lines = {line.split()[0]: line.split() for line in str(fork.balance).splitlines()[1:]}
    column = lines["task"].index("norm")
    assert not math.isfinite(float(lines["b"][column]))
    assert float(lines["a"][column]) == pytest.approx(float(fork.balance.norms[0]), rel=1e-3)  # type: ignore[union-attr]
