"""Methods that look at the gradients themselves, over two ranks, against one process on the joined batch."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import paretorch as pt
import ranks
from methods import METHODS
from models import TASKS, Net, gradients
from paretorch.core.contract import Need
from ranks import on_ranks
from test_distributed import joined_losses

STEPS = 3
JACOBIAN = {entry.name: entry.method for entry in METHODS if Need.JACOBIAN in entry.method.needs}
ranks.METHODS.update({name: lambda method=method: method for name, method in JACOBIAN.items()})  # type: ignore[misc]


def all_steps(rank: int) -> dict[str, torch.Tensor]:
    """(STEPS, P) gradients of every method's run; one set of processes for all of them."""
    return {name: ranks.balanced_steps(rank, name, {}, "all", STEPS)["gradients"] for name in JACOBIAN}


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    return on_ranks(all_steps, 2, tmp_path_factory.mktemp("jacobian"))


def one_process(method: pt.Method[Any]) -> torch.Tensor:
    """(STEPS, P) gradients of the same steps on both ranks' data at once."""
    net = Net()
    balancer, found = pt.Balancer(method, TASKS, shared=net.encoder), []
    for _ in range(STEPS):
        net.zero_grad()
        balancer.backward(joined_losses(net, 2, "all"))
        found.append(gradients(net))
        with torch.no_grad():
            for p in net.parameters():
                assert p.grad is not None
                p.sub_(0.05 * p.grad)
    return torch.stack(found)


@pytest.mark.parametrize("name", [name for name, method in JACOBIAN.items() if not method.random])
def test_two_ranks_equal_one_process(two: list[Any], name: str) -> None:
    expected = one_process(JACOBIAN[name])
    for result in two:
        torch.testing.assert_close(result[name], expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", [name for name, method in JACOBIAN.items() if method.random])
def test_random_methods_send_one_gradient_on_both_ranks(two: list[Any], name: str) -> None:
    one, other = (result[name] for result in two)
    assert torch.equal(one, other)
    assert bool(torch.isfinite(one).all())
    assert bool(one.any(dim=1).all())
