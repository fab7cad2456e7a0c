"""The Gramian from some samples of every rank's batch, against one process that draws the same of the joined batch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import paretorch as pt
from paretorch.core.multi_vjp.sample_subset import SampleSubset
from ranks import on_ranks, rank_data
from small_models import TASKS, Net, gradients

SAMPLES, STEPS = 4, 3
KINDS = ("usual", "a task that few samples have")


def rank_batch(rank: int, kind: str) -> tuple[Tensor, dict[str, Tensor]]:
    """(B, 5) inputs and (B, 2) targets; of the second kind, task ``a`` is there in one sample of rank 0 only."""
    x, targets = rank_data(rank)
    weights = torch.ones(len(x), dtype=torch.float64)
    if kind != "usual":
        weights[:] = 0
        weights[5] = float(rank == 0)
    return x, {**targets, "weights": weights}


def weighted_losses(net: Net, x: Tensor, targets: dict[str, Tensor]) -> dict[str, Tensor]:
    outputs = net(x)
    losses = {task: (outputs[task] - targets[task]).square().mean(dim=1) for task in TASKS}
    losses["a"] = losses["a"] * targets["weights"]
    return {task: loss.mean() for task, loss in losses.items()}


def stepped(net: Net, balancer: pt.Balancer, x: Tensor, targets: dict[str, Tensor]) -> list[Tensor]:
    """The Gramian of every step, and the balanced gradient of this process's batch."""
    found = []
    for _ in range(STEPS):
        net.zero_grad()
        balance = balancer.backward(weighted_losses(net, x, targets))
        assert balance.gramian is not None
        found += [balance.gramian, gradients(net)]
    return found


def sampled(rank: int) -> dict[str, list[Tensor]]:
    found = {}
    for kind in KINDS:
        net = Net()
        balancer = pt.Balancer(pt.UPGrad(), TASKS, shared=net.encoder, samples=SAMPLES)
        found[kind] = stepped(net, balancer, *rank_batch(rank, kind))
    return found


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    return on_ranks(sampled, 2, tmp_path_factory.mktemp("samples"))


@pytest.mark.long
@pytest.mark.parametrize("kind", KINDS)
def test_samples_of_two_ranks_equal_those_of_one_process_with_the_joined_batch(
    two: list[Any], kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    each, draw = [found[kind] for found in two], SampleSubset.drawn

    def of_both(batch: int, count: int, generator: torch.Generator, device: torch.device) -> SampleSubset:
        index = draw(batch // 2, SAMPLES, generator, device).index
        return SampleSubset(torch.cat([index, index + batch // 2]), batch)

    monkeypatch.setattr(SampleSubset, "drawn", of_both)
    batches: list[Any] = [rank_batch(rank, kind) for rank in range(2)]
    x = torch.cat([batch[0] for batch in batches])
    targets = {name: torch.cat([batch[1][name] for batch in batches]) for name in batches[0][1]}
    net = Net()
    one = stepped(net, pt.Balancer(pt.UPGrad(), TASKS, shared=net.encoder, samples=SAMPLES), x, targets)
    for step in range(STEPS):
        for gramian in (found[2 * step] for found in each):
            torch.testing.assert_close(gramian, one[2 * step], rtol=1e-10, atol=0)
            assert (gramian.diagonal() > 0).all()
        together = (each[0][2 * step + 1] + each[1][2 * step + 1]) / 2
        torch.testing.assert_close(together, one[2 * step + 1], rtol=1e-10, atol=1e-13)
    assert not torch.equal(one[0], one[2])  # drawn anew, of the same batch


def alone_on_one(rank: int) -> Tensor:
    """The Gramian where rank 0 has two tasks, rank 1 has one of them, and a third has no label at all."""
    net = Net()
    balancer = pt.Balancer(pt.UPGrad(), TASKS, shared=net.encoder, samples=SAMPLES)
    x, targets = rank_batch(rank, "usual")
    losses = weighted_losses(net, x, targets)
    balance = balancer.backward({task: losses[task] for task in (TASKS[:2] if rank == 0 else TASKS[:1])})
    assert balance.gramian is not None
    return balance.gramian


def test_ranks_with_one_task_and_with_several_wait_for_each_other(tmp_path: Path) -> None:
    one, other = on_ranks(alone_on_one, 2, tmp_path)
    assert torch.equal(one, other)
    assert (one.diagonal() > 0).tolist() == [True, True, False]
