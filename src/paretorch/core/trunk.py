"""The part of the graph that several tasks share: every task's cotangent through it, and one combined backward."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge

from paretorch.core.evidence import among_all, full_precision, limits, sum_of_rows, summing_dtype, to_host, wide_dtype
from paretorch.core.graph import Edge, Place, Reach, hooks_silenced, place, several
from paretorch.core.layers import Linear, gram, inner_products, linear_uses
from paretorch.core.nonnegative import Array

ATTEMPTS = 6  # to bring the squares into range
STEP = 30  # powers of two between them

# Nodes through which T cotangents are sent at once, as one batch, at no more than T times the cost of one. Others (above all
# convolutions) are slower so, and some cannot: then one after the other.
BATCHED = frozenset(
    {
        "AddmmBackward0", "MmBackward0", "BmmBackward0", "TBackward0", "TransposeBackward0", "PermuteBackward0",
        "ViewBackward0", "UnsafeViewBackward0", "ReshapeAliasBackward0", "ExpandBackward0", "CloneBackward0",
        "AddBackward0", "SubBackward0", "MulBackward0", "DivBackward0", "ReluBackward0", "TanhBackward0",
        "SigmoidBackward0", "GeluBackward0", "SiluBackward0", "LeakyReluBackward0", "EluBackward0", "CatBackward0",
        "SliceBackward0", "SelectBackward0", "ToCopyBackward0", "AccumulateGrad",
    }
)  # fmt: skip


class Trunk(NamedTuple):
    """The shared part of a graph, and what of it is compared."""

    edges: list[Edge]  # by which the tasks' own parts enter it
    entering: list[int]  # the tasks, as bits, that enter by each
    linear: list[Linear]  # leaves whose inner products need no gradients
    direct: list[Tensor]  # the others
    compared: list[Tensor]  # both, as they were given
    batched: bool  # whether every node takes a batch of cotangents well


def trunk_of(graph: Reach, compared: Sequence[Tensor]) -> Trunk | None:
    """The shared part, or None where a compared leaf lies outside, or a task enters below where another does.

    In the latter case a task's cotangent on the lower edge has a part that comes through the upper one: the two cannot be told
    apart, and would be counted twice.
    """
    shared = {id(leaf) for leaf, tasks in zip(graph.leaves, graph.tasks, strict=True) if len(tasks) > 1}
    if not all(id(leaf) in shared for leaf in compared):
        return None
    entries: dict[Edge, int] = {}
    for here, edges in graph.below.items():
        if not several(graph.masks[here]):
            for edge in edges:
                if several(graph.masks[place(edge)]):
                    entries[edge] = entries.get(edge, 0) | graph.masks[here]
    for edge, task in graph.roots:
        if several(graph.masks[place(edge)]):
            entries[edge] = entries.get(edge, 0) | 1 << task
    if _is_nested(graph, entries):
        return None
    linear, direct = linear_uses(graph, compared)
    names = {type(node).__name__ for (node, _), mask in graph.masks.items() if several(mask)}
    return Trunk(list(entries), list(entries.values()), linear, direct, list(compared), names <= BATCHED)


def _is_nested(graph: Reach, entries: Iterable[Edge]) -> bool:
    """Whether some entry is reached from another."""
    places = {place(edge) for edge in entries}
    ahead = [place(edge) for here in places for edge in graph.below[here]]
    passed: set[Place] = set()
    while ahead:
        here = ahead.pop()
        if here in places:
            return True
        if here not in passed:
            passed.add(here)
            ahead.extend(place(edge) for edge in graph.below[here])
    return False


def is_worth_it(trunk: Trunk, tasks: int) -> bool:
    """Whether inner products without gradients save more than the additional backward costs."""
    if tasks < 2 or not trunk.linear:
        return False
    spent, formed = (sum(costs) for costs in zip(*(linear.flops(tasks) for linear in trunk.linear), strict=True))
    return bool(spent + 2 * formed < tasks * formed)


class Streams:
    """Tasks' cotangents where they enter the trunk, and what follows from them. Stands where Gradients of all leaves would.

    Args:
        trunk: the shared part.
        tasks: number of declared tasks.
        known: the k of them that have a loss in this step.
    """

    def __init__(self, trunk: Trunk, tasks: int, known: Sequence[int]) -> None:
        self.trunk, self.tasks, self.known = trunk, tasks, list(known)
        self._stacks: list[Tensor | None] = [None] * len(trunk.edges)

    def enter(self, row: int, index: int, cotangent: Tensor) -> None:
        """Take in the cotangent of the row-th known task on an edge; where none comes it is zero."""
        stack = self._stacks[index]
        if stack is None:
            stack = self._stacks[index] = cotangent.new_zeros(len(self.known), *cotangent.shape)
        stack[row] = cotangent

    @property
    def stacks(self) -> list[Tensor]:
        """(k, ...) the cotangents on each edge."""
        return [stack for stack in self._stacks if stack is not None]

    @property
    def resolution(self) -> float:
        """Relative spacing of the numbers in which inner products are summed."""
        return max(limits(leaf.dtype)[0] for leaf in self.trunk.compared)

    def gramian(self) -> Array:
        """(T, T) the Gramian in float64 on the host.

        Squares that leave the range of float32 come again from cotangents that are multiplied by powers of two.
        """
        k, (_, low, high) = len(self.known), limits(self.trunk.compared[0].dtype)
        sizes = torch.stack([stack.abs().reshape(k, -1).amax(dim=1).to(wide_dtype(stack)) for stack in self.stacks])
        products, largest = (
            found.numpy() for found in to_host([_products(self.trunk, self.stacks), sizes.amax(dim=0)])
        )
        usable = np.isfinite(largest) & (largest > 0)
        exponents = np.zeros(k, np.int64)
        for attempt in range(ATTEMPTS):
            squares = products.diagonal()
            small, large = usable & ~(squares > low), usable & ~(squares < high)  # nan is both
            if not (small | large).any():
                break
            if attempt == 0:
                exponents = -np.frexp(np.where(usable, largest, 1.0))[1].astype(np.int64)
            else:
                exponents = exponents + STEP * (small & ~large) - STEP * large
            factor = torch.from_numpy(np.ldexp(1.0, exponents))
            scaled = [_scaled(stack, factor) for stack in self.stacks]
            products = to_host([_products(self.trunk, scaled)])[0].numpy()
        with np.errstate(over="ignore"):
            products = np.ldexp(products, -(exponents[:, None] + exponents))
        return among_all(products, self.known, self.tasks)

    def combined(self, weights: Sequence[float]) -> list[Tensor]:
        """sum_t w_t c_t, the one cotangent to send in by each edge; a task of weight zero is not touched.

        Args:
            weights: (T,).
        """
        used = [place for place, task in enumerate(self.known) if weights[task] != 0]
        return [_combination(stack, used, [weights[self.known[place]] for place in used]) for stack in self.stacks]

    @property
    def ends(self) -> list[GradientEdge]:
        """Where to send :meth:`combined`."""
        return [GradientEdge(node, number) for node, number in self.trunk.edges]


def _combination(stack: Tensor, used: list[int], weights: list[float]) -> Tensor:
    rows = stack if len(used) == len(stack) else stack[used]
    return sum_of_rows(rows.reshape(len(used), -1).to(summing_dtype(rows.dtype)), weights, stack[0])


def _scaled(stack: Tensor, factor: Tensor) -> Tensor:
    """(k, ...) each task's cotangent times its factor, which may lie outside the stack's range."""
    wide = factor.to(stack.device, wide_dtype(stack)).view(-1, *[1] * (stack.ndim - 1))
    return (stack * wide).to(stack.dtype)


def _products(trunk: Trunk, stacks: Sequence[Tensor]) -> Tensor:
    """(k, k) inner products of the tasks' gradients on the compared leaves, on their device."""
    tasks = len(stacks[0])
    nodes = list(dict.fromkeys(node for linear in trunk.linear for node in linear.nodes))
    found = _streams(trunk, [*(GradientEdge(node, 0) for node in nodes), *trunk.direct], stacks)
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


def _streams(trunk: Trunk, ends: Sequence[Any], stacks: Sequence[Tensor]) -> list[Tensor]:
    """(k, ...) every task's gradient at each end."""
    starts = [GradientEdge(node, number) for node, number in trunk.edges]
    with hooks_silenced(trunk.direct):
        if trunk.batched:
            return list(torch.autograd.grad(starts, ends, stacks, retain_graph=True, is_grads_batched=True))
        each = [
            torch.autograd.grad(starts, ends, [stack[task] for stack in stacks], retain_graph=True)
            for task in range(len(stacks[0]))
        ]
    return [torch.stack(column) for column in zip(*each, strict=True)]
