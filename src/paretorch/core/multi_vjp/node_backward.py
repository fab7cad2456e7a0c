"""The backward of one autograd node for the cotangents of many tasks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from paretorch.core.multi_vjp.rule_errors import NoRuleError
from paretorch.core.multi_vjp.sample_subset import SampleDim


class Cotangents(NamedTuple):
    """The cotangents of k tasks on one output of a node."""

    values: Tensor  # (k, ...)
    sample_dim: SampleDim | None = None  # of the tensor, whose rows are those of a subset; None: the tensor is complete
    own: bool = False  # whether the memory belongs to these cotangents alone, so that it may be written to


class NodeBackward(NamedTuple):
    """The arguments of a rule: a node, the cotangents on its outputs, and the inputs that need a gradient."""

    node: Any
    outputs: Mapping[int, Cotangents]  # by the number of the output; those without a gradient are left out
    needs_input_grad: Sequence[bool]

    @property
    def cotangents(self) -> Cotangents:
        """The cotangents on the only output.

        Raises:
            NoRuleError: the node has others.
        """
        if set(self.outputs) != {0}:
            raise NoRuleError("a node with several outputs")
        return self.outputs[0]

    @property
    def values(self) -> Tensor:
        """(k, ...) the cotangents on the output."""
        return self.cotangents.values

    def saved_tensor(self, name: str) -> Tensor:
        """A saved tensor that broadcasts with the output, reduced to the samples if it has their dimension."""
        saved: Tensor = self.saved(name)
        samples = self.cotangents.sample_dim
        if samples is None:
            return saved
        samples = samples._replace(dim=samples.dim + saved.ndim - (self.values.ndim - 1))
        return saved if samples.dim < 0 or saved.shape[samples.dim] == 1 else samples.select(saved)

    def rows(self, tensor: Tensor) -> Tensor:
        """A tensor with the dimensions of the output up to that of the samples, reduced to these."""
        samples = self.cotangents.sample_dim
        return tensor if samples is None else samples.select(tensor)

    def saved(self, name: str) -> Any:
        """A saved attribute as it is."""
        return getattr(self.node, f"_saved_{name}")

    def dim(self, value: int) -> int:
        """The dimension of ``values`` for a dimension of the output along which the node combines entries."""
        dim = signed(value) % (self.values.ndim - 1)
        self.require_independent(dim)
        return dim + 1

    def require_independent(self, *dims: int) -> None:
        """Raise NoRuleError if one of the output's dimensions, along which the node combines entries, counts samples."""
        samples = self.cotangents.sample_dim
        if samples is not None and samples.dim in dims:
            raise NoRuleError(f"{type(self.node).__name__} combines several samples")

    def require_samples_first(self) -> None:
        """Raise NoRuleError if another dimension of the output than the first counts samples."""
        self.require_independent(*range(1, self.values.ndim - 1))

    def input_shape(self, index: int) -> torch.Size:
        """The shape of an input for the whole batch."""
        child, number = self.node.next_functions[index]
        shape: torch.Size = torch.Size(child._input_metadata[number].shape)
        return shape

    def result(self, values: Tensor, own: bool = True, dim: int | None = None) -> Cotangents:
        """The cotangents on an input that has the rows of the output; ``dim``: where its samples are, if not where they were."""
        samples = self.cotangents.sample_dim
        if samples is not None and dim is not None:
            samples = samples._replace(dim=dim)
        return Cotangents(values, samples, own)

    def one_input(self, values: Tensor, own: bool = True, dim: int | None = None) -> list[Cotangents | None]:
        """The :meth:`result` for a node with one input."""
        return [self.result(values, own, dim)]

    @property
    def samples_at(self) -> int:
        """The output's dimension that counts samples; 0 where it is complete."""
        samples = self.cotangents.sample_dim
        return 0 if samples is None else samples.dim


InputCotangents = list[Cotangents | None]  # one for each input of a node; None where it needs no gradient
Rule = Callable[[NodeBackward], InputCotangents]


def signed(value: int) -> int:
    """The integer that autograd stores as an unsigned one of 64 bits."""
    return value - 2**64 if value >= 2**63 else value
