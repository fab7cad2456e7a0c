"""The part of the graph that several tasks share, and whether inner products there need gradients."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from torch import Tensor
from torch.autograd.graph import GradientEdge

from paretorch.core.gradients.graph import Edge, Place, Reach, place, several
from paretorch.core.multi_vjp.linear_layers import Linear, linear_uses


class Trunk(NamedTuple):
    """The shared part of a graph, and what of it is compared."""

    edges: list[Edge]  # by which the tasks' own parts enter it
    entering: list[int]  # the tasks, as bits, that enter by each
    nodes: list[Any]  # from the entries downwards
    linear: list[Linear]  # leaves whose inner products need no gradients
    direct: list[Tensor]  # the others
    compared: list[Tensor]  # both, as they were given

    @property
    def starts(self) -> list[GradientEdge]:
        """The entries, as the autograd engine takes them."""
        return [GradientEdge(*edge) for edge in self.edges]


def trunk_of(graph: Reach, compared: Sequence[Tensor]) -> Trunk | None:
    """The shared part, or None where a compared leaf lies outside, or a task enters below where another does.

    In the latter case a task's cotangent on the lower edge has a part that comes through the upper one: the two cannot be told
    apart, and would be counted twice.
    """
    shared = {id(leaf) for leaf, tasks in zip(graph.leaves, graph.tasks, strict=True) if len(tasks) > 1}
    if not all(id(leaf) in shared for leaf in compared):
        return None
    entries: dict[Edge, int] = {}
    for here, edges in graph.below.items():
        if not several(graph.masks[here]):
            for edge in edges:
                if several(graph.masks[place(edge)]):
                    entries[edge] = entries.get(edge, 0) | graph.masks[here]
    for edge, task in graph.roots:
        if several(graph.masks[place(edge)]):
            entries[edge] = entries.get(edge, 0) | 1 << task
    if _is_nested(graph, entries):
        return None
    linear, direct = linear_uses(graph, compared)
    nodes = [node for (node, _), mask in graph.masks.items() if several(mask)]
    return Trunk(list(entries), list(entries.values()), nodes, linear, direct, list(compared))


def _is_nested(graph: Reach, entries: Iterable[Edge]) -> bool:
    """Whether some entry is reached from another."""
    places = {place(edge) for edge in entries}
    ahead = [place(edge) for here in places for edge in graph.below[here]]
    passed: set[Place] = set()
    while ahead:
        here = ahead.pop()
        if here in places:
            return True
        if here not in passed:
            passed.add(here)
            ahead.extend(place(edge) for edge in graph.below[here])
    return False


def is_worth_it(trunk: Trunk, tasks: int) -> bool:
    """Whether inner products without gradients save more than the additional backward costs."""
    if tasks < 2 or not trunk.linear:
        return False
    spent, formed = (sum(costs) for costs in zip(*(linear.flops(tasks) for linear in trunk.linear), strict=True))
    return bool(spent + 2 * formed < tasks * formed)
