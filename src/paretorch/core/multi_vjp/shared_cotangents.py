"""Every task's cotangents through the shared part of the graph: the Gramian they have there, and one combined cotangent."""

from __future__ import annotations

import enum
import logging
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.autograd.graph import GradientEdge

from paretorch.core.arrays import Array, Mask
from paretorch.core.gradients.engine import observed_gradients
from paretorch.core.gradients.gap import summed_gramian
from paretorch.core.gradients.graph import Reach, check_dense, is_leaf, task_gradients
from paretorch.core.gradients.memory import check_memory
from paretorch.core.gradients.ranks import Ranks
from paretorch.core.gradients.rounding import product_rounding
from paretorch.core.gradients.task_gradients import (  # fmt: skip
    Gradients,
    among_all,
    among_tasks,
    full_precision,
    limits,
    sum_of_rows,
    summing_dtype,
    to_host,
    wide_dtype,
)
from paretorch.core.multi_vjp.backward import by_autograd, multi_cotangent_backward, products_by_autograd
from paretorch.core.multi_vjp.linear_layers import Linear, gram, inner_products
from paretorch.core.multi_vjp.node_backward import Cotangents
from paretorch.core.multi_vjp.samples import BrokenRuleError, NoRuleError, Rows
from paretorch.core.multi_vjp.shared_graph import Trunk

_LOG = logging.getLogger("paretorch")

HAS_PYTHON = "hooks or other Python code take part in the backward"
DISAGREES = "the Gramian does not agree with the gradient"

ATTEMPTS = 6  # to bring the squares into range
STEP = 30  # powers of two between them


class Level(enum.IntEnum):
    """How the Gramian is computed, from cheap to general.

    ``RULES``: all cotangents go through the graph at once, by the rules of :mod:`~paretorch.core.multi_vjp.rules`. ``LAYERS``:
    autograd runs once for each task, down to the outputs of linear layers. ``EXPLICIT``: autograd runs once for each task,
    down to the compared parameters; it assumes nothing about the graph.
    """

    RULES = 0
    LAYERS = 1
    EXPLICIT = 2


class Confidence(NamedTuple):
    """What is known of a kind of graph."""

    level: Level  # the cheapest that gives what autograd gives
    tolerance: float  # relative rounding of a squared length there


class Experience:
    """What a Balancer has learned of the graphs it met: kept from step to step, by kind of graph."""

    def __init__(self) -> None:
        self.kinds: dict[int, Confidence] = {}
        self._said: set[str] = set()

    def say(self, cause: str) -> None:
        """Log once why the general way is taken."""
        if cause not in self._said:
            self._said.add(cause)
            _LOG.warning("%s: gradients are computed task by task in graphs like this one, which takes longer", cause)


class SharedCotangents:
    r"""Tasks' cotangents where they enter the trunk, and what follows from them. Stands where Gradients of all leaves would.

    The Gramian comes from the cheapest :class:`Level` that holds. A level is left for the next where it has no rule, where it
    fails, and where a check finds another result than autograd's: in the first step of a graph of a kind, for a random
    combination of the tasks; in every step, for the gradient that is descended, since

    .. math:: \lVert \textstyle\sum_t w_t g_t \rVert^2 = w^T G w.

    Python code in the graph (hooks on tensors and nodes, custom functions, checkpoints) may do anything to a gradient, and
    something else for each: where some takes part, the level is ``EXPLICIT``.

    Args:
        trunk: the shared part.
        tasks: number of declared tasks.
        known: the k of them that have a loss in this step.
        experience: of graphs; kept from step to step.
        passive: leaves of the shared part that take a gradient and are not compared.
    """

    def __init__(
        self, trunk: Trunk, tasks: int, known: Sequence[int], experience: Experience, passive: Sequence[Tensor] = ()
    ) -> None:
        self.trunk, self.tasks, self.known, self.experience = trunk, tasks, list(known), experience
        self.passive = list(passive)
        self._stacks: list[Tensor | None] = [None] * len(trunk.edges)
        self._filled: list[set[int]] = [set() for _ in trunk.edges]  # the rows of each stack that came
        self._rows: list[Rows | None] = [None] * len(trunk.edges)
        self._sampled = False
        self._kind: int | None = None
        self._explicit: tuple[Gradients, list[Tensor | None]] | None = None  # and the passive leaves' rows
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
            found = task_gradients([loss], [None], [*ends, *(others[index] for index in mine)], retain_graph, len(ends))
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
        self._sampled = True
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
        """(T, T) the Gramian in float64 on the host, from the cheapest level that holds."""
        while (level := self._confidence().level) is not Level.EXPLICIT:
            try:
                return self._gramian_at(level)
            except NoRuleError:
                self._leave_for(Level(level + 1))
            except Exception as error:
                self._leave_for(Level.EXPLICIT, _cause(error))
        self.saved = False
        found = self.gradients().gramian()[0]
        if any(self._rows) and not self._met().all():  # a task has no part in these samples, and would pass for absent
            self._rows = [None] * len(self._rows)
            self._explicit = None
            found = self.gradients().gramian()[0]
        return found

    def _gramian_at(self, level: Level) -> Array:
        """:meth:`gramian` at one level.

        Squares that leave the range of float32 come again from cotangents that are multiplied by powers of two.
        """
        _, low, high = limits(self.trunk.compared[0].dtype)
        # Whether samples that were not drawn are finite, their squares do not tell.
        beside = [stack.sum() for stack in self.stacks] if any(self._rows) else []
        products, *sums = [found.numpy() for found in to_host([self._products(self.stacks, level), *beside])]
        exponents = np.zeros(len(self.known), np.int64)
        finite = all(np.isfinite(each) for each in sums)
        if not finite or not all(low < square < high for square in products.diagonal().tolist()):  # nan is neither
            largest = to_host([self._largest(self.stacks)])[0].numpy()
            usable = np.isfinite(largest) & (largest > 0)
            if any(self._rows):
                if (usable & (products.diagonal() == 0)).any() and not self._met().all():
                    # a task has no part in these samples, and would pass for absent
                    self._rows = [None] * len(self._rows)
                    return self._gramian_at(level)
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
                products = to_host([self._products(scaled, level)])[0].numpy()
        with np.errstate(over="ignore"):
            products = np.ldexp(products, -(exponents[:, None] + exponents))
        return among_all(products, self.known, self.tasks)

    def gramian_over(self, ranks: Ranks) -> Array:
        """(T, T) :meth:`gramian` of the losses' average over ranks: of gradients that are formed, since they are summed."""
        self.experience.kinds[self._kind_of_graph()] = Confidence(Level.EXPLICIT, 0.0)
        gramian = summed_gramian(self.gradients(), ranks)
        missing = gramian.diagonal() == 0
        if missing.any():  # on all ranks alike
            there = to_host([self._largest(self.stacks)])[0].numpy() > 0 if self.stacks else np.zeros(0, bool)
            passed_over = float((there & missing[self.known]).any())
            if ranks.sum(torch.tensor(passed_over)) > 0:  # tasks that have a part in other samples only
                self._rows = [None] * len(self._rows)
                self._explicit = None
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
        """Every task's gradient on the compared leaves.

        Raises:
            ValueError: they would not fit into memory, or are sparse.
        """
        if self._explicit is None:
            leaves, self.saved = self.trunk.compared, False
            check_memory(len(self.known), sum(leaf.numel() for leaf in leaves), leaves[0].dtype, leaves[0].device)
            stacks = self._masked(self.stacks)
            columns = by_autograd(self.ends, [*leaves, *self.passive], stacks) if stacks else []
            rows: list[list[Tensor | None] | None] = [None] * self.tasks
            for place, task in enumerate(self.known):
                rows[task] = [None if column is None else column[place] for column in columns[: len(leaves)]]
            self._explicit = Gradients(rows, leaves), columns[len(leaves) :]
        return self._explicit[0]

    def gradient(self, weights: Sequence[float], gramian: Array | None) -> list[Tensor | None] | None:
        """sum_t w_t g_t on the compared and the passive leaves, or None where it contradicts the Gramian.

        Then the Gramian must be asked for again: it comes from the general level.

        Args:
            weights: (T,).
            gramian: (T, T) from which they were computed; None where none was.
        """
        explicit = self._confidence().level is Level.EXPLICIT
        if explicit and not self._sampled:
            gradients = self.gradients()
            assert self._explicit is not None
            used = [place for place, task in enumerate(self.known) if weights[task] != 0]
            factors = [weights[self.known[place]] for place in used]
            passive = [None if part is None else _combination(part, used, factors) for part in self._explicit[1]]
            combined = zip(gradients.combined(weights), gradients.reached, strict=True)
            return [part if reached else None for part, reached in combined] + passive
        if not self.stacks:
            return [None] * (len(self.trunk.compared) + len(self.passive))
        leaves = [*self.trunk.compared, *self.passive]
        found, has_python = observed_gradients(self.ends, self.combined(weights), leaves)
        if explicit:
            return found
        if has_python:
            self._leave_for(Level.EXPLICIT, HAS_PYTHON)
            return None
        if gramian is not None and not self._sampled and not self._agrees(found, weights, gramian):
            self._leave_for(Level.EXPLICIT, DISAGREES)
            return None
        return found

    def _agrees(self, found: Sequence[Tensor | None], weights: Sequence[float], gramian: Array) -> bool:
        """Whether the gradient is as long as the Gramian says, up to rounding of the terms that it is summed from."""
        w, inner = np.asarray(weights), gramian
        if not w.all():  # a task of weight zero is not touched, whatever its gradient holds
            used = w.nonzero()[0]
            w, inner = w[used], inner[used[:, None], used]
        terms, expected = float(np.abs(w).dot(np.sqrt(inner.diagonal()))), float(w.dot(inner.dot(w)))
        if not math.isfinite(expected) or not math.isfinite(terms):
            return True  # the weights are those of a plain sum
        compared = [part for part in found[: len(self.trunk.compared)] if part is not None]
        error = abs(_square(compared) - expected)
        if error <= self._confidence().tolerance * terms**2:
            return True
        info = torch.finfo(self.trunk.compared[0].dtype)  # of entries so small that they are rounded to nothing
        return 0 < terms < info.tiny / info.eps * math.sqrt(sum(part.numel() for part in compared))

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

    def _products(self, stacks: Sequence[Tensor], level: Level) -> Tensor:
        """(k, k) inner products of the tasks' gradients on the compared leaves, on their device."""
        if not stacks:
            return torch.zeros(len(self.known), len(self.known), dtype=torch.float64)
        self.saved = level is Level.RULES and not all(is_leaf(node) for node, _ in self.trunk.edges)
        if level is Level.RULES:
            return self._products_by_rules(stacks)
        return products_by_autograd(self.trunk, self.ends, self._masked(stacks))

    def _products_by_rules(self, stacks: Sequence[Tensor]) -> Tensor:
        k, like = len(stacks[0]), stacks[0]
        total = torch.zeros(k, k, dtype=wide_dtype(like), device=like.device)

        def leaf(_: Tensor, gradients: Tensor) -> None:
            total.add_(gram(gradients.reshape(k, -1).to(summing_dtype(gradients.dtype))))

        starts, rows = self._starts(stacks)

        def linear(use: Linear, gradients: Tensor) -> None:
            total.add_(inner_products(use, gradients, rows))

        with full_precision(like):
            multi_cotangent_backward(self.trunk, starts, rows, self.trunk.direct, leaf, self.trunk.linear, linear)
        return total

    # --- what is known of the graph --------------------------------------------------------------------------------------

    def _kind_of_graph(self) -> int:
        if self._kind is None:
            self._kind = hash((self._sampled, *(type(node).__name__ for node in self.trunk.nodes)))
        return self._kind

    def _confidence(self) -> Confidence:
        """What is known of graphs of this kind; where nothing is, it is tried on a random combination of the tasks."""
        kinds, kind = self.experience.kinds, self._kind_of_graph()
        if kind not in kinds:
            kinds[kind] = Confidence(Level.RULES, _tolerance(self.trunk, self.stacks))
            if self.stacks:
                self._try_out()
        return kinds[kind]

    def _leave_for(self, level: Level, cause: str | None = None) -> None:
        """Take another level in graphs of this kind from now on."""
        kind = self._kind_of_graph()
        self.experience.kinds[kind] = self.experience.kinds[kind]._replace(level=level)
        if cause is not None:
            self.experience.say(cause)

    def _try_out(self) -> None:
        """Find the level at which one random combination of the tasks' cotangents has the length that autograd gives it."""
        draw = np.random.default_rng(len(self.known)).standard_normal(len(self.known)).tolist()
        places = list(range(len(self.known)))
        mixed = [_combination(stack, places, draw)[None] for stack in self.stacks]
        gradient, has_python = observed_gradients(
            self.ends, [each[0] for each in self._masked(mixed)], self.trunk.compared
        )
        check_dense(gradient)
        if has_python:
            self._leave_for(Level.EXPLICIT, HAS_PYTHON)
            return
        expected, info = _square([part for part in gradient if part is not None]), limits(self.trunk.compared[0].dtype)
        for level in (Level.RULES, Level.LAYERS):
            try:
                found = self._products(mixed, level).item()
            except NoRuleError:
                self._leave_for(Level(level + 1))
                continue
            except Exception as error:
                self._leave_for(Level.EXPLICIT, _cause(error))
                return
            if not info[1] < expected < info[2]:
                return  # too small or too large to tell
            confidence = self.experience.kinds[self._kind_of_graph()]
            if abs(found - expected) <= confidence.tolerance * expected:
                return
            self._leave_for(Level(level + 1), DISAGREES if level is Level.LAYERS else None)


def _cause(error: Exception) -> str:
    """What failed, at which node, and the first line of why."""
    where, why = ("the inner products of layers", error)
    if isinstance(error, BrokenRuleError) and isinstance(error.__cause__, Exception):
        where, why = str(error), error.__cause__
    return f"{where} failed ({type(why).__name__}: {str(why).splitlines()[0] if str(why) else 'no message'})"


def _square(parts: Sequence[Tensor]) -> float:
    """The squared length of a gradient."""
    flat = [part.reshape(-1).to(summing_dtype(part.dtype)) for part in parts if part.numel()]
    if not flat:
        return 0.0
    squares = [torch.dot(part, part) for part in flat]
    on_host = flat[0].device.type == "cpu"
    total = sum(square.item() for square in squares) if on_host else float(torch.stack(squares).sum())
    _, low, high = limits(flat[0].dtype)
    if low < total < high:
        return total
    return float(sum(torch.linalg.vector_norm(part, dtype=wide_dtype(part)).square() for part in flat))


def _tolerance(trunk: Trunk, stacks: Sequence[Tensor]) -> float:
    """Relative rounding of a squared length that is computed in two ways, from the coarsest numbers in the trunk."""
    dtypes = {stack.dtype for stack in stacks} | {leaf.dtype for leaf in trunk.compared}
    for node in trunk.nodes:
        dtypes |= {about.dtype for about in node._input_metadata if about.dtype.is_floating_point}
    eps = max(torch.finfo(dtype).eps for dtype in dtypes)
    device = trunk.compared[0].device
    if torch.float32 in dtypes and (torch.get_float32_matmul_precision() != "highest" or device.type == "cuda"):
        eps = max(
            eps, 2.0**-8 if torch.get_float32_matmul_precision() == "medium" else 2.0**-11
        )  # TF32, bfloat16 inside
    return 1e-10 if eps < 1e-12 else eps**0.5


def _combination(stack: Tensor, used: list[int], weights: list[float]) -> Tensor:
    if not used:
        return torch.zeros_like(stack[0])
    rows = stack if len(used) == len(stack) else stack[used]
    return sum_of_rows(rows.reshape(len(used), -1).to(summing_dtype(rows.dtype)), weights, stack[0])


def _scaled(stack: Tensor, factor: Tensor) -> Tensor:
    """(k, ...) each task's cotangent times its factor, which may lie outside the stack's range."""
    wide = factor.to(stack.device, wide_dtype(stack)).view(-1, *[1] * (stack.ndim - 1))
    return (stack * wide).to(stack.dtype)
