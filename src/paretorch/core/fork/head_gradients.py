"""The gradients that a step adds to parameters and that are taken back, because a task of it is not finite."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from paretorch.core.fork.loss_graphs import reached_nodes
from paretorch.core.gradients.finite import all_finite
from paretorch.core.gradients.graph import CHECKPOINT_NODE


class HeadGradients:
    """The parameters between the features and the losses, whose ``.grad`` can be restored.

    Costs a walk through the graphs of the heads, and a copy of each ``.grad`` that is not None before the backward.

    Args:
        losses: by task.
        nodes: the nodes of this step's forwards, at which the walk ends.
    """

    def __init__(self, losses: dict[int, Tensor], nodes: Sequence[Any]) -> None:
        self._tasks: dict[Tensor, set[int]] = {}  # by parameter: the tasks whose losses reach it
        self.hidden: set[int] = set()  # the tasks with parameters that are not known, within a reentrant checkpoint
        for task, loss in losses.items():
            for node in reached_nodes([loss.grad_fn], nodes):
                if hasattr(node, "variable"):
                    self._tasks.setdefault(node.variable, set()).add(task)
                elif type(node).__name__ == CHECKPOINT_NODE:
                    self.hidden.add(task)
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
            _restore(leaf, before)

    def restore_after_backward(self, tasks: Collection[int]) -> None:
        """:meth:`restore` what is not finite at the end of the backward, when weights of the encoder have theirs, too."""
        after_backward(partial(self.restore, tasks, only_broken=True))


def undo_zeros_after_backward(node: Any) -> None:
    """Restore ``.grad`` of the leaves below a node to which zeros are sent, when the backward has ended.

    An encoder that is not finite makes nan of zeros. Where ``.grad`` was None and became zero, it is None again.
    """
    leaves = [
        each.variable for each in reached_nodes(below for below, _ in node.next_functions) if hasattr(each, "variable")
    ]
    before = [(leaf, None if leaf.grad is None else leaf.grad.clone()) for leaf in leaves]

    def undo() -> None:
        for leaf, grad in before:
            if leaf.grad is not None and (not all_finite([leaf.grad]) or (grad is None and not bool(leaf.grad.any()))):
                _restore(leaf, grad)

    after_backward(undo)


def add_zeros(loss: Tensor, nodes: Sequence[Any]) -> None:
    """Make ``.grad`` of the parameters between the features and a loss zero where it is None.

    Modules that ``fully_shard`` has sharded reduce the gradients that exist, which are to be the same ones on all ranks.

    Args:
        loss: that receives no gradient on this rank.
        nodes: of this step's forwards.
    """
    for node in reached_nodes([loss.grad_fn], nodes):
        leaf = getattr(node, "variable", None)
        if leaf is not None and leaf.grad is None:
            leaf.grad = torch.zeros_like(leaf, requires_grad=False)


def after_backward(call: Callable[[], None]) -> None:
    """Calls a function when the backward that is running has ended."""
    torch.autograd.Variable._execution_engine.queue_callback(call)


def raise_after_backward(error: Exception) -> None:
    """Raises an error when the backward that is running has ended, and distributed wrappers have ended their part of it.

    An error within the backward would leave a wrapper in the middle of its collectives: each later step would fail, or train
    nothing.
    """

    def end() -> None:
        raise error

    after_backward(partial(after_backward, end))  # after the callbacks that are queued by then


def _restore(leaf: Tensor, before: Tensor | None) -> None:
    if before is None or leaf.grad is None:
        leaf.grad = before
    else:  # in place: others may refer to it
        with torch.no_grad():
            leaf.grad.copy_(before)
