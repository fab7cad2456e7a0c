"""The forwards of a Fork's current step."""

from __future__ import annotations

import weakref
from typing import Any

import torch
from torch import Tensor

from paretorch.core.fork.loss_graphs import reached_nodes
from paretorch.core.gradients.task_gradients import chunks


class ForwardCall:
    """One forward of a Fork, as its backward uses it.

    Args:
        node: of the features, if the forward is not compiled.
    """

    def __init__(self, node: Any = None) -> None:
        self.node = _no_node if node is None else weakref.ref(node)
        self.backwards: list[list[int]] = []  # the tasks that had a gradient, of each backward of this forward
        # The backward in which the forward ran: that of a reentrant checkpoint, whose inner backward reaches it; -1: none.
        self.outer = running_backward()
        self.sent: dict[int, Tensor] = {}  # by leaf, the gradient sent into the encoder, until it is compared
        self.is_bypassed = False  # whether the features had a gradient before any branch of theirs had one
        self.is_compared = False  # whether the features' gradient is compared with what was sent

    def is_below_another(self, place: int) -> bool:
        """Whether a leaf of the features depends on the leaf at a place, which has a gradient from there too."""
        inputs = [] if (node := self.node()) is None else [below for below, _ in node.next_functions]
        return bool(inputs) and inputs[place] in reached_nodes(each for each in inputs if each is not inputs[place])

    @property
    def backward(self) -> int:
        """The number of the backward that is running; of the outer one within a reentrant checkpoint."""
        return self.outer if self.outer >= 0 else running_backward()


class StepForwards:
    """The forwards of one step, from the first one until the losses are recorded or a backward arrives."""

    def __init__(self) -> None:
        self.begin()
        self.is_complete = True  # the next forward begins a step

    def begin(self) -> None:
        """Begin a step."""
        self._nodes: list[weakref.ref[Any]] = []  # of the forwards in eager mode
        self.has_any = False  # whether the step has a forward, of which the graph may exist no longer
        self.kept: Tensor | None = None  # the last forward's link, whose graph exists though no branch is used
        self.compiled_link: Tensor | None = None  # of the last forward in a compiled graph
        self.links = 0  # forwards whose losses were recorded
        self.tasks_with_loss: set[int] | None = None  # those whose losses were recorded; None: unknown
        self.balanced = False  # whether the features of a forward were balanced
        self.is_complete = False

    def add(self, node: Any) -> None:
        """Record the node of a forward."""
        self._nodes = [*(ref for ref in self._nodes if ref() is not None), weakref.ref(node)]
        self.has_any = True

    def nodes(self) -> list[Any]:
        """The nodes of this step's forwards whose graphs exist."""
        return [node for ref in self._nodes if (node := ref()) is not None]

    def links_and_branches(self, tasks: int, saves_branches: bool) -> tuple[list[Tensor], list[Tensor]]:
        """The links of this step's forwards whose graphs exist, and their branches, task by task, where they are saved."""
        if self.compiled_link is not None:
            return [self.compiled_link], []
        links: list[Tensor] = []
        rows: list[list[Tensor]] = [[] for _ in range(tasks)]
        for node in self.nodes():
            try:
                link, *saved = node.saved_tensors
            except RuntimeError:  # its backward has run
                continue
            links.append(link)
            if saves_branches:
                for row, part in zip(rows, chunks(saved, tasks), strict=True):
                    row += part
        return links, [leaf for row in rows for leaf in row]


def _no_node() -> None:
    """In place of a reference to a node."""


def running_backward() -> int:
    """The number of the backward that is running on this thread, different from all others; -1: none is running."""
    return torch._C._current_graph_task_id()  # no public function returns it


def count_backwards() -> int:
    """A number that grows by one with every backward of the process; counting is a backward, of a tensor of its own."""
    numbers: list[int] = []
    probe = torch.zeros((), device="cpu", requires_grad=True).view_as(torch.zeros((), device="cpu"))
    probe.register_hook(lambda _: numbers.append(running_backward()))
    probe.backward()
    return numbers[0]
