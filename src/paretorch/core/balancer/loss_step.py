"""One backward of weighted losses, whose gradients are checked before they are added to ``.grad``."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from paretorch.core.arrays import Array, Mask
from paretorch.core.gradients.engine import accumulate_gradients, free_saved_tensors
from paretorch.core.gradients.graph import TaskGraph, has_several_tasks, leaf_hooks_disabled, node_output, task_graph
from paretorch.core.gradients.ranks import Ranks
from paretorch.core.gradients.step_evidence import StepResult
from paretorch.core.gradients.task_gradients import summing_dtype

WIDE = (torch.float32, torch.float64)


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
    nonfinite: str,
    ranks: Ranks,
    retain_graph: bool,
) -> None:
    """Add the gradient of the weighted losses to ``.grad``, by one backward; nothing is added where it is not finite.

    Args:
        given: losses by task.
        tasks: (all,) names.
        weights_without: gives the weights, without the (all,) tasks whose gradient is not finite; raises where that is an error.
        nonfinite: ``"pass"``: gradients are not checked; else they are.
        ranks: those that decide together.
        retain_graph: keep the graph for another backward.
    """
    broken = np.zeros(len(tasks), bool)
    while True:
        weights = weights_without(broken).weights
        assert weights is not None
        factors = {name: weights[tasks.index(name)] for name in given}
        used = {name: loss for name, loss in given.items() if factors[name] != 0}
        starts = [torch.full_like(loss, factors[name]) for name, loss in used.items()]
        keeps = retain_graph or nonfinite == "skip"  # for the backward without the task that is left out
        found = None if nonfinite == "pass" else weighted_gradients(used, starts, keeps)
        here = np.isin(tasks, [] if found is None else found.suspects)
        if nonfinite != "pass" and not ranks.alone:
            here = ranks.sum(torch.from_numpy(here.astype(np.float64))).numpy() > 0
        if not here.any():
            break
        broken = broken | here
    if found is not None and not retain_graph:
        free_saved_tensors(found.nodes)
    if found is None and used:
        torch.autograd.backward(list(used.values()), starts, retain_graph=retain_graph)
    elif found is not None and found.leaves:
        accumulate_gradients(found.leaves, found.gradients)


def mark_broken(loss_sums: Array, own: Mapping[str, Sequence[Tensor | None]], tasks: Sequence[str]) -> None:
    """Replace the loss of a task whose gradient on its own parameters is not finite by nan, which reaches all ranks.

    Args:
        loss_sums: (3, all), changed in place.
        own: every task's gradients on the parameters that are not compared.
        tasks: (all,) names.
    """
    if all_finite([part for row in own.values() for part in row]):
        return
    for name, row in own.items():
        if not all_finite(row):
            loss_sums[0, tasks.index(name)] = np.nan


def weighted_gradients(losses: Mapping[str, Tensor], starts: Sequence[Tensor], retain_graph: bool) -> Weighted | None:
    """The gradient of ``sum_t w_t L_t`` on all leaves by one backward, and the tasks whose part of it is not finite.

    A task is found by the gradients that it sends into nodes that it shares with others, and by the leaves that it alone
    reaches. Where all of these are finite and a sum is not, every task that reaches its leaf is suspected.

    Args:
        losses: by task.
        starts: their factors, in the same order.
        retain_graph: keep the graph for another backward.

    Returns:
        None where the graph contains nodes whose gradients cannot be computed without side effects (compiled functions, reentrant
        checkpoints, wrappers of distributed training).
    """
    if not losses:  # on a rank without any
        return Weighted([], [], [], [])
    graph = task_graph([[loss] for loss in losses.values()])
    if graph.opaque:
        return None
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
    sums += [_sum(part) for number in places if (part := sent[number]) is not None]


def all_finite(parts: Sequence[Tensor | None]) -> bool:
    """Whether all numbers are finite: by the sums, and entry by entry where a sum is not."""
    total = total_sum(parts)
    if total is None or math.isfinite(total):
        return True
    return all(bool(torch.isfinite(_values(part)).all()) for part in parts if part is not None)


def total_sum(parts: Sequence[Tensor | None]) -> Tensor | None:
    """() the sum of all numbers, which is finite only where all numbers are; None without a part."""
    sums = [_sum(part) for part in parts if part is not None]
    return torch.stack(sums).sum() if sums else None


def _sum(part: Tensor) -> Tensor:
    values = _values(part)
    return values.sum() if values.dtype in WIDE else values.sum(dtype=summing_dtype(values.dtype))


def _values(part: Tensor) -> Tensor:
    """The real numbers in a dense, sparse or complex tensor."""
    dense = part.coalesce().values() if part.is_sparse else part
    return torch.view_as_real(dense) if dense.is_complex() else dense
