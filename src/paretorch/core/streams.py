"""Every task's cotangents through the shared part of the graph: the Gramian they have there, and one combined cotangent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.autograd.graph import GradientEdge

from paretorch.core.cotangents import Cotangents
from paretorch.core.descent import by_autograd, descend, products_by_autograd
from paretorch.core.distributed import Ranks
from paretorch.core.evidence import (
    Gradients,
    among_all,
    among_tasks,
    full_precision,
    limits,
    sum_of_rows,
    summing_dtype,
    to_host,
    wide_dtype,
)  # fmt: skip
from paretorch.core.gap import summed_gramian
from paretorch.core.graph import Reach, is_leaf, task_gradients
from paretorch.core.layers import Linear, gram, inner_products
from paretorch.core.nonnegative import Array
from paretorch.core.rounding import product_rounding
from paretorch.core.rows import NoRuleError, Rows
from paretorch.core.seen import Mask
from paretorch.core.trunk import Trunk

ATTEMPTS = 6  # to bring the squares into range
STEP = 30  # powers of two between them


class Streams:
    """Tasks' cotangents where they enter the trunk, and what follows from them. Stands where Gradients of all leaves would.

    Two ways lead down. The rules of :mod:`~paretorch.core.nodes` take all tasks at once, and some samples where not all are
    asked for; autograd takes any graph. Where the rules know all nodes they are compared with autograd in the first step of a
    graph of this kind, and left out where it finds another result: hooks on tensors in between are known to it alone.

    Args:
        trunk: the shared part.
        tasks: number of declared tasks.
        known: the k of them that have a loss in this step.
        trusted: whether the rules found what autograd did, by kind of graph; kept from step to step.
    """

    def __init__(self, trunk: Trunk, tasks: int, known: Sequence[int], trusted: dict[Any, bool]) -> None:
        self.trunk, self.tasks, self.known, self.trusted = trunk, tasks, list(known), trusted
        self._stacks: list[Tensor | None] = [None] * len(trunk.edges)
        self._filled: list[set[int]] = [set() for _ in trunk.edges]  # the rows of each stack that came
        self._rows: list[Rows | None] = [None] * len(trunk.edges)
        self.saved = True  # whether samples that were not drawn cost nothing in the trunk

    def entered(
        self, given: Mapping[str, Tensor], graph: Reach, others: Sequence[Tensor], retain_graph: bool
    ) -> dict[str, list[Tensor | None]]:
        """Take in the cotangents of all losses, and return their gradients on the leaves that only one of them reaches."""
        own: dict[str, list[Tensor | None]] = {}
        reached = {id(leaf): tasks for leaf, tasks in zip(graph.leaves, graph.tasks, strict=True)}
        for task, (name, loss) in enumerate(given.items()):
            places = [index for index, mask in enumerate(self.trunk.entering) if mask >> task & 1]
            mine = [index for index, leaf in enumerate(others) if reached[id(leaf)] == {task}]
            ends = [GradientEdge(*self.trunk.edges[index]) for index in places]
            found = task_gradients([loss], [None], [*ends, *(others[index] for index in mine)], retain_graph)
            own[name] = [None] * len(others)
            for index, gradient in zip(places, found, strict=False):
                if gradient is not None:
                    self._enter(task, index, gradient)
            for index, gradient in zip(mine, found[len(places) :], strict=True):
                own[name][index] = gradient
        for stack, entered in zip(self._stacks, self._filled, strict=True):
            for row in set(range(len(self.known))) - entered:
                if stack is not None:
                    stack[row] = 0
        return own

    def _enter(self, row: int, index: int, cotangent: Tensor) -> None:
        """The cotangent of the row-th known task on an edge."""
        stack = self._stacks[index]
        if stack is None:
            stack = self._stacks[index] = cotangent.new_empty(len(self.known), *cotangent.shape)
        stack[row] = cotangent
        self._filled[index].add(row)

    def draw(self, samples: int, generator: torch.Generator) -> None:
        """Take inner products of ``samples`` rows of every tensor by which the tasks enter; parameters stay whole."""
        drawn: dict[int, Rows] = {}
        for index, ((node, _), stack) in enumerate(zip(self.trunk.edges, self._stacks, strict=True)):
            if stack is None or is_leaf(node):
                continue
            if stack.ndim == 1:
                raise ValueError(
                    f"samples={samples} takes rows of the tensors at which the tasks part, and one of them is a single "
                    "number: leave samples out"
                )
            size = stack.shape[1]
            if size > samples:
                if size not in drawn:
                    drawn[size] = Rows.drawn(size, samples, generator, stack.device)
                self._rows[index] = drawn[size]

    @staticmethod
    def _largest(stacks: Sequence[Tensor]) -> Tensor:
        """(k,) the largest entry of every task's cotangents."""
        k, filled = len(stacks[0]), [stack for stack in stacks if stack.numel()]
        if not filled:
            return stacks[0].new_zeros(k, dtype=wide_dtype(stacks[0]))
        return torch.stack([each.abs().reshape(k, -1).amax(dim=1).to(wide_dtype(each)) for each in filled]).amax(dim=0)

    def _met(self) -> NDArray[np.bool_]:
        """(k,) whether a task's cotangents are zero throughout, or not so in the samples that were drawn."""
        drawn, everything = (self._largest(stacks) for stacks in (self._masked(self.stacks), self.stacks))
        return to_host([(drawn > 0) | (everything == 0)])[0].numpy()

    @property
    def _entered(self) -> list[int]:
        return [index for index, stack in enumerate(self._stacks) if stack is not None]

    @property
    def stacks(self) -> list[Tensor]:
        """(k, ...) the cotangents on each edge that some task entered by."""
        return [stack for stack in self._stacks if stack is not None]

    @property
    def ends(self) -> list[GradientEdge]:
        """Where to send :meth:`combined`."""
        return [GradientEdge(*self.trunk.edges[index]) for index in self._entered]

    @property
    def resolution(self) -> float:
        """Bound on the rounding of inner products, relative to the lengths."""
        spacing = max(limits(leaf.dtype)[0] for leaf in self.trunk.compared)
        return product_rounding(spacing, sum(leaf.shape.numel() for leaf in self.trunk.compared))

    def broken(self) -> Mask:
        """(T,) whose cotangents hold inf or nan, or sum to more than their numbers can hold."""
        k = len(self.known)
        sums = [stack.reshape(k, -1).to(summing_dtype(stack.dtype)).sum(dim=1) for stack in self.stacks]
        return among_tasks(to_host([torch.stack(sums).sum(dim=0)])[0], self.known, self.tasks)

    def gramian(self) -> Array:
        """(T, T) the Gramian in float64 on the host.

        Squares that leave the range of float32 come again from cotangents that are multiplied by powers of two.
        """
        _, low, high = limits(self.trunk.compared[0].dtype)
        # Whether samples that were not drawn are finite, their squares do not tell.
        beside = [stack.sum() for stack in self.stacks] if any(self._rows) else []
        products, *sums = [found.numpy() for found in to_host([self._products(self.stacks), *beside])]
        exponents = np.zeros(len(self.known), np.int64)
        finite = all(np.isfinite(each) for each in sums)
        if not finite or not all(low < square < high for square in products.diagonal().tolist()):  # nan is neither
            largest = to_host([self._largest(self.stacks)])[0].numpy()
            usable = np.isfinite(largest) & (largest > 0)
            if any(self._rows):
                if (usable & (products.diagonal() == 0)).any() and not self._met().all():
                    self._rows = [None] * len(
                        self._rows
                    )  # a task has no part in these samples, and would pass for absent
                    return self.gramian()
                products[~np.isfinite(largest)] = np.nan  # in samples that were not drawn
            for attempt in range(ATTEMPTS):
                squares = products.diagonal()
                small, large = usable & ~(squares > low), usable & ~(squares < high)
                if not (small | large).any():
                    break
                if attempt == 0:
                    exponents = -np.frexp(np.where(usable, largest, 1.0))[1].astype(np.int64)
                else:
                    exponents = exponents + STEP * (small & ~large) - STEP * large
                factor = torch.from_numpy(np.ldexp(1.0, exponents))
                scaled = [_scaled(stack, factor) for stack in self.stacks]
                products = to_host([self._products(scaled)])[0].numpy()
        with np.errstate(over="ignore"):
            products = np.ldexp(products, -(exponents[:, None] + exponents))
        return among_all(products, self.known, self.tasks)

    def gramian_over(self, ranks: Ranks) -> Array:
        """(T, T) :meth:`gramian` of the losses' average over ranks: of gradients that are formed, since they are summed."""
        gramian = summed_gramian(self.gradients(), ranks)
        missing = gramian.diagonal() == 0
        if missing.any():  # on all ranks alike
            there = to_host([self._largest(self.stacks)])[0].numpy() > 0 if self.stacks else np.zeros(0, bool)
            passed_over = float((there & missing[self.known]).any())
            if ranks.sum(torch.tensor(passed_over)) > 0:  # tasks that have a part in other samples only
                self._rows = [None] * len(self._rows)
                return summed_gramian(self.gradients(), ranks)
        return gramian

    def combined(self, weights: Sequence[float]) -> list[Tensor]:
        """sum_t w_t c_t, the one cotangent to send in by each edge; a task of weight zero is not touched.

        Args:
            weights: (T,).
        """
        used = [place for place, task in enumerate(self.known) if weights[task] != 0]
        return [_combination(stack, used, [weights[self.known[place]] for place in used]) for stack in self.stacks]

    def gradients(self) -> Gradients:
        """Every task's gradient on the compared leaves."""
        leaves, self.saved = self.trunk.compared, False
        columns = by_autograd(self.trunk, self.ends, leaves, self._masked(self.stacks))
        rows: list[list[Tensor | None] | None] = [None] * self.tasks
        for place, task in enumerate(self.known):
            rows[task] = [column[place] for column in columns]
        return Gradients(rows, leaves)

    # --- down the trunk --------------------------------------------------------------------------------------------------

    def _masked(self, stacks: Sequence[Tensor]) -> list[Tensor]:
        """The cotangents with zeros for samples that were not drawn."""
        pairs = zip(self._entered, stacks, strict=True)
        return [stack if (rows := self._rows[index]) is None else rows.only(stack) for index, stack in pairs]

    def _starts(self, stacks: Sequence[Tensor]) -> tuple[list[tuple[Any, Cotangents]], Rows | None]:
        """Where the rules begin, with what, and the samples."""
        drawn = {id(rows): rows for rows in self._rows if rows is not None}
        if len(drawn) > 1:
            raise NoRuleError("batches of several sizes")
        rows = next(iter(drawn.values()), None)
        starts = []
        for index, stack in zip(self._entered, stacks, strict=True):
            node, number = self.trunk.edges[index]
            if number != 0:
                raise NoRuleError("a node of several outputs")
            own, leaf = self._rows[index], is_leaf(node)
            if rows is not None and own is None and not leaf:
                raise NoRuleError("batches of several sizes")
            start = stack if own is None else own.of(stack, dim=1) * own.scale
            starts.append((node, Cotangents(start, by_row=not leaf)))
        return starts, rows

    def _products(self, stacks: Sequence[Tensor]) -> Tensor:
        """(k, k) inner products of the tasks' gradients on the compared leaves, on their device."""
        trusts = self._trusts(stacks)
        found = self._products_by_rules(stacks) if trusts else None
        self.saved = found is not None and not all(is_leaf(node) for node, _ in self.trunk.edges)
        return products_by_autograd(self.trunk, self.ends, self._masked(stacks)) if found is None else found

    def _products_by_rules(self, stacks: Sequence[Tensor]) -> Tensor | None:
        k, like = len(stacks[0]), stacks[0]
        total = torch.zeros(k, k, dtype=wide_dtype(like), device=like.device)

        def leaf(_: Tensor, gradients: Tensor) -> None:
            total.add_(gram(gradients.reshape(k, -1).to(summing_dtype(gradients.dtype))))

        try:
            starts, rows = self._starts(stacks)

            def linear(use: Linear, gradients: Tensor) -> None:
                total.add_(inner_products(use, gradients, rows))

            with full_precision(like):
                descend(self.trunk, starts, rows, self.trunk.direct, leaf, self.trunk.linear, linear)
        except NoRuleError:
            return None
        return total

    def _trusts(self, stacks: Sequence[Tensor]) -> bool:
        """Whether the rules find what autograd does, on a graph of this kind, for the tasks' mean cotangent."""
        kind = (any(self._rows), tuple(type(node).__name__ for node in self.trunk.nodes))
        if kind not in self.trusted:
            mean = [stack.mean(dim=0, keepdim=True) for stack in stacks]
            found = self._products_by_rules(mean)
            if found is None:
                self.trusted[kind] = False
                return False
            expected = products_by_autograd(self.trunk, self.ends, self._masked(mean)).item()
            _, low, high = limits(self.trunk.compared[0].dtype)
            if not low < expected < high:  # tells nothing
                return True
            error = abs(found.item() - expected) / expected
            self.trusted[kind] = error <= torch.finfo(self.trunk.compared[0].dtype).eps ** 0.5
        return self.trusted[kind]


def _combination(stack: Tensor, used: list[int], weights: list[float]) -> Tensor:
    rows = stack if len(used) == len(stack) else stack[used]
    return sum_of_rows(rows.reshape(len(used), -1).to(summing_dtype(rows.dtype)), weights, stack[0])


def _scaled(stack: Tensor, factor: Tensor) -> Tensor:
    """(k, ...) each task's cotangent times its factor, which may lie outside the stack's range."""
    wide = factor.to(stack.device, wide_dtype(stack)).view(-1, *[1] * (stack.ndim - 1))
    return (stack * wide).to(stack.dtype)
