"""Every task's gradients on the leaves of the graph, by one backward for each task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge, get_gradient_edge

from paretorch.core import checks
from paretorch.core.balancer.shared_parameters import Leaves
from paretorch.core.gradients.engine import observed_gradients
from paretorch.core.gradients.graph import TaskGraph, check_dense, task_gradients, task_graph
from paretorch.core.gradients.memory import check_memory
from paretorch.core.gradients.row_blocks import RowBlock, can_block
from paretorch.core.gradients.stages import Stage, backward_stages
from paretorch.core.gradients.task_gradients import Gradients

Cotangent = tuple[GradientEdge, Tensor]


def leaf_gradients(
    given: Mapping[str, Tensor],
    tasks: Sequence[str],
    leaves: Leaves,
    graph: TaskGraph,
    retain_graph: bool,
    in_one_block: bool = False,
) -> tuple[Gradients, dict[str, list[Tensor | None]]]:
    """Every task's gradients on the compared leaves, and on the others.

    Args:
        given: losses by task.
        tasks: names of all tasks.
        leaves: compared and others.
        graph: of the losses.
        retain_graph: keep the graph for another backward.
        in_one_block: whether all rows are read together, as a Jacobian.

    Raises:
        ValueError: they would not fit into memory, or a gradient on a compared leaf is sparse.
    """
    compared, everything = leaves.compared, [*leaves.compared, *leaves.others]
    check_memory(len(given), sum(leaf.numel() for leaf in compared), compared[0].dtype, compared[0].device)
    collected = _LeafGradients(len(given), compared, everything, in_one_block)
    in_order = sorted(given, key=tasks.index)
    places = [in_order.index(name) for name in given]
    cotangents: list[Cotangent | None] = [
        (get_gradient_edge(loss), torch.ones_like(loss)) if loss.requires_grad else None for loss in given.values()
    ]
    stages = backward_stages(graph, everything, len(given))
    while stages:
        stage = stages.pop(0)
        collected.begin(stage.leaves)
        present = [task for task, cotangent in enumerate(cotangents) if cotangent is not None]
        for task in present:
            start = cotangents[task]
            assert start is not None
            cotangents[task] = None
            ends: list[Tensor | GradientEdge] = [*stage.leaves, *([] if stage.cut is None else [stage.cut])]
            if stages and task == present[0]:
                found, has_python = observed_gradients([start[0]], [start[1]], ends)
                if has_python:  # such as checkpoints, which recompute all that they contain in each backward
                    stages = [_joined(stages)]
            else:
                keep = retain_graph or task != present[-1]
                found = task_gradients([start[0]], [start[1]], ends, keep, dense=0)
            del start
            if stage.cut is not None and (arrived := found.pop()) is not None:
                cotangents[task] = stage.cut, arrived
            collected.keep(places[task], stage.leaves, found)
            del found
    return collected.gradients([tasks.index(name) for name in in_order], len(tasks)), {
        name: collected.others(place) for name, place in zip(given, places, strict=True)
    }


def _joined(stages: Sequence[Stage]) -> Stage:
    leaves = {id(leaf): leaf for stage in stages for leaf in stage.leaves}
    return Stage([*leaves.values()], None)


class _LeafGradients:
    """The gradients of k tasks, leaf by leaf.

    Args:
        count: k.
        compared: leaves whose rows are kept in blocks where this is of use.
        leaves: the compared ones, then others.
        in_one_block: allocate one block at once; False: one when a stage begins, in memory that earlier stages have freed.
    """

    def __init__(self, count: int, compared: Sequence[Tensor], leaves: Sequence[Tensor], in_one_block: bool) -> None:
        self.compared = compared
        self._index = {id(leaf): index for index, leaf in enumerate(leaves)}
        self._parts: list[list[Tensor | None]] = [[None] * len(leaves) for _ in range(count)]
        self._blocks: list[RowBlock] = []
        self._in_block: dict[int, tuple[RowBlock, int]] = {}  # by the place of a leaf: its block, and its number there
        self._has_blocks = can_block(count, compared)
        if in_one_block:
            self.begin(compared)

    def begin(self, leaves: Sequence[Tensor]) -> None:
        """Allocate the rows of the leaves that no block has yet."""
        places = sorted(self._index[id(leaf)] for leaf in leaves)
        places = [place for place in places if place < len(self.compared) and place not in self._in_block]
        if self._has_blocks and places:
            block = RowBlock(len(self._parts), [self.compared[place] for place in places], places)
            self._blocks.append(block)
            self._in_block.update((place, (block, number)) for number, place in enumerate(places))

    def keep(self, task: int, leaves: Sequence[Tensor], found: list[Tensor | None]) -> None:
        """Keep a task's gradients on some leaves; ``found`` is emptied, so that each is freed when it is copied."""
        row = self._parts[task]
        for leaf in reversed(leaves):
            place, part = self._index[id(leaf)], found.pop()
            if part is None:
                continue
            if place < len(self.compared):
                check_dense([part])
            if place in self._in_block:
                block, number = self._in_block[place]
                row[place] = block.view(task, number).copy_(part)
            else:
                row[place] = part

    def gradients(self, known: Sequence[int], tasks: int) -> Gradients:
        """On the compared leaves; row by row of the tasks ``known``, of so many tasks in all."""
        for task, row in enumerate(self._parts):
            for place, (block, number) in self._in_block.items():
                if row[place] is None:
                    block.view(task, number).zero_()
        rows: list[list[Tensor | None] | None] = [None] * tasks
        for row, task in zip(self._parts, known, strict=True):
            rows[task] = row[: len(self.compared)]
        return Gradients(rows, self.compared, blocks=self._blocks)

    def others(self, task: int) -> list[Tensor | None]:
        """A task's gradients on the other leaves."""
        return self._parts[task][len(self.compared) :]


def further_gradients(
    others: Sequence[Mapping[str, Tensor | None]], tasks: tuple[str, ...], compared: list[Tensor]
) -> tuple[Gradients, Gradients]:
    """Every task's gradients on the compared leaves, of each of two further batches."""
    rows = []
    for losses in others:
        given = checks.present_losses(losses, "balancer.backward, others")
        checks.check_known_tasks(given, tasks, "balancer.backward, others")
        graph = task_graph([[loss] for loss in given.values()])
        rows.append(
            leaf_gradients(given, tasks, Leaves(compared, [], []), graph, retain_graph=False, in_one_block=True)[0]
        )
    first, second = rows
    return first, second
