"""The Balancer: balances the tasks' gradients on the shared parameters themselves, for any graph."""

from __future__ import annotations

import logging
import math
import weakref
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import partial
from itertools import compress
from typing import Any, Literal, cast

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

from paretorch.core import checks
from paretorch.core.arrays import Array, Mask
from paretorch.core.balancer.forks import forks_paused
from paretorch.core.balancer.leaf_gradients import further_gradients, leaf_gradients
from paretorch.core.balancer.loss_step import broken_rows, descend_losses
from paretorch.core.balancer.micro_batches import (
    MicroBatches,
    add_directly,
    awaited_leaves,
    check_accumulate,
    merged_graph,
)
from paretorch.core.balancer.samples_option import (
    check_samples,
    samples_of_single_number,
    samples_refusal,
    samples_save_nothing,
)
from paretorch.core.balancer.shared_parameters import (
    EarlierLeaves,
    GivenLeaves,
    Leaves,
    check_graph,
    check_losses_given,
    check_ranks_agree,
    check_whole,
    compared_leaves,
)
from paretorch.core.balancer.step_losses import StepLosses, step_losses, with_own_gradients
from paretorch.core.balancer.total import total_of
from paretorch.core.contract import Balance, Method, Need, Status
from paretorch.core.gradients.engine import (
    accumulate_gradients,
    allow_repeated_backwards,
    free_saved_tensors,
    free_unreached,
    has_hooks,
    mark_freed,
)
from paretorch.core.gradients.graph import TaskGraph, ddp_leaves, task_graph
from paretorch.core.gradients.rank_gramians import cross_gramian, summed_gramian, summed_gramian_and
from paretorch.core.gradients.ranks import ALL
from paretorch.core.gradients.step_evidence import StepEvidence, StepResult
from paretorch.core.gradients.task_gradients import Gradients, times, to_host
from paretorch.core.method.argument import check_method
from paretorch.core.method.default import method_or_default
from paretorch.core.method.module import MethodModule
from paretorch.core.method.runner import Scale, combined_gradient, step_generator, tasks_of_losses
from paretorch.core.multi_vjp import (
    LevelCache,
    SharedCotangents,
    SharedGraph,
    find_shared_graph,
    samples_save_time,
    saves_time,
)
from paretorch.core.option_checks import check_choice

_LOG = logging.getLogger("paretorch")

DISCARDED = "are discarded, and the next micro-batch starts a new step"
CHECKED_STEPS = 2  # in which every graph is searched for Forks, and its freed nodes name the cause of an error


class Balancer(MethodModule):
    r"""Balances on the shared parameters: ``balancer.backward(losses)`` replaces ``sum(losses.values()).backward()``.

    .. math:: \theta\text{.grad} \mathrel{+}= \sum_t w_t \frac{\partial L_t}{\partial \theta}, \qquad
              w = \text{method}(G), \quad
              G_{st} = \Big\langle \frac{\partial L_s}{\partial \theta}, \frac{\partial L_t}{\partial \theta} \Big\rangle

    over the shared parameters theta: those that two losses or more reach. A parameter that one loss reaches receives the plain
    gradient of its task; one that several reach and ``shared=`` leaves out receives the weighted sum. Exact for any graph, also
    where each task has its own input; it takes one backward per task, or less where inner products can be computed without the
    gradients. In every step the length of the gradient is compared with the Gramian
    (:math:`\lVert \sum_t w_t g_t \rVert^2 = w^T G w`); where they differ the step is computed again from one ordinary backward
    for each task, before ``.grad`` is changed.

    Hooks on parameters run once, on the balanced gradient. Hooks on tensors and nodes within the shared part run once for each
    task, on that task's gradient, whatever the number of tasks: g_t is what an ordinary backward of L_t alone gives, hooks
    included. They may run more often than that, so they must depend on their argument alone, and the gradient that
    ``retain_grad()`` stores there is a sum over several passes. For methods that need losses alone there is one backward of the
    weighted sum, and such a hook runs once, on its gradient.

    Encoders that are compiled after the Balancer was made keep the saved tensors of their backward for several passes
    (``torch._functorch.config.donated_buffer`` is set to False).

    Args:
        method: the balancing method, such as ``UPGrad()``; None: the recommended one, ``IMTLG()``.
        tasks: names, in a fixed order; by default those of the first step.
        shared: the parameters on which gradients are compared, or a module. By default all that two losses or more reach.
        heads: ``"own"``: parameters of one task receive its plain gradient; ``"weighted"``: times the task's weight (1 where the
            task has no gradient on what is shared).
        scale: ``"calibrated"``: T equal gradients g give T g, as the sum of losses does; ``"paper"``: the method's own weights.
        nonfinite: ``"raise"``: FloatingPointError naming the task, before ``.grad`` is changed; ``"skip"``: that task is left
            out of the step, and counted in ``skipped``; ``"pass"``: the gradient is the plain sum, so that a GradScaler finds
            inf or nan, skips its step and lowers its scale.
        every: reuse the weights for ``every - 1`` steps.
        samples: compute the Gramian from so many samples of the batch (of each rank's), drawn in every step; None: from all.
            Of S among B samples, its gradients are ``B / S`` times the contribution of the S rows of the tensors at which the
            tasks' graphs separate: unbiased for any loss. The gradient in ``.grad`` is that of the whole batch. Where layers
            combine samples (batch normalization in training mode) or have no rule, samples would save nothing: one process then
            computes the exact Gramian, and warns.
        factor: what the losses were multiplied by (``scaler.get_scale()``), for methods that are not homogeneous.
        group: ranks whose losses are averaged: ``"all"`` where torch.distributed is initialised, a process group, or None.
        seed: of the method's random draws.
        accumulate: the number k of micro-batches of a step, each with a :meth:`backward` of its own. The losses of the step are
            the sums over its micro-batches, and the k-th call adds to ``.grad`` what one call with these sums would; those before
            add nothing, and return a record without weights. Costs the memory of T gradients of all parameters. Divide the losses
            by k where they are means, as without a Balancer; :meth:`flush` ends a step early. The sums are not part of copies and
            of ``state_dict``: copy, save, load and reset between two steps; within a step each of them warns.

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

    def __init__(
        self,
        method: Method[Any] | None = None,
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
        accumulate: int = 1,
    ) -> None:
        if method is not None:
            check_method(method, owner="Balancer")
        names = None if tasks is None else checks.checked_task_names(tasks)
        method = method_or_default(method, names)
        super().__init__(method, scale=scale, every=every, factor=factor, group=group, seed=seed, on_parameters=True)
        check_choice("heads", heads, ("own", "weighted"))
        check_choice("nonfinite", nonfinite, ("raise", "skip", "pass"))
        check_samples(samples, method)
        check_accumulate(accumulate, method, samples)
        self.heads, self.nonfinite, self.samples = heads, nonfinite, samples
        self._shared = None if shared is None else GivenLeaves(shared)
        self._accepts_new_tasks = tasks is None
        self._levels = LevelCache()
        self._micro_batches = MicroBatches(int(accumulate))
        self._earlier = EarlierLeaves()
        self._checked_steps = CHECKED_STEPS
        self._logged = False
        self.runner.state.counts_steps |= samples is not None  # the drawn samples are a function of the step
        allow_repeated_backwards()
        if names is not None:
            self.runner.state.declare(names)

    def reset_state(self) -> None:  # noqa: D102
        self._micro_batches.warn_of_unfinished_step("reset", DISCARDED, stacklevel=3)
        super().reset_state()
        self._earlier = EarlierLeaves()
        self._micro_batches.clear()
        if self._accepts_new_tasks:
            self.runner.state.undeclare()

    def _save_to_state_dict(self, *args: Any) -> None:
        self._micro_batches.warn_of_unfinished_step(
            "saved", "are not stored: a Balancer with this state starts a new step"
        )
        super()._save_to_state_dict(*args)

    def _load_from_state_dict(self, *args: Any) -> None:
        super()._load_from_state_dict(*args)
        self._micro_batches.warn_of_unfinished_step("loaded", DISCARDED)
        self._micro_batches.clear()

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
            others: losses on further, independent batches, for methods that take several (MoDo): the weights come from these,
                and the gradient from ``losses``. A task is present that is in all of them.
            retain_graph: keep the graph for another backward.

        Returns:
            the result of the step. With ``nonfinite="pass"``, a method that needs losses alone and losses on a device, its status
            is decided on the device: ``balancer.balance`` waits for it.

        Raises:
            ValueError: on unknown names, losses that are not scalars with a graph on one device, and graphs whose shared
                parameters cannot be found (give ``shared=``).
            FloatingPointError: where a loss or gradient is not finite; ``.grad`` is as before.
        """
        return self._backward(losses, others, retain_graph)

    def total(
        self,
        losses: Mapping[str, Tensor | None],
        *,
        others: Sequence[Mapping[str, Tensor | None]] = (),
        retain_graph: bool = False,
    ) -> Tensor:
        r"""The sum of the losses, whose ordinary ``backward()`` is the Balancer's: for loops that call ``backward`` themselves.

        .. math:: \text{total} = \sum_t L_t, \qquad
                  (c \cdot \text{total}).\text{backward()}: \quad
                  \theta\text{.grad} \mathrel{+}= c \sum_t w_t \frac{\partial L_t}{\partial \theta}

        Everything that a loop does to a loss reaches the method: division by the number of micro-batches, the scale of a
        GradScaler, a framework's own backward. The factor c is passed on to methods that are not homogeneous. Gradients are added
        to ``.grad`` while the backward runs: :func:`torch.autograd.grad` of the total finds none, and ``backward(inputs=...)``
        adds none. Without gradients (under ``torch.no_grad()``, in an evaluation) the total is the plain sum, and no step is
        counted.

        With ``accumulate=k``, give the losses of the micro-batch as they are: the loss of the step is their mean, weighted by the
        factors c.

        Args:
            losses, others: as in :meth:`backward`.
            retain_graph: keep the graph of the losses: needed where another term of the same backward uses it.

        Returns:
            a scalar.

        Raises:
            ValueError: as :meth:`backward`; within the forward of a DistributedDataParallel that searches for unused parameters.
            RuntimeError: in the backward, with ``create_graph=True``, and in a second backward without ``retain_graph``.

        Example:
            >>> import paretorch as pt
            >>> shared, left, right = (torch.nn.Linear(4, n) for n in (4, 1, 1))
            >>> balancer = pt.Balancer(pt.UPGrad())
            >>> z = shared(torch.ones(8, 4))
            >>> loss = balancer.total({"left": left(z).square().mean(), "right": right(z).exp().mean()})
            >>> (loss / 4).backward()  # by an optimizer, a scaler, a trainer
            >>> shared.weight.grad.shape
            torch.Size([4, 4])
        """
        given = checks.present_losses(losses, "balancer.total")
        # checked here: in the backward, where gradients are off, a zero without a graph would not count as absent
        further = [checks.present_losses(each, "balancer.total, others") for each in others]
        if self.tasks and not self._accepts_new_tasks:
            checks.check_known_tasks(given, self.tasks, "balancer.total")

        def step(factor: float | Tensor, keep: bool) -> None:
            self._backward(given, further, retain_graph or keep, factor, call="balancer.total")

        return total_of(given, step)

    def flush(self) -> Balance | None:
        """End a step of ``accumulate`` micro-batches early: balance the sums so far, and add the result to ``.grad``.

        Call it before an optimizer step that comes after fewer micro-batches, such as the last one of an epoch.

        Returns:
            the result of the step, or None where nothing was accumulated.
        """
        return self._accumulated_step(None) if self._micro_batches.count else None

    def _backward(
        self,
        losses: Mapping[str, Tensor | None],
        others: Sequence[Mapping[str, Tensor | None]],
        retain_graph: bool,
        factor: float | Tensor | None = None,
        call: str = "balancer.backward",
    ) -> Balance:
        """One backward of ``factor`` times the losses; None: the losses are multiplied already. ``call``: for messages."""
        before = self.tasks
        try:
            return self._checked_backward(losses, others, retain_graph, factor, call)
        except (ValueError, FloatingPointError):
            if self.tasks != before and not self._micro_batches.count:  # a step that is refused declares nothing
                if before:
                    self.runner.state.declare(before)
                else:
                    self.runner.state.undeclare()
            raise

    def _checked_backward(
        self,
        losses: Mapping[str, Tensor | None],
        others: Sequence[Mapping[str, Tensor | None]],
        retain_graph: bool,
        factor: float | Tensor | None,
        call: str,
    ) -> Balance:
        given = self._checked(losses, others, call)
        if self.runner.observation is not None and not self._micro_batches.count:
            self.runner.observation.begin_step(given.values())
        if isinstance(factor, Tensor) and self.accumulate > 1:
            factor = float(factor)
        step = step_losses(given, self.tasks, self.factor or 1.0, 1.0 if factor is None else factor)
        if isinstance(factor, Tensor) or (factor is not None and factor != 1):
            with torch.enable_grad():
                given, *others = [
                    {name: loss * factor for name, loss in each.items() if loss is not None}
                    for each in (given, *others)
                ]
        graph = None
        if self.accumulate > 1 or self.runner.uses_gradients or self._checked_steps:
            graph = task_graph([[loss] for loss in given.values()])
        with forks_paused(graph):
            if self.accumulate > 1:
                assert graph is not None
                assert not isinstance(factor, Tensor)
                return self._add_micro_batch(given, graph, step.read()[0], retain_graph, factor)
            if self.runner.uses_gradients:
                assert graph is not None
                self._backward_of_gradients(given, graph, step, others, retain_graph)
            else:
                self._backward_of_losses(given, step, retain_graph)
        if not retain_graph:
            mark_freed(given.values(), call, graph if self._checked_steps else None)
        if self._checked_steps and graph is not None and not graph.forks:  # a Fork is searched for again
            self._checked_steps -= 1
        return cast(Balance, self.runner.known_balance)

    # --- losses ----------------------------------------------------------------------------------------------------------

    def _checked(
        self, losses: Mapping[str, Tensor | None], others: Sequence[Mapping[str, Tensor | None]], call: str
    ) -> dict[str, Tensor]:
        """The losses of the present tasks, which the first step declares; all ranks check together."""
        if len(others) != self.method.batches - 1:
            raise ValueError(
                f"{self.method} takes {self.method.batches} batches: expected others= with the losses on "
                f"{self.method.batches - 1} more, got {len(others)}"
            )
        given = checks.present_losses(losses, call)
        self._declare_new(given, call)
        # so that the order of the leaves does not depend on that of the dict
        given = {name: given[name] for name in self.tasks if name in given}
        ranks = self.runner.ranks
        ranks.agree_on_tasks(self.tasks, self.method)
        if not ranks.alone and self._micro_batches.next_is_last:
            check_losses_given(ranks, bool(given), [] if self._shared is None else [*self._shared.leaves])
        return given

    def _declare_new(self, given: Mapping[str, Tensor], call: str) -> None:
        """Check the names against the declared tasks; the first step declares them."""
        ranks, state = self.runner.ranks, self.runner.state
        if not given and self.accumulate > 1:
            return  # a task may be present in another micro-batch
        if not given and (not self.tasks or ranks.size == 1):
            raise ValueError(
                f"{call} got no losses: expected a scalar for each task that is present; leave the step out where there is none"
            )
        if not self.tasks:
            self.runner.state.declare(checks.checked_task_names(given))
        new = tuple(name for name in given if name not in self.tasks)
        has_memory = bool(state.fields()) or self.every > 1
        if new and self._accepts_new_tasks and not has_memory and ranks.size == 1:
            self.runner.state.declare((*self.tasks, *new))
        elif new and self._accepts_new_tasks and has_memory:
            raise ValueError(
                f"{self.method} has a state of its tasks {self.tasks} and got the new {', '.join(map(repr, new))}: "
                "declare all of them with Balancer(method, tasks=...), or use a method without state"
            )
        checks.check_known_tasks(given, self.tasks, call)

    # --- micro-batches ---------------------------------------------------------------------------------------------------

    @property
    def accumulate(self) -> int:
        """The number of micro-batches of a step."""
        return self._micro_batches.size

    def _add_micro_batch(
        self,
        given: Mapping[str, Tensor],
        graph: TaskGraph,
        loss_sums: Array,
        retain_graph: bool,
        factor: float | None,
    ) -> Balance:
        """Add every task's gradients to the running sums; the last micro-batch ends the step."""
        named = {} if self._shared is None else self._shared.in_graph(graph)
        check_whole(named, graph, self.runner.ranks, "a Balancer")
        check_graph(graph, self._shared is None)
        shared = [leaf for leaf in named if leaf.requires_grad]
        values = {name: float(loss_sums[0, self.tasks.index(name)]) for name in given}
        self._micro_batches.add(given, graph, shared, values, factor, retain_graph)
        if self._micro_batches.count < self._micro_batches.size:
            blank = torch.full((len(self.tasks),), math.nan, dtype=torch.float64)
            return Balance(
                None, Status.ACCUMULATED, heads=blank, tasks=self.tasks, losses=torch.from_numpy(loss_sums[0])
            )
        return self._accumulated_step(graph)

    def _accumulated_step(self, graph: TaskGraph | None) -> Balance:
        """Balance the sums over the micro-batches, and add the result to ``.grad``.

        Args:
            graph: of the last micro-batch; None: the step ends early.
        """
        sums, tasks = self._micro_batches.take(), self.tasks
        names = [name for name in tasks if name in sums.rows]
        if not names and self.runner.ranks.size == 1:
            raise ValueError("no task had a loss in any of the micro-batches: leave such a step out")
        loss_sums = sums.loss_sums(tasks, self.factor or 1.0)
        leaves = self._leaves(names, merged_graph(sums, names))
        source, own = sums.gradients(tasks, leaves)
        broken = np.zeros(len(tasks), bool)
        if not self.runner.uses_gradients:
            here = broken_rows({name: [*row.values()] for name, row in sums.rows.items()}, tasks)
            broken = self.runner.ranks.sum(torch.from_numpy(here.astype(np.float64))).numpy() > 0
        else:  # the Gramian shows the other gradients
            loss_sums[0, broken_rows(own, tasks)] = np.nan
        if self.runner.uses_gradients:
            result, shared = self._consistent_step(StepLosses([], lambda _: loss_sums), source, None)
        else:
            before = (self.runner.state.snapshot(), self.runner.result)
            result = self._loss_weights(loss_sums, before, broken)
            result = result._replace(heads=result.weights)
            shared = cast(list[tuple[Tensor, Tensor]], self._shared_gradient(result, source))
        awaited, outside = ([], []) if graph is None else awaited_leaves(graph, [*leaves.compared, *leaves.others])
        self._accumulate(result, names, leaves, shared, own, awaited, outside)
        return cast(Balance, self.balance)

    # --- methods that need losses alone ----------------------------------------------------------------------------------

    def _backward_of_losses(self, given: Mapping[str, Tensor], losses: StepLosses, retain_graph: bool) -> None:
        decision = self.runner.unread_decision()
        loss_sums, numbers = losses.read(decision)
        self.runner.read_decision(numbers)
        before = (self.runner.state.snapshot(), self.runner.result)
        weights_without = partial(self._loss_weights, loss_sums, before)
        checked = None if self.nonfinite == "pass" else self.nonfinite
        passed = descend_losses(given, self.tasks, weights_without, checked, self.runner.ranks, retain_graph)
        if self.nonfinite == "pass":
            self.runner.undo_unless_finite(passed, before[0])

    def _loss_weights(
        self, loss_sums: Array, before: tuple[dict[str, Tensor], StepResult | None], broken: Mask
    ) -> StepResult:
        """The weights of the step, without the (all,) ``broken`` tasks, whose gradients are not finite."""
        runner = self.runner
        if broken.any():  # restore the state, and repeat the step without them
            runner.state.restore(before[0])
            runner.record(before[1])
            result = None
        else:
            result = runner.reuse_weights(lambda: tasks_of_losses(loss_sums))
        if result is None:
            result, accept = self._step(runner.evidence(loss_sums)._replace(broken=broken), None)
            accept()
        runner.record(result._replace(heads=result.weights))
        return result

    # --- methods that need gradients -------------------------------------------------------------------------------------

    def _backward_of_gradients(
        self,
        given: Mapping[str, Tensor],
        graph: TaskGraph,
        losses: StepLosses,
        others: Sequence[Mapping[str, Tensor | None]],
        retain_graph: bool,
    ) -> None:
        leaves = self._leaves(given, graph)
        source, own = self._source(given, graph, leaves, retain_graph)
        further = self._further(others, leaves) if others else None
        losses = with_own_gradients(losses, own, self.tasks)
        result, shared = self._consistent_step(losses, source, further)
        if not retain_graph and isinstance(source, SharedCotangents):
            free_saved_tensors(source.shared_graph.nodes)
        elif not retain_graph:
            free_unreached(graph, len(given))
        self._accumulate(result, given, leaves, shared, own, ddp_leaves(graph))

    def _consistent_step(
        self,
        losses: StepLosses,
        source: Gradients | SharedCotangents,
        further: Callable[[StepEvidence], StepEvidence] | None,
    ) -> tuple[StepResult, list[tuple[Tensor, Tensor]]]:
        """The result of the step, and the shared leaves with their balanced gradients, consistent with the Gramian."""
        runner = self.runner
        result = runner.reusable(partial(_tasks_of_source, source, losses))
        if result is not None:
            shared = self._shared_gradient(result, source, is_new=False)
            if shared is None:  # the first call has changed the level to EXPLICIT
                shared = self._shared_gradient(result, source, is_new=False)
            assert shared is not None
            if self._is_finite(shared):
                return runner.reuse(result), shared  # else a new step finds which task it is
        skipped = dict(runner.skipped)
        while True:
            gramian, found = self._gramian(source, losses.tensors)
            evidence = runner.evidence(losses.on_host(found), gramian, source.resolution)
            result, accept = self._step(evidence if further is None else further(evidence), source)
            shared = self._shared_gradient(result, source)
            if shared is not None:
                accept()
                return result, shared
            runner.skipped = dict(skipped)  # the next Gramian is of explicit gradients, and the step is repeated

    def _is_finite(self, shared: Sequence[tuple[Tensor, Tensor]]) -> bool:
        """Whether the gradient is finite on all ranks."""
        sums = to_host([part.sum() for _, part in shared])  # one that overflows costs a new step
        broken = sum(not math.isfinite(each) for each in sums)
        return float(self.runner.ranks.sum(torch.tensor(float(broken)))) == 0

    def _leaves(self, given: Collection[str], graph: TaskGraph) -> Leaves:
        """The leaves that are compared, and the others that have a gradient."""
        state, ranks, earlier = self.runner.state, self.runner.ranks, self._earlier
        # one task alone does not show which parameters it shares
        known = earlier.of_rows if state.row_fields else earlier.of_several_tasks if len(given) == 1 else []
        before = [leaf for ref in known if (leaf := ref()) is not None]
        single_allowed = len(given) > 1 or len(self.tasks) == 1 or not state.row_fields
        named = None if self._shared is None else self._shared.in_graph(graph)
        leaves = compared_leaves(named, graph, len(given), len(self.tasks), ranks, before, single_allowed)
        if len(given) > 1:
            earlier.of_several_tasks = list(map(weakref.ref, leaves.compared))
        if ranks.size > 1:
            check_ranks_agree(ranks, leaves.compared)
        if not self._logged:
            self._logged = True
            sizes = [leaf.numel() for leaf in leaves.compared]
            _LOG.info("tasks %s are balanced on %d numbers in %d tensors", self.tasks, sum(sizes), len(sizes))
        return leaves

    def _source(
        self, given: Mapping[str, Tensor], graph: TaskGraph, leaves: Leaves, retain_graph: bool
    ) -> tuple[Gradients | SharedCotangents, dict[str, list[Tensor | None]]]:
        """Every task's gradients or cotangents, whichever cost less; and its gradients on the leaves that are not compared."""
        alone = self.runner.ranks.size == 1
        sampled = self.samples is not None and len(given) > 1
        possible = alone and not graph.opaque and Need.JACOBIAN not in self.method.needs
        possible = possible and len(given) > 2  # for two tasks, the additional backward costs what it could save
        # one backward of a weighted sum is enough where weights are reused
        reuses = self.runner.may_reuse and len(given) > 1 and not graph.opaque
        shared_graph = find_shared_graph(graph, leaves.compared) if sampled or possible or reuses else None
        if sampled and (shared_graph is None or graph.opaque or has_hooks(shared_graph.entries)):
            raise ValueError(samples_refusal(self.samples, graph.opaque))
        if sampled and shared_graph is not None:
            if None in shared_graph.batch_sizes:
                raise ValueError(samples_of_single_number(self.samples))
            if alone and self._takes_whole_batch(shared_graph):
                sampled, shared_graph = False, shared_graph if possible or reuses else None
        if (
            shared_graph is None
            or not (sampled or reuses or (possible and saves_time(shared_graph, len(given))))
            or (not sampled and has_hooks(shared_graph.entries))
        ):
            in_one_block = not alone or Need.JACOBIAN in self.method.needs
            return leaf_gradients(given, self.tasks, leaves, graph, retain_graph, in_one_block)
        known = [self.tasks.index(name) for name in given]
        passive = [leaf for leaf, is_shared in zip(leaves.others, leaves.others_shared, strict=True) if is_shared]
        cotangents = SharedCotangents(shared_graph, len(self.tasks), known, self._levels, passive)
        own = cotangents.collect(given, graph, leaves.others, retain_graph)
        return cotangents, own

    def _draws_all(self, shared_graph: SharedGraph) -> bool:
        """Whether ``samples`` covers the whole batch, for which the exact Gramian costs less."""
        sizes = shared_graph.batch_sizes
        return self.samples is not None and bool(sizes) and max(size or 0 for size in sizes) <= self.samples

    def _takes_whole_batch(self, shared_graph: SharedGraph) -> bool:
        """Whether the exact Gramian costs no more than that of the samples; a warning, unless they are the whole batch."""
        if self._draws_all(shared_graph):
            return True
        if samples_save_time(shared_graph):
            return False
        self.runner.warn_once("samples", samples_save_nothing(self.samples))
        return True

    def _gramian(self, source: Gradients | SharedCotangents, others: Sequence[Tensor]) -> tuple[Array, list[Array]]:
        """(T, T) of the gradients on what is compared, of the whole batch or of the drawn samples; others from its transfer."""
        ranks = self.runner.ranks
        step = None if self.samples is None else self.runner.state.steps()  # a step of one task counts, too
        if isinstance(source, Gradients):
            return self._summed_gramian(source, source, others)
        drawn = self.samples is not None and not self._draws_all(source.shared_graph)
        if self.samples is not None and step is not None and (drawn or ranks.size > 1):
            source.draw_samples(self.samples, step_generator(~self.seed, step))
        if ranks.size > 1:
            found = self._summed_gramian(source, source.explicit_gradients(), others)
        else:
            found = source.gramian(others)
        if drawn and (ranks.size > 1 or not source.samples_save_time):
            self.runner.warn_once("samples", samples_save_nothing(self.samples))
        return found

    def _summed_gramian(
        self, source: Gradients | SharedCotangents, gradients: Gradients, others: Sequence[Tensor]
    ) -> tuple[Array, list[Array]]:
        """The Gramian of explicit gradients over ranks; of whole batches if a task has a part in other samples only."""
        ranks = self.runner.ranks
        gramian, found = summed_gramian_and(gradients, ranks, others)
        missing = gramian.diagonal() == 0
        # the condition is the same on all ranks, whatever the kind of their source
        if self.samples is not None and ranks.size > 1 and missing.any():
            elsewhere = isinstance(source, SharedCotangents) and source.has_other_samples(missing)
            if ranks.sum(torch.tensor(float(elsewhere))) > 0:
                if isinstance(source, SharedCotangents):
                    source.use_whole_batch()
                    gradients = source.gradients()
                gramian = summed_gramian(gradients, ranks)
        return gramian, found

    def _further(
        self, others: Sequence[Mapping[str, Tensor | None]], leaves: Leaves
    ) -> Callable[[StepEvidence], StepEvidence]:
        """Adds the inner products between two further batches to the evidence; a present task is in all of the batches."""
        gradients = further_gradients(others, self.tasks, leaves.compared)
        cross, (one, two) = cross_gramian(*gradients, self.runner.ranks)
        in_both, finite = np.minimum(one, two) != 0, np.isfinite(one + two)
        return lambda evidence: evidence._replace(present=evidence.present & in_both, cross=cross, broken=~finite)

    def _step(
        self, evidence: StepEvidence, source: Gradients | SharedCotangents | None
    ) -> tuple[StepResult, Callable[[], object]]:
        """The method's result, or the plain sum where it cannot run; and what stores the state after the step."""
        runner, broken = self.runner, evidence.nonfinite()
        if broken is not None:
            names = [name for name, bad in zip(self.tasks, broken.tolist(), strict=True) if bad]
            if self.nonfinite == "raise":
                raise FloatingPointError(
                    f"the loss or gradient of {', '.join(map(repr, names))} is not finite; .grad and the state are as before. "
                    "Balancer(..., nonfinite='skip') leaves such a task out of the step; under a GradScaler use 'pass'"
                )
            if self.nonfinite == "pass":
                with_broken = evidence._replace(present=evidence.present | broken)
                return runner.plain_sum(with_broken, Status.NONFINITE), lambda: None
            runner.count_skipped(names)
            evidence = evidence.without(broken)
        if not evidence.present.any():
            return runner.plain_sum(evidence, Status.ABSENT), lambda: None
        jacobian = None
        if Need.JACOBIAN in self.method.needs:
            assert isinstance(source, Gradients)
            self._match_rows(
                [leaf for leaf in source.like if isinstance(leaf, Tensor)], len(source.known) == len(self.tasks)
            )
            jacobian = source.jacobian(torch.from_numpy(evidence.present))
        result, state = runner.proposed(evidence, jacobian)
        return result, partial(runner.accept, result, state)

    def _match_rows(self, leaves: Sequence[Tensor], of_all_tasks: bool) -> None:
        """Reset a state with rows of gradients where these are of other leaves, or may be: a loaded state does not name them.

        Without ``shared=``, the order of the leaves is known to be the same where all tasks are present.
        """
        state, earlier = self.runner.state, self._earlier
        if not state.row_fields:
            return
        before, length = [ref() for ref in earlier.of_rows], sum(leaf.numel() for leaf in leaves)
        same = len(before) == len(leaves) and all(old is new for old, new in zip(before, leaves, strict=True))
        is_ordered = of_all_tasks or self._shared is not None or state.rows_fit(0)
        if not (same if before else state.rows_fit(length) and is_ordered):
            state.store(state.initial())
            self.runner.warn_once(
                "rows",
                f"the gradients in the state of {self.method} are of other parameters than the {length} numbers that are "
                "compared from now on: the state is reset. Balancer(..., shared=encoder) fixes what is compared whatever "
                "tasks are present",
            )
        earlier.of_rows = list(map(weakref.ref, leaves))

    def _shared_gradient(
        self, result: StepResult, source: Gradients | SharedCotangents, is_new: bool = True
    ) -> list[tuple[Tensor, Tensor]] | None:
        """Every leaf that several tasks reach with its balanced gradient; None where that contradicts the Gramian."""
        evidence = result.evidence
        if evidence.left_out is not None and not evidence.present.any():
            return []  # every task is skipped; of zeros, an encoder that is not finite makes nan
        if isinstance(source, SharedCotangents):
            weights = [1.0] * len(self.tasks) if result.weights is None else result.weights
            found = source.gradient(weights, evidence.gramian if is_new else None)
            if found is None:
                return None
            pairs = zip([*source.shared_graph.compared, *source.passive], found, strict=True)
            return [(leaf, part) for leaf, part in pairs if part is not None]
        combined = combined_gradient(result, source)
        reached = source.reached if self.runner.ranks.alone else [True] * len(combined)
        like = [leaf for leaf in source.like if isinstance(leaf, Tensor)]
        return list(compress(zip(like, combined, strict=True), reached))

    def _accumulate(
        self,
        result: StepResult,
        given: Collection[str],
        leaves: Leaves,
        shared: list[tuple[Tensor, Tensor]],
        own: dict[str, list[Tensor | None]],
        awaited: Sequence[Tensor],
        outside: Sequence[Tensor] = (),
    ) -> None:
        """Add the balanced gradients to ``.grad``, with all hooks of the leaves, by one backward.

        Args:
            result: of the step.
            given: the tasks with a loss.
            leaves: compared and others.
            shared: the shared leaves with their balanced gradients; emptied, so that the memory is freed early.
            own: every task's gradients on the other leaves; emptied.
            awaited: leaves whose accumulators must run, with or without a gradient.
            outside: leaves whose accumulators must not run; their gradients are added before, without hooks.
        """
        weights = [1.0] * len(self.tasks) if result.weights is None else result.weights
        ends: list[Tensor] = [leaf for leaf, _ in shared]
        gradients: list[Tensor | None] = [part for _, part in shared]
        shared.clear()
        own_factors = weights if self.heads == "weighted" else result.heads or [1.0] * len(self.tasks)
        present, trained = result.evidence.present, result.evidence.with_own_gradient()
        own_factors = [factor if present[task] else 1.0 for task, factor in enumerate(own_factors)]
        if leaves.of_one_task and present.any():
            own_factors = self._factors_of_one_task(weights, given, own_factors)
        self.runner.record(result._replace(heads=own_factors))
        rows = [(own[name], task) for name in given if trained[task := self.tasks.index(name)]]
        for place, (leaf, is_shared) in enumerate(zip(leaves.others, leaves.others_shared, strict=True)):
            factors = weights if is_shared else own_factors
            terms = [times(part, factors[task]) for row, task in rows if (part := row[place]) is not None]
            if terms:
                ends.append(leaf)
                gradients.append(sum(terms[1:], terms[0]))
            del terms
        own.clear()
        del rows
        apart = {id(leaf) for leaf in outside}
        if apart:
            add_directly([(leaf, part) for leaf, part in zip(ends, gradients, strict=True) if id(leaf) in apart])
            kept = [id(leaf) not in apart for leaf in ends]
            ends, gradients = list(compress(ends, kept)), list(compress(gradients, kept))
        ready = {id(leaf) for leaf in ends}
        missing = [leaf for leaf in awaited if id(leaf) not in ready]
        ends += missing
        gradients += [None] * len(missing)
        # with find_unused_parameters=True, the wrapper waits for the awaited leaves alone
        skips = result.evidence.left_out is not None and not awaited
        accumulate_gradients(ends, gradients, [*leaves.compared, *leaves.others] if skips else ())

    def _factors_of_one_task(
        self, weights: Sequence[float], given: Collection[str], own_factors: list[float]
    ) -> list[float]:
        """The factors of own gradients where one task's loss does not show what it shares: its weight, with a warning."""
        (name,) = given
        weight = weights[self.tasks.index(name)]
        if abs(weight - 1.0) > 1e-12:
            self.runner.warn_once(
                "one task",
                f"the loss of {name!r} alone does not show which parameters it shares with other tasks, and no step of several "
                f"tasks has come before: its head, too, is trained with the weight {weight:.3g}. Balancer(..., shared=encoder) "
                "names them",
            )
        return [weight if task == name else factor for task, factor in zip(self.tasks, own_factors, strict=True)]


def _tasks_of_source(source: Gradients | SharedCotangents, losses: StepLosses) -> tuple[Mask, Mask]:
    """(all,) the tasks with a gradient that is not zero, and those of which a gradient or the loss is inf or nan."""
    present, broken, *_ = source.present_and_broken()
    return present, broken | ~np.isfinite(losses.read()[0][0])
