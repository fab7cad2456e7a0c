"""The cotangents of several tasks on the edges by which they enter the shared graph."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge

from paretorch.core.arrays import Array, Mask
from paretorch.core.gradients.graph import Edge, TaskGraph, is_leaf, task_gradients
from paretorch.core.gradients.task_gradients import WeightVectors, sum_of_rows, summing_dtype, to_host, wide_dtype
from paretorch.core.multi_vjp.sample_subset import SampleSubset
from paretorch.core.multi_vjp.shared_graph import SharedGraph


class EntryCotangents(NamedTuple):
    """The cotangents of k tasks.

    Args:
        edges: the entries of the shared graph that at least one task uses.
        stacks: (k, ...) for each edge; zero for tasks that do not enter by it.
        samples: for each edge the samples whose rows are used in inner products; None: all.
    """

    edges: list[Edge]
    stacks: list[Tensor]
    samples: list[SampleSubset | None]

    @property
    def entries(self) -> list[GradientEdge]:
        """The edges in the form of the autograd engine."""
        return [GradientEdge(*edge) for edge in self.edges]

    @property
    def is_subset(self) -> bool:
        """Whether inner products use a subset of the samples on an edge."""
        return any(samples is not None for samples in self.samples)

    def whole_batch(self) -> EntryCotangents:
        """The same cotangents with all samples."""
        return self._replace(samples=[None] * len(self.samples))

    def draw_samples(self, count: int, generator: torch.Generator) -> EntryCotangents:
        """The same cotangents with ``count`` samples, drawn once for each batch size; parameters keep all rows."""
        drawn: dict[int, SampleSubset] = {}
        samples: list[SampleSubset | None] = [None] * len(self.edges)
        for index, ((node, _), stack) in enumerate(zip(self.edges, self.stacks, strict=True)):
            if is_leaf(node):
                continue
            size = stack.shape[1]
            if size > count:
                if size not in drawn:
                    drawn[size] = SampleSubset.drawn(size, count, generator, stack.device)
                samples[index] = drawn[size]
        return self._replace(samples=samples)

    def masked(self) -> list[Tensor]:
        """The cotangents, with zeros for samples that are not used."""
        pairs = zip(self.stacks, self.samples, strict=True)
        return [stack if samples is None else samples.mask(stack) for stack, samples in pairs]

    def combined(self, rows: Sequence[int], weights: Sequence[float]) -> list[Tensor]:
        """The weighted sum of the given rows of each stack; other rows are not read."""
        vectors = WeightVectors(weights)
        return [combined_rows(stack, rows, vectors) for stack in self.stacks]

    def scaled(self, factor: Tensor) -> EntryCotangents:
        """Each task's cotangents multiplied by its (k,) factor, which may exceed the range of their dtype."""
        stacks = []
        for stack in self.stacks:
            wide = factor.to(stack.device, wide_dtype(stack)).view(-1, *[1] * (stack.ndim - 1))
            stacks.append((stack * wide).to(stack.dtype))
        return self._replace(stacks=stacks)

    def largest(self) -> Array:
        """(k,) the largest absolute entry of each task's cotangents, on the host."""
        largest: Array = to_host([_largest(self.stacks)])[0].numpy()
        return largest

    def samples_contain_all_tasks(self) -> bool:
        """Whether every task with a nonzero cotangent has a nonzero one in the samples that are used."""
        drawn, complete = (_largest(stacks) for stacks in (self.masked(), self.stacks))
        contained: Mask = to_host([(drawn > 0) | (complete == 0)])[0].numpy()
        return bool(contained.all())

    def sums(self) -> Tensor:
        """(k,) the sum of each task's cotangents: not finite where an entry is not finite."""
        k = len(self.stacks[0])
        sums = [stack.reshape(k, -1).to(summing_dtype(stack.dtype)).sum(dim=1) for stack in self.stacks]
        return to_host([torch.stack(sums).sum(dim=0)])[0]


def collect_cotangents(
    shared_graph: SharedGraph,
    losses: Mapping[str, Tensor],
    graph: TaskGraph,
    others: Sequence[Tensor],
    retain_graph: bool,
) -> tuple[EntryCotangents, dict[str, list[Tensor | None]]]:
    """The cotangents of all losses, by one backward for each down to the entries.

    Args:
        shared_graph: the part of the graph below the entries.
        losses: k scalars by task name.
        graph: of the losses.
        others: leaves that are not compared.
        retain_graph: keep the graph outside the shared part.

    Returns:
        The cotangents; and for each task its gradients on the other leaves, None where another task reaches the leaf.
    """
    stacks: list[Tensor | None] = [None] * len(shared_graph.edges)
    filled: list[set[int]] = [set() for _ in shared_graph.edges]
    own: dict[str, list[Tensor | None]] = {}
    leaf_tasks = {id(leaf): tasks for leaf, tasks in zip(graph.leaves, graph.leaf_tasks, strict=True)}
    for task, (name, loss) in enumerate(losses.items()):
        entered = [index for index, mask in enumerate(shared_graph.edge_tasks) if mask >> task & 1]
        own_leaves = [index for index, leaf in enumerate(others) if leaf_tasks[id(leaf)] == {task}]
        ends = [GradientEdge(*shared_graph.edges[index]) for index in entered]
        ends_and_leaves = [*ends, *(others[index] for index in own_leaves)]
        gradients = task_gradients([loss], [None], ends_and_leaves, retain_graph, len(ends))
        own[name] = [None] * len(others)
        for index, cotangent in zip(entered, gradients, strict=False):
            if cotangent is not None:
                stack = stacks[index]
                if stack is None:
                    stack = stacks[index] = cotangent.new_empty(len(losses), *cotangent.shape)
                stack[task] = cotangent
                filled[index].add(task)
        for index, gradient in zip(own_leaves, gradients[len(entered) :], strict=True):
            own[name][index] = gradient
    used = [(edge, stack) for edge, stack in zip(shared_graph.edges, stacks, strict=True) if stack is not None]
    for stack, rows in zip(stacks, filled, strict=True):
        for row in set(range(len(losses))) - rows:
            if stack is not None:
                stack[row] = 0
    return EntryCotangents([edge for edge, _ in used], [stack for _, stack in used], [None] * len(used)), own


def combined_rows(stack: Tensor, rows: Sequence[int], weights: WeightVectors) -> Tensor:
    """The weighted sum of the given rows of a (k, ...) stack."""
    if not rows:
        return torch.zeros_like(stack[0])
    used = stack if len(rows) == len(stack) else torch.stack([stack[row] for row in rows])
    matrix = used.reshape(len(rows), -1).to(summing_dtype(used.dtype))
    return sum_of_rows(matrix, weights, stack[0])


def _largest(stacks: Sequence[Tensor]) -> Tensor:
    """(k,) the largest absolute entry of each task's row in all stacks."""
    k, nonempty = len(stacks[0]), [stack for stack in stacks if stack.numel()]
    if not nonempty:
        return stacks[0].new_zeros(k, dtype=wide_dtype(stacks[0]))
    return torch.stack([each.abs().reshape(k, -1).amax(dim=1).to(wide_dtype(each)) for each in nonempty]).amax(dim=0)
