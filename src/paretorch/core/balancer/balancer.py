"""The Balancer: balances the tasks' gradients on the shared parameters themselves, for any graph."""

from __future__ import annotations

import logging
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from itertools import compress
from typing import Any, Literal, cast

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

from paretorch.core import checks
from paretorch.core.arrays import Array, Mask
from paretorch.core.balancer.loss_step import descend_losses, mark_broken
from paretorch.core.balancer.samples_option import check_samples, samples_refusal, samples_save_nothing
from paretorch.core.balancer.shared_parameters import (
    Leaves,
    check_losses_given,
    check_ranks_agree,
    compared_leaves,
    further_gradients,
    given_leaves,
    leaf_gradients,
)
from paretorch.core.contract import Balance, Method, Need, Status
from paretorch.core.gradients.engine import (
    accumulate_gradients,
    allow_repeated_backwards,
    free_saved_tensors,
    has_hooks,
)
from paretorch.core.gradients.graph import TaskGraph, ddp_leaves, task_graph
from paretorch.core.gradients.rank_gramians import cross_gramian, summed_gramian
from paretorch.core.gradients.ranks import ALL
from paretorch.core.gradients.step_evidence import StepEvidence, StepResult
from paretorch.core.gradients.task_gradients import Gradients, to_host
from paretorch.core.method.runner import Door, Scale
from paretorch.core.method.state_buffers import draws, encoded
from paretorch.core.multi_vjp import LevelCache, SharedCotangents, find_shared_graph, saves_time

_LOG = logging.getLogger("paretorch")


class Balancer(Door):
    r"""Balances on the shared parameters: ``balancer.backward(losses)`` stands where ``sum(losses.values()).backward()`` stood.

    .. math:: \theta\text{.grad} \mathrel{+}= \sum_t w_t \frac{\partial L_t}{\partial \theta}, \qquad
              w = \text{method}(G), \quad
              G_{st} = \Big\langle \frac{\partial L_s}{\partial \theta}, \frac{\partial L_t}{\partial \theta} \Big\rangle

    over the shared parameters theta: those that two losses or more reach. A parameter that one loss reaches receives the plain
    gradient of its task; one that several reach and ``shared=`` leaves out receives the weighted sum. Exact for any graph, also
    where each task has its own input; it takes one backward per task, or less where inner products can be had without the
    gradients. In every step the length of the gradient is compared with the Gramian
    (:math:`\lVert \sum_t w_t g_t \rVert^2 = w^T G w`); where they differ the step is computed again from one ordinary backward
    for each task, before ``.grad`` is changed.

    Hooks on parameters run once, on the balanced gradient. Hooks on tensors and nodes within the shared part run once for each
    task, on that task's gradient, whatever the number of tasks: g_t is what an ordinary backward of L_t alone gives, hooks
    included. They may run more often than that, so they must depend on nothing but their argument, and what ``retain_grad()``
    keeps there is a sum over several passes. For methods that look at losses alone there is one backward of the weighted sum,
    and such a hook runs once, on its gradient.

    Encoders that ``torch.compile`` makes after the Balancer keep what their backward needs for several passes
    (``torch._functorch.config.donated_buffer`` is set to False).

    Args:
        method: the balancing method, such as ``UPGrad()``.
        tasks: names, in a fixed order; by default those of the first step.
        shared: where gradients are compared: a module or parameters. By default all that two losses or more reach.
        heads: ``"own"``: parameters of one task receive its plain gradient; ``"weighted"``: times the task's weight (1 where the
            task has no gradient on what is shared).
        scale: ``"calibrated"``: T equal gradients g give T g, as the sum of losses does; ``"paper"``: the method's own weights.
        nonfinite: ``"raise"``: FloatingPointError naming the task, before ``.grad`` is touched; ``"skip"``: that task is left
            out of the step, and counted in ``skipped``; ``"pass"``: the plain sum is passed on, so that a GradScaler sees inf
            or nan, skips its step and lowers its scale.
        every: reuse the weights for ``every - 1`` steps.
        samples: take the Gramian from so many samples of the batch (of each rank's), drawn anew in every step; None: from all.
            Of S among B, its gradients are ``B / S`` times what the S rows of the tensors at which the tasks part contribute:
            unbiased for any loss. What is descended is the whole batch's gradient, as ever.
        factor: what the losses were multiplied by (``scaler.get_scale()``), for methods that are not homogeneous.
        group: ranks whose losses are averaged: ``"all"`` where torch.distributed is initialised, a process group, or None.
        seed: of the method's random draws.

    Example:
        >>> import paretorch as pt
        >>> shared, left, right = (torch.nn.Linear(4, n) for n in (4, 1, 1))
        >>> balancer = pt.Balancer(pt.UPGrad())
        >>> z = shared(torch.ones(8, 4))
        >>> balance = balancer.backward({"left": left(z).square().mean(), "right": right(z).exp().mean()})
        >>> balance.tasks, balance.status.value
        (('left', 'right'), 'solved')

    References:
        Sener & Koltun 2018, Algorithm 2, for MGDA; Quinton & Rey 2024 for UPGrad; the Balancer is the same for every method.
    """

    on_parameters = True

    def __init__(
        self,
        method: Method[Any],
        tasks: Iterable[str] | None = None,
        *,
        shared: nn.Module | Iterable[Tensor] | None = None,
        heads: Literal["own", "weighted"] = "own",
        scale: Scale = "calibrated",
        nonfinite: Literal["raise", "skip", "pass"] = "raise",
        every: int = 1,
        samples: int | None = None,
        factor: float | None = None,
        group: dist.ProcessGroup | str | None = ALL,
        seed: int = 0,
    ) -> None:
        super().__init__(method, scale=scale, every=every, factor=factor, group=group, seed=seed)
        checks.one_of("heads", heads, ("own", "weighted"))
        checks.one_of("nonfinite", nonfinite, ("raise", "skip", "pass"))
        check_samples(samples, method)
        self.heads, self.nonfinite, self.samples = heads, nonfinite, samples
        self._shared = None if shared is None else given_leaves(shared)
        self._open = tasks is None  # to tasks that come later
        self._levels = LevelCache()
        allow_repeated_backwards()
        if tasks is not None:
            self._declare(checks.task_names(tasks))

    def backward(
        self,
        losses: Mapping[str, Tensor | None],
        *,
        others: Sequence[Mapping[str, Tensor | None]] = (),
        retain_graph: bool = False,
    ) -> Balance:
        """Balance the losses and add the result to ``.grad``, as one backward of their sum would.

        Args:
            losses: scalars by task name; a task that is absent is left out, or None.
            others: losses on further, independent batches, for methods that take several (MoDo): the weights come of these,
                and ``losses`` is descended. A task takes part that is in all of them.
            retain_graph: keep the graph for another backward.

        Returns:
            what the step came to.

        Raises:
            ValueError: on unknown names, losses that are not scalars with a graph on one device, and graphs whose shared
                parameters cannot be found (give ``shared=``).
            FloatingPointError: where a loss or gradient is not finite; ``.grad`` is as before.
        """
        if len(others) != self.method.batches - 1:
            raise ValueError(
                f"{self.method} takes {self.method.batches} batches: expected others= with the losses on "
                f"{self.method.batches - 1} more, got {len(others)}"
            )
        given = checks.given_losses(losses, "balancer.backward")
        self._know(given)
        self.ranks.agree_on_tasks(self.tasks, self.method)
        if not self.ranks.alone:
            check_losses_given(self.ranks, bool(given), self._shared)
        told = self._told(given).numpy()
        if self.method.needs == Need.LOSSES:
            weigh = partial(self._weigh, told, (self._snapshot(), self._memory.outcome))
            descend_losses(given, self.tasks, weigh, self.nonfinite, self.ranks, retain_graph)
            return cast(Balance, self.balance)
        graph = task_graph([[loss] for loss in given.values()])
        leaves = self._leaves(given, graph)
        source, own = self._source(given, graph, leaves, retain_graph)
        further = self._further(others, leaves) if others else None
        if self.nonfinite != "pass":
            mark_broken(told, own, self.tasks)
        outcome = self._reused(source.known, lambda: source.nonfinite_tasks() | ~np.isfinite(told[0]))
        if outcome is None:
            skipped = dict(self.skipped)
            while True:
                seen = self._seen(told, self._gramian(source), source.resolution)
                outcome, settle = self._step(seen if further is None else further(seen), source)
                shared = self._shared_gradient(outcome, source)
                if shared is not None:
                    break
                self.skipped = dict(skipped)  # the Gramian comes from the general way next, and the method answers anew
            settle()
        else:
            shared = self._shared_gradient(outcome, source, is_new=False)
            if shared is None:
                shared = self._shared_gradient(outcome, source, is_new=False)
        assert shared is not None
        if not retain_graph:  # what the last backward did not pass
            last = 1 << max(len(given) - 1, 0)
            kept = [node for (node, _), mask in graph.task_masks.items() if not mask & last]
            free_saved_tensors(source.shared_graph.nodes if isinstance(source, SharedCotangents) else kept)
        self._accumulate(outcome, given, leaves, shared, own, ddp_leaves(graph))
        return cast(Balance, self.balance)

    def _weigh(self, told: Array, before: tuple[Any, Any], broken: Mask) -> StepResult:
        """The weights of a method that looks at losses alone, without the tasks whose gradients are not finite."""
        if broken.any():  # the step is taken back, and taken without them
            self._restore(before[0])
            self._memory.record(before[1])
        outcome = None if broken.any() else self._reused(told[2].nonzero()[0].tolist(), lambda: ~np.isfinite(told[0]))
        if outcome is None:
            outcome, settle = self._step(self._seen(told)._replace(broken=broken), None)
            settle()
        self._memory.record(outcome._replace(heads=outcome.weights))
        return outcome

    def _declare(self, tasks: tuple[str, ...]) -> None:
        super()._declare(tasks)
        if self.samples is not None:  # what is drawn is a function of the step
            self.register_buffer("steps", torch.zeros((), dtype=torch.int64))
            self.register_buffer("task_names", encoded(tasks))

    def _know(self, given: Mapping[str, Tensor]) -> None:
        """Check the names against the declared tasks; the first step declares them."""
        if not given and (not self.tasks or self.ranks.size == 1):
            raise ValueError("balancer.backward got no losses: expected a scalar for each task that is present")
        if not self.tasks:
            self._declare(checks.task_names(given))
        new = tuple(name for name in given if name not in self.tasks)
        remembers = bool(self.state_tensors()) or self.every > 1
        if new and self._open and not remembers and self.ranks.size == 1:
            steps = self._buffers.get("steps")
            self._declare((*self.tasks, *new))
            self._buffers.update({} if steps is None else {"steps": steps})
        elif new and self._open and remembers:
            raise ValueError(
                f"{self.method} remembers its tasks {self.tasks} and got the new {', '.join(map(repr, new))}: "
                "declare all of them with Balancer(method, tasks=...), or use a method without state"
            )
        checks.known_tasks(given, self.tasks, "balancer.backward")

    def _told(self, given: Mapping[str, Tensor]) -> Tensor:
        told = np.zeros((3, len(self.tasks)))
        if given:
            factor = self.factor or 1.0  # they came multiplied by it
            values = to_host([torch.stack([loss.detach() for loss in given.values()])])[0].numpy()
            index = [self.tasks.index(name) for name in given]
            told[0, index], told[1, index], told[2, index] = values / factor, factor, 1
        return torch.from_numpy(told)

    def _leaves(self, given: Mapping[str, Tensor], graph: TaskGraph) -> Leaves:
        """Which leaves are compared, and which others take a gradient."""
        memory = self._memory
        # a task alone does not show what it shares
        known = memory.surface if self._rows else memory.shared if len(given) == 1 else []
        before = [leaf for ref in known if (leaf := ref()) is not None]
        alone = len(given) > 1 or len(self.tasks) == 1 or not self._rows
        leaves = compared_leaves(self._shared, graph, len(given), self.ranks, before, alone)
        if len(given) > 1:
            memory.shared = list(map(weakref.ref, leaves.compared))
        if self.ranks.size > 1:
            check_ranks_agree(self.ranks, leaves.compared)
        if "found" not in self._said:
            self._said.add("found")
            sizes = [leaf.numel() for leaf in leaves.compared]
            _LOG.info("tasks %s are balanced on %d numbers in %d tensors", self.tasks, sum(sizes), len(sizes))
        return leaves

    def _source(
        self, given: Mapping[str, Tensor], graph: TaskGraph, leaves: Leaves, retain_graph: bool
    ) -> tuple[Gradients | SharedCotangents, dict[str, list[Tensor | None]]]:
        """Every task's gradients or cotangents, whichever costs less; and its gradients on the leaves that are not compared."""
        sampled = self.samples is not None and len(given) > 1
        usual = self.ranks.size == 1 and not graph.opaque and Need.JACOBIAN not in self.method.needs
        usual = usual and len(given) > 2  # one backward more is as much as two tasks' gradients could save
        trunk = find_shared_graph(graph, leaves.compared) if sampled or usual else None
        if sampled and (trunk is None or graph.opaque or has_hooks(trunk.entries)):
            raise ValueError(samples_refusal(self.samples, graph.opaque))
        if (
            trunk is None
            or not (sampled or saves_time(trunk, len(given)))
            or (not sampled and has_hooks(trunk.entries))
        ):
            return leaf_gradients(given, self.tasks, leaves, retain_graph)
        known = [self.tasks.index(name) for name in given]
        passive = [leaf for leaf, is_shared in zip(leaves.others, leaves.others_shared, strict=True) if is_shared]
        streams = SharedCotangents(trunk, len(self.tasks), known, self._levels, passive)
        own = streams.collect(given, graph, leaves.others, retain_graph)
        return streams, own

    def _gramian(self, source: Gradients | SharedCotangents) -> Array:
        """(T, T) of all that is compared, or of the samples that are drawn."""
        step = None if self.samples is None else self._step_number()  # that of a task alone counts
        if isinstance(source, Gradients):
            return summed_gramian(source, self.ranks)
        if self.samples is not None and step is not None:
            source.draw_samples(self.samples, draws(~self.seed, step))
        gramian = source.gramian() if self.ranks.size == 1 else source.gramian_over(self.ranks)
        if self.samples is not None and not source.samples_save_time:
            self._say("samples", samples_save_nothing(self.samples))
        return gramian

    def _further(
        self, others: Sequence[Mapping[str, Tensor | None]], leaves: Leaves
    ) -> Callable[[StepEvidence], StepEvidence]:
        """Adds the inner products of the gradients on two further batches; a task is present that is in all of them."""
        cross, (one, two) = cross_gramian(*further_gradients(others, self.tasks, leaves.compared), self.ranks)
        there, sound = np.minimum(one, two) != 0, np.isfinite(one + two)
        return lambda seen: seen._replace(present=seen.present & there, cross=cross, broken=~sound)

    def _shared_gradient(
        self, outcome: StepResult, source: Gradients | SharedCotangents, is_new: bool = True
    ) -> list[tuple[Tensor, Tensor]] | None:
        """Every leaf that several tasks reach with its balanced gradient; None where that contradicts the Gramian."""
        weights = [1.0] * len(self.tasks) if outcome.weights is None else outcome.weights
        if isinstance(source, SharedCotangents):
            found = source.gradient(weights, outcome.seen.gramian if is_new else None)
            if found is None:
                return None
            pairs = zip([*source.shared_graph.compared, *source.passive], found, strict=True)
            return [(leaf, part) for leaf, part in pairs if part is not None]
        combined = source.combined(weights) if outcome.update is None else source.split(outcome.update)
        reached = source.reached if self.ranks.alone else [True] * len(combined)
        like = [leaf for leaf in source.like if isinstance(leaf, Tensor)]
        return list(compress(zip(like, combined, strict=True), reached))

    def _accumulate(
        self,
        outcome: StepResult,
        given: Mapping[str, Tensor],
        leaves: Leaves,
        shared: list[tuple[Tensor, Tensor]],
        own: dict[str, list[Tensor | None]],
        awaited: Sequence[Tensor],
    ) -> None:
        """Add the balanced gradients to ``.grad``, with all hooks of the leaves, by one backward."""
        weights = [1.0] * len(self.tasks) if outcome.weights is None else outcome.weights
        ends: list[Tensor] = [leaf for leaf, _ in shared]
        gradients: list[Tensor | None] = [part for _, part in shared]
        shared.clear()  # the accumulators take them over
        own_factors = weights if self.heads == "weighted" else outcome.heads or [1.0] * len(self.tasks)
        present, sound = outcome.seen.present, outcome.seen.with_own_gradient()
        own_factors = [factor if present[task] else 1.0 for task, factor in enumerate(own_factors)]
        self._memory.record(outcome._replace(heads=own_factors))
        there = [(own[name], task) for name in given if sound[task := self.tasks.index(name)]]
        for place, (leaf, is_shared) in enumerate(zip(leaves.others, leaves.others_shared, strict=True)):
            factors = weights if is_shared else own_factors
            parts = [(part, factors[task]) for row, task in there if (part := row[place]) is not None]
            terms = [part if factor == 1 else part * factor for part, factor in parts]
            if terms:
                ends.append(leaf)
                gradients.append(sum(terms[1:], terms[0]))
            del parts, terms
        own.clear()
        del there
        ready = {id(leaf) for leaf in ends}
        missed = [leaf for leaf in awaited if id(leaf) not in ready]
        ends += missed
        gradients += [None] * len(missed)
        accumulate_gradients(ends, gradients)

    def _step(
        self, seen: StepEvidence, source: Gradients | SharedCotangents | None
    ) -> tuple[StepResult, Callable[[], object]]:
        """One step of the method, or the reason why not; and what keeps the state that it ends with."""
        broken = seen.nonfinite()
        if broken is not None:
            names = [name for name, bad in zip(self.tasks, broken.tolist(), strict=True) if bad]
            if self.nonfinite == "raise":
                raise FloatingPointError(
                    f"the loss or gradient of {', '.join(map(repr, names))} is not finite; .grad and the state are as before. "
                    "Balancer(..., nonfinite='skip') leaves such a task out of the step; under a GradScaler use 'pass'"
                )
            if self.nonfinite == "pass":
                return self._passed_on(seen._replace(present=seen.present | broken), Status.NONFINITE), lambda: None
            for name in names:
                self.skipped[name] = self.skipped.get(name, 0) + 1
            seen = seen.without(broken)
        if not seen.present.any():
            return self._passed_on(seen, Status.ABSENT), lambda: None
        if Need.JACOBIAN in self.method.needs:
            assert isinstance(source, Gradients)
            self._follow([leaf for leaf in source.like if isinstance(leaf, Tensor)])
            outcome, state = self._ask(seen, source.jacobian(torch.from_numpy(seen.present)))
        else:
            outcome, state = self._ask(seen)
        return outcome, partial(self._settle, outcome, state)
