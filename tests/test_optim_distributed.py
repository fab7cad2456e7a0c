"""A step on several ranks equals that of one process on the joined batch, also if a task is on one rank only."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn

from forked_processes import run_forked
from optimizers import BY_NAME, OPTIMIZERS
from paretorch.optim import MultiTaskOptimizer

RANKS, BATCH = 2, 6


def two_task_losses(net: nn.ModuleDict, x: Tensor, alone: bool) -> dict[str, Tensor]:
    """Means over samples; ``right`` is left out where ``alone``."""
    z = torch.tanh(net["shared"](x))
    found = {"left": (net["left"](z) - x[:, :1]).square().mean(), "right": 50 * net["right"](z).square().mean()}
    return {"left": found["left"]} if alone else dict(sorted(found.items(), reverse=bool(x[0, 0] > 0)))


def net() -> nn.ModuleDict:
    torch.manual_seed(0)
    sizes = {"shared": (3, 4), "left": (4, 1), "right": (4, 1)}
    return nn.ModuleDict({name: nn.Linear(*size, dtype=torch.float64) for name, size in sizes.items()})


def optimizer(name: str, model: nn.Module) -> MultiTaskOptimizer:
    return BY_NAME[name](model.parameters(), lr=1e-2, tasks=("left", "right"))


def rank_inputs(step: int) -> Tensor:
    return torch.randn(RANKS, BATCH, 3, generator=torch.Generator().manual_seed(step), dtype=torch.float64)


def train_rank(rank: int, folder: str, kind: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=RANKS)
    model = net()
    made = optimizer(kind, model)
    for step in range(6):
        made.step(two_task_losses(model, rank_inputs(step)[rank], alone=rank == 1 and step == 3))
    torch.save(model.state_dict(), f"{folder}/{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.long
@pytest.mark.parametrize("kind", [entry.name for entry in OPTIMIZERS])
def test_optimizer_on_ranks_equals_one_process(kind: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        run_forked(train_rank, (folder, kind), RANKS)
        states = [torch.load(Path(folder) / f"{rank}.pt", weights_only=True) for rank in range(RANKS)]
    model = net()
    made = optimizer(kind, model)
    for step in range(6):
        each = [two_task_losses(model, rank_inputs(step)[rank], alone=rank == 1 and step == 3) for rank in range(RANKS)]
        made.step({task: sum(found[task] for found in each if task in found) / RANKS for task in ("left", "right")})  # type: ignore[misc]
    for name, value in model.state_dict().items():
        for state in states:
            torch.testing.assert_close(state[name], value, rtol=1e-12, atol=1e-12)
