"""The features of a batch: a tensor or any nesting of tensors, of which the floating leaves that require grad move."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_unflatten


class Features:
    """What the encoder gave, with its leaves.

    Args:
        value: the encoder's output.

    Raises:
        ValueError: no floating leaf requires grad.
    """

    def __init__(self, value: Any) -> None:
        self.parts, self.nest = tree_flatten(value)
        self.places = [
            place
            for place, part in enumerate(self.parts)
            if isinstance(part, Tensor) and part.is_floating_point() and part.requires_grad
        ]
        if not self.places:
            raise ValueError(
                "a line search expects features that require grad, and the encoder gave none: was it frozen, or its output "
                "detached? With a frozen encoder there is nothing to share; search on the heads' losses by themselves"
            )
        self.leaves: list[Tensor] = [self.parts[place] for place in self.places]

    def with_leaves(self, leaves: Sequence[Tensor]) -> Any:
        """The features with other leaves in place of theirs, nested as given."""
        parts = list(self.parts)
        for place, leaf in zip(self.places, leaves, strict=True):
            parts[place] = leaf
        return tree_unflatten(parts, self.nest)

    def same(self, value: Any) -> list[Tensor]:
        """The leaves of another output of the same encoder, in the order of these.

        Raises:
            ValueError: it is nested otherwise.
        """
        parts, nest = tree_flatten(value)
        if nest != self.nest:
            raise ValueError(f"the encoder's output was nested as {self.nest} and then as {nest}: expected one nesting")
        return [parts[place] for place in self.places]


def moved(leaves: Sequence[Tensor], displacement: Sequence[Tensor], step: float) -> list[Tensor]:
    """The features at z - step q, leaf by leaf, as new tensors without a graph."""
    return [leaf.detach().add(part, alpha=-step) for leaf, part in zip(leaves, displacement, strict=True)]
