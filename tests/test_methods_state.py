"""The state of methods: absent tasks, resumption, and the gradients of heads."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import paretorch as pt
from matrices import gaussian, one_step
from methods import METHODS, MethodEntry
from paretorch.core.contract import Need
from small_models import TASKS, Net, data, gradients, losses_of

X, TARGETS = data()
JACOBIAN = [entry for entry in METHODS if Need.JACOBIAN in entry.method.needs]
STATEFUL = [
    entry.method for entry in METHODS if entry.method.init(("0", "1"), torch.zeros((), dtype=torch.float64)) is not None
]


@pytest.mark.parametrize("method", STATEFUL, ids=repr)
def test_stateful_method_accepts_absent_task(method: pt.Method[Any]) -> None:
    rows, state = gaussian(3, 5, 1), None
    _, state = one_step(method, state, rows)
    if method.batches == 1 or method.needs == Need.GRAMIAN:
        _, state = one_step(method, state, rows[[0, 2]], present=[True, False, True])
    balance, state = one_step(method, state, rows)
    result = balance.weights if balance.update is None else balance.update
    assert result is not None
    assert torch.isfinite(result).all()


@pytest.mark.parametrize("entry", JACOBIAN, ids=lambda entry: entry.name)
def test_balancer_with_stored_gradients_resumes_exactly(entry: MethodEntry) -> None:
    """The state is stored by task name, so that an equivariant method may declare its tasks in another order."""
    tasks = tuple(reversed(TASKS)) if entry.equivariant else TASKS

    def steps(model: Net, balancer: pt.Balancer, count: int) -> Tensor:
        for _ in range(count):
            model.zero_grad()
            balancer.backward(losses_of(model(X), TARGETS))
            with torch.no_grad():
                for parameter in model.parameters():
                    assert parameter.grad is not None
                    parameter.sub_(parameter.grad, alpha=1e-3)
        return gradients(model)

    model, balancer = Net(), pt.Balancer(entry.method, TASKS)
    steps(model, balancer, 3)
    other, resumed = Net(), pt.Balancer(entry.method, tasks)
    other.load_state_dict(model.state_dict())
    resumed.load_state_dict(balancer.state_dict())
    torch.testing.assert_close(steps(model, balancer, 2), steps(other, resumed, 2), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("method", [pt.DBMTL(), pt.LogLosses(pt.MGDA()), pt.IMTL()], ids=repr)
def test_balancer_heads_receive_gradient_of_the_methods_loss(method: pt.Method[Any]) -> None:
    model, plain = Net(), Net()
    pt.Balancer(method).backward(losses_of(model(X), TARGETS))
    losses = losses_of(plain(X), TARGETS)
    logs = [loss if isinstance(method, pt.IMTL) else loss.log() for loss in losses.values()]
    torch.stack(logs).sum().backward()
    torch.testing.assert_close(gradients(model.heads), gradients(plain.heads), rtol=1e-6, atol=1e-12)
