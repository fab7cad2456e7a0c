"""What a front is trained with: data order, optimizer, schedule, and when to look at the validation data."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor

from paretorch.pareto.front import Moment
from paretorch.pareto.hypervolume import hypervolume
from paretorch.workloads.base import Workload
from paretorch.workloads.passes import Batch
from paretorch.workloads.streams import Stream, steps_per_epoch, training_batches

LOOKS = 50  # at the validation data, by default
MakeOptimizer = Callable[[list[Tensor]], torch.optim.Optimizer]


def adam(parameters: list[Tensor]) -> torch.optim.Optimizer:
    """Adam at 1e-3."""
    return torch.optim.Adam(parameters, lr=1e-3)


@dataclass(frozen=True)
class Plan:
    """The arguments of :func:`~paretorch.fit_front`, checked."""

    workload: Workload
    epochs: int
    batch_size: int
    optimizer: MakeOptimizer
    schedule: Callable[[float], float] | None
    reference: tuple[float, ...] | None
    starts: str
    execution: str
    seed: int
    device: str
    every: int | None
    progress: Callable[[Moment], None] | None
    group: dist.ProcessGroup | str | None
    checkpoint: str | Path | None

    def declared(self, algorithm: object, given: Tensor) -> str:
        """What decides the numbers of the training, in words."""
        return (
            f"{algorithm} on {self.workload}, epochs={self.epochs}, batch_size={self.batch_size}, seed={self.seed}, "
            f"starts={self.starts}, preferences={given.tolist()}"
        )

    def steps(self, streams: tuple[Stream, ...]) -> int:
        """Of the whole training."""
        return self.epochs * steps_per_epoch(streams, self.batch_size)

    def batches(self, streams: tuple[Stream, ...], epoch: int) -> Iterator[tuple[int, Batch]]:
        """Those of an epoch, each with the number of its step in the training."""
        first = epoch * steps_per_epoch(streams, self.batch_size)
        return enumerate(training_batches(streams, self.batch_size, self.seed, epoch), start=first)

    def factor(self, progress: float) -> float:
        """Of the learning rate."""
        return 1.0 if self.schedule is None else float(self.schedule(progress))

    def looks(self, done: int) -> bool:
        """Whether the validation data are looked at after so many epochs; always after the last."""
        every = max(1, self.epochs // LOOKS) if self.every is None else self.every
        return done == self.epochs or done % every == 0

    def moment(self, epoch: int, gradients: int, seconds: float, losses: Tensor) -> Moment:
        """The front after so many epochs, by the (N, T) losses of its members; those that are not finite do not count."""
        finite = losses[losses.isfinite().all(dim=1)]
        point = None if self.reference is None else torch.tensor(self.reference, dtype=torch.float64)
        volume = float("nan") if point is None else hypervolume(finite, point)
        return Moment(epoch, gradients, seconds, tuple(tuple(row) for row in losses.tolist()), volume)


def check_elementwise(optimizer: MakeOptimizer) -> None:
    """Refuses an optimizer that does to a stack of members something else than to each by itself.

    Raises:
        ValueError: it does, or it cannot make a step without a closure.
    """
    start = torch.linspace(-1, 1, 24, dtype=torch.float64).reshape(2, 3, 4)
    together = start.clone().requires_grad_()
    apart = [start[member].clone().requires_grad_() for member in range(2)]
    try:
        made = [optimizer([together]), *(optimizer([value]) for value in apart)]
        for step in range(3):
            together.grad = (start + 1) ** (step + 2)
            for member, value in enumerate(apart):
                value.grad = together.grad[member].clone()
            for each in made:
                each.step()
    except (TypeError, RuntimeError, ValueError) as error:
        raise ValueError(f"the optimizer cannot train stacked models: {error}. Use one such as SGD or Adam") from error
    if not torch.allclose(together.detach(), torch.stack([value.detach() for value in apart]), rtol=1e-9, atol=1e-12):
        raise ValueError(
            f"{type(made[0]).__name__} mixes the models of a front, which are stacked in one tensor: use one that treats "
            "every number by itself, such as SGD, Adam or RMSprop"
        )
