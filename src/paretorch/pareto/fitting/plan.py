"""What a front is trained with: data order, optimizer, schedule, and when to look at the validation data."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor

from paretorch.pareto.front import Moment
from paretorch.pareto.hypervolume import hypervolume
from paretorch.workloads.base import Workload
from paretorch.workloads.streams import Stream, steps_per_epoch

LOOKS = 50  # at the validation data, by default
PROGRESSES = (0.0, 0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.999)  # at which schedules are compared
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

    def declared(self, algorithm: object, given: Tensor) -> dict[str, str]:
        """What decides the numbers of the training, in words by argument; its optimizer is told by :func:`described`."""
        return {
            "algorithm": str(algorithm),
            "workload": str(self.workload),
            "epochs": str(self.epochs),
            "batch_size": str(self.batch_size),
            "seed": str(self.seed),
            "starts": self.starts,
            "preferences": str(given.tolist()),
            "schedule": ", ".join(f"{self.factor(progress):.9g} at {progress:g}" for progress in PROGRESSES),
            "reference": str(self.reference),
            "every": str(self.between),
            "execution": self.execution,
        }

    @property
    def between(self) -> int:
        """Epochs between two looks at the validation data."""
        return max(1, self.epochs // LOOKS) if self.every is None else self.every

    def steps(self, streams: tuple[Stream, ...]) -> int:
        """Of the whole training."""
        return self.epochs * steps_per_epoch(streams, self.batch_size)

    def factor(self, progress: float) -> float:
        """Of the learning rate."""
        return 1.0 if self.schedule is None else float(self.schedule(progress))

    def looks(self, done: int) -> bool:
        """Whether the validation data are looked at after so many epochs; always after the last."""
        return done == self.epochs or done % self.between == 0

    def moment(self, epoch: int, gradients: int, seconds: float, losses: Tensor) -> Moment:
        """The front after so many epochs, by the (N, T) losses of its members; those that are not finite do not count."""
        finite = losses[losses.isfinite().all(dim=1)]
        point = None if self.reference is None else torch.tensor(self.reference, dtype=torch.float64)
        volume = float("nan") if point is None else hypervolume(finite, point)
        return Moment(epoch, gradients, seconds, tuple(tuple(row) for row in losses.tolist()), volume)


def described(optimizer: torch.optim.Optimizer) -> str:
    """A freshly made optimizer in words: its class, and the plain options of each of its parameter groups.

    Example:
        >>> described(torch.optim.Rprop([torch.zeros(1)], lr=0.1, foreach=False))[:49]
        'Rprop(lr=0.1, etas=(0.5, 1.2), step_sizes=(1e-06,'
    """
    plain = (bool, int, float, str, tuple, list, Tensor, type(None))
    groups = []
    for group in optimizer.param_groups:
        options = {name: value for name, value in group.items() if name != "params" and isinstance(value, plain)}
        words = (f"{name}={v.tolist() if isinstance(v, Tensor) else v}" for name, v in options.items())
        groups.append(", ".join(words))
    return f"{type(optimizer).__name__}({'; '.join(groups)})"


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
