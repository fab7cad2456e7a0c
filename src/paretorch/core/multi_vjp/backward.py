"""Two ways for all tasks' cotangents through the shared part of the graph: by rules of our own, and by autograd."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge

from paretorch.core.gradients.graph import is_leaf, task_gradients
from paretorch.core.gradients.task_gradients import full_precision, summing_dtype, wide_dtype
from paretorch.core.multi_vjp.linear_layers import Linear, gram, inner_products
from paretorch.core.multi_vjp.node_backward import Cotangents, Step
from paretorch.core.multi_vjp.rules import inputs_of, is_known
from paretorch.core.multi_vjp.samples import BrokenRuleError, NoRuleError, Rows
from paretorch.core.multi_vjp.shared_graph import Trunk


@torch.no_grad()
def multi_cotangent_backward(
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
                try:
                    at_use(uses[place], ordered[0] if len(ordered) == 1 else torch.cat(ordered, dim=1))
                except NoRuleError:
                    raise
                except Exception as error:
                    raise BrokenRuleError(f"the inner products of {type(node).__name__}") from error
                del ordered
        step = Step(node, given, rows, [child in needed for child, _ in node.next_functions])
        if any(step.wanted):
            del given
            try:
                found = inputs_of(step)
            except NoRuleError:
                raise
            except Exception as error:
                raise BrokenRuleError(f"the rule of {type(node).__name__}") from error
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
    """(k, k) inner products of the gradients on the compared leaves, of (k, ...) cotangents at the starts.

    Of linear layers only the cotangents on their outputs are taken from autograd.
    """
    tasks = len(stacks[0])
    nodes = list(dict.fromkeys(node for linear in trunk.linear for node in linear.nodes))
    found = by_autograd(starts, [*(GradientEdge(node, 0) for node in nodes), *trunk.direct], stacks)
    outputs = dict(zip(nodes, found, strict=False))
    del found[: len(nodes)]
    total = torch.zeros(tasks, tasks, dtype=wide_dtype(stacks[0]), device=stacks[0].device)
    with full_precision(stacks[0]):
        for place, linear in enumerate(trunk.linear):
            parts = [part for node in linear.nodes if (part := outputs[node]) is not None]
            if 0 < len(parts) < len(linear.nodes):
                raise NoRuleError("a layer of which one use is not reached")
            if parts:
                total += inner_products(linear, parts[0] if len(parts) == 1 else torch.cat(parts, dim=1))
            later = {node for other in trunk.linear[place + 1 :] for node in other.nodes}
            outputs = {node: output for node, output in outputs.items() if node in later}
        for gradient in found:
            if gradient is not None:
                total += gram(gradient.reshape(tasks, -1).to(summing_dtype(gradient.dtype)))
    return total


def by_autograd(
    starts: Sequence[GradientEdge], ends: Sequence[Any], stacks: Sequence[Tensor], retain_graph: bool = True
) -> list[Tensor | None]:
    """(k, ...) every task's gradient at each end, one task after the other; None where no task reaches it.

    Never as one batch under vmap: hooks that look at numbers, random recomputation and ``retain_grad`` do not work there.

    Raises:
        ValueError: the gradient of a leaf is sparse.
    """
    tasks = len(stacks[0])
    each = [
        task_gradients(starts, [stack[task] for stack in stacks], ends, retain_graph or task + 1 < tasks)  # type: ignore[arg-type]
        for task in range(tasks)
    ]
    return [_stacked(column) for column in zip(*each, strict=True)]


def _stacked(column: Sequence[Tensor | None]) -> Tensor | None:
    """One end's gradients below one another, zero for tasks that do not reach it."""
    like = next((part for part in column if part is not None), None)
    return None if like is None else torch.stack([torch.zeros_like(like) if part is None else part for part in column])
