"""Inf and nan in losses, features, gradients, parameters and inputs of a small model with two tasks."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

TASKS = ("0", "1")
VALUES = (math.nan, math.inf, -math.inf)


class _BrokenGradient(torch.autograd.Function):
    """The identity; one entry of the gradient is replaced by a value."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, value: float) -> Tensor:
        ctx.value = value
        return x.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        broken = gradients[0].clone()
        broken.reshape(-1)[0] = ctx.value
        return broken, None

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor, _: Any) -> Tensor:
        return tangent.clone()


def with_broken_gradient(x: Tensor, value: float) -> Tensor:
    """The same numbers, whose gradient has the value in its first entry."""
    out: Tensor = _BrokenGradient.apply(x, value)
    return out


def with_entry(x: Tensor, value: float) -> Tensor:
    """A copy whose first entry is the value; it passes no gradient to the original there."""
    mask = torch.zeros(x.numel(), dtype=torch.bool)
    mask[0] = True
    return torch.where(mask.view_as(x), torch.full_like(x, value), x)


class BrokenNet(nn.Module):
    """An encoder and two heads, in float64, in which numbers of a task can be broken.

    Attributes:
        kind: what is broken in the next forward, see :data:`KINDS`; None: nothing.
        task: whose numbers are broken.
        value: inf or nan.
    """

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.encoder = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)).double()
        self.heads = nn.ModuleDict({task: nn.Linear(3, 1).double() for task in TASKS})
        self.kind: str | None = None
        self.task, self.value, self.whole = TASKS[1], math.nan, math.nan

    def breaks(self, kind: str | None, value: float = math.nan, task: str = TASKS[1]) -> BrokenNet:
        entry: Tensor = next(self.encoder.parameters()).data[0]
        if self.kind == "encoder":
            entry[0] = self.whole
        elif kind == "encoder":
            self.whole = float(entry[0])
            entry[0] = value
        self.kind, self.value, self.task = kind, value, task
        return self

    def batch(self, seed: int = 0) -> Tensor:
        x = torch.randn(6, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
        return with_entry(x, self.value) if self.kind == "input" else x

    def loss(self, task: str, z: Tensor) -> Tensor:
        """Of one task, on its branch of the features."""
        broken = self.kind if task == self.task else None
        if broken == "feature":
            z = with_entry(z, self.value)
        elif broken == "gradient":
            z = with_broken_gradient(z, self.value)
        out = self.heads[task](z)
        if broken == "gradient of the head":
            out = with_broken_gradient(out, self.value)
        elif broken == "gradient of a parameter":  # of the head alone: what a Fork receives is finite
            out = out + with_broken_gradient(0.1 * self.heads[task].bias, self.value)  # type: ignore[operator, arg-type]
        elif broken == "parameter":
            out = out + with_entry(self.heads[task].weight.reshape(-1), self.value).sum()  # type: ignore[operator]
        loss: Tensor = (out - int(task)).square().mean() + 1
        if broken == "loss":
            loss = loss * self.value
        elif broken == "loss alone":
            loss = loss + self.value  # with a finite gradient
        return loss

    def losses(self, branches: dict[str, Tensor]) -> dict[str, Tensor]:
        return {task: self.loss(task, z) for task, z in branches.items()}

    def of_features(self, z: Tensor) -> dict[str, Tensor]:
        return self.losses(dict.fromkeys(TASKS, z))

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return self.of_features(self.encoder(x))

    def gradients(self, of: Callable[[BrokenNet], nn.Module] | None = None) -> list[Tensor | None]:
        module = self if of is None else of(self)
        return [None if leaf.grad is None else leaf.grad.clone() for leaf in module.parameters()]

    def values(self) -> list[Tensor]:
        return [leaf.detach().clone() for leaf in self.parameters()]


# Of one task.
KINDS = ("loss", "loss alone", "feature", "gradient", "gradient of the head", "parameter")
# Of every task: the batch, and a parameter of the encoder.
SHARED_KINDS = ("input", "encoder")


def same(one: list[Tensor | None], other: list[Tensor | None]) -> bool:
    """Whether gradients are equal bit for bit, None included; nan equals nothing."""
    return all(
        (a is None and b is None) or (a is not None and b is not None and torch.equal(a, b))
        for a, b in zip(one, other, strict=True)
    )


def all_finite(tensors: list[Tensor | None]) -> bool:
    return all(each is None or bool(each.isfinite().all()) for each in tensors)
