"""A subset of the samples of a batch, and the corresponding rows of tensors."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import NamedTuple

import torch
from torch import Tensor

from paretorch.core.gradients.task_gradients import to_device
from paretorch.core.multi_vjp.rule_errors import NoRuleError


class SampleSubset:
    """S of B samples.

    Args:
        index: (S,) the samples, in ascending order.
        batch: B.
    """

    def __init__(self, index: Tensor, batch: int) -> None:
        self.index, self.batch, self.count = index, batch, len(index)
        self._rows = {(1, 1): index}

    @classmethod
    def drawn(cls, batch: int, count: int, generator: torch.Generator, device: torch.device) -> SampleSubset:
        """``count`` of ``batch`` samples without replacement, with equal probabilities."""
        index = torch.randperm(batch, generator=generator)[:count].sort().values
        return cls(to_device(index, device), batch)

    @property
    def scale(self) -> float:
        """B / S: a sum over the subset times this factor is an unbiased estimate of the sum over the batch."""
        return self.batch / self.count

    def rows(self, outer: int, inner: int) -> Tensor:
        """The subset's indices in a dimension that is a flattened (outer, B, inner)."""
        if (outer, inner) not in self._rows:
            device = self.index.device
            blocks = torch.arange(outer, device=device)[:, None, None] * (self.batch * inner)
            within = torch.arange(inner, device=device)
            self._rows[outer, inner] = (blocks + self.index[:, None] * inner + within).flatten()
        return self._rows[outer, inner]

    def mask(self, stack: Tensor) -> Tensor:
        """(k, B g, ...) with the rows of the subset multiplied by :attr:`scale`, and zeros elsewhere."""
        inner = SampleDim(self, 1).rows_per_sample(stack.shape[1])
        factors = stack.new_zeros(self.batch)
        factors.index_fill_(0, self.index, self.scale)
        return stack * factors.repeat_interleave(inner).view(-1, *[1] * (stack.ndim - 2))


class SampleDim(NamedTuple):
    """The dimension of a tensor that counts samples: a flattened (outer, B, g), of which the subset's rows are kept.

    Encoders move and flatten it: attention that is given (B, L, n) works on (L, B, n), whose first two dimensions its linear
    layers flatten.
    """

    subset: SampleSubset
    dim: int = 0
    outer: int = 1

    def rows_per_sample(self, size: int) -> int:
        """The rows of each sample, g, in a dimension of ``size`` entries for the whole batch.

        Raises:
            NoRuleError: the size is no multiple of outer B.
        """
        if size == 0 or size % (self.outer * self.subset.batch):
            raise NoRuleError(f"{size} rows do not belong to {self.subset.batch} samples")
        return size // (self.outer * self.subset.batch)

    def select(self, tensor: Tensor) -> Tensor:
        """The rows of the subset, of a tensor for the whole batch."""
        inner = self.rows_per_sample(tensor.shape[self.dim])
        return tensor.index_select(self.dim, self.subset.rows(self.outer, inner))

    def of_subset(self, shape: Sequence[int]) -> list[int]:
        """The shape for the subset, from that for the whole batch."""
        size = self.rows_per_sample(shape[self.dim]) * self.outer * self.subset.count
        return [size if dim == self.dim else each for dim, each in enumerate(shape)]

    def of_batch(self, shape: Sequence[int]) -> list[int]:
        """The shape for the whole batch, from that for the subset."""
        size = shape[self.dim] // self.subset.count * self.subset.batch
        return [size if dim == self.dim else each for dim, each in enumerate(shape)]

    def reshaped(self, old: Sequence[int], new: Sequence[int]) -> SampleDim:
        """The dimension after a reshape from one shape to another, both for the whole batch.

        Raises:
            NoRuleError: no single dimension of the new shape counts the samples.
        """
        outer = prod(old[: self.dim]) * self.outer
        for dim, size in enumerate(new):
            before = prod(new[:dim])
            if outer % before == 0 and size and size % (outer // before * self.subset.batch) == 0:
                return SampleDim(self.subset, dim, outer // before)
        raise NoRuleError(f"a reshape of {tuple(old)} to {tuple(new)} distributes the samples over several dimensions")
