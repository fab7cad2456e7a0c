"""The checked arguments of a front's training: data order, optimizer, schedule, evaluations."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor

from paretorch.pareto.files.stored_front import FrontSnapshot
from paretorch.pareto.hypervolume import hypervolume
from paretorch.workloads.base import Workload
from paretorch.workloads.streams import Stream, steps_per_epoch

DEFAULT_EVALUATIONS = 50  # on validation data, by default
PROGRESSES = (0.0, 0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.999)  # at which schedules are compared
MakeOptimizer = Callable[[list[Tensor]], torch.optim.Optimizer]


def adam(parameters: list[Tensor]) -> torch.optim.Optimizer:
    """Adam at 1e-3."""
    return torch.optim.Adam(parameters, lr=1e-3)


@dataclass(frozen=True)
class FrontPlan:
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
    progress: Callable[[FrontSnapshot], None] | None
    group: dist.ProcessGroup | str | None
    checkpoint: str | Path | None

    def declared(self, algorithm: object, given: Tensor) -> dict[str, str]:
        """All arguments that determine the result, as text by name, except the optimizer; see :func:`described`."""
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
        """Epochs between two evaluations on validation data."""
        return max(1, self.epochs // DEFAULT_EVALUATIONS) if self.every is None else self.every

    def steps(self, streams: tuple[Stream, ...]) -> int:
        """The number of steps of the whole training."""
        return self.epochs * steps_per_epoch(streams, self.batch_size)

    def factor(self, progress: float) -> float:
        """The factor of the learning rate."""
        return 1.0 if self.schedule is None else float(self.schedule(progress))

    def is_evaluated_after(self, done: int) -> bool:
        """Whether the front is evaluated after ``done`` epochs; always after the last."""
        return done == self.epochs or done % self.between == 0

    def snapshot(self, epoch: int, gradients: int, seconds: float, losses: Tensor) -> FrontSnapshot:
        """The snapshot of members with losses (N, T); non-finite rows do not contribute to the hypervolume."""
        finite = losses[losses.isfinite().all(dim=1)]
        point = None if self.reference is None else torch.tensor(self.reference, dtype=torch.float64)
        volume = float("nan") if point is None else hypervolume(finite, point)
        return FrontSnapshot(epoch, gradients, seconds, tuple(tuple(row) for row in losses.tolist()), volume)


def described(optimizer: torch.optim.Optimizer) -> str:
    """A new optimizer as text: its class, and the plain options of each of its parameter groups.

    Example:
        >>> described(torch.optim.Rprop([torch.zeros(1)], lr=0.1, foreach=False))[:49]
        'Rprop(lr=0.1, etas=(0.5, 1.2), step_sizes=(1e-06,'
    """
    plain = (bool, int, float, str, tuple, list, Tensor, type(None))
    groups = []
    for group in optimizer.param_groups:
        options = {name: value for name, value in group.items() if name != "params" and isinstance(value, plain)}
        texts = (f"{name}={v.tolist() if isinstance(v, Tensor) else v}" for name, v in options.items())
        groups.append(", ".join(texts))
    return f"{type(optimizer).__name__}({'; '.join(groups)})"


def check_elementwise(optimizer: MakeOptimizer) -> None:
    """Checks that an optimizer updates a stack of members as it updates each of them alone.

    Raises:
        ValueError: it does not, or its step requires a closure.
    """
    start = torch.linspace(-1, 1, 24, dtype=torch.float64).reshape(2, 3, 4)
    together = start.clone().requires_grad_()
    alone = [start[member].clone().requires_grad_() for member in range(2)]
    try:
        made = [optimizer([together]), *(optimizer([value]) for value in alone)]
        for step in range(3):
            together.grad = (start + 1) ** (step + 2)
            for member, value in enumerate(alone):
                value.grad = together.grad[member].clone()
            for each in made:
                each.step()
    except (TypeError, RuntimeError, ValueError) as error:
        raise ValueError(f"the optimizer cannot train stacked models: {error}. Use one such as SGD or Adam") from error
    if not torch.allclose(together.detach(), torch.stack([value.detach() for value in alone]), rtol=1e-9, atol=1e-12):
        raise ValueError(
            f"{type(made[0]).__name__} mixes the models of a front, which are stacked in one tensor: use an "
            "elementwise optimizer such as SGD, Adam or RMSprop"
        )
