"""Some of a batch's samples, and where they lie in what the graph keeps."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from paretorch.core.contract import Method, Need
from paretorch.core.gradients.graph import OPAQUE


class NoRuleError(Exception):
    """The rules of our own do not lead through this part of the graph; autograd does. Never leaves the package."""


class BrokenRuleError(Exception):
    """A rule failed where it should hold; its message names the node. Never leaves the package."""


class Rows:
    """S of B samples. A tensor whose leading dimension counts g rows for each sample, one sample after the other, is cut to S g.

    Args:
        index: (S,) which samples, in ascending order.
        batch: B.
    """

    def __init__(self, index: Tensor, batch: int) -> None:
        self.batch, self.count = batch, len(index)
        self._places = {1: index}

    @classmethod
    def drawn(cls, batch: int, count: int, generator: torch.Generator, device: torch.device) -> Rows:
        """``count`` of ``batch`` samples without replacement, all equally probable."""
        index = torch.randperm(batch, generator=generator)[:count].sort().values
        return cls(index.to(device), batch)

    @property
    def scale(self) -> float:
        """B / S, by which a sum over the samples that were drawn is multiplied to be that over all, on average."""
        return self.batch / self.count

    def group(self, size: int) -> int:
        """How many rows of a leading dimension of this size belong to each sample."""
        if size == 0 or size % self.batch:
            raise NoRuleError(f"{size} rows do not belong to {self.batch} samples")
        return size // self.batch

    def of(self, tensor: Tensor, dim: int = 0) -> Tensor:
        """The rows of the samples that were drawn."""
        group = self.group(tensor.shape[dim])
        if group not in self._places:
            first = self._places[1][:, None] * group
            self._places[group] = (first + torch.arange(group, device=first.device)).flatten()
        return tensor.index_select(dim, self._places[group])

    def only(self, stack: Tensor) -> Tensor:
        """(k, B g, ...) with the rows of all other samples zero, and these times :attr:`scale`."""
        group = self.group(stack.shape[1])
        mask = stack.new_zeros(self.batch)
        mask[self._places[1]] = self.scale
        return stack * mask.repeat_interleave(group).view(-1, *[1] * (stack.ndim - 2))


def check_samples(samples: int | None, method: Method[Any]) -> None:
    """The option of a Balancer: a whole number, for methods whose weights come of a Gramian of one batch."""
    if samples is None:
        return
    if isinstance(samples, bool) or not isinstance(samples, int) or samples < 1:
        raise ValueError(f"samples is a whole number of at least 1, or None for the whole batch, got {samples!r}")
    if Need.GRAMIAN not in method.needs or method.batches > 1:
        raise ValueError(
            f"samples={samples} is for methods that take the Gramian of one batch, and {method} does not: leave it out"
        )


def refused_samples(samples: int | None, opaque: Iterable[str]) -> str:
    """Why the rows of the features cannot be told apart in a graph."""
    hidden = ", ".join(sorted(OPAQUE[name] for name in opaque))
    if hidden:
        return f"samples={samples} cannot look through {hidden}: leave samples out"
    return (
        f"samples={samples} takes rows of the tensors at which the tasks part, and here one task uses the inside of what "
        "another uses the end of, or a part of shared= alone, or a hook changes gradients there: leave samples out"
    )


def saves_nothing(samples: int | None) -> str:
    """What is said where the Gramian is that of the samples, but costs as much as of all."""
    return (
        f"samples={samples} saves no time on this model: its shared part has layers that look at several samples at once "
        "(BatchNorm in training mode) or that Paretorch has no rule for, or each task has inputs of its own; the whole batch "
        "goes through it, so that the exact Gramian (leave samples out) costs no more"
    )
