"""Steps of a Balancer on two ranks that reuse the weights of an earlier one, against one process with the joined batch."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

import paretorch as pt
from ranks import on_ranks, rank_data
from small_models import TASKS, Net, gradients, losses_of

STEPS = 5


def stepped(net: Net, forward: Any, batch: tuple[Tensor, dict[str, Tensor]]) -> list[Tensor]:
    """The weights and the gradient of every step, in turn."""
    balancer, found = pt.Balancer(pt.IMTLG(), TASKS, every=3), []
    for step in range(STEPS):
        net.zero_grad()
        x, targets = batch
        balance = balancer.backward(losses_of(forward(x * (step + 1)), targets))
        assert balance.weights is not None
        found += [balance.weights, gradients(net)]
    return found


def separate_and_wrapped(rank: int) -> dict[str, list[Tensor]]:
    found = {}
    for kind in ("separate", "DDP"):
        net = Net()
        forward = DistributedDataParallel(net) if kind == "DDP" else net
        found[kind] = stepped(net, forward, rank_data(rank))
    return found


def broken_on_one(rank: int) -> dict[str, Any]:
    """The error on this rank, where the gradient breaks within the encoder of rank 1 in a step that reuses weights."""
    net, balancer = Net(), pt.Balancer(pt.IMTLG(), TASKS, every=3)
    x, targets = rank_data(rank)
    balancer.backward(losses_of(net(x), targets))
    net.zero_grad()
    middle = net.encoder[:2](x)
    if rank == 1:
        root = (0 * middle).sqrt()  # its derivative at zero is infinite
        middle = middle + root - root.detach()
    z = net.encoder[2:](middle)
    try:
        balancer.backward(losses_of({task: head(z) for task, head in net.heads.items()}, targets))
    except FloatingPointError as error:
        return {"error": str(error), "untouched": all(leaf.grad is None for leaf in net.parameters())}
    return {"error": "", "untouched": False}


@pytest.mark.long
@pytest.mark.parametrize("kind", ["separate", "DDP"])
def test_reused_weights_on_two_ranks_equal_those_of_one_process(kind: str, tmp_path: Any) -> None:
    each = [found[kind] for found in on_ranks(separate_and_wrapped, 2, tmp_path)]
    batches = [rank_data(rank) for rank in range(2)]
    x = torch.cat([batch[0] for batch in batches])
    targets = {name: torch.cat([batch[1][name] for batch in batches]) for name in TASKS}
    net = Net()
    one = stepped(net, net, (x, targets))
    for step in range(STEPS):
        for found in each:
            torch.testing.assert_close(found[2 * step], one[2 * step], rtol=1e-9, atol=1e-12)
        average = (each[0][2 * step + 1] + each[1][2 * step + 1]) / 2
        torch.testing.assert_close(average, one[2 * step + 1], rtol=1e-9, atol=1e-12)


def test_gradient_that_breaks_on_one_rank_is_reported_by_both_ranks_and_applied_on_none(tmp_path: Any) -> None:
    for found in on_ranks(broken_on_one, 2, tmp_path):
        assert "'a', 'b', 'c' is not finite" in found["error"]
        assert found["untouched"]
