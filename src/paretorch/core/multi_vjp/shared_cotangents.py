"""The cotangents of several tasks on a shared graph: their Gramian, and the gradient of a weighted sum."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from paretorch.core.arrays import Array, Mask
from paretorch.core.gradients.engine import observed_gradients
from paretorch.core.gradients.graph import TaskGraph, check_dense
from paretorch.core.gradients.memory import check_memory
from paretorch.core.gradients.task_gradients import (
    Gradients,
    WeightVectors,
    nonfinite_mask,
    resolution_of,
    summing_dtype,
    summing_limits,
    to_host,
    wide_dtype,
    with_absent_tasks,
)
from paretorch.core.multi_vjp.autograd_backward import gradients_by_autograd
from paretorch.core.multi_vjp.entry_cotangents import EntryCotangents, collect_cotangents, combined_rows
from paretorch.core.multi_vjp.gramian import gramian_at, products_at
from paretorch.core.multi_vjp.levels import (
    DISAGREES,
    HAS_PYTHON,
    GraphLevel,
    Level,
    LevelCache,
    cause_of,
    tolerance_of,
)
from paretorch.core.multi_vjp.rule_errors import NoRuleError
from paretorch.core.multi_vjp.shared_graph import SharedGraph

R = TypeVar("R")


class SharedCotangents:
    r"""The cotangents of the tasks at the entries of the shared graph, used in place of :class:`Gradients` of all leaves.

    The Gramian comes from the cheapest :class:`Level` that agrees with autograd. The next level is used where a rule is
    missing, where a level fails, and where a check contradicts it. In the first step of each kind of graph a random combination
    of the tasks is checked; in every step the gradient of the update is checked by

    .. math:: \lVert \textstyle\sum_t w_t g_t \rVert^2 = w^T G w.

    Python code in the graph (hooks on tensors and nodes, custom functions, checkpoints) may change gradients in any way, and
    differently for each task. Where such code runs, the level is ``EXPLICIT``.

    Args:
        shared_graph: the shared part of the graph.
        tasks: number of declared tasks.
        known: the k tasks that have a loss in this step.
        levels: kept from step to step.
        passive: leaves of the shared part that need a gradient and are not compared.
    """

    def __init__(
        self,
        shared_graph: SharedGraph,
        tasks: int,
        known: Sequence[int],
        levels: LevelCache,
        passive: Sequence[Tensor] = (),
    ) -> None:
        self.shared_graph, self.tasks, self.known, self.levels = shared_graph, tasks, list(known), levels
        self.passive = list(passive)
        self.cotangents = EntryCotangents([], [], [])
        self._sampled = False
        self._step_level: GraphLevel | None = None  # of this step alone, in place of that of its kind
        self._kind: int | None = None
        self._explicit: tuple[Gradients, list[Tensor | None]] | None = None  # and the rows of the passive leaves

    def collect(
        self, losses: Mapping[str, Tensor], graph: TaskGraph, others: Sequence[Tensor], retain_graph: bool
    ) -> dict[str, list[Tensor | None]]:
        """Compute the cotangents of all losses, and return their gradients on the leaves that only one of them reaches."""
        self.cotangents, own = collect_cotangents(self.shared_graph, losses, graph, others, retain_graph)
        return own

    def draw_samples(self, count: int, generator: torch.Generator) -> None:
        """Compute inner products from ``count`` random samples of each batch."""
        self._sampled = True
        self.cotangents = self.cotangents.draw_samples(count, generator)

    @property
    def uses_samples(self) -> bool:
        """Whether inner products are computed from a subset of the samples."""
        return self.cotangents.is_subset

    @property
    def samples_save_time(self) -> bool:
        """Whether rows that were not drawn cost nothing: at other levels autograd runs on all of them."""
        return self._step_level is not None or self._level().level is Level.RULES

    @property
    def resolution(self) -> float:
        """A bound on the rounding error of an inner product, relative to the lengths of the two gradients."""
        return resolution_of(self.shared_graph.compared)

    def present_and_broken(self) -> tuple[Mask, Mask]:
        """(T,) the tasks whose cotangents are not zero, and those whose cotangents contain inf or nan, or whose sum overflows."""
        present = np.zeros(self.tasks, bool)
        if not self.cotangents.stacks:
            return present, present
        sums = self.cotangents.sums()
        stacks = self.cotangents.stacks
        for row, (task, value) in enumerate(zip(self.known, sums.tolist(), strict=True)):
            present[task] = value != 0 or any(bool(stack[row].any()) for stack in stacks)
        return present, nonfinite_mask(sums, self.known, self.tasks)

    # --- the Gramian -----------------------------------------------------------------------------------------------------

    def gramian(self, others: Sequence[Tensor] = ()) -> tuple[Array, list[Array]]:
        """(T, T) the Gramian in float64 on the host, and other tensors from the same transfer.

        Levels are tried from the one that this kind of graph uses.
        """
        while (level := self._level().level) is not Level.EXPLICIT:
            if level is not Level.RULES:
                self.use_whole_batch()
            found = self._attempt(level, partial(self._gramian_at, others=others))
            if found is not None:
                return found
        self.use_whole_batch()
        return self.gradients().gramian(others)

    def explicit_gradients(self) -> Gradients:
        """:meth:`gradients`, which in this step are used for everything."""
        self._step_level = GraphLevel(Level.EXPLICIT, 0.0)
        return self.gradients()

    def has_other_samples(self, tasks: Mask) -> bool:
        """Whether one of the given (T,) tasks has a cotangent in this batch."""
        return bool(self.cotangents.stacks) and bool(((self.cotangents.largest() > 0) & tasks[self.known]).any())

    def _gramian_at(self, level: Level, others: Sequence[Tensor]) -> tuple[Array, list[Array]]:
        if not self.cotangents.stacks:
            return np.zeros((self.tasks, self.tasks)), [tensor.numpy() for tensor in to_host(others)]
        products, self.cotangents, arrays = gramian_at(level, self.shared_graph, self.cotangents, others)
        return with_absent_tasks(products, self.known, self.tasks), arrays

    def use_whole_batch(self) -> None:
        """Use all samples from now on: rows that were not drawn cost the same."""
        if self.uses_samples:
            self.cotangents, self._explicit = self.cotangents.whole_batch(), None

    # --- gradients -------------------------------------------------------------------------------------------------------

    def gradients(self) -> Gradients:
        """Every task's gradient on the compared leaves.

        Raises:
            ValueError: they do not fit into memory, or are sparse.
        """
        if self._explicit is None:
            leaves = self.shared_graph.compared
            check_memory(len(self.known), sum(leaf.numel() for leaf in leaves), leaves[0].dtype, leaves[0].device)
            stacks = self.cotangents.masked()
            ends = [*leaves, *self.passive]
            columns = gradients_by_autograd(self.cotangents.entries, ends, stacks) if stacks else []
            rows: list[list[Tensor | None] | None] = [None] * self.tasks
            for row, task in enumerate(self.known):
                rows[task] = [None if column is None else column[row] for column in columns[: len(leaves)]]
            self._explicit = Gradients(rows, leaves), columns[len(leaves) :]
        return self._explicit[0]

    def gradient(self, weights: Sequence[float], gramian: Array | None) -> list[Tensor | None] | None:
        """sum_t w_t g_t on the compared and the passive leaves; None if it contradicts the Gramian.

        In that case :meth:`gramian` must be called again; it then uses the level ``EXPLICIT``, for this step alone if the
        gradient is not finite. If all weights are zero, the check is of a random combination of the tasks.

        Args:
            weights: (T,).
            gramian: (T, T) the Gramian that the weights were computed from; None: no check.
        """
        used = [row for row, task in enumerate(self.known) if weights[task] != 0]
        factors = [weights[self.known[row]] for row in used]
        explicit = self._is_explicit if gramian is None else self._level().level is Level.EXPLICIT
        if explicit and not self.uses_samples:
            gradients = self.gradients()
            assert self._explicit is not None
            vectors = WeightVectors(factors)
            passive = [None if part is None else combined_rows(part, used, vectors) for part in self._explicit[1]]
            combined = zip(gradients.combined(weights), gradients.reached, strict=True)
            return [part if reached else None for part, reached in combined] + passive
        leaves = [*self.shared_graph.compared, *self.passive]
        if not self.cotangents.stacks:
            return [None] * len(leaves)
        if not used:
            present = [] if gramian is None or explicit else _rows_with_length(gramian, self.known)
            drawn = np.zeros(self.tasks)
            drawn[[self.known[row] for row in present]] = _random_combination(len(present))
            if present and self.gradient(drawn.tolist(), gramian) is None:
                return None
            return [torch.zeros_like(leaf) for leaf in leaves]  # of zeros, an encoder that is not finite makes nan
        combination = self.cotangents.combined(used, factors)
        found, has_python = observed_gradients(self.cotangents.entries, combination, leaves)
        if explicit:
            return found
        if has_python:
            self._use(Level.EXPLICIT, HAS_PYTHON)
            return None
        if gramian is not None:
            compared = [part for part in found[: len(self.shared_graph.compared)] if part is not None]
            square = _squared_length(compared)
            if not math.isfinite(square) and np.isfinite(gramian).all():  # it breaks within the shared part
                self._step_level = GraphLevel(Level.EXPLICIT, 0.0)
                self.use_whole_batch()
                return None
            if not self.uses_samples and not self._agrees(compared, square, weights, gramian):
                self._use(Level.EXPLICIT, DISAGREES)
                return None
        return found

    def _agrees(self, compared: Sequence[Tensor], square: float, weights: Sequence[float], gramian: Array) -> bool:
        """Whether the squared length of the gradient's parts is w^T G w, up to rounding of the terms of its sum."""
        w, inner = np.asarray(weights), gramian
        if not w.all():  # the gradients of tasks with weight zero are not read
            used = w.nonzero()[0]
            w, inner = w[used], inner[used[:, None], used]
        terms, expected = float(np.abs(w).dot(np.sqrt(inner.diagonal()))), float(w.dot(inner.dot(w)))
        if not math.isfinite(expected) or not math.isfinite(terms):
            return True  # the weights are those of a plain sum
        error = abs(square - expected)
        if error <= self._level().tolerance * terms**2:
            return True
        info = torch.finfo(self.shared_graph.compared[0].dtype)  # entries that underflow
        return 0 < terms < info.tiny / info.eps * math.sqrt(sum(part.numel() for part in compared))

    @property
    def _is_explicit(self) -> bool:
        """Whether graphs of this kind are known to need explicit gradients; no level is chosen or checked here."""
        known = self._step_level or self.levels.levels.get(self._kind_of_graph())
        return known is not None and known.level is Level.EXPLICIT

    # --- the level of this kind of graph ---------------------------------------------------------------------------------

    def _kind_of_graph(self) -> int:
        if self._kind is None:
            self._kind = hash((self._sampled, *(type(node).__name__ for node in self.shared_graph.nodes)))
        return self._kind

    def _level(self) -> GraphLevel:
        """The level of graphs of this kind; for a new kind, levels are checked first."""
        if self._step_level is not None:
            return self._step_level
        levels, kind = self.levels.levels, self._kind_of_graph()
        if kind not in levels:
            levels[kind] = GraphLevel(Level.RULES, tolerance_of(self.shared_graph, self.cotangents.stacks))
            if self.cotangents.stacks:
                self._check_levels()
        return levels[kind]

    def _use(self, level: Level, cause: str | None = None) -> None:
        self.levels.replace(self._kind_of_graph(), level, cause)

    def _attempt(self, level: Level, compute: Callable[[Level], R]) -> R | None:
        """The result at a level; None if the level fails, after which graphs of this kind use another one."""
        try:
            return compute(level)
        except NoRuleError:
            self._use(Level(level + 1))
        except Exception as error:
            self._use(Level.EXPLICIT, cause_of(error))
        return None

    def _check_levels(self) -> None:
        """Find the first level at which a random combination of the tasks has the same length as by autograd."""
        draw = _random_combination(len(self.known))
        stacks = [part[None] for part in self.cotangents.combined(range(len(self.known)), draw)]
        mixed = self.cotangents._replace(stacks=stacks)
        compared = self.shared_graph.compared
        gradient, has_python = observed_gradients(mixed.entries, [each[0] for each in mixed.masked()], compared)
        check_dense(gradient)
        if has_python:
            self._use(Level.EXPLICIT, HAS_PYTHON)
            return
        expected = _squared_length([part for part in gradient if part is not None])
        _, low, high = summing_limits(compared[0].dtype)
        while (level := self._level().level) is not Level.EXPLICIT:
            square = self._attempt(level, lambda level: products_at(level, self.shared_graph, mixed).item())
            if square is None:
                continue
            if not low < expected < high or abs(square - expected) <= self._level().tolerance * expected:
                return  # outside the safe range no comparison is possible
            self._use(Level(level + 1), DISAGREES if level is Level.LAYERS else None)


def _random_combination(tasks: int) -> list[float]:
    """A weight for each of the tasks, of either sign and the same in every step."""
    weights: list[float] = np.random.default_rng(tasks).standard_normal(tasks).tolist()
    return weights


def _rows_with_length(gramian: Array, known: Sequence[int]) -> list[int]:
    """The rows of the known tasks whose gradients are finite and not zero."""
    squares = gramian.diagonal()[list(known)]
    return [row for row, square in enumerate(squares.tolist()) if 0 < square < math.inf]


def _squared_length(parts: Sequence[Tensor]) -> float:
    """The squared length of a gradient."""
    flat = [part.reshape(-1).to(summing_dtype(part.dtype)) for part in parts if part.numel()]
    if not flat:
        return 0.0
    squares = [torch.dot(part, part) for part in flat]
    on_host = flat[0].device.type == "cpu"
    total = sum(square.item() for square in squares) if on_host else float(torch.stack(squares).sum())
    _, low, high = summing_limits(flat[0].dtype)
    if low < total < high:
        return total
    return float(sum(torch.linalg.vector_norm(part, dtype=wide_dtype(part)).square() for part in flat))
