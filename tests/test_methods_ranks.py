"""Every method of the table, by Fork and Balancer, on two ranks under DistributedDataParallel, against one process."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

import paretorch as pt
from methods import METHODS
from ranks import on_ranks
from small_models import TASKS, Net, data, gradients, losses_of, total

STEPS = 3
WORLD = 2
ALL = {entry.name: entry.method for entry in METHODS if not isinstance(entry.method, pt.Static)}
ALL["LogLosses(GradDrop)"] = pt.LogLosses(pt.GradDrop())
ALL["Static"] = pt.Static({"a": 0.5, "b": 2.0, "c": 1.0})
CASES = [
    (by, name)
    for name, method in ALL.items()
    for by in ("fork", "balancer")
    if by == "balancer" or (method.features and method.batches == 1)
]


def batches(step: int, rank: int) -> tuple[Tensor, dict[str, Tensor]]:
    return data(samples=6, seed=17 * step + rank)


class Outputs(nn.Module):
    """What DDP wraps: the outputs on one batch, or on several that are given one after the other."""

    def __init__(self, net: Net) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        outputs: dict[str, Tensor] = self.net(x)
        return outputs


def mean_losses(outputs: dict[str, Tensor], parts: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """The mean over ranks of the losses on each rank's part of the batch."""
    sizes = [len(next(iter(part.values()))) for part in parts]
    found: dict[str, Tensor] = {}
    for task, output in outputs.items():
        pieces = output.split(sizes)
        losses = [losses_of({task: piece}, part)[task] for piece, part in zip(pieces, parts, strict=True)]
        found[task] = torch.stack(losses).mean()
    return found


def gradients_and_state(by: str, method: pt.Method[Any], ranks: list[int], wrapped: bool) -> dict[str, Tensor]:
    """Gradients of every step, and the state at the end, on the joined batch of these ranks."""
    group: Any = "all" if wrapped else None
    fork = pt.Fork(method, TASKS, group=group) if by == "fork" else None
    net = Net(fork=fork)
    balancer = None if fork is not None else pt.Balancer(method, TASKS, group=group, shared=net.encoder)
    model = DistributedDataParallel(Outputs(net)) if wrapped else Outputs(net)
    found = []

    def losses(step: int) -> dict[str, Tensor]:
        parts = [batches(step, rank) for rank in ranks]
        return mean_losses(model(torch.cat([x for x, _ in parts])), [targets for _, targets in parts])

    for step in range(STEPS):
        net.zero_grad()
        if fork is not None:
            total(fork.losses(losses(step))).backward()
        elif balancer is not None:
            further = [losses(100 * (batch + 1) + step) for batch in range(method.batches - 1)]
            balancer.backward(losses(step), others=further)
        found.append(gradients(net))
        with torch.no_grad():
            for parameter in net.parameters():
                if parameter.grad is not None:
                    parameter.sub_(0.03 * parameter.grad)
        if method.observes:
            with torch.no_grad():
                (fork or balancer).observe(losses(step))  # type: ignore[union-attr]
    state = (fork if fork is not None else balancer).state_dict()  # type: ignore[union-attr]
    return {"gradients": torch.stack(found)} | {name: value.clone() for name, value in state.items()}


def on_this_rank(rank: int, by: str, name: str) -> dict[str, Tensor]:
    return gradients_and_state(by, ALL[name], [rank], wrapped=True)


def test_method_cases_include_every_exported_method() -> None:
    exported = {name for name in pt.balance.__all__ if isinstance(getattr(pt, name), type)}
    assert exported == {type(ALL[name]).__name__ for by, name in CASES if by == "balancer"}
    for name, method in ALL.items():
        if ("fork", name) not in CASES:
            with pytest.raises(ValueError, match="cannot be used on features"):
                pt.Fork(method, TASKS)


@pytest.mark.parametrize(("by", "name"), CASES, ids=[f"{by}/{name}" for by, name in CASES])
@pytest.mark.sampled(6)
def test_method_on_two_ranks_equals_one_process(by: str, name: str, tmp_path: Path) -> None:
    expected = gradients_and_state(by, ALL[name], list(range(WORLD)), wrapped=False)
    for got in on_ranks(on_this_rank, WORLD, tmp_path, by, name):
        assert float((got["gradients"] - expected["gradients"]).norm() / expected["gradients"].norm()) <= 1e-12
        shared = {key for key, value in expected.items() if value.ndim < 2 or key == "gradients"}
        assert got.keys() == expected.keys()
        for key in shared:
            torch.testing.assert_close(got[key], expected[key], rtol=1e-10, atol=1e-12, equal_nan=True)
