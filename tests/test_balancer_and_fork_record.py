"""The record of a step: the same form for Fork, Balancer and every method, as numbers and as a table."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

import paretorch as pt
from methods import METHODS
from paretorch.core.contract import Balance, Need
from small_models import TASKS, Net, data, losses_of, total

X, TARGETS = data()
ALL = [entry.method for entry in METHODS if not isinstance(entry.method, pt.Static)] + [
    pt.Static(dict.fromkeys(TASKS, 2.0))
]
FORKED = [method for method in ALL if method.features and method.batches == 1]


def record(by: str, method: pt.Method[Any], absent: bool = False, **options: Any) -> Balance:
    net = Net(fork=pt.Fork(method, TASKS, **options) if by == "fork" else None)
    losses: dict[str, Tensor | None] = dict(losses_of(net(X), TARGETS))
    if absent:
        losses["b"] = None
    if by == "fork":
        total(net.fork.losses(losses)).backward()
        found: Balance = net.fork.balance
        return found

    def further() -> dict[str, Tensor | None]:
        made: dict[str, Tensor | None] = dict(losses_of(net(X), TARGETS))
        return made | ({"b": None} if absent else {})

    others = [further() for _ in range(method.batches - 1)]
    return pt.Balancer(method, TASKS, **options).backward(losses, others=others)


CASES = [("fork", method) for method in FORKED] + [("balancer", method) for method in ALL]


@pytest.mark.parametrize("absent", [False, True])
@pytest.mark.parametrize(("by", "method"), CASES, ids=lambda part: part if isinstance(part, str) else repr(part))
def test_balance_has_one_entry_for_each_declared_task(by: str, method: pt.Method[Any], absent: bool) -> None:
    balance = record(by, method, absent)
    assert balance.tasks == TASKS
    assert balance.present is not None
    assert balance.present.tolist() == [True, not absent, True]
    for column in (balance.heads, balance.losses, balance.factor):
        assert column is not None
        assert column.shape == (3,)
    assert balance.losses is not None
    assert math.isnan(balance.losses[1]) == absent
    if Need.JACOBIAN not in method.needs:
        assert balance.weights is not None
        assert balance.weights.shape == (3,)
        assert (float(balance.weights[1]) == 0) or not absent
    if method.needs == Need.LOSSES:
        for name in ("norms", "cosines"):
            with pytest.raises(
                AttributeError, match=f"this step has no {name}: the tasks' gradients were not compared"
            ):
                getattr(balance, name)
    else:
        assert balance.norms.shape == (3,)
        assert balance.cosines.shape == (3, 3)
        assert (float(balance.norms[1]) == 0) == absent
    numbers = balance.scalars()
    assert all(isinstance(value, float) and not math.isnan(value) for value in numbers.values())
    assert ("loss/b" in numbers) == (not absent)
    assert ("cosine/a/c" in numbers) == (method.needs != Need.LOSSES)
    assert "cosine/a/b" not in numbers or not absent
    assert ("b (absent)" in repr(balance)) == absent
    assert "tensor" not in repr(balance)


@pytest.mark.parametrize("by", ["fork", "balancer"])
def test_balance_scalars_are_the_numbers_of_the_record(by: str) -> None:
    balance = record(by, pt.UPGrad())
    assert balance.weights is not None
    assert balance.losses is not None
    numbers = balance.scalars("balance")
    expected = {f"balance/weight/{task}": float(value) for task, value in zip(TASKS, balance.weights, strict=True)}
    expected |= {f"balance/loss/{task}": float(value) for task, value in zip(TASKS, balance.losses, strict=True)}
    expected |= {f"balance/norm/{task}": float(value) for task, value in zip(TASKS, balance.norms, strict=True)}
    expected |= {
        f"balance/cosine/{TASKS[one]}/{TASKS[two]}": float(balance.cosines[one, two])
        for one, two in ((0, 1), (0, 2), (1, 2))
    }
    assert numbers == expected
    assert {f"balance/{name}": value for name, value in balance.scalars().items()} == numbers


def test_balance_table_has_the_numbers_of_each_task() -> None:
    gramian = torch.tensor([[4.0, 3.0, 0.0], [3.0, 9.0, 0.0], [0.0, 0.0, 0.0]], dtype=torch.float64)
    balance = Balance(
        weights=torch.tensor([0.5, 1.25, 0.0], dtype=torch.float64),
        tasks=("seg", "depth", "normals"),
        present=torch.tensor([True, True, False]),
        gramian=gramian,
        losses=torch.tensor([0.1, 20.0, torch.nan], dtype=torch.float64),
        heads=torch.ones(3, dtype=torch.float64),
        gap={"cosine": 0.75},
    )
    lines = repr(balance).splitlines()
    assert lines[0] == "Balance(status=solved, cosine=0.75)"
    assert lines[1].split() == ["task", "weight", "norm", "loss", "lowest", "cosine"]
    assert [line.split() for line in lines[2:]] == [
        ["seg", "0.5", "2", "0.1", "0.5"],
        ["depth", "1.25", "3", "20", "0.5"],
        ["normals", "(absent)", "0", "0"],
    ]
    assert len({len(line) for line in lines[1:4]}) == 1
    assert balance.scalars()["gap/cosine"] == 0.75


def test_balance_norms_of_reused_weights_raise_with_the_reason() -> None:
    net = Net(fork=pt.Fork(pt.MGDA(), TASKS, every=3))
    for _ in range(2):
        total(losses_of(net(X), TARGETS)).backward()
    assert net.fork.balance.weights.shape == (3,)
    with pytest.raises(AttributeError, match=r"the weights of an earlier step were reused \(every=\)"):
        _ = net.fork.balance.norms
    assert set(net.fork.balance.scalars()) == {"weight/a", "weight/b", "weight/c"}


def test_balance_heads_are_those_that_the_balancer_used() -> None:
    balance = record("balancer", pt.LogLosses(pt.MGDA()))
    assert balance.heads is not None
    assert balance.scalars()["head/a"] == float(balance.heads[0])
    assert "head" in repr(balance)
    assert record("balancer", pt.MGDA()).heads.tolist() == [1, 1, 1]  # type: ignore[union-attr]


@pytest.mark.parametrize("zero", [0, 0.0, torch.tensor(0.0), torch.tensor(0.0, dtype=torch.float64), None], ids=repr)
@pytest.mark.parametrize("method", [pt.MGDA(), pt.FAMO(), pt.Uncertainty(), pt.UPGrad()], ids=repr)
@pytest.mark.parametrize("by", ["fork", "balancer"])
def test_loss_without_a_graph_that_is_zero_is_an_absent_task(by: str, method: pt.Method[Any], zero: Any) -> None:
    """What is written for a batch without labels takes the step that leaving the task out takes."""
    found = []
    for value in (zero, None):
        net = Net(fork=pt.Fork(method, TASKS) if by == "fork" else None)
        losses: dict[str, Any] = losses_of(net(X), TARGETS) | {"b": value}
        balancer = pt.Balancer(method, TASKS, shared=net.encoder)
        if by == "fork":
            total(net.fork.losses(losses)).backward()
        balance: Any = net.fork.balance if by == "fork" else balancer.backward(losses)
        assert balance.present.tolist() == [True, False, True]
        found.append([p.grad for p in net.parameters() if p.grad is not None])
    for one, other in zip(*found, strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("by", ["fork", "balancer"])
def test_step_of_zeros_without_a_graph_has_no_present_task(by: str) -> None:
    net = Net(fork=pt.Fork(pt.MGDA(), TASKS))
    zeros: dict[str, Any] = {"a": 0.0, "b": torch.tensor(0.0), "c": 0}
    outputs = net(X)
    if by == "fork":
        recorded = net.fork.losses(zeros)
        total(recorded).backward()
        assert outputs.keys() == set(TASKS)
        assert all(not bool(p.grad.any()) for p in net.encoder.parameters())
    else:
        with pytest.raises(ValueError, match="got no losses"):
            pt.Balancer(pt.MGDA(), TASKS).backward(zeros)


@pytest.mark.parametrize("value", [torch.tensor(2.0), torch.tensor(torch.nan)])
def test_loss_without_a_graph_that_is_not_zero_is_refused(value: Tensor) -> None:
    net = Net(fork=pt.Fork(pt.MGDA(), TASKS))
    losses: dict[str, Any] = losses_of(net(X), TARGETS) | {"b": value}
    with pytest.raises(ValueError, match="'b' has no graph"):
        net.fork.losses(losses)
    with pytest.raises(ValueError, match="'b' has no graph"):
        pt.Balancer(pt.MGDA(), TASKS).backward(losses)


@pytest.mark.parametrize("heads", ["own", "weighted"])
@pytest.mark.parametrize("by", ["fork", "balancer"])
@pytest.mark.parametrize(
    "method",
    [pt.MGDA(), pt.FAMO(), pt.Static({"a": 2.0, "b": 3.0, "c": 0.5}), pt.LogLosses(pt.UPGrad())],
    ids=str,
)
def test_balance_heads_are_the_factors_that_were_applied(method: pt.Method[Any], by: str, heads: Any) -> None:
    net = Net(fork=pt.Fork(method, TASKS, heads=heads) if by == "fork" else None)
    x, targets = data()
    losses = losses_of(net(x), targets)
    plain = {t: torch.autograd.grad(losses[t], net.heads[t].weight, retain_graph=True)[0] for t in TASKS}
    if by == "fork":
        total(net.fork.losses(losses)).backward()
        balance = net.fork.balance
    else:
        balance = pt.Balancer(method, TASKS, heads=heads, shared=net.encoder).backward(losses)
    applied = torch.stack([(net.heads[t].weight.grad * plain[t]).sum() / plain[t].square().sum() for t in TASKS])
    torch.testing.assert_close(balance.heads, applied, rtol=1e-9, atol=1e-12)


def test_single_task_is_compared_on_earlier_shared_parameters() -> None:
    net = Net()
    x, targets = data()
    for method in (pt.MGDA(), pt.GradNorm()):
        balancer = pt.Balancer(method, TASKS)
        first = balancer.backward(losses_of(net(x), targets)).norms[0]
        alone = balancer.backward({"a": losses_of(net(x), targets)["a"]}).norms[0]
        torch.testing.assert_close(alone, first)
