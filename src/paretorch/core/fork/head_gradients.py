"""The gradients of a step on the parameters of the heads, which are added before the features' gradients are known."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import torch
from torch import Tensor

from paretorch.core.gradients.finite import all_finite


class HeadGradients:
    """The parameters between the features and the losses, whose ``.grad`` can be restored.

    Costs a walk through the graphs of the heads, and a copy of each ``.grad`` that is not None before the backward.

    Args:
        losses: by task.
        nodes: the nodes of this step's forwards, at which the walk ends.
    """

    def __init__(self, losses: dict[int, Tensor], nodes: Sequence[Any]) -> None:
        self._tasks: dict[Tensor, set[int]] = {}  # by parameter: the tasks whose losses reach it
        for task, loss in losses.items():
            for leaf in _leaves(loss, nodes):
                self._tasks.setdefault(leaf, set()).add(task)
        self._before: dict[Tensor, Tensor | None] = {}

    def save(self) -> None:
        """Record ``.grad`` of the parameters."""
        self._before = {leaf: None if leaf.grad is None else leaf.grad.clone() for leaf in self._tasks}

    def restore(self, tasks: Collection[int], only_broken: bool = False) -> None:
        """Restore ``.grad`` of the parameters that the tasks reach, also where other tasks reach them too.

        Args:
            tasks: whose gradients are taken back.
            only_broken: where ``.grad`` is not finite alone.
        """
        for leaf, before in self._before.items():
            if self._tasks[leaf].isdisjoint(tasks) or (only_broken and all_finite([leaf.grad])):
                continue
            if before is None or leaf.grad is None:
                leaf.grad = before
            else:  # in place: others may refer to it
                with torch.no_grad():
                    leaf.grad.copy_(before)


def _leaves(loss: Tensor, nodes: Sequence[Any]) -> list[Tensor]:
    """The leaves that a loss reaches without passing through the nodes."""
    visited, stack, found = set(nodes), [loss.grad_fn], []
    while stack:
        node = stack.pop()
        if node is None or node in visited:
            continue
        visited.add(node)
        if hasattr(node, "variable"):
            found.append(node.variable)
        stack += [below for below, _ in node.next_functions]
    return found
