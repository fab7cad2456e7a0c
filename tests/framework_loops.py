"""A small float64 model with a Fork or a Balancer, and the plain loop that a framework's must equal."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import paretorch as pt
from small_models import TASKS, Net, data, losses_of, total

METHODS: dict[str, Callable[[], pt.Method[Any]]] = {
    "upgrad": pt.UPGrad,
    "gradvac": pt.GradVac,  # has a state, from gradients
    "uncertainty": pt.Uncertainty,  # has a state, needs losses and the factor
}
OVERFLOWS = (0, 3, 6)  # the steps that the scaler skips: its factor is 2^127 there, and 2^67 and 2^97 between
Batch = tuple[Tensor, dict[str, Tensor]]


@dataclass(frozen=True)
class Loop:
    """What a loop does. ``micro``: batches of a step; ``samples``: of a batch; ``clip``: the norm of the gradient, 0 for none."""

    by: str = "balancer"  # or "fork", "plain"
    method: str = "upgrad"
    steps: int = 4
    micro: int = 1
    clip: float = 0.0
    dtype: torch.dtype = torch.float64
    autocast: bool = False
    checkpointed: bool = False
    ragged: bool = False  # whether the last step has one batch less
    scaled: bool = False  # whether a GradScaler multiplies the losses, see OVERFLOWS
    multiplied: bool = False  # whether the losses are multiplied by 100, as with a scaler

    def __str__(self) -> str:
        options = [f"micro={self.micro}"] * (self.micro > 1) + [f"clip={self.clip}"] * (self.clip > 0)
        flags = [*["checkpointed"] * self.checkpointed, *["ragged"] * self.ragged]
        return "-".join([self.by, self.method, *options, *flags])

    def batches(self, rank: int = 0) -> list[Batch]:
        """The batches of a rank, in order."""
        count = self.steps * self.micro - self.ragged
        found = (data(seed=1000 * rank + index) for index in range(count))
        return [(x.to(self.dtype), {t: y.to(self.dtype) for t, y in targets.items()}) for x, targets in found]

    def groups(self, ranks: int = 1) -> Iterator[list[tuple[Batch, ...]]]:
        """The batches of each optimizer step: for each micro-batch, one batch per rank."""
        batches = list(zip(*(self.batches(rank) for rank in range(ranks)), strict=True))
        for start in range(0, len(batches), self.micro):
            yield batches[start : start + self.micro]

    def model(self) -> TaskLosses:
        return TaskLosses(self)

    def balancer(self, micro: int | None = None, shared: nn.Module | None = None) -> pt.Balancer | None:
        if self.by != "balancer":
            return None
        micro = self.micro if micro is None else micro
        nonfinite: Any = "pass" if self.scaled else "raise"
        return pt.Balancer(METHODS[self.method](), TASKS, accumulate=micro, shared=shared, nonfinite=nonfinite)

    def scaler(self) -> torch.amp.GradScaler:
        """A scaler of float32 losses, whose factor is another one in every step and too large in OVERFLOWS."""
        growth, interval = 2.0**30, 1
        return torch.amp.GradScaler("cpu", 2.0**127, growth, growth**-2, interval, enabled=self.scaled)

    def without_overflows(self) -> Loop:
        """The loop without a scaler on the batches whose step is not skipped."""
        return Remaining(**vars(self) | {"scaled": False, "multiplied": True})

    def unscaled(self) -> Loop:
        """The loop without a scaler."""
        return replace(self, scaled=False, multiplied=True)


class Remaining(Loop):
    """A loop without the steps in OVERFLOWS."""

    def batches(self, rank: int = 0) -> list[Batch]:
        return [batch for step, batch in enumerate(super().batches(rank)) if step // self.micro not in OVERFLOWS]


class TaskLosses(nn.Module):
    """Batch in, losses by task out."""

    def __init__(self, loop: Loop) -> None:
        super().__init__()
        fork = pt.Fork(METHODS[loop.method](), TASKS) if loop.by == "fork" else None
        self.net = Net(fork=fork).to(loop.dtype)
        self.checkpointed, self.is_multiplied = loop.checkpointed, loop.scaled or loop.multiplied

    def forward(self, *batches: Batch) -> dict[str, Tensor]:
        """The losses, averaged over batches that are forked together, as those of several ranks are."""
        net, parts = self.net, len(batches)
        features = tuple(self.encoded(x) for x, _ in batches)
        branches = net.fork(features) if net.forks else dict.fromkeys(TASKS, features)
        losses = {
            task: total(
                {
                    str(place): losses_of({task: net.heads[task](branches[task][place])}, targets)[task] / parts
                    for place, (_, targets) in enumerate(batches)
                }
            )
            for task in TASKS
        }
        if self.is_multiplied:  # so that gradients on the features overflow too
            losses = {task: 100 * loss for task, loss in losses.items()}
        return dict(net.fork.losses(losses)) if net.forks else losses

    def encoded(self, x: Tensor) -> Tensor:
        encoder = self.net.encoder
        z: Tensor = checkpoint(encoder, x, use_reentrant=False) if self.checkpointed else encoder(x)
        return z


def samples(loop: Loop, ranks: int = 1) -> list[dict[str, Tensor]]:
    """All samples in order; a framework that divides batches between ranks gives each of them one in turn."""
    batches = [batch for each in zip(*(loop.batches(rank) for rank in range(ranks)), strict=True) for batch in each]
    return [{"x": x[row], **{t: y[row] for t, y in ys.items()}} for x, ys in batches for row in range(len(x))]


def optimizer_of(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=0.03, momentum=0.9)


def vector(module: nn.Module) -> Tensor:
    """All parameters."""
    return torch.cat([p.detach().flatten().clone() for p in module.parameters()])


def plain(loop: Loop, ranks: int = 1, mean: bool = True) -> Tensor:
    """The parameters after a loop of plain PyTorch, in one process on the batches of all ranks.

    A step of fewer micro-batches takes their mean, or else their sum over ``loop.micro``.
    """
    model, balancer = loop.model(), loop.balancer(1)
    optimizer = optimizer_of(model.parameters())
    context = torch.autocast("cpu", torch.bfloat16) if loop.autocast else nullcontext()
    for group in loop.groups(ranks):
        optimizer.zero_grad()
        with context:
            losses = [model(*batches) for batches in group]
        scaled = [{t: loss / (len(group) if mean else loop.micro) for t, loss in each.items()} for each in losses]
        if balancer is None:
            for each in scaled:
                total(each).backward()
        else:
            balancer.backward({task: total({str(i): each[task] for i, each in enumerate(scaled)}) for task in TASKS})
        if loop.clip:
            norm = nn.utils.clip_grad_norm_(model.parameters(), loop.clip)
            assert norm > loop.clip  # else nothing is clipped
        optimizer.step()
    return vector(model)


def difference(found: Tensor | Sequence[Tensor], expected: Tensor) -> float:
    """The largest difference of a parameter, on any rank."""
    return max(float((each - expected).abs().max()) for each in ([found] if isinstance(found, Tensor) else found))
