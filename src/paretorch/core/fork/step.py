"""The step of a Fork: the backward of the losses, and the backward of the features."""

from __future__ import annotations

import itertools
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from paretorch.core.arrays import Array, Mask
from paretorch.core.contract import Need, Status
from paretorch.core.fork.backward_checks import SEVERAL_CALLS, BackwardChecks
from paretorch.core.fork.branch_checks import BranchChecks
from paretorch.core.fork.ddp_outputs import DDPOutputs, refuse_static_graph
from paretorch.core.fork.forwards import ForwardCall, StepForwards, running_backward
from paretorch.core.fork.head_gradients import HeadGradients, add_zeros, raise_after_backward
from paretorch.core.fork.overlap import OverlapCheck
from paretorch.core.gradients.gap import gap_between, parameter_gramian
from paretorch.core.gradients.rank_gramians import averaged_gramian
from paretorch.core.gradients.step_evidence import StepEvidence, StepResult, fill_loss_sums
from paretorch.core.gradients.task_gradients import (
    Gradients,
    Leaf,
    by_sample,
    chunks,
    common_batch_size,
    summing_dtype,
    to_host,
)
from paretorch.core.method.runner import MethodRunner, combined_gradient, tasks_of_losses

# By handle: compiled graphs store numbers only.
FORK_STEPS: weakref.WeakValueDictionary[int, ForkStep] = weakref.WeakValueDictionary()
_HANDLES = itertools.count()
NONFINITE_CURE = (
    "Check the targets and the loss of that task; with Fork(..., nonfinite='skip') such a task is left out of the step"
)
BALANCED_TWICE = (
    "a Balancer balances losses of a model that contains this Fork: the Balancer needs each task's own gradient, so the Fork "
    "does nothing in its backward. Use one of the two: leave the Fork and fork.losses out, or call "
    "sum(losses.values()).backward() in place of the Balancer. To keep both without this warning, run forward and backward "
    "under `with fork.paused():`"
)


class ForkStep:
    """Balances the tasks on the features, called by the autograd nodes of the losses and of the features.

    A plain object, not part of the module, because every step writes to it. A copy starts without a step in progress.

    Args:
        runner: of the method, with declared tasks.
        heads, nonfinite, gap: of :class:`~paretorch.Fork`.
    """

    def __init__(
        self,
        runner: MethodRunner,
        heads: Literal["own", "weighted"],
        nonfinite: Literal["pass", "raise", "skip"],
        gap: int | None,
    ) -> None:
        method = runner.method
        self.runner, self.heads, self.nonfinite, self.gap = runner, heads, nonfinite, gap
        # Whether the weights are applied at the losses, so that the branches' gradients are summed.
        self.weights_losses = method.needs == Need.LOSSES or heads == "weighted"
        # What the node of the features saves for its backward in addition to the link.
        self.saves = "features" if gap or Need.JACOBIAN in method.needs else "nothing"
        self.losses_required: str | None = None  # why fork.losses must be called
        self._suspects: list[str] = []  # tasks of a step with inf or nan whose cause is not known
        self.on_backward: Callable[[], None] | None = None  # called at the start of every backward of the features
        if heads == "weighted":
            self.saves = "branches"
            self.losses_required = f"{method} with heads='weighted' needs the losses"
        elif Need.LOSSES in method.needs:
            self.losses_required = f"{method} needs the loss values"
        elif not runner.homogeneous and runner.factor is None:
            self.losses_required = f"{method} needs the factors of the losses"
        self.handle = next(_HANDLES)
        FORK_STEPS[self.handle] = self
        self.pauses = 0  # contexts of fork.paused() that are open
        self.measured_steps = 0  # steps with new weights, counted for the gap
        # The state and the result before the losses were weighted, to restore them where a gradient is not finite.
        self._before_weights: tuple[dict[str, Tensor], StepResult | None] | None = None
        self.sends_nothing = False  # in the latest backward
        self._raising = -1  # the backward after which an error is raised
        self._head_gradients: HeadGradients | None = None  # of this step, where they may be taken back
        self._stacked: dict[int, Tensor] = {}  # memory for the tasks' gradients, by leaf
        self.forwards = StepForwards()
        self.ddp_outputs = DDPOutputs()
        single_tasks_allowed = bool(runner.state.row_fields) or not runner.uses_gradients
        self.backward_checks = BackwardChecks(self.tasks, single_tasks_allowed, runner.warn_once)
        self.branch_checks = BranchChecks(self.tasks, runner.warn_once)
        self.overlap = OverlapCheck(self.tasks, runner.warn_once)

    def __reduce__(self) -> tuple[Any, ...]:
        kept = {"on_backward": self.on_backward, "losses_required": self.losses_required}
        return ForkStep, (self.runner, self.heads, self.nonfinite, self.gap), kept

    @property
    def tasks(self) -> tuple[str, ...]:
        """The declared tasks."""
        return self.runner.state.tasks

    @contextmanager
    def paused_by_balancer(self) -> Iterator[None]:
        """Within it the Fork does nothing, because a Balancer computes each task's gradient: it finds this step in the graph."""
        if not self.pauses:
            self.runner.warn_once("balancer", BALANCED_TWICE)
        self.pauses += 1
        try:
            yield
        finally:
            self.pauses -= 1

    # --- forward ---------------------------------------------------------------------------------------------------------

    def begin_forward(self) -> None:
        """Prepare for another forward, which begins a step where the last one is complete."""
        if not torch.compiler.is_compiling():
            if self.heads == "weighted":
                refuse_static_graph()
            self.runner.ranks.agree_on_tasks(self.tasks, self.runner.method)
            if not self.runner.ranks.alone:
                self.ddp_outputs.observe_wrapper()
        if self.forwards.is_complete:
            self.forwards.begin()

    def end_forward(self, link: Tensor, leaves: Sequence[Tensor]) -> None:
        """Record a forward by its link and the balanced leaves of its features."""
        if torch.compiler.is_compiling():
            self.forwards.compiled_link = link
            return
        if not self.runner.ranks.alone:  # all ranks run the backward of their features, also where no task is present
            self.forwards.kept = link
        checks = self.branch_checks
        if checks.has_unreached and not self.weights_losses:
            checks.compare_features(link.grad_fn.call, leaves)  # type: ignore[union-attr]
        if not checks.is_used:
            checks.watch(link.grad_fn.call, leaves)  # type: ignore[union-attr]
        if self._suspects:
            self._check_features(leaves)

    def _check_features(self, leaves: Sequence[Tensor]) -> None:
        """Warn where the step after one with inf or nan has features that are not finite: a GradScaler would have skipped it."""
        suspects, self._suspects = self._suspects, []
        if all(bool(torch.isfinite(leaf.detach()).all()) for leaf in leaves):
            return
        self.runner.warn_once(
            "nonfinite",
            f"the gradient of {', '.join(map(repr, suspects))} was not finite in an earlier step, and now the features are not "
            f"finite: that step has reached the encoder. {NONFINITE_CURE}",
        )

    def begin_losses(self, losses: dict[int, Tensor], links: int) -> None:
        """Record which tasks have a loss, and check that each depends on its branch.

        Args:
            losses: by task.
            links: the number of this step's forwards.
        """
        self.forwards.is_complete = True
        self.forwards.kept = None
        self.forwards.tasks_with_loss, self.forwards.links = set(losses), links
        if self.runner.observation is not None:
            self.runner.observation.begin_step(losses.values())
        takes_back = self.nonfinite != "pass" and self.heads == "own" and self.runner.ranks.alone
        is_eager = not torch.compiler.is_compiling()
        self._head_gradients = HeadGradients(losses, self.forwards.nodes()) if takes_back and is_eager else None
        if (
            is_eager
            and self.branch_checks.visits_graphs(losses)
            and self.runner.uses_gradients
            and self.forwards.nodes()
        ):
            self.branch_checks.visit(losses, self.forwards.nodes())  # a compiled forward has no nodes

    # --- the backward of the losses --------------------------------------------------------------------------------------

    def weight_losses(
        self,
        losses: Sequence[Tensor],
        factors: Sequence[Tensor | None],
        link: Tensor,
        index: Sequence[int],
        branches: Sequence[Tensor],
    ) -> list[Tensor | None]:
        """The gradient to send back to each loss, and the loss sums to send to the features.

        Args:
            losses: k scalars.
            factors: k gradients of the total by each loss; None: the loss is not part of it.
            link: (3, all), zeros.
            index: (k,) the tasks of the losses.
            branches: task by task and, within each task, leaf by leaf, where heads are weighted.
        """
        try:
            return self._weighted(losses, factors, link, index, branches)
        except FloatingPointError as error:
            self._raise(error)
            return [*[None] * len(losses), torch.zeros_like(link)]

    def _weighted(
        self,
        losses: Sequence[Tensor],
        factors: Sequence[Tensor | None],
        link: Tensor,
        index: Sequence[int],
        branches: Sequence[Tensor],
    ) -> list[Tensor | None]:
        used = [(task, loss, f) for task, loss, f in zip(index, losses, factors, strict=True) if f is not None]
        loss_sums = fill_loss_sums(
            torch.zeros_like(link), [t for t, _, _ in used], [loss for _, loss, _ in used], [f for *_, f in used]
        )
        if self.pauses:
            return [*factors, loss_sums]
        if self._head_gradients is not None:
            self._head_gradients.save()
        if not self.weights_losses:
            return [*self._finite_factors(index, losses, factors), loss_sums]
        if used:
            self.backward_checks.check_weighted_once()
        if self.heads == "weighted":
            result = self._balanced(self._branch_gradients(used, branches), loss_sums, [])
        else:
            self.runner.ranks.agree_on_tasks(self.tasks, self.runner.method)
            numbers, *decision = to_host([loss_sums, *self.runner.unread_decision()])
            self.runner.read_decision(decision)
            result = self._loss_weights(numbers.numpy(), [task for task, *_ in used])
        assert result.weights is not None
        # A task without a gradient on the features may have one on its head; zero times inf or nan is nan.
        present = result.evidence.present
        weights = [weight if present[task] else 1.0 for task, weight in enumerate(result.weights)]
        self.runner.record(result._replace(heads=weights))
        left_out = [] if result.evidence.left_out is None else result.evidence.left_out.nonzero()[0].tolist()
        if left_out and self._head_gradients is None and self.runner.ranks.alone:
            self._head_gradients = HeadGradients(dict(zip(index, losses, strict=True)), self.forwards.nodes())
            self._head_gradients.save()
        return [
            None if f is None or task in left_out else f * weights[task] for task, f in zip(index, factors, strict=True)
        ] + [loss_sums]

    def _branch_gradients(self, used: list[tuple[int, Tensor, Tensor]], branches: Sequence[Tensor]) -> Gradients:
        """The gradients of the losses on their branches, by one backward through the heads."""
        cotangents: Sequence[Tensor | None] = [None] * len(branches)
        if used:
            cotangents = torch.autograd.grad(
                [loss for _, loss, _ in used],
                branches,
                [factor for _, _, factor in used],
                retain_graph=True,
                allow_unused=True,
            )
        return Gradients(chunks(cotangents, len(self.tasks)), branches[: len(branches) // len(self.tasks)])

    def _finite_factors(
        self, index: Sequence[int], losses: Sequence[Tensor], factors: Sequence[Tensor | None]
    ) -> list[Tensor | None]:
        """The factors of a gradient method's losses, unchanged, without those of losses that are to be skipped.

        The heads' gradients cannot be removed after the heads' backward; a loss that is not finite is found before it.
        """
        if self.nonfinite == "pass" or not losses:
            return list(factors)
        finite = torch.isfinite(torch.stack([loss.detach() for loss in losses])).tolist()
        broken = [task for task, fine, f in zip(index, finite, factors, strict=True) if not fine and f is not None]
        if broken and self.nonfinite == "raise" and self.runner.ranks.alone:
            raise FloatingPointError(_not_finite([self.tasks[task] for task in broken], "no gradient was sent"))
        skips = self.nonfinite == "skip"
        if broken and skips and self.runner.ranks.sharded_modules:
            for task, loss in zip(index, losses, strict=True):
                if task in broken:
                    add_zeros(loss, self.forwards.nodes())
        return [None if skips and not fine else f for fine, f in zip(finite, factors, strict=True)]

    def _loss_weights(self, loss_sums: Array, known: list[int]) -> StepResult:
        """One step of a method that needs losses alone."""
        runner = self.runner
        self._before_weights = runner.state.snapshot(), runner.result
        reused = runner.reuse_weights(lambda: tasks_of_losses(loss_sums))
        if reused is not None:
            return reused
        evidence, reason = self._usable(runner.evidence(loss_sums))
        return runner.run(evidence) if reason is None else runner.plain_sum(evidence, reason)

    # --- the backward of the features ------------------------------------------------------------------------------------

    def combine(
        self,
        cotangents: Sequence[Tensor | None],
        loss_sums: Tensor | None,
        like: Sequence[Tensor | Leaf],
        saved: Sequence[Tensor],
        call: ForwardCall,
    ) -> list[Tensor]:
        """The one gradient to send into the encoder, leaf by leaf.

        Args:
            cotangents: of the branches, task by task and, within each task, leaf by leaf; None where a head sends nothing.
            loss_sums: (3, all) the gradient of the link; None where the losses were not recorded.
            like: shapes, dtypes and devices of the features' leaves.
            saved: features or branches, see ``saves``.
            call: the forward.
        """
        if self._raising == running_backward() >= 0:  # since the losses
            return _zeros(like)
        try:
            return self._combined(cotangents, loss_sums, like, saved, call)
        except FloatingPointError as error:
            self._raise(error)
            return _zeros(like)

    def _combined(
        self,
        cotangents: Sequence[Tensor | None],
        loss_sums: Tensor | None,
        like: Sequence[Tensor | Leaf],
        saved: Sequence[Tensor],
        call: ForwardCall,
    ) -> list[Tensor]:
        if self.on_backward is not None:
            self.on_backward()
        self.sends_nothing = False
        self.branch_checks.is_used = True
        self.forwards.is_complete = True
        self.forwards.kept = None
        batch = common_batch_size(like) if Need.JACOBIAN in self.runner.method.needs else None
        gradients = Gradients(chunks(cotangents, len(self.tasks)), like, self._stacked, batch)
        if self.pauses:
            return gradients.summed()
        again = self._check_backward(gradients, call)
        self._check_losses_recorded(gradients, loss_sums)
        if self.weights_losses:
            left_out = None if self.runner.result is None else self.runner.result.evidence.left_out
            if left_out is not None:  # such a loss received no gradient, of which a custom function may make nan
                gradients = gradients.without(left_out)
                self._restore_heads(left_out, only_broken=True)
            with self._heads_restored_on_error():
                summed = self._summed_if_finite(gradients)
            self.sends_nothing = self._all_skipped(summed)
            return summed
        if self._is_of_unused_forward(gradients, again):
            return gradients.summed()
        if gradients.known:
            self.branch_checks.reached(gradients.known, loss_sums is not None or not self.runner.ranks.alone)
        self.forwards.balanced = bool(gradients.known)
        with self._heads_restored_on_error():
            result = self._balanced(gradients, loss_sums, saved)
        evidence = result.evidence
        if evidence.left_out is not None:
            # a loss that is not finite received no gradient, of which a custom function in its head may make nan
            unsent = evidence.losses_known & ~np.isfinite(evidence.losses)
            self._restore_heads(evidence.left_out & ~unsent)
            self._restore_heads(evidence.left_out & unsent, only_broken=True)
        if result.heads is not None:  # heads receive their own gradient unchanged
            self.runner.record(result._replace(heads=None))
        combined = combined_gradient(result, gradients)
        if call.is_compared:
            call.sent = dict(enumerate(combined))
        self.sends_nothing = self._all_skipped(combined)
        return combined

    def _raise(self, error: FloatingPointError) -> None:
        """Raise at once, or on several ranks, which all have the error, when their wrappers have ended the backward."""
        if self.runner.ranks.alone or running_backward() < 0:
            raise error
        self._raising = running_backward()
        raise_after_backward(error)

    def _all_skipped(self, combined: Sequence[Tensor]) -> bool:
        """Whether every task was skipped: what the encoder makes of zeros is then taken back.

        Not on several ranks, since wrappers of distributed training reduce every gradient.
        """
        result = self.runner.result
        if result is None or result.evidence.left_out is None or not self.runner.ranks.alone:
            return False
        return not result.evidence.present.any() and not any(bool(part.any()) for part in combined)

    def _restore_heads(self, tasks: Mask, only_broken: bool = False) -> None:
        """Take back the gradients of the (all,) tasks on their heads, or those alone that are not finite."""
        if self._head_gradients is None or not tasks.any():
            return
        indices = tasks.nonzero()[0].tolist()
        self._head_gradients.restore(indices, only_broken)
        self._head_gradients.restore_after_backward(indices)
        if hidden := self._head_gradients.hidden.intersection(indices):
            names = ", ".join(repr(self.tasks[task]) for task in sorted(hidden))
            self.runner.warn_once(
                "hidden",
                f"the head of {names} contains a reentrant checkpoint, whose parameters a Fork does not know: they keep what the "
                "backward added to .grad, finite or not. checkpoint(..., use_reentrant=False) has no such limit",
            )

    @contextmanager
    def _heads_restored_on_error(self) -> Iterator[None]:
        try:
            yield
        except FloatingPointError:
            self._restore_heads(np.ones(len(self.tasks), bool))
            raise

    def _check_backward(self, gradients: Gradients, call: ForwardCall) -> bool:
        """Check how the tasks' backwards are run; whether this one came through another forward before."""
        if not self.runner.ranks.alone:
            self.backward_checks.allow_single_tasks()
        again = bool(gradients.known) and self.backward_checks.is_repeated(call)
        if not again:
            self.backward_checks.check_joint(call, gradients.known)
        return again

    def _check_losses_recorded(self, gradients: Gradients, loss_sums: Tensor | None) -> None:
        """Check that ``fork.losses`` was given the losses of all tasks that have a gradient, where it is required."""
        if self.losses_required is None:
            return
        if loss_sums is None:
            raise RuntimeError(f"{self.losses_required}: write losses = fork.losses(losses) before summing them")
        given = self.forwards.tasks_with_loss
        missing = set() if given is None else set(gradients.known) - given
        missing -= set(gradients.zero_tasks(missing))  # compiled graphs send zeros for no gradient
        if missing:
            names = ", ".join(repr(self.tasks[task]) for task in sorted(missing))
            raise RuntimeError(
                f"{self.losses_required}, and fork.losses(losses) was not given the loss of {names}: give it all"
            )

    def _is_of_unused_forward(self, gradients: Gradients, again: bool) -> bool:
        """Whether the gradients are zeros for a forward of this step that the losses do not use.

        Raises:
            RuntimeError: they are those of a second forward, and the first one is balanced already.
        """
        if not gradients.known:
            return self.forwards.balanced and self.runner.ranks.alone
        if again and gradients.any():
            if self.runner.result is not None and self.runner.result.evidence.present.any():
                raise RuntimeError(SEVERAL_CALLS)
            return False
        return again and self.runner.ranks.alone

    def _summed_if_finite(self, gradients: Gradients) -> list[Tensor]:
        """The sum of the gradients of weighted losses, without those that are not finite; then the state is restored."""
        if self._before_weights is None:
            return gradients.summed()
        if self.nonfinite == "pass":
            combined = gradients.summed()
            known = self.runner.result is not None and self.runner.result.status is Status.NONFINITE
            if self.runner.undo_unless_finite(combined, self._before_weights[0]) and not known:
                self._suspects = broken_names(self.tasks, gradients.nonfinite_tasks())
            return combined
        broken = self.runner.ranks.sum(torch.from_numpy(gradients.nonfinite_tasks().astype(np.float64))).numpy() > 0
        if not broken.any():
            return gradients.summed()
        tensors, before = self._before_weights
        self.runner.state.restore(tensors)
        names = broken_names(self.tasks, broken)
        if self.nonfinite == "raise":
            self.runner.record(before)
            raise FloatingPointError(_not_finite(names, "the encoder received nothing, and the state is as before"))
        self.runner.count_skipped(names)
        self._restore_heads(broken)
        result = self.runner.result
        if result is not None and result.weights is not None:
            evidence = result.evidence.without(broken)
            weights = np.where(evidence.present, result.weights, 0.0).tolist()
            self.runner.record(result._replace(evidence=evidence, weights=weights))
        return gradients.combined((~broken).astype(np.float64).tolist())

    def _balanced(self, gradients: Gradients, loss_sums: Tensor | None, saved: Sequence[Tensor]) -> StepResult:
        """One step of the method on the features' gradients."""
        runner = self.runner
        reused = runner.reuse_weights(partial(_tasks_of_gradients, gradients, loss_sums))
        if reused is not None:
            return reused
        local, host = gradients.gramian(() if loss_sums is None else (loss_sums,))
        if not self.overlap.is_settled:
            self.overlap.update(gradients, local)
        if host and self.forwards.links == 1 and not runner.has_warned("bypass"):
            self.branch_checks.check_losses(host[0], gradients.known)
        gramian = local if runner.ranks.alone else averaged_gramian(local, runner.ranks)
        evidence = runner.evidence(host[0] if host else None, gramian, gradients.resolution)
        measures_gap = self.gap is not None and self.measured_steps % self.gap == 0
        self.measured_steps += 1
        evidence, reason = self._usable(evidence)
        if reason is not None:
            return runner.plain_sum(evidence, reason)
        if Need.JACOBIAN in runner.method.needs:
            return runner.run(evidence, gradients.jacobian(torch.from_numpy(evidence.present)), by_sample(saved))
        if not measures_gap:
            return self._run(evidence, gradients)
        exact = parameter_gramian(saved, gradients, runner.ranks)
        expected, _ = runner.proposed(evidence._replace(gramian=exact))
        result = runner.run(evidence)
        assert result.weights is not None
        assert expected.weights is not None
        result = result._replace(gap=gap_between(exact, result.weights, expected.weights))
        runner.record(result)
        return result

    def _run(self, evidence: StepEvidence, gradients: Gradients) -> StepResult:
        """One step of the method. Where losses are weighted, tasks whose weights are beyond the dtype are not finite."""
        result, state = self.runner.proposed(evidence)
        if not self.weights_losses or self.nonfinite == "pass":
            return self.runner.accept(result, state)
        weights = np.abs(result.weights or [])
        too_large = weights > torch.finfo(summing_dtype(gradients.like[0].dtype)).max
        if not too_large.any():
            return self.runner.accept(result, state)
        names = broken_names(self.tasks, too_large)
        if self.nonfinite == "raise":
            raise FloatingPointError(
                f"the weight of {', '.join(map(repr, names))} is {weights.max():.3g}, too large for its loss, since its "
                "gradient is so small: multiply its loss by a constant. The encoder and the state are as before"
            )
        self.runner.count_skipped(names)
        evidence = evidence.without(too_large)
        if not evidence.present.any():
            return self.runner.plain_sum(evidence, Status.ABSENT)
        return self._run(evidence, gradients)

    def _usable(self, evidence: StepEvidence) -> tuple[StepEvidence, Status | None]:
        """The evidence without tasks that are skipped, and the reason why the method cannot run, if there is one."""
        if evidence.regular:
            return evidence, None
        broken = evidence.nonfinite()
        if broken is not None:
            names = broken_names(self.tasks, broken)
            if self.nonfinite == "raise":
                raise FloatingPointError(_not_finite(names, "the encoder and the state are as before"))
            if self.nonfinite == "pass":
                self._note_nonfinite(evidence, broken)
                return evidence._replace(present=evidence.present | broken), Status.NONFINITE
            self.runner.count_skipped(names)
            evidence = evidence.without(broken)
        return evidence, None if evidence.present.any() else Status.ABSENT

    def _note_nonfinite(self, evidence: StepEvidence, broken: Mask) -> None:
        """Warn where a loss itself is not finite; a gradient alone may be an overflow under a GradScaler."""
        losses = evidence.losses_known & ~np.isfinite(evidence.losses)
        if not losses.any():
            self._suspects = broken_names(self.tasks, broken)
            return
        self._suspects = []
        found = ", ".join(f"{self.tasks[task]!r} is {evidence.losses[task]:g}" for task in losses.nonzero()[0])
        self.runner.warn_once(
            "nonfinite",
            f"the loss of {found}: the encoder receives the plain sum of the gradients. {NONFINITE_CURE}",
        )


def _tasks_of_gradients(gradients: Gradients, loss_sums: Tensor | None) -> tuple[Mask, Mask]:
    """(all,) the tasks with a gradient that is not zero, and those of which a gradient or a known loss is inf or nan."""
    present, broken, numbers = gradients.present_and_broken(*([] if loss_sums is None else [loss_sums]))
    for losses in numbers:
        broken |= ~np.isfinite(losses[0].numpy())
    return present, broken


def _zeros(like: Sequence[Tensor | Leaf]) -> list[Tensor]:
    return [torch.zeros(leaf.shape, dtype=leaf.dtype, device=leaf.device) for leaf in like]


def broken_names(tasks: Sequence[str], broken: Mask) -> list[str]:
    """The names of the tasks whose gradient or loss is not finite."""
    return [task for task, bad in zip(tasks, broken.tolist(), strict=True) if bad]


def _not_finite(names: Sequence[str], what: str) -> str:
    return (
        f"the gradient or loss of {', '.join(map(repr, names))} is not finite; {what}. Fork(..., nonfinite='skip') leaves such a "
        "task out of the step; under a GradScaler use 'pass'"
    )
