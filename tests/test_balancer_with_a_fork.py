"""A Balancer on a model that contains a Fork: the Balancer's gradients, a Fork without effect, and one warning with the cause."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch

import paretorch as pt
from small_models import TASKS, Net, data, gradients, losses_of, total

METHODS: dict[str, Any] = {"features": pt.MGDA(), "state": pt.GradVac(), "losses": pt.Uncertainty()}


def send(by: str, balancer: pt.Balancer, losses: dict[str, torch.Tensor]) -> None:
    balancer.total(losses).backward() if by == "total" else balancer.backward(losses)


@pytest.mark.parametrize("by", ["backward", "total"])
@pytest.mark.parametrize("of_fork", [*METHODS])
@pytest.mark.parametrize("method", [pt.UPGrad(), pt.GradDrop(), pt.DWA()], ids=repr)
def test_balancer_of_a_model_with_a_fork_is_that_without_and_warns_of_the_cause(
    method: Any, of_fork: str, by: str
) -> None:
    with_fork, without = Net(fork=pt.Fork(METHODS[of_fork], TASKS)), Net()
    balancers = [pt.Balancer(method, seed=3), pt.Balancer(method, seed=3)]
    fork = with_fork.fork
    before = {name: tensor.clone() for name, tensor in fork.state_dict().items()}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for step in range(3):
            x, targets = data(seed=30 + step)
            losses = losses_of(with_fork(x), targets)
            send(by, balancers[0], fork.losses(losses) if of_fork == "losses" else losses)
            send(by, balancers[1], losses_of(without(x), targets))
    (warning,) = caught
    assert "a Balancer balances losses of a model that contains this Fork" in str(warning.message)
    assert "leave the Fork and fork.losses out" in str(warning.message)
    if of_fork != "losses":  # the node of fork.losses has all losses as inputs: heads count as shared parameters
        torch.testing.assert_close(gradients(with_fork), gradients(without), rtol=1e-12, atol=1e-12)
    assert fork.balance is None
    for name, tensor in fork.state_dict().items():
        torch.testing.assert_close(tensor, before[name], rtol=0, atol=0, equal_nan=True)


@pytest.mark.filterwarnings("error")
def test_balancer_of_a_model_with_a_paused_fork_warns_of_nothing_and_the_fork_balances_afterwards() -> None:
    model = Net(fork=pt.Fork(pt.MGDA(), TASKS))
    x, targets = data(seed=40)
    with model.fork.paused():
        pt.Balancer(pt.UPGrad()).backward(losses_of(model(x), targets))
    before = model.fork.balance
    assert before is None
    model.zero_grad()
    total(losses_of(model(x), targets)).backward()
    assert model.fork.balance.weights is not None


def test_fork_balances_again_after_a_backward_of_a_balancer_that_raises() -> None:
    model = Net(fork=pt.Fork(pt.MGDA(), TASKS))
    x, targets = data(seed=41)
    losses = losses_of(model(x), targets)
    with pytest.warns(UserWarning, match="Balancer"), pytest.raises(FloatingPointError, match="'b'"):
        pt.Balancer(pt.UPGrad()).backward({**losses, "b": losses["b"] * torch.nan})
    total(losses_of(model(x), targets)).backward()
    assert model.fork.balance.weights is not None
