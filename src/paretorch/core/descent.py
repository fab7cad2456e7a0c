"""Two ways for all tasks' cotangents through the shared part of the graph: by rules of our own, and by autograd."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge

from paretorch.core.cotangents import Cotangents, Step
from paretorch.core.evidence import full_precision, summing_dtype, wide_dtype
from paretorch.core.graph import hooks_silenced, is_leaf
from paretorch.core.layers import Linear, gram, inner_products
from paretorch.core.nodes import inputs_of, is_known
from paretorch.core.rows import NoRuleError, Rows
from paretorch.core.trunk import Trunk

# Nodes through which autograd sends T cotangents at once, as one batch, at no more than T times the cost of one. Others are
# slower so, and some cannot: then one after the other.
BATCHED = frozenset(
    {
        "AddmmBackward0", "MmBackward0", "BmmBackward0", "TBackward0", "TransposeBackward0", "PermuteBackward0",
        "ViewBackward0", "UnsafeViewBackward0", "ReshapeAliasBackward0", "ExpandBackward0", "CloneBackward0",
        "AddBackward0", "SubBackward0", "MulBackward0", "DivBackward0", "ReluBackward0", "TanhBackward0",
        "SigmoidBackward0", "GeluBackward0", "SiluBackward0", "LeakyReluBackward0", "EluBackward0", "CatBackward0",
        "SliceBackward0", "SelectBackward0", "ToCopyBackward0", "AccumulateGrad",
    }
)  # fmt: skip


@torch.no_grad()
def descend(
    trunk: Trunk,
    starts: Sequence[tuple[Any, Cotangents]],
    rows: Rows | None,
    leaves: Sequence[Tensor],
    at_leaf: Callable[[Tensor, Tensor], None],
    uses: Sequence[Linear] = (),
    at_use: Callable[[Linear, Tensor], None] = lambda use, gradients: None,
) -> None:
    """Follow the rules from where the tasks enter to the leaves, and let go of every cotangent as soon as it has been used."""
    wanted_leaves = {id(leaf) for leaf in leaves}
    by_node: dict[Any, list[int]] = {}
    for place, use in enumerate(uses):
        for node in use.nodes:
            by_node.setdefault(node, []).append(place)
    needed = set(by_node)
    for node in reversed(trunk.nodes):
        if is_leaf(node):
            if id(node.variable) in wanted_leaves:
                needed.add(node)
        elif any(child in needed for child, _ in node.next_functions):
            needed.add(node)
    if not all(is_known(node) for node in trunk.nodes if node in needed):
        raise NoRuleError("a node without a rule")
    held: dict[Any, Cotangents] = {}
    waiting: dict[int, dict[Any, Tensor]] = {}
    for node, cotangents in starts:
        if node in needed:
            _hold(held, node, cotangents)
    del starts
    for node in trunk.nodes:
        given = held.pop(node, None)
        if given is None:
            continue
        if is_leaf(node):
            at_leaf(node.variable, given.values)
            continue
        for place in by_node.get(node, ()):
            parts = waiting.setdefault(place, {})
            parts[node] = given.values
            if len(parts) == len(uses[place].nodes):
                ordered = [parts[each] for each in uses[place].nodes]
                del waiting[place], parts
                at_use(uses[place], ordered[0] if len(ordered) == 1 else torch.cat(ordered, dim=1))
                del ordered
        step = Step(node, given, rows, [child in needed for child, _ in node.next_functions])
        if any(step.wanted):
            del given
            found = inputs_of(step)
            del step
            for (child, number), arrived in zip(node.next_functions, found, strict=True):
                if arrived is not None:
                    if number != 0:
                        raise NoRuleError("a node of several outputs")
                    _hold(held, child, arrived)
            del found
    if waiting:
        raise NoRuleError("a layer of which one use is not reached")


def _hold(held: dict[Any, Cotangents], node: Any, found: Cotangents) -> None:
    """Add to what came to a node before."""
    before = held.get(node)
    if before is None:
        held[node] = found
    elif before.by_row != found.by_row and before.values.shape != found.values.shape:
        raise NoRuleError("rows and sums over rows in one place")
    elif before.own:
        held[node] = before._replace(values=before.values.add_(found.values))
    else:
        held[node] = before._replace(values=before.values + found.values, own=True)


def products_by_autograd(trunk: Trunk, starts: Sequence[GradientEdge], stacks: Sequence[Tensor]) -> Tensor:
    """(k, k) inner products of the gradients on the compared leaves, of (k, ...) cotangents at the starts."""
    tasks = len(stacks[0])
    nodes = list(dict.fromkeys(node for linear in trunk.linear for node in linear.nodes))
    found = by_autograd(trunk, starts, [*(GradientEdge(node, 0) for node in nodes), *trunk.direct], stacks)
    outputs = dict(zip(nodes, found, strict=False))
    del found[: len(nodes)]
    total = torch.zeros(tasks, tasks, dtype=wide_dtype(stacks[0]), device=stacks[0].device)
    with full_precision(stacks[0]):
        for place, linear in enumerate(trunk.linear):
            parts = [outputs[node] for node in linear.nodes]
            total += inner_products(linear, parts[0] if len(parts) == 1 else torch.cat(parts, dim=1))
            later = {node for other in trunk.linear[place + 1 :] for node in other.nodes}
            outputs = {node: output for node, output in outputs.items() if node in later}
        for gradient in found:
            total += gram(gradient.reshape(tasks, -1).to(summing_dtype(gradient.dtype)))
    return total


def by_autograd(
    trunk: Trunk, starts: Sequence[GradientEdge], ends: Sequence[Any], stacks: Sequence[Tensor]
) -> list[Tensor]:
    """(k, ...) every task's gradient at each end."""
    names = {type(node).__name__ for node in trunk.nodes}
    with hooks_silenced(trunk.compared):
        if names <= BATCHED:
            return list(torch.autograd.grad(starts, ends, stacks, retain_graph=True, is_grads_batched=True))
        each = [
            torch.autograd.grad(starts, ends, [stack[task] for stack in stacks], retain_graph=True)
            for task in range(len(stacks[0]))
        ]
    return [torch.stack(column) for column in zip(*each, strict=True)]
