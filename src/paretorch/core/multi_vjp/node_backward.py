"""Cotangents of many tasks at once, and one node of the graph that they pass."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from paretorch.core.multi_vjp.samples import NoRuleError, Rows


class Cotangents(NamedTuple):
    """Those of k tasks on one tensor."""

    values: Tensor  # (k, ...)
    by_row: bool  # whether the tensor's leading dimension is that of the samples
    own: bool = False  # whether nothing else holds the memory: it may be written to


class Step(NamedTuple):
    """One node at work."""

    node: Any
    given: Cotangents
    rows: Rows | None
    wanted: Sequence[bool]  # for each input

    @property
    def values(self) -> Tensor:
        """(k, ...) the cotangents on the node's output."""
        return self.given.values

    def kept(self, name: str) -> Tensor:
        """What the node saved under a name, cut to the samples where it has the output's rows."""
        saved: Tensor = getattr(self.node, f"_saved_{name}")
        if self.rows is None or not self.given.by_row or saved.ndim != self.values.ndim - 1 or saved.shape[0] == 1:
            return saved
        return self.rows.of(saved)

    def number(self, name: str) -> Any:
        """What the node saved that is no tensor."""
        return getattr(self.node, f"_saved_{name}")

    def dim(self, value: int) -> int:
        """A dimension of the output, counted with the tasks'. That of the samples must not be touched."""
        signed = value - 2**64 if value >= 2**63 else value
        place = signed % (self.values.ndim - 1)
        if place == 0:
            self.whole()
        return place + 1

    def whole(self) -> None:
        """The node looks at several rows at once."""
        if self.rows is not None and self.given.by_row:
            raise NoRuleError(f"{type(self.node).__name__} looks at several samples at once")

    def shape(self, place: int) -> torch.Size:
        """Of an input, as the whole batch has it."""
        child, number = self.node.next_functions[place]
        found: torch.Size = torch.Size(child._input_metadata[number].shape)
        return found

    def same(self, values: Tensor, own: bool = True) -> list[Cotangents | None]:
        """One input, with the output's rows."""
        return [self.given._replace(values=values, own=own)]


Found = list[Cotangents | None]
Rule = Callable[[Step], Found]
