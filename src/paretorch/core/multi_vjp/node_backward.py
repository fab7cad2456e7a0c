"""The backward of one autograd node for the cotangents of many tasks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from paretorch.core.multi_vjp.rule_errors import NoRuleError
from paretorch.core.multi_vjp.sample_subset import SampleSubset


class Cotangents(NamedTuple):
    """The cotangents of k tasks on one tensor."""

    values: Tensor  # (k, ...)
    by_row: bool  # whether the leading dimension of the tensor counts samples
    own: bool = False  # whether the memory belongs to these cotangents alone, so that it may be written to


class NodeBackward(NamedTuple):
    """The arguments of a rule: a node, the cotangents on its output, and the inputs that need a gradient."""

    node: Any
    cotangents: Cotangents
    samples: SampleSubset | None  # to which the rows belong; None: to all samples
    needs_input_grad: Sequence[bool]

    @property
    def values(self) -> Tensor:
        """(k, ...) the cotangents on the output."""
        return self.cotangents.values

    def saved_tensor(self, name: str) -> Tensor:
        """A saved tensor, reduced to the samples if it has the rows of the output."""
        saved: Tensor = self.saved(name)
        if (
            self.samples is None
            or not self.cotangents.by_row
            or saved.ndim != self.values.ndim - 1
            or saved.shape[0] == 1
        ):
            return saved
        return self.samples.select(saved)

    def saved(self, name: str) -> Any:
        """A saved attribute as it is."""
        return getattr(self.node, f"_saved_{name}")

    def dim(self, value: int) -> int:
        """The dimension of ``values`` for a dimension of the output. The leading one needs the whole batch."""
        dim = signed(value) % (self.values.ndim - 1)
        if dim == 0:
            self.require_whole_batch()
        return dim + 1

    def require_whole_batch(self) -> None:
        """Raise NoRuleError for a subset of samples: the node combines several samples."""
        if self.samples is not None and self.cotangents.by_row:
            raise NoRuleError(f"{type(self.node).__name__} combines several samples")

    def input_shape(self, index: int) -> torch.Size:
        """The shape of an input for the whole batch."""
        child, number = self.node.next_functions[index]
        shape: torch.Size = torch.Size(child._input_metadata[number].shape)
        return shape

    def result(self, values: Tensor, own: bool = True) -> Cotangents:
        """The cotangents on an input that has the rows of the output."""
        return self.cotangents._replace(values=values, own=own)

    def one_input(self, values: Tensor, own: bool = True) -> list[Cotangents | None]:
        """The result for a node with one input, which has the rows of the output."""
        return [self.result(values, own)]


InputCotangents = list[Cotangents | None]  # one for each input of a node; None where it needs no gradient
Rule = Callable[[NodeBackward], InputCotangents]


def signed(value: int) -> int:
    """The integer that autograd stores as an unsigned one of 64 bits."""
    return value - 2**64 if value >= 2**63 else value
