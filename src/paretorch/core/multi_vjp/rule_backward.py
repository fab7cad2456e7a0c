"""The cotangents of many tasks through the shared graph by rules, all tasks at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from paretorch.core.gradients.graph import is_leaf
from paretorch.core.gradients.task_gradients import full_precision, gram, summing_dtype, wide_dtype
from paretorch.core.multi_vjp.entry_cotangents import EntryCotangents
from paretorch.core.multi_vjp.linear_layers import LinearUse, parameter_products
from paretorch.core.multi_vjp.node_backward import Cotangents, NodeBackward
from paretorch.core.multi_vjp.rule_errors import FailedRuleError, NoRuleError
from paretorch.core.multi_vjp.rules import input_cotangents, is_known
from paretorch.core.multi_vjp.sample_subset import SampleSubset
from paretorch.core.multi_vjp.shared_graph import SharedGraph


def products_by_rules(shared_graph: SharedGraph, cotangents: EntryCotangents) -> Tensor:
    """(k, k) inner products of the gradients on the compared leaves.

    Raises:
        NoRuleError: a rule is missing, or batches have several sizes.
        FailedRuleError: a rule failed.
    """
    like = cotangents.stacks[0]
    k = len(like)
    total = torch.zeros(k, k, dtype=wide_dtype(like), device=like.device)

    def add_leaf(gradients: Tensor) -> None:
        total.add_(gram(gradients.reshape(k, -1).to(summing_dtype(gradients.dtype))))

    starts, samples = _starts(cotangents)

    def add_linear(use: LinearUse, gradients: Tensor) -> None:
        try:
            total.add_(parameter_products(use, gradients, samples))
        except NoRuleError:
            raise
        except Exception as error:
            raise FailedRuleError(f"the inner products of {type(use.nodes[-1]).__name__}") from error

    with full_precision(like):
        multi_cotangent_backward(shared_graph, starts, samples, add_leaf, add_linear)
    return total


def _starts(cotangents: EntryCotangents) -> tuple[list[tuple[Any, Cotangents]], SampleSubset | None]:
    """The entry nodes with their cotangents, and the samples that the rows belong to."""
    drawn = {id(samples): samples for samples in cotangents.samples if samples is not None}
    if len(drawn) > 1:
        raise NoRuleError("batches of several sizes")
    samples = next(iter(drawn.values()), None)
    starts = []
    for (node, number), stack, own in zip(*cotangents, strict=True):
        if number != 0:
            raise NoRuleError("a node with several outputs")
        leaf = is_leaf(node)
        if samples is not None and own is None and not leaf:
            raise NoRuleError("batches of several sizes")
        start = stack if own is None else own.select(stack, dim=1) * own.scale
        starts.append((node, Cotangents(start, by_row=not leaf)))
    return starts, samples


@torch.no_grad()
def multi_cotangent_backward(
    shared_graph: SharedGraph,
    starts: Sequence[tuple[Any, Cotangents]],
    samples: SampleSubset | None,
    at_leaf: Callable[[Tensor], None],
    at_linear_use: Callable[[LinearUse, Tensor], None],
) -> None:
    """Apply the rules from the entries to the leaves, and release each cotangent as soon as it has been used.

    Args:
        shared_graph: the graph.
        starts: entry nodes and the cotangents on their outputs.
        samples: the samples that the rows of the cotangents belong to.
        at_leaf: called with the (k, ...) gradients on each leaf of ``other_leaves``.
        at_linear_use: called for each of ``linear_uses`` with the (k, R, m) cotangents on the outputs of its layers.
    """
    uses = shared_graph.linear_uses
    uses_of_node: dict[Any, list[int]] = {}
    for index, use in enumerate(uses):
        for node in use.nodes:
            uses_of_node.setdefault(node, []).append(index)
    needed = _needed_nodes(shared_graph, uses_of_node)
    pending: dict[Any, Cotangents] = {}
    incomplete: dict[int, dict[Any, Tensor]] = {}  # outputs of the layers of a use, until all are known
    for node, cotangents in starts:
        if node in needed:
            _add(pending, node, cotangents)
    del starts
    for node in shared_graph.nodes:
        given = pending.pop(node, None)
        if given is None:
            continue
        if is_leaf(node):
            at_leaf(given.values)
            continue
        for index in uses_of_node.get(node, ()):
            parts = incomplete.setdefault(index, {})
            parts[node] = given.values
            if len(parts) == len(uses[index].nodes):
                ordered = [parts[each] for each in uses[index].nodes]
                del incomplete[index], parts
                at_linear_use(uses[index], ordered[0] if len(ordered) == 1 else torch.cat(ordered, dim=1))
                del ordered
        call = NodeBackward(node, given, samples, [child in needed for child, _ in node.next_functions])
        if any(call.needs_input_grad):
            del given
            found = input_cotangents(call)
            del call
            for (child, number), arrived in zip(node.next_functions, found, strict=True):
                if arrived is not None:
                    if number != 0:
                        raise NoRuleError("a node with several outputs")
                    _add(pending, child, arrived)
            del found
    if incomplete:
        raise NoRuleError("a layer of which one use is not reached")


def _needed_nodes(shared_graph: SharedGraph, layer_nodes: dict[Any, list[int]]) -> set[Any]:
    """The nodes on a path to a compared leaf; each must have a rule."""
    leaves = {id(leaf) for leaf in shared_graph.other_leaves}
    needed = set(layer_nodes)
    for node in reversed(shared_graph.nodes):
        if is_leaf(node):
            if id(node.variable) in leaves:
                needed.add(node)
        elif any(child in needed for child, _ in node.next_functions):
            needed.add(node)
    if not all(is_known(node) for node in shared_graph.nodes if node in needed):
        raise NoRuleError("a node without a rule")
    return needed


def _add(pending: dict[Any, Cotangents], node: Any, found: Cotangents) -> None:
    """Add cotangents to those that the node has received before."""
    before = pending.get(node)
    if before is None:
        pending[node] = found
    elif before.by_row != found.by_row and before.values.shape != found.values.shape:
        raise NoRuleError("rows and sums over rows at one node")
    elif before.own:
        pending[node] = before._replace(values=before.values.add_(found.values))
    else:
        pending[node] = before._replace(values=before.values + found.values, own=True)
