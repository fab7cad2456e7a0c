"""Features of a batch, and their leaves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_unflatten


class Features:
    """Output of the encoder: a tensor or any nesting of tensors, with its floating leaves that require grad.

    Args:
        value: output of the encoder.

    Raises:
        ValueError: no floating leaf requires grad.
    """

    def __init__(self, value: Any) -> None:
        self.parts, self.structure = tree_flatten(value)
        self.indices = [
            index
            for index, part in enumerate(self.parts)
            if isinstance(part, Tensor) and part.is_floating_point() and part.requires_grad
        ]
        if not self.indices:
            raise ValueError(
                "a line search expects features that require grad, and the encoder returned none: was it frozen, or its output "
                "detached? With a frozen encoder nothing is shared; search on the heads' losses separately"
            )
        self.leaves: list[Tensor] = [self.parts[index] for index in self.indices]

    def with_leaves(self, leaves: Sequence[Tensor]) -> Any:
        """The features with other leaves, in the same nesting."""
        parts = list(self.parts)
        for index, leaf in zip(self.indices, leaves, strict=True):
            parts[index] = leaf
        return tree_unflatten(parts, self.structure)

    def leaves_of(self, value: Any) -> list[Tensor]:
        """The leaves of another output of the same encoder, in the same order.

        Raises:
            ValueError: its nesting differs.
        """
        parts, structure = tree_flatten(value)
        if structure != self.structure:
            raise ValueError(
                f"the encoder's output was nested as {self.structure} and then as {structure}: expected one nesting"
            )
        return [parts[index] for index in self.indices]
