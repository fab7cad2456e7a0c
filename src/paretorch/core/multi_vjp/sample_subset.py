"""A subset of the samples of a batch, and the corresponding rows of tensors."""

from __future__ import annotations

import torch
from torch import Tensor

from paretorch.core.gradients.task_gradients import to_device
from paretorch.core.multi_vjp.rule_errors import NoRuleError


class SampleSubset:
    """S of B samples. A leading dimension of g B rows has g consecutive rows for each sample; S g of them belong to the subset.

    Args:
        index: (S,) the samples, in ascending order.
        batch: B.
    """

    def __init__(self, index: Tensor, batch: int) -> None:
        self.index, self.batch, self.count = index, batch, len(index)
        self._rows = {1: index}  # by g

    @classmethod
    def drawn(cls, batch: int, count: int, generator: torch.Generator, device: torch.device) -> SampleSubset:
        """``count`` of ``batch`` samples without replacement, with equal probabilities."""
        index = torch.randperm(batch, generator=generator)[:count].sort().values
        return cls(to_device(index, device), batch)

    @property
    def scale(self) -> float:
        """B / S: a sum over the subset times this factor is an unbiased estimate of the sum over the batch."""
        return self.batch / self.count

    def rows_per_sample(self, size: int) -> int:
        """The rows of each sample in a leading dimension of ``size`` rows.

        Raises:
            NoRuleError: the size is no multiple of B.
        """
        if size == 0 or size % self.batch:
            raise NoRuleError(f"{size} rows do not belong to {self.batch} samples")
        return size // self.batch

    def select(self, tensor: Tensor, dim: int = 0) -> Tensor:
        """The rows of the subset."""
        group = self.rows_per_sample(tensor.shape[dim])
        if group not in self._rows:
            first = self.index[:, None] * group
            self._rows[group] = (first + torch.arange(group, device=first.device)).flatten()
        return tensor.index_select(dim, self._rows[group])

    def mask(self, stack: Tensor) -> Tensor:
        """(k, B g, ...) with the rows of the subset multiplied by :attr:`scale`, and zeros elsewhere."""
        group = self.rows_per_sample(stack.shape[1])
        factors = stack.new_zeros(self.batch)
        factors.index_fill_(0, self.index, self.scale)
        return stack * factors.repeat_interleave(group).view(-1, *[1] * (stack.ndim - 2))
