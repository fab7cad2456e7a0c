"""The cotangents of many tasks through the shared graph by rules, all tasks at once."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any

import torch
from torch import Tensor

from paretorch.core.gradients.graph import Edge, is_leaf
from paretorch.core.gradients.task_gradients import full_precision, gram, summing_dtype, wide_dtype
from paretorch.core.multi_vjp.entry_cotangents import EntryCotangents
from paretorch.core.multi_vjp.linear_layers import LinearUse, parameter_products
from paretorch.core.multi_vjp.node_backward import Cotangents, NodeBackward
from paretorch.core.multi_vjp.rule_errors import FailedRuleError, NoRuleError
from paretorch.core.multi_vjp.rules import input_cotangents, is_known
from paretorch.core.multi_vjp.sample_subset import SampleDim
from paretorch.core.multi_vjp.shared_graph import SharedGraph


def products_by_rules(shared_graph: SharedGraph, cotangents: EntryCotangents) -> Tensor:
    """(k, k) inner products of the gradients on the compared leaves.

    Raises:
        NoRuleError: a rule is missing, or does not apply.
        FailedRuleError: a rule failed.
    """
    like = cotangents.stacks[0]
    k = len(like)
    total = torch.zeros(k, k, dtype=wide_dtype(like), device=like.device)

    def add_leaf(gradients: Tensor) -> None:
        total.add_(gram(gradients.reshape(k, -1).to(summing_dtype(gradients.dtype))))

    def add_linear(use: LinearUse, gradients: Tensor, samples: Sequence[SampleDim | None]) -> None:
        try:
            total.add_(parameter_products(use, gradients, samples))
        except NoRuleError:
            raise
        except Exception as error:
            raise FailedRuleError(f"the inner products of {type(use.nodes[-1]).__name__}") from error

    with full_precision(like):
        multi_cotangent_backward(shared_graph, _starts(cotangents), add_leaf, add_linear)
    return total


def samples_save_time(shared_graph: SharedGraph) -> bool:
    """Whether rules can be applied to a subset of the samples, as far as the nodes show: arguments may still prevent it."""
    if all(is_leaf(node) for node, _ in shared_graph.edges):
        return False  # the parameters themselves are shared, each task has inputs of its own
    layers = {node for use in shared_graph.linear_uses for node in use.nodes}
    try:
        needed = _needed_nodes(shared_graph, layers)
    except NoRuleError:
        return False
    return not any(getattr(node, "_saved_training", False) for node in needed)  # batch normalization


def _starts(cotangents: EntryCotangents) -> list[tuple[Edge, Cotangents]]:
    """The entries with their cotangents, which are those of the drawn samples where samples are drawn."""
    starts = []
    for edge, stack, drawn in zip(*cotangents, strict=True):
        if drawn is None:
            starts.append((edge, Cotangents(stack)))
        else:
            rows = SampleDim(drawn, 1).select(stack) * drawn.scale
            starts.append((edge, Cotangents(rows, SampleDim(drawn), own=True)))
    return starts


@torch.no_grad()
def multi_cotangent_backward(
    shared_graph: SharedGraph,
    starts: Sequence[tuple[Edge, Cotangents]],
    at_leaf: Callable[[Tensor], None],
    at_linear_use: Callable[[LinearUse, Tensor, Sequence[SampleDim | None]], None],
) -> None:
    """Apply the rules from the entries to the leaves, and release each cotangent as soon as it has been used.

    Args:
        shared_graph: the graph.
        starts: the entries and the cotangents on them.
        at_leaf: called with the (k, ...) gradients on each leaf of ``other_leaves``.
        at_linear_use: called for each of ``linear_uses`` with the (k, R, m) cotangents on the outputs of its layers, and the
            samples that the rows of each layer belong to.
    """
    uses = shared_graph.linear_uses
    uses_of_node: dict[Any, list[int]] = {}
    for index, use in enumerate(uses):
        for node in use.nodes:
            uses_of_node.setdefault(node, []).append(index)
    needed = _needed_nodes(shared_graph, uses_of_node)
    pending: dict[Any, dict[int, Cotangents]] = {}  # by node and output
    incomplete: dict[int, dict[Any, Cotangents]] = {}  # outputs of the layers of a use, until all are known
    for edge, cotangents in starts:
        if edge[0] in needed:
            _add(pending, edge, cotangents)
    del starts
    for node in shared_graph.nodes:
        given = pending.pop(node, None)
        if given is None:
            continue
        if is_leaf(node):
            at_leaf(given[0].values)
            continue
        for index in uses_of_node.get(node, ()):
            parts = incomplete.setdefault(index, {})
            parts[node] = given[0]
            if len(parts) == len(uses[index].nodes):
                ordered = [parts[each] for each in uses[index].nodes]
                del incomplete[index], parts
                rows = ordered[0].values if len(ordered) == 1 else torch.cat([each.values for each in ordered], dim=1)
                at_linear_use(uses[index], rows, [each.sample_dim for each in ordered])
                del ordered, rows
        call = NodeBackward(node, given, [child in needed for child, _ in node.next_functions])
        if any(call.needs_input_grad):
            del given
            found = input_cotangents(call)
            del call
            for edge, arrived in zip(node.next_functions, found, strict=True):
                if arrived is not None:
                    _add(pending, edge, arrived)
            del found
    if incomplete:
        raise NoRuleError("a layer of which one use is not reached")


def _needed_nodes(shared_graph: SharedGraph, layer_nodes: Collection[Any]) -> set[Any]:
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


def _add(pending: dict[Any, dict[int, Cotangents]], edge: Edge, found: Cotangents) -> None:
    """Add cotangents to those that the output of the node has received before."""
    node, number = edge
    outputs = pending.setdefault(node, {})
    before = outputs.get(number)
    if before is None:
        outputs[number] = found
    elif before.sample_dim != found.sample_dim:
        raise NoRuleError("rows and sums over rows at one node")
    elif before.own:
        outputs[number] = before._replace(values=before.values.add_(found.values))
    else:
        outputs[number] = before._replace(values=before.values + found.values, own=True)
