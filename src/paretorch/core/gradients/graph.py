"""The autograd graph below the tasks' losses: its leaves, the tasks that reach them, and per-task gradients."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge, get_gradient_edge

# Nodes whose inner graph is hidden, or which react to every backward: names of their classes, and what creates them.
FSDP_NODE = "RegisterPostBackwardFunctionBackward"
DDP_NODE = "_DDPSinkBackward"  # one node for all outputs of the wrapper; each output depends on one input
CHECKPOINT_NODE = "CheckpointFunctionBackward"
OPAQUE = {
    "CompiledFunctionBackward": "a compiled function",
    DDP_NODE: "DistributedDataParallel",
    CHECKPOINT_NODE: "reentrant checkpointing",
    FSDP_NODE: "FSDP",
}
FORK_NODES = (
    "Fork("  # the start of the class names of a Fork's nodes; each has the Fork's step as its attribute ``step``
)

NodeOutput = tuple[Any, int]  # a node and an output of it; 0 for all outputs, except those of DDP_NODE
Edge = tuple[Any, int]  # a node and the output of it that a gradient enters by


class TaskGraph(NamedTuple):
    """The graph below the losses of T tasks. A set of tasks is a bit mask: task t is ``1 << t``."""

    leaves: list[Tensor]  # in the order of the walk
    leaf_tasks: list[frozenset[int]]  # the tasks that reach each leaf
    opaque: frozenset[str]  # class names of nodes whose inner graph is hidden
    ddp_nodes: list[Any]  # the nodes of DistributedDataParallel
    roots: list[tuple[Edge, int]]  # the edge of each loss, and its task
    next_edges: dict[NodeOutput, list[Edge]]  # in topological order from the losses: the edges that follow
    task_masks: dict[NodeOutput, int]  # in the same order: the tasks that reach it
    forks: Sequence[Any] = ()  # the nodes of Forks


def task_graph(outputs: Sequence[Sequence[Tensor]]) -> TaskGraph:
    """Walk the graph of every task's outputs down to the leaves. Each node is visited once, for any number of tasks."""
    roots = [
        ((edge.node, edge.output_nr), task)
        for task, tensors in enumerate(outputs)
        for tensor in tensors
        if tensor.requires_grad
        for edge in [get_gradient_edge(tensor)]
    ]
    next_edges: dict[NodeOutput, list[Edge]] = {}
    next_outputs: dict[NodeOutput, list[NodeOutput]] = {}
    finished: list[NodeOutput] = []
    for root, _ in roots:
        stack: list[tuple[NodeOutput, bool]] = [(node_output(root), False)]
        while stack:
            source, done = stack.pop()
            if done:
                finished.append(source)
            elif source not in next_edges:
                node, output = source
                edges = node.next_functions
                if type(node).__name__ == DDP_NODE:
                    edges = edges[output : output + 1]
                next_edges[source] = [edge for edge in edges if edge[0] is not None]
                next_outputs[source] = list(map(node_output, next_edges[source]))
                stack.append((source, True))
                stack += [(target, False) for target in next_outputs[source] if target not in next_edges]
    masks = dict.fromkeys(reversed(finished), 0)  # topological order
    for root, task in roots:
        masks[node_output(root)] |= 1 << task
    for source, mask in masks.items():
        for target in next_outputs[source]:
            masks[target] |= mask
    count = len(outputs)
    leaves = {node.variable: mask for (node, _), mask in masks.items() if hasattr(node, "variable")}
    leaf_tasks = [frozenset(task for task in range(count) if mask >> task & 1) for mask in leaves.values()]
    names = frozenset(type(node).__name__ for node, _ in masks)
    opaque = names & OPAQUE.keys()
    forks = []
    if any(name.startswith(FORK_NODES) for name in names):
        forks = [node for node, _ in masks if type(node).__name__.startswith(FORK_NODES)]
    ddp_nodes = [node for node, _ in masks if type(node).__name__ == DDP_NODE]
    ordered = {source: next_edges[source] for source in masks}
    return TaskGraph(list(leaves), leaf_tasks, opaque, ddp_nodes, roots, ordered, masks, forks)


def ddp_leaves(graph: TaskGraph) -> list[Tensor]:
    """The leaves below everything that DistributedDataParallel returned, whether or not a loss depends on it.

    With ``find_unused_parameters=True`` the wrapper expects a gradient for each of these; an ordinary backward runs all their
    accumulators, some without a gradient.
    """
    remaining = [edge for node in graph.ddp_nodes for edge in node.next_functions]
    visited: set[Any] = set()
    while remaining:
        node, _ = remaining.pop()
        if node is not None and node not in visited:
            visited.add(node)
            remaining.extend(node.next_functions)
    return [node.variable for node in visited if is_leaf(node)]


def has_several_tasks(mask: int) -> bool:
    """Whether more than one bit of the mask is set."""
    return mask & (mask - 1) != 0


def is_leaf(node: Any) -> bool:
    """Whether a node accumulates the gradient of a leaf."""
    return hasattr(node, "variable")


def node_output(edge: Edge) -> NodeOutput:
    """The node output that an edge enters by; all outputs of a node count as one, except those of DDP_NODE."""
    return edge if edge[1] == 0 or type(edge[0]).__name__ == DDP_NODE else (edge[0], 0)


@contextmanager
def leaf_hooks_disabled(leaves: Sequence[Tensor]) -> Iterator[None]:
    """A context in which hooks on the leaves do not run: they apply to the accumulated gradient, not to each task's gradient."""
    saved = [(hooks, dict(hooks)) for leaf in leaves if (hooks := leaf._backward_hooks)]
    try:  # twice: an interrupt may arrive within the inner one's end
        try:
            for hooks, _ in saved:
                hooks.clear()
            yield
        finally:
            for hooks, items in saved:
                hooks.update(items)
    finally:
        for hooks, items in saved:
            hooks.update(items)


def task_gradients(
    outputs: Sequence[Tensor] | Sequence[GradientEdge],
    cotangents: Sequence[Tensor | None],
    ends: Sequence[Any],
    retain_graph: bool,
    dense: int | None = None,
) -> list[Tensor | None]:
    """The gradients of one task with respect to leaves or edges of the graph; None where the task does not reach one.

    Args:
        outputs: the tensors, or edges, at which the backward starts.
        cotangents: the cotangent of each output; None: one.
        ends: leaves, whose hooks do not run, or edges.
        retain_graph: keep the graph for another backward.
        dense: the number of leading ends whose gradients must be dense; None: all.

    Raises:
        ValueError: one of these gradients is sparse.
    """
    with leaf_hooks_disabled([leaf for leaf in ends if isinstance(leaf, Tensor)]):
        found: list[Tensor | None] = list(
            torch.autograd.grad(outputs, ends, cotangents, retain_graph=retain_graph, allow_unused=True)
        )
    check_dense(found[:dense])
    return found


def check_dense(gradients: Sequence[Tensor | None]) -> None:
    """Raise ValueError for a sparse gradient: inner products need dense ones."""
    for part in gradients:
        if part is not None and part.layout is not torch.strided:
            raise ValueError(
                f"a parameter of shape {tuple(part.shape)} has sparse gradients, whose inner products are not supported: make "
                "the embedding with sparse=False, or exclude it from the compared parameters (Balancer(..., shared=encoder))"
            )
