"""One backward of weighted losses, whose gradients are checked before they are added to ``.grad``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from paretorch.core.arrays import Mask
from paretorch.core.gradients.engine import accumulate_gradients, free_saved_tensors
from paretorch.core.gradients.finite import all_finite, tensor_sum
from paretorch.core.gradients.graph import (
    FSDP_NODE,
    TaskGraph,
    ddp_leaves,
    has_several_tasks,
    leaf_hooks_disabled,
    node_output,
    task_graph,
)
from paretorch.core.gradients.ranks import Ranks, is_distributed
from paretorch.core.gradients.step_evidence import StepResult

TRANSPARENT = frozenset(
    {"CompiledFunctionBackward"}
)  # opaque nodes whose gradients can be computed without side effects


class Weighted(NamedTuple):
    """The gradients of weighted losses, not yet in ``.grad``."""

    leaves: list[Tensor]
    gradients: list[Tensor | None]
    suspects: list[str]  # the tasks whose gradient is not finite, or may not be
    nodes: list[Any]  # of the graph, where it is kept


def descend_losses(
    given: Mapping[str, Tensor],
    tasks: Sequence[str],
    weights_without: Callable[[Mask], StepResult],
    nonfinite: str | None,
    ranks: Ranks,
    retain_graph: bool,
) -> list[Tensor]:
    """Add the gradient of the weighted losses to ``.grad``, by one backward; nothing is added where it is not finite.

    Args:
        given: losses by task.
        tasks: (all,) names.
        weights_without: gives the weights, without the (all,) tasks whose gradient is not finite; raises where that is an error.
        nonfinite: ``"raise"`` or ``"skip"``; None: the gradient is added unchecked.
        ranks: those that decide together.
        retain_graph: keep the graph for another backward.

    Returns:
        the ``.grad`` of the leaves where the gradient was added unchecked, else none.
    """
    broken = np.zeros(len(tasks), bool)
    reached: Sequence[Tensor] = []
    while True:
        weights = weights_without(broken).weights
        assert weights is not None
        factors = {name: weights[tasks.index(name)] for name in given}
        # DistributedDataParallel waits for the parameters of every loss that was computed: zeros are sent to them
        has_zeros = is_distributed()
        used = {
            name: loss
            for name, loss in given.items()
            if factors[name] != 0 or (has_zeros and not broken[tasks.index(name)])
        }
        starts = [torch.full_like(loss, factors[name]) for name, loss in used.items()]
        graph = task_graph([[loss] for loss in used.values()])
        if not broken.any() and not graph.ddp_nodes:
            reached = graph.leaves
        if nonfinite is None:
            return _added(graph, used, starts, retain_graph)
        if graph.opaque - TRANSPARENT:
            here = np.isin(tasks, _added_if_finite(graph, used, starts, retain_graph))
            if not ranks.alone:
                here = ranks.sum(torch.from_numpy(here.astype(np.float64))).numpy() > 0
            if here.any():  # raises where that is an error; a second backward through these nodes is not possible
                weights_without(here if nonfinite == "raise" else np.ones(len(tasks), bool))
            return []
        keeps = retain_graph or nonfinite == "skip"  # for the backward without the task that is left out
        found = weighted_gradients(graph, used, starts, keeps)
        here = np.isin(tasks, found.suspects)
        if not ranks.alone:
            here = ranks.sum(torch.from_numpy(here.astype(np.float64))).numpy() > 0
        if not here.any():
            break
        broken = broken | here
    if not retain_graph:
        free_saved_tensors(found.nodes)
    accumulate_gradients(found.leaves, found.gradients, reached if broken.any() else ())
    return []


def _added(
    graph: TaskGraph, losses: Mapping[str, Tensor], starts: Sequence[Tensor], retain_graph: bool
) -> list[Tensor]:
    """The ``.grad`` of the graph's leaves after an ordinary backward; without those of sharded parameters."""
    if losses:
        torch.autograd.backward(list(losses.values()), list(starts), retain_graph=retain_graph)
    leaves = [*graph.leaves, *ddp_leaves(graph)]
    return [] if FSDP_NODE in graph.opaque else [leaf.grad for leaf in leaves if leaf.grad is not None]


def _added_if_finite(
    graph: TaskGraph, losses: Mapping[str, Tensor], starts: Sequence[Tensor], retain_graph: bool
) -> list[str]:
    """An ordinary backward, after which ``.grad`` is restored where it is not finite.

    For graphs with nodes whose gradients cannot be computed without side effects. Parameters within a reentrant checkpoint and
    sharded ones are not among the leaves of the graph, and are not checked.

    Returns:
        the tasks that reach a leaf whose gradient is not finite.
    """
    leaves = [] if FSDP_NODE in graph.opaque else [*{*graph.leaves, *ddp_leaves(graph)}]
    before = [None if leaf.grad is None else leaf.grad.clone() for leaf in leaves]
    _added(graph, losses, starts, retain_graph)
    if all_finite([leaf.grad for leaf in leaves]):
        return []
    reaching = dict(zip(graph.leaves, graph.leaf_tasks, strict=True))
    everyone = frozenset(range(len(losses)))
    suspects = frozenset[int]().union(*(reaching.get(leaf, everyone) for leaf in leaves if not all_finite([leaf.grad])))
    with torch.no_grad():
        for leaf, grad in zip(leaves, before, strict=True):
            if grad is None or leaf.grad is None:
                leaf.grad = grad
            else:
                leaf.grad.copy_(grad)
    names = list(losses)
    return [names[task] for task in sorted(suspects)]


def broken_rows(rows: Mapping[str, Sequence[Tensor | None]], tasks: Sequence[str]) -> Mask:
    """(all,) the tasks whose gradient is not finite.

    Args:
        rows: gradients by task.
        tasks: (all,) names.
    """
    if all_finite([part for row in rows.values() for part in row]):
        return np.zeros(len(tasks), bool)
    return np.isin(tasks, [name for name, row in rows.items() if not all_finite(row)])


def weighted_gradients(
    graph: TaskGraph, losses: Mapping[str, Tensor], starts: Sequence[Tensor], retain_graph: bool
) -> Weighted:
    """The gradient of ``sum_t w_t L_t`` on all leaves by one backward, and the tasks whose part of it is not finite.

    A task is found by the gradients that it sends into nodes that it shares with others, and by the leaves that it alone
    reaches. Where all of these are finite and a sum is not, every task that reaches its leaf is suspected.

    Args:
        graph: of the losses; without nodes whose gradients cannot be computed without side effects.
        losses: by task.
        starts: their factors, in the same order.
        retain_graph: keep the graph for another backward.
    """
    if not losses:  # on a rank without any
        return Weighted([], [], [], [])
    sent: list[list[Tensor]] = [[] for _ in losses]
    handles = [
        node.register_hook(partial(_record, sent[mask.bit_length() - 1], places))
        for (node, _), mask in graph.task_masks.items()
        if not has_several_tasks(mask) and (places := _into_shared(node, graph))
    ]
    try:
        with leaf_hooks_disabled(graph.leaves):
            found = torch.autograd.grad(
                list(losses.values()), graph.leaves, starts, retain_graph=retain_graph, allow_unused=True
            )
    finally:
        for handle in handles:
            handle.remove()
    there = [
        (leaf, part, tasks)
        for leaf, part, tasks in zip(graph.leaves, found, graph.leaf_tasks, strict=True)
        if part is not None
    ]
    nodes = [node for node, _ in graph.task_masks] if retain_graph else []
    result = Weighted([leaf for leaf, _, _ in there], [part for _, part, _ in there], [], nodes)
    if all_finite(result.gradients):
        return result
    reaching = [tasks for _, part, tasks in there if not all_finite([part])]
    suspects = {task for task, sums in enumerate(sent) if not all_finite(sums)}
    suspects = suspects.union(*(tasks for tasks in reaching if len(tasks) == 1)) or set().union(*reaching)
    names = list(losses)
    return result._replace(suspects=[names[task] for task in sorted(suspects)])


def _into_shared(node: Any, graph: TaskGraph) -> list[int]:
    """The inputs of a node of one task that lead to nodes that several tasks reach."""
    return [
        number
        for number, edge in enumerate(node.next_functions)
        if edge[0] is not None and has_several_tasks(graph.task_masks.get(node_output(edge), 0))
    ]


def _record(sums: list[Tensor], places: Sequence[int], sent: Sequence[Tensor | None], _: Any) -> None:
    sums += [tensor_sum(part) for number in places if (part := sent[number]) is not None]
