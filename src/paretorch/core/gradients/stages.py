"""Stages of the autograd graph, between which one tensor carries everything: each is freed before the next is computed."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from itertools import chain
from typing import Any, NamedTuple

from torch import Tensor
from torch.autograd.graph import GradientEdge

from paretorch.core.gradients.engine import has_hooks
from paretorch.core.gradients.graph import Edge, NodeOutput, TaskGraph, has_several_tasks, is_leaf, node_output

FEWEST_NODES = 32  # that several tasks share: a smaller graph holds too little for the search to pay
MOST_STAGES = 8
WORTHWHILE = 0.9  # of the memory that one stage would need
VIEWS = re.compile(
    r"(Unsafe)?View|Reshape|Transpose|T|Permute|Expand|Split|Select|Slice|Squeeze|Unsqueeze|Unbind|Alias"
)


class Stage(NamedTuple):
    """Nodes of a graph between two cuts.

    Args:
        leaves: that the nodes reach. None of them is reached through the cut: the engine would pass it to get there.
        cut: the only edge that leads out of the stage; None: nothing follows.
    """

    leaves: list[Tensor]
    cut: GradientEdge | None


def backward_stages(graph: TaskGraph, leaves: Sequence[Tensor], tasks: int) -> list[Stage]:
    r"""The stages in which the gradients of all tasks need the least memory.

    In one stage, all activations are kept while the gradients of all tasks accumulate. In several, those of a stage are freed
    when the last task has passed it, and the cotangents of all tasks at its end are kept instead. Estimated from the shapes in
    the graph, with activations :math:`A_i`, parameters :math:`P_i` and the cotangent :math:`C_i` at the start of stage i:

    .. math:: \max_i \Big( \sum_{j \ge i} A_j + T \sum_{j \le i} P_j + T (C_i + C_{i+1}) \Big)

    Args:
        graph: of the losses.
        leaves: that need a gradient.
        tasks: T.
    """
    whole = [Stage(list(leaves), None)]
    if graph.opaque or tasks < 2 or sum(map(has_several_tasks, graph.task_masks.values())) < FEWEST_NODES:
        return whole
    sections = _sections(graph, {id(leaf) for leaf in leaves})
    total = sum(section.activations for section in sections)
    joined = _joined(sections, tasks, total / MOST_STAGES)
    if _peak(joined, tasks) > WORTHWHILE * (total + tasks * sum(section.parameters for section in joined)):
        return whole
    found = {id(leaf) for section in joined for leaf in section.leaves}
    joined[-1].leaves.extend(leaf for leaf in leaves if id(leaf) not in found)  # that no loss reaches
    return [Stage(section.leaves, None if section.cut is None else GradientEdge(*section.cut)) for section in joined]


class _Section(NamedTuple):
    """A part of the graph with the bytes that it takes."""

    leaves: list[Tensor]
    cut: Edge | None
    activations: int
    parameters: int
    cotangent: int  # at the cut


def _sections(graph: TaskGraph, wanted: set[int]) -> list[_Section]:
    """The smallest parts of the graph that a single edge joins."""
    parameter_nodes = _parameter_nodes(graph)
    entering: dict[NodeOutput, set[Edge]] = {}
    for edge, _ in graph.roots:
        entering.setdefault(node_output(edge), set()).add(edge)
    sections: list[_Section] = []
    leaves: dict[int, Tensor] = {}
    activations, is_begun = 0, False
    for here, edges in graph.next_edges.items():
        if here in parameter_nodes:
            continue
        arrived = entering.pop(here)
        if is_begun and not entering and len(arrived) == 1:
            (cut,) = arrived
            parameters = sum(map(_bytes, leaves.values()))
            sections.append(_Section([*leaves.values()], cut, activations, parameters, _output_bytes(cut)))
            leaves, activations = {}, 0
        is_begun = True
        activations += 0 if _is_view(here[0]) else sum(map(_output_bytes, arrived))
        remaining = list(edges)
        while remaining:
            target = node_output(edge := remaining.pop())
            if target not in parameter_nodes:
                entering.setdefault(target, set()).add(edge)
            elif not is_leaf(target[0]):
                remaining += graph.next_edges[target]
            elif id(leaf := target[0].variable) in wanted:
                leaves[id(leaf)] = leaf
    parameters = sum(map(_bytes, leaves.values()))
    sections.append(_Section([*leaves.values()], None, activations, parameters, 0))
    return sections


def _parameter_nodes(graph: TaskGraph) -> set[NodeOutput]:
    """Leaves, and what one node computes from leaves alone and is no larger (transposes, casts, normalized weights)."""
    users: dict[NodeOutput, int] = dict.fromkeys(graph.next_edges, 0)
    for edge in [*(edge for edge, _ in graph.roots), *chain.from_iterable(graph.next_edges.values())]:
        users[node_output(edge)] += 1
    size: dict[NodeOutput, int] = {}
    for here, edges in reversed(graph.next_edges.items()):
        if is_leaf(here[0]):
            size[here] = _bytes(here[0].variable)
        elif users[here] == 1 and all(node_output(edge) in size for edge in edges):
            leaves = sum(size[node_output(edge)] for edge in edges)
            if _output_bytes(here) <= leaves:
                size[here] = leaves
    return size.keys() - {node_output(edge) for edge, _ in graph.roots}


def _joined(sections: Sequence[_Section], tasks: int, least: float) -> list[_Section]:
    """Sections joined where both sides of the cut use a leaf, where a hook is, and where all cotangents take what it frees."""
    last_use = {id(leaf): number for number, section in enumerate(sections) for leaf in section.leaves}
    result: list[_Section] = []
    pending: _Section | None = None
    until = 0  # the last section that uses a leaf of those before
    for number, section in enumerate(sections):
        pending = section if pending is None else _merged(pending, section)
        until = max([until, *(last_use[id(leaf)] for leaf in section.leaves)])
        frees = until <= number and pending.activations > max(least, tasks * pending.cotangent)
        if section.cut is None or (frees and not has_hooks([GradientEdge(*section.cut)])):
            result.append(pending)
            pending = None
    return result


def _merged(one: _Section, two: _Section) -> _Section:
    leaves = {id(leaf): leaf for leaf in (*one.leaves, *two.leaves)}
    return _Section(
        [*leaves.values()],
        two.cut,
        one.activations + two.activations,
        sum(map(_bytes, leaves.values())),
        two.cotangent,
    )


def _peak(sections: Sequence[_Section], tasks: int) -> int:
    """Bytes at the peak, when the sections are computed one after another."""
    peak, kept, arriving = 0, sum(section.activations for section in sections), 0
    for section in sections:
        kept += tasks * section.parameters
        peak = max(peak, kept + tasks * (arriving + section.cotangent))
        kept, arriving = kept - section.activations, section.cotangent
    return peak


def _output_bytes(edge: Edge) -> int:
    node, output = edge
    metadata = node._input_metadata[output]
    return math.prod(int(size) for size in metadata.shape) * int(metadata.dtype.itemsize)


def _is_view(node: Any) -> bool:
    """Whether the output of an operation is its input in another shape, without memory of its own."""
    return VIEWS.fullmatch(node.name().partition("Backward")[0]) is not None


def _bytes(leaf: Tensor) -> int:
    return leaf.numel() * leaf.element_size()
