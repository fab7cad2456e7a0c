"""Which leaves of the autograd graph each loss reaches, and their per-task gradients."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.graph import get_gradient_edge

# Nodes whose inside cannot be seen, or which react to every pass: by the name of their class, and what to do about them.
FSDP = "RegisterPostBackwardFunctionBackward"
SINK = "_DDPSinkBackward"  # one node for all outputs, each of which passes straight through
OPAQUE = {
    "CompiledFunctionBackward": "a compiled function",
    SINK: "DistributedDataParallel",
    "CheckpointFunctionBackward": "reentrant checkpointing",
    FSDP: "FSDP",
}


Place = tuple[Any, int]  # a node, and for those of SINK the output; others are one place
Edge = tuple[Any, int]  # a node and the input it is entered by


class Reach(NamedTuple):
    """What the tasks' graphs are made of. ``T`` tasks are bits: task t is ``1 << t``."""

    leaves: list[Tensor]  # in the order found
    tasks: list[frozenset[int]]  # that reach each leaf
    opaque: frozenset[str]  # names of the nodes that cannot be looked into
    sinks: list[Any]  # the nodes of DistributedDataParallel
    roots: list[tuple[Edge, int]]  # where each task's graph begins, and the task
    below: dict[Place, list[Edge]]  # every place, from the losses downwards, and where it leads
    masks: dict[Place, int]  # the tasks that reach each place


def reach(outputs: Sequence[Sequence[Tensor]]) -> Reach:
    """Walk the graph of every task's outputs, down to the leaves; every node once, however many tasks."""
    roots = [
        ((edge.node, edge.output_nr), task)
        for task, tensors in enumerate(outputs)
        for tensor in tensors
        if tensor.requires_grad
        for edge in [get_gradient_edge(tensor)]
    ]
    below: dict[Place, list[Edge]] = {}
    places: dict[Place, list[Place]] = {}  # those of the edges below
    finished: list[Place] = []
    for root, _ in roots:
        stack: list[tuple[Place, bool]] = [(place(root), False)]
        while stack:
            here, done = stack.pop()
            if done:
                finished.append(here)
            elif here not in below:
                node, output = here
                edges = node.next_functions
                if type(node).__name__ == SINK:
                    edges = edges[output : output + 1]
                below[here] = [edge for edge in edges if edge[0] is not None]
                places[here] = list(map(place, below[here]))
                stack.append((here, True))
                stack += [(there, False) for there in places[here] if there not in below]
    masks = dict.fromkeys(reversed(finished), 0)  # a place comes before all that it leads to
    for root, task in roots:
        masks[place(root)] |= 1 << task
    for here, mask in masks.items():
        for there in places[here]:
            masks[there] |= mask
    count = len(outputs)
    found = {node.variable: mask for (node, _), mask in masks.items() if hasattr(node, "variable")}
    tasks = [frozenset(task for task in range(count) if mask >> task & 1) for mask in found.values()]
    names = frozenset(type(node).__name__ for node, _ in masks) & OPAQUE.keys()
    sinks = [node for node, _ in masks if type(node).__name__ == SINK]
    return Reach(list(found), tasks, names, sinks, roots, {here: below[here] for here in masks}, masks)


def below_sinks(graph: Reach) -> list[Tensor]:
    """The leaves of everything that DistributedDataParallel returned, whether or not a loss was made of it.

    With ``find_unused_parameters=True`` it waits for each of these; a backward reaches them all, some without a gradient.
    """
    ahead = [edge for node in graph.sinks for edge in node.next_functions]
    passed: set[Any] = set()
    while ahead:
        node, _ = ahead.pop()
        if node is not None and node not in passed:
            passed.add(node)
            ahead.extend(node.next_functions)
    return [node.variable for node in passed if is_leaf(node)]


def several(mask: int) -> bool:
    """Whether the bits are of more than one task."""
    return mask & (mask - 1) != 0


def is_leaf(node: Any) -> bool:
    """Whether a node is a leaf's accumulator."""
    return hasattr(node, "variable")


def place(edge: Edge) -> Place:
    """The place that an edge leads to."""
    return edge if edge[1] == 0 or type(edge[0]).__name__ == SINK else (edge[0], 0)


@contextmanager
def hooks_silenced(leaves: Sequence[Tensor]) -> Iterator[None]:
    """Within it, hooks on the leaves do not fire: they belong to the one gradient that is accumulated, not to each task's."""
    held = [(hooks, dict(hooks)) for leaf in leaves if (hooks := leaf._backward_hooks)]
    for hooks, _ in held:
        hooks.clear()
    try:
        yield
    finally:
        for hooks, items in held:
            hooks.update(items)


def task_gradients(
    outputs: Sequence[Tensor],
    cotangents: Sequence[Tensor | None],
    ends: Sequence[Any],  # leaves, or edges of the graph
    retain_graph: bool,
    dense: int | None = None,
) -> list[Tensor | None]:
    """One task's gradients with respect to leaves or at edges of the graph; None where it does not reach one.

    Args:
        outputs, cotangents: where the backward begins, and with what (None: one).
        ends: leaves, whose hooks do not run, or edges.
        retain_graph: keep the graph for another backward.
        dense: of how many ends, from the first, the gradients must be dense; None: of all.

    Raises:
        ValueError: one of these gradients is sparse.
    """
    with hooks_silenced([leaf for leaf in ends if isinstance(leaf, Tensor)]):
        found: list[Tensor | None] = list(
            torch.autograd.grad(outputs, ends, cotangents, retain_graph=retain_graph, allow_unused=True)
        )
    check_dense(found[:dense])
    return found


def check_dense(gradients: Sequence[Tensor | None]) -> None:
    """Inner products are taken of dense gradients only."""
    for part in gradients:
        if part is not None and part.layout is not torch.strided:
            raise ValueError(
                f"a parameter of shape {tuple(part.shape)} has sparse gradients, of which inner products cannot be taken: make "
                "the embedding with sparse=False, or leave it out of what is compared (Balancer(..., shared=encoder))"
            )
