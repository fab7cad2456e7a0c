"""What the loss of a task depends on, by its graph: branches of a Fork, and the encoder around it."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

LARGEST_GRAPH = 20_000  # nodes that are visited
LOOKUPS = ("Embedding", "Index", "Gather")  # how the names of nodes begin that select rows of weights by the data


def encoder_nodes(nodes: Sequence[Any]) -> frozenset[Any]:
    """The nodes below those of a step's forwards, without leaves; empty where there are too many."""
    visited: set[Any] = set()
    stack = list(nodes)
    while stack:
        for below, _ in stack.pop().next_functions:
            if below is not None and below not in visited and not hasattr(below, "variable"):
                visited.add(below)
                stack.append(below)
        if len(visited) > LARGEST_GRAPH:
            return frozenset()
    return frozenset(visited.difference(nodes))


def reached_nodes(starts: Iterable[Any], ends: Iterable[Any] = ()) -> set[Any]:
    """The nodes that others reach without passing through ``ends``; None among the starts is no node."""
    excluded = set(ends)
    visited: set[Any] = set()
    stack = list(starts)
    while stack:
        node = stack.pop()
        if node is not None and node not in visited and node not in excluded:
            visited.add(node)
            stack += [below for below, _ in node.next_functions]
    return visited


@dataclass
class PartsRead:
    """What a loss depends on.

    Args:
        branches: by task, the nodes of the loss's graph that read its branch.
        has_encoder: whether it depends on the encoder around the Fork.
        visited: the nodes of its graph, down to the branches.
        is_cut: whether the graph is too large; the rest is not known then.
    """

    branches: dict[int, set[Any]] = field(default_factory=dict)
    has_encoder: bool = False
    visited: set[Any] = field(default_factory=set)
    is_cut: bool = False


def parts_read(loss: Tensor, nodes: Sequence[Any], encoder: Collection[Any]) -> PartsRead:
    """What a loss depends on, by its graph.

    Args:
        loss: a scalar.
        nodes: those of the step's forwards.
        encoder: the nodes below them.
    """
    leaves = {node: len(node.like) for node in nodes}
    batches = {shape[0] for node in nodes for leaf in node.like if (shape := tuple(leaf.shape))}
    features = {below for node in nodes for below, _ in node.next_functions}
    found = PartsRead()
    stack = [loss.grad_fn]
    while stack:
        node = stack.pop()
        for below, output in () if node is None else node.next_functions:
            if below in leaves:
                found.branches.setdefault(output // leaves[below], set()).add(node)
            elif below in encoder:
                found.has_encoder |= below in features or _is_activation(below, output, batches)
            elif below is not None and below not in found.visited:
                found.visited.add(below)
                stack.append(below)
        if len(found.visited) > LARGEST_GRAPH:
            return PartsRead(is_cut=True)
    found.visited.add(loss.grad_fn)
    return found


def _is_activation(node: Any, output: int, batches: Collection[int]) -> bool:
    """Whether a tensor of the encoder depends on data, and is no weight that encoder and head share, or a function of weights.

    It has as many samples as the features, and below it there is an input that requires no grad, or a lookup. The graph does not
    show whether such an input is a constant.
    """
    shape = node._input_metadata[output].shape
    if not shape or shape[0] not in batches:
        return False
    stack, visited = [node], {node}
    while stack:
        node = stack.pop()
        if hasattr(node, "variable"):
            continue
        if node.name().startswith(LOOKUPS) or any(below is None for below, _ in node.next_functions):
            return True
        for below, _ in node.next_functions:
            if below not in visited:
                visited.add(below)
                stack.append(below)
    return False
