"""Which leaves of the autograd graph each loss reaches, and their per-task gradients."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.graph import get_gradient_edge

# Nodes whose inside cannot be seen, or which react to every pass: by the name of their class, and what to do about them.
SINK = "_DDPSinkBackward"  # one node for all outputs, each of which passes straight through
OPAQUE = {
    "CompiledFunctionBackward": "a compiled function",
    SINK: "DistributedDataParallel",
    "CheckpointFunctionBackward": "reentrant checkpointing",
    "RegisterPostBackwardFunctionBackward": "FSDP",
}


class Reach(NamedTuple):
    """Leaves in the order found, the tasks (by index) that reach each, and the opaque nodes on the way."""

    leaves: list[Tensor]
    tasks: list[frozenset[int]]
    opaque: frozenset[str]
    sinks: list[Any]  # the nodes of DistributedDataParallel


def reach(outputs: Sequence[Sequence[Tensor]]) -> Reach:
    """Walk the graph of every task's outputs once, down to the leaves."""
    seen: dict[tuple[Any, int], set[int]] = {}
    for task, tensors in enumerate(outputs):
        edges = [get_gradient_edge(tensor) for tensor in tensors if tensor.requires_grad]
        stack: list[tuple[Any, int]] = [(edge.node, edge.output_nr) for edge in edges]
        while stack:
            node, output = stack.pop()
            sink = type(node).__name__ == SINK
            tasks = seen.setdefault((node, output if sink else 0), set())
            if task in tasks:
                continue
            tasks.add(task)
            below = node.next_functions
            stack.extend(edge for edge in (below[output : output + 1] if sink else below) if edge[0] is not None)
    leaves = {node.variable: frozenset(tasks) for (node, _), tasks in seen.items() if hasattr(node, "variable")}
    names = frozenset(type(node).__name__ for node, _ in seen) & OPAQUE.keys()
    sinks = [node for node, _ in seen if type(node).__name__ == SINK]
    return Reach(list(leaves), list(leaves.values()), names, sinks)


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
    outputs: Sequence[Tensor], cotangents: Sequence[Tensor | None], leaves: Sequence[Tensor], retain_graph: bool
) -> list[Tensor | None]:
    """One task's gradients with respect to the leaves; None where it does not reach one."""
    with hooks_silenced(leaves):
        return list(torch.autograd.grad(outputs, leaves, cotangents, retain_graph=retain_graph, allow_unused=True))
