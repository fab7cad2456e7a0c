"""The cotangents of many tasks through the shared graph by autograd, one task after the other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge

from paretorch.core.gradients.graph import task_gradients
from paretorch.core.gradients.task_gradients import full_precision, gram, summing_dtype, wide_dtype
from paretorch.core.multi_vjp.linear_layers import parameter_products
from paretorch.core.multi_vjp.rule_errors import NoRuleError
from paretorch.core.multi_vjp.shared_graph import SharedGraph


def products_by_autograd(shared_graph: SharedGraph, starts: Sequence[GradientEdge], stacks: Sequence[Tensor]) -> Tensor:
    """(k, k) inner products of the gradients on the compared leaves, from (k, ...) cotangents at the starts.

    For linear layers autograd computes the cotangents on their outputs only.
    """
    tasks = len(stacks[0])
    uses = shared_graph.linear_uses
    nodes = list(dict.fromkeys(node for use in uses for node in use.nodes))
    gradients = gradients_by_autograd(
        starts, [*(GradientEdge(node, 0) for node in nodes), *shared_graph.other_leaves], stacks
    )
    outputs = dict(zip(nodes, gradients, strict=False))
    del gradients[: len(nodes)]
    total = torch.zeros(tasks, tasks, dtype=wide_dtype(stacks[0]), device=stacks[0].device)
    with full_precision(stacks[0]):
        for index, use in enumerate(uses):
            parts = [part for node in use.nodes if (part := outputs[node]) is not None]
            if 0 < len(parts) < len(use.nodes):
                raise NoRuleError("a layer of which one use is not reached")
            if parts:
                total += parameter_products(
                    use, parts[0] if len(parts) == 1 else torch.cat(parts, dim=1), [None] * len(parts)
                )
            later = {node for other in uses[index + 1 :] for node in other.nodes}
            outputs = {node: output for node, output in outputs.items() if node in later}
        for gradient in gradients:
            if gradient is not None:
                total += gram(gradient.reshape(tasks, -1).to(summing_dtype(gradient.dtype)))
    return total


def gradients_by_autograd(
    starts: Sequence[GradientEdge], ends: Sequence[Any], stacks: Sequence[Tensor], retain_graph: bool = True
) -> list[Tensor | None]:
    """(k, ...) the gradients of all tasks at each end, one backward for each task; None where no task reaches the end.

    The backwards are not batched by vmap, which does not support hooks that read values, random recomputation and
    ``retain_grad``.

    Raises:
        ValueError: the gradient of a leaf is sparse.
    """
    tasks = len(stacks[0])
    rows = [
        task_gradients(starts, [stack[task] for stack in stacks], ends, retain_graph or task + 1 < tasks)
        for task in range(tasks)
    ]
    return [_stacked(column) for column in zip(*rows, strict=True)]


def _stacked(column: Sequence[Tensor | None]) -> Tensor | None:
    """The gradients of all tasks at one end, with zeros for tasks that do not reach it."""
    like = next((part for part in column if part is not None), None)
    return None if like is None else torch.stack([torch.zeros_like(like) if part is None else part for part in column])
