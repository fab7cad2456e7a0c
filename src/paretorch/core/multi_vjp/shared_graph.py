"""The part of the autograd graph that several tasks share."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from torch import Tensor
from torch.autograd.graph import GradientEdge

from paretorch.core.gradients.graph import Edge, NodeOutput, TaskGraph, has_several_tasks, is_leaf, node_output
from paretorch.core.multi_vjp.linear_layers import LinearUse, linear_uses


class SharedGraph(NamedTuple):
    """The shared part of a graph, with the leaves whose gradients are compared.

    Args:
        edges: the edges from nodes of one task into the shared part.
        edge_tasks: for each edge the tasks that enter by it, as a bit mask.
        nodes: in topological order.
        linear_uses: compared leaves whose inner products need no gradients.
        other_leaves: the other compared leaves.
        compared: all compared leaves, in the given order.
    """

    edges: list[Edge]
    edge_tasks: list[int]
    nodes: list[Any]
    linear_uses: list[LinearUse]
    other_leaves: list[Tensor]
    compared: list[Tensor]

    @property
    def entries(self) -> list[GradientEdge]:
        """The edges in the form of the autograd engine."""
        return [GradientEdge(*edge) for edge in self.edges]

    @property
    def batch_sizes(self) -> list[int | None]:
        """The number of samples of every entry that is no leaf; None for a single number."""
        shapes = [node._input_metadata[number].shape for node, number in self.edges if not is_leaf(node)]
        return [int(shape[0]) if shape else None for shape in shapes]


def find_shared_graph(graph: TaskGraph, compared: Sequence[Tensor]) -> SharedGraph | None:
    """The shared part; None if a compared leaf is outside it, or if one entry is reached from another.

    In the latter case the cotangent of a task at the lower entry includes what comes through the upper one. The two parts
    cannot be separated, and would be counted twice.
    """
    shared = {id(leaf) for leaf, tasks in zip(graph.leaves, graph.leaf_tasks, strict=True) if len(tasks) > 1}
    if not all(id(leaf) in shared for leaf in compared):
        return None
    entries: dict[Edge, int] = {}
    for here, edges in graph.next_edges.items():
        if not has_several_tasks(graph.task_masks[here]):
            for edge in edges:
                if has_several_tasks(graph.task_masks[node_output(edge)]):
                    entries[edge] = entries.get(edge, 0) | graph.task_masks[here]
    for edge, task in graph.roots:
        if has_several_tasks(graph.task_masks[node_output(edge)]):
            entries[edge] = entries.get(edge, 0) | 1 << task
    if _is_nested(graph, entries):
        return None
    uses, others = linear_uses(graph, compared)
    nodes = [node for (node, _), mask in graph.task_masks.items() if has_several_tasks(mask)]
    return SharedGraph(list(entries), list(entries.values()), nodes, uses, others, list(compared))


def _is_nested(graph: TaskGraph, entries: Iterable[Edge]) -> bool:
    """Whether an entry is reached from another."""
    targets = {node_output(edge) for edge in entries}
    remaining = [node_output(edge) for here in targets for edge in graph.next_edges[here]]
    visited: set[NodeOutput] = set()
    while remaining:
        here = remaining.pop()
        if here in targets:
            return True
        if here not in visited:
            visited.add(here)
            remaining.extend(node_output(edge) for edge in graph.next_edges[here])
    return False


def saves_time(shared_graph: SharedGraph, tasks: int) -> bool:
    """Whether inner products without gradients save more than the additional backward costs."""
    if tasks < 2 or not shared_graph.linear_uses:
        return False
    costs = (use.multiplications(tasks) for use in shared_graph.linear_uses)
    products, formed = (sum(column) for column in zip(*costs, strict=True))
    return bool(products + 2 * formed < tasks * formed)
