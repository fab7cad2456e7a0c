"""The running sums of the tasks' gradients over the micro-batches of a step."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from paretorch.core.arrays import Array
from paretorch.core.balancer.shared_parameters import Leaves
from paretorch.core.contract import Method
from paretorch.core.gradients.engine import free_unreached
from paretorch.core.gradients.graph import TaskGraph, check_dense, ddp_leaves, task_gradients
from paretorch.core.gradients.memory import check_memory
from paretorch.core.gradients.task_gradients import Gradients, to_host
from paretorch.core.option_checks import check_whole


def check_accumulate(accumulate: int, method: Method[Any], samples: int | None) -> None:
    """Raise ValueError unless the option is a positive integer, and 1 where the method or another option needs one batch."""
    check_whole("accumulate", accumulate)
    if accumulate > 1 and (samples is not None or method.batches > 1):
        reason = f"samples={samples} draws from one batch" if samples is not None else f"{method} takes several batches"
        raise ValueError(f"accumulate={accumulate} joins micro-batches, and {reason}: leave one of the two out")


class Sums:
    """The sums over the micro-batches of one step."""

    def __init__(self) -> None:
        self.rows: dict[str, dict[Tensor, Tensor]] = {}  # by task: its gradient on every leaf that it reaches
        self.values: dict[str, float] = {}  # by task: the sum of its losses, each times the factor that arrived
        self.factors: list[
            float | None
        ] = []  # that arrived, of each micro-batch; None: its losses are multiplied already
        self.graph: TaskGraph | None = None  # of the last micro-batch, without its nodes
        self.norms: tuple[list[Tensor], Tensor] | None = None  # leaves, and their lengths at the first micro-batch

    @property
    def scale(self) -> float:
        """The sum of the factors; micro-batches whose losses are multiplied already have equal parts of 1."""
        return sum(1 / len(self.factors) if factor is None else factor for factor in self.factors)

    def loss_sums(self, tasks: Sequence[str], factor: float) -> Array:
        """(3, all) losses of the step, the factors of its gradients, and one call for each task.

        Args:
            tasks: (all,) names.
            factor: by which the losses of every micro-batch were multiplied.
        """
        result, scale = np.zeros((3, len(tasks))), self.scale
        for name, value in self.values.items():
            result[:, tasks.index(name)] = value / scale if scale else value, factor * scale, 1
        return result

    def gradients(self, tasks: Sequence[str], leaves: Leaves) -> tuple[Gradients, dict[str, list[Tensor | None]]]:
        """Every task's gradients on the compared leaves, and on the others.

        Raises:
            ValueError: a gradient on a compared leaf is sparse.
        """
        rows = [
            [self.rows[name].get(leaf) for leaf in leaves.compared] if name in self.rows else None for name in tasks
        ]
        own = {name: [row.get(leaf) for leaf in leaves.others] for name, row in self.rows.items()}
        check_dense([part for row in rows if row is not None for part in row])
        return Gradients(rows, leaves.compared), own


class MicroBatches:
    """Adds the gradients of ``size`` micro-batches.

    The sums belong to parameters, which a copy or a checkpoint of the Balancer alone does not have: copies are empty. A
    warning names the micro-batches that are lost in that way.

    Args:
        size: the number of micro-batches of a step.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.clear()

    def __reduce__(self) -> tuple[type[MicroBatches], tuple[int]]:
        self.warn_of_unfinished_step("copied or pickled", "are not part of the copy, which starts a new step")
        return MicroBatches, (self.size,)

    def warn_of_unfinished_step(self, event: str, effect: str, stacklevel: int = 4) -> None:
        """Warn where an event loses the micro-batches of a step that is not finished.

        Args:
            event: a participle: what happens to the Balancer.
            effect: a predicate: what becomes of the gradients.
            stacklevel: of the warning, counted from here.
        """
        if self.count:
            warnings.warn(
                f"a Balancer was {event} after {self.count} of accumulate={self.size} micro-batches. Their gradients {effect}. "
                "Do this after the last micro-batch of a step, or call balancer.flush() before, which ends the step",
                stacklevel=stacklevel,
            )

    def clear(self) -> None:
        """Discard the sums."""
        self.count, self._sums = 0, Sums()

    @property
    def next_is_last(self) -> bool:
        """Whether the next micro-batch ends the step."""
        return self.count + 1 >= self.size

    def take(self) -> Sums:
        """The sums, which are discarded here."""
        sums = self._sums
        self.clear()
        return sums

    def add(
        self,
        losses: Mapping[str, Tensor],
        graph: TaskGraph,
        shared: Sequence[Tensor],
        values: Mapping[str, float],
        factor: float | None,
        retain_graph: bool,
    ) -> None:
        """Add the gradients of one micro-batch, by one backward for each task.

        Args:
            losses: by task.
            graph: of the losses.
            shared: parameters that ``shared=`` names, which the graph may hide.
            values: by task: the losses before the backward multiplied them.
            factor: by which the backward multiplied them; None: it did not.
            retain_graph: keep the graph for another backward.

        Raises:
            ValueError: the parameters are not those of the micro-batches before, or the gradients would not fit into memory.
        """
        sums = self._sums
        leaves = list({id(leaf): leaf for leaf in (*graph.leaves, *shared)}.values())
        self._check_parameters(leaves)
        if leaves:
            check_memory(len(losses), sum(leaf.numel() for leaf in leaves), leaves[0].dtype, leaves[0].device)
        found = {}
        for position, (name, loss) in enumerate(losses.items()):
            keep = retain_graph or position + 1 < len(losses)
            found[name] = task_gradients([loss], [None], leaves, retain_graph=keep, dense=0)
        if not retain_graph:
            free_unreached(graph, len(losses))
        for name, parts in found.items():  # nothing is added where one of the backwards raises
            row = sums.rows.setdefault(name, {})
            for leaf, part in zip(leaves, parts, strict=True):
                if part is not None:
                    row[leaf] = row[leaf] + part if leaf in row else part
            sums.values[name] = sums.values.get(name, 0.0) + values[name] * (1.0 if factor is None else factor)
        sums.factors.append(factor)
        sums.graph = graph._replace(roots=[], next_edges={}, task_masks={})
        self.count += 1

    def _check_parameters(self, leaves: list[Tensor]) -> None:
        """Gradients at different parameters have no sum: the parameters are those of the first micro-batch."""
        if self._sums.norms is None:
            self._sums.norms = (leaves, _norms(leaves)) if leaves else None
            return
        before, norms = self._sums.norms
        if not torch.equal(norms, _norms(before)):
            count, size = self.count, self.size
            self.clear()
            raise ValueError(
                f"the parameters changed after {count} of accumulate={size} micro-batches, whose gradients are discarded: call "
                "balancer.flush() before an optimizer step that comes early, such as the last one of an epoch. A Balancer "
                "that was copied, loaded or reset within a step counts from there"
            )


def merged_graph(sums: Sums, names: Sequence[str]) -> TaskGraph:
    """The graph of the last micro-batch with the leaves of all, and the tasks that reach them in any of them."""
    assert sums.graph is not None
    reached: dict[Tensor, frozenset[int]] = {}
    for task, name in enumerate(names):
        for leaf in sums.rows[name]:
            reached[leaf] = reached.get(leaf, frozenset()) | {task}
    return sums.graph._replace(leaves=list(reached), leaf_tasks=list(reached.values()))


def awaited_leaves(graph: TaskGraph, leaves: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
    """What DistributedDataParallel(find_unused_parameters=True) expects of a last micro-batch with this graph.

    Returns:
        the leaves whose gradients it waits for; and those of the given ones that it has found unused, whose hooks must not run.
    """
    awaited = ddp_leaves(graph)
    if not graph.ddp_nodes:
        return awaited, []
    reached = {id(leaf) for leaf in (*awaited, *graph.leaves)}
    return awaited, [leaf for leaf in leaves if id(leaf) not in reached]


def add_directly(pairs: Sequence[tuple[Tensor, Tensor | None]]) -> None:
    """Add gradients to ``.grad`` without an accumulator and its hooks."""
    with torch.no_grad():
        for leaf, part in pairs:
            if part is not None:
                leaf.grad = part.clone() if leaf.grad is None else leaf.grad.add_(part)


def _norms(leaves: Sequence[Tensor]) -> Tensor:
    """The lengths of the leaves, on the host, with one transfer."""
    return torch.stack(to_host(torch._foreach_norm([leaf.detach() for leaf in leaves]))).nan_to_num()
