"""Small float64 models, batches and losses for tests of Fork, Balancer, methods and line searches."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

TASKS = ("a", "b", "c")


class Net(nn.Module):
    """An encoder and a head per task, with an optional fork between them."""

    encoder: Any
    heads: Any
    fork: Any

    def __init__(self, tasks: tuple[str, ...] = TASKS, seed: int = 0, fork: nn.Module | None = None) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.encoder = nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 6), nn.Tanh())
        self.heads = nn.ModuleDict({task: nn.Linear(6, 2) for task in tasks})
        self.forks = fork is not None
        if fork is not None:
            self.fork = fork
        self.double()

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        z = self.encoder(x)
        branch = self.fork(z) if self.forks else dict.fromkeys(self.heads, z)
        return {task: head(branch[task]) for task, head in self.heads.items()}


def data(samples: int = 12, seed: int = 1) -> tuple[Tensor, dict[str, Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(samples, 5, generator=generator, dtype=torch.float64)
    scales = {"a": 1.0, "b": 10.0, "c": 0.3}
    return x, {t: s * torch.randn(samples, 2, generator=generator, dtype=torch.float64) for t, s in scales.items()}


def losses_of(outputs: dict[str, Tensor], targets: dict[str, Tensor]) -> dict[str, Tensor]:
    return {task: (output - targets[task]).square().mean() for task, output in outputs.items()}


def head_losses(heads: nn.ModuleDict, z: Tensor) -> dict[str, Tensor]:
    """Mean squares of the difference to 0, 1, ... for the first, second, ... head of common features."""
    return {name: (head(z) - target).square().mean() for target, (name, head) in enumerate(heads.items())}


def total(losses: Mapping[str, Tensor]) -> Tensor:
    return sum(losses.values(), start=torch.zeros((), dtype=torch.float64))


def gradients(module: nn.Module) -> Tensor:
    """The gradients of all parameters as one vector; those that are sharded over ranks are gathered."""
    values = [torch.zeros_like(p) if p.grad is None else p.grad for p in module.parameters()]
    return torch.cat([(each.full_tensor() if isinstance(each, DTensor) else each).flatten() for each in values])


def per_task(model: Net, seed: int = 1) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """By hand: (T, n) gradients on the features, (T, P) on the encoder's parameters, and the losses."""
    x, targets = data(seed=seed)
    z = model.encoder(x)
    outputs = {task: head(z) for task, head in model.heads.items()}
    losses = losses_of(outputs, targets)
    on_features = torch.stack(
        [torch.autograd.grad(loss, z, retain_graph=True)[0].flatten() for loss in losses.values()]
    )
    parameters = list(model.encoder.parameters())
    rows = [
        torch.cat([g.flatten() for g in torch.autograd.grad(loss, parameters, retain_graph=True)])
        for loss in losses.values()
    ]
    return on_features, torch.stack(rows), losses
