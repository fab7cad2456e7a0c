"""One runner of a balancing method: the evidence of a step in, weights or an update out."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Literal

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor

from paretorch.core import checks
from paretorch.core.arrays import EPS, Array, Mask
from paretorch.core.contract import Balance, Evidence, Method, Need, Status
from paretorch.core.gradients.finite import all_finite, total_sum
from paretorch.core.gradients.ranks import Ranks
from paretorch.core.gradients.step_evidence import (
    StepEvidence,
    StepResult,
    all_tasks_mask,
    all_tasks_tensor,
    fill_loss_sums,
    ones,
    unknown_losses,
)
from paretorch.core.gradients.task_gradients import Gradients, to_device, to_host, wide_dtype
from paretorch.core.method.argument import check_method
from paretorch.core.method.observation import ObservationCheck
from paretorch.core.method.state_buffers import StateBuffers
from paretorch.core.option_checks import check_above, check_choice, check_whole
from paretorch.core.restoring import RestoredOnError

Scale = Literal["calibrated", "paper"]


class MethodRunner:
    """Runs a method one step at a time, stores its state, and records the result of the last step.

    One step is :meth:`evidence`, :meth:`proposed`, :meth:`accept`; the last two together are :meth:`run`. Where ``every`` is
    above 1, :meth:`reuse_weights` comes first. The record of the last step is not part of copies.

    Args:
        method: the balancing method.
        scale: ``"calibrated"``: T equal gradients g give T g; ``"paper"``: the method's own weights.
        every: reuse the weights for ``every - 1`` steps.
        factor: dTotal/dL_t, for methods that are not homogeneous.
        group: ranks whose losses are averaged: ``"all"``, a process group, or None.
        seed: of the method's random draws.
        on_parameters: whether gradients are compared on parameters; else on features.
        owner: the name of the class that has the runner, for messages.
        tensors: where the state is stored, see :class:`StateBuffers`; None: in a dict of its own.

    Raises:
        ValueError: on options out of range.
    """

    def __init__(
        self,
        method: Method[Any],
        *,
        scale: Scale = "calibrated",
        every: int = 1,
        factor: float | None = None,
        group: dist.ProcessGroup | str | None = None,
        seed: int = 0,
        on_parameters: bool = False,
        owner: str,
        tensors: dict[str, Tensor | None] | None = None,
    ) -> None:
        check_method(method)
        check_choice("scale", scale, ("calibrated", "paper"))
        check_whole("every", every)
        if every > 1 and Need.JACOBIAN in method.needs:
            raise ValueError(f"every is 1 for a method without weights; got {every} for {method}")
        if factor is not None:
            check_above("factor, which is dTotal/dL_t,", factor)
        check_whole("seed", seed, least=None)
        self.method, self.scale, self.every, self.factor, self.seed = method, scale, int(every), factor, int(seed)
        self.on_parameters, self.owner = on_parameters, owner
        self.state = StateBuffers(method, every > 1, owner, {} if tensors is None else tensors)
        self.ranks = Ranks(group)
        self.skipped: dict[str, int] = {}  # by task, the steps from which it was left out
        self._warned: set[str] = set()
        # Of a method that uses the losses after the optimizer's step; None: it does not.
        self.observation = (
            ObservationCheck(str(method), f"{owner.lower()}.observe(losses)", self.warn_once)
            if method.observes
            else None
        )
        self.result: StepResult | None = None  # of the last step
        self._balance: Balance | None = None  # made of the result when it is read
        # () on a device: the sum of the last step's gradient, which decides there whether the state advanced; None: it is read.
        self._unread: Tensor | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "result": None, "_balance": None, "_unread": None}

    @property
    def tasks(self) -> tuple[str, ...]:
        """The declared tasks."""
        return self.state.tasks

    @property
    def homogeneous(self) -> bool:
        """Whether gradients twice as long give an update twice as long."""
        return self.method.homogeneous and (self.scale == "calibrated" or self.method.homogeneous_on_paper)

    @property
    def uses_gradients(self) -> bool:
        """Whether the weights depend on gradients, and not on loss values alone."""
        return self.method.needs != Need.LOSSES

    # --- the record of the last step -------------------------------------------------------------------------------------

    @property
    def balance(self) -> Balance | None:
        """The result of the last step, or None before the first."""
        self.read_decision()
        return self.known_balance

    @property
    def known_balance(self) -> Balance | None:
        """:attr:`balance` without a wait for a device that decides the status."""
        if self._balance is None and self.result is not None:
            self._balance = self.result.balance(self.tasks)
        return self._balance

    def deferred_balance(self) -> Callable[[], Balance | None]:
        """Gives :attr:`balance` of this step at a later time, without the combined gradient of a Jacobian method."""
        if self.result is None:
            return lambda: None
        return partial(_balance_of, self.result.without_update(), self._unread, self.tasks)

    def record(self, result: StepResult | None) -> None:
        """Record the result of a step; None: there was none."""
        self.result, self._balance = result, None

    def reset(self) -> None:
        """Restore the state and the record from before the first step."""
        self._unread = None
        self.state.reset()
        self.record(None)
        self.skipped = {}

    def count_skipped(self, names: Sequence[str]) -> None:
        """Count the tasks that are left out of this step."""
        for name in names:
            self.skipped[name] = self.skipped.get(name, 0) + 1

    def warn_once(self, topic: str, message: str) -> None:
        """Warn about a topic for the first time."""
        if topic not in self._warned:
            self._warned.add(topic)
            warnings.warn(message, stacklevel=3)

    def disable_warning(self, topic: str) -> None:
        """Do not warn about a topic, because it is reported elsewhere."""
        self._warned.add(topic)

    def has_warned(self, topic: str) -> bool:
        """Whether :meth:`warn_once` has warned about a topic."""
        return topic in self._warned

    # --- one step --------------------------------------------------------------------------------------------------------

    def evidence(self, loss_sums: Array | None, gramian: Array | None = None, resolution: float = EPS) -> StepEvidence:
        """The evidence of a step, averaged over ranks.

        Args:
            loss_sums: (3, all) of this rank, see :func:`fill_loss_sums`; None: the losses are not known.
            gramian: (all, all) of the gradients of the averaged losses, or None where only losses are known.
            resolution: bound on the rounding error of an inner product, relative to the lengths of the two gradients.
        """
        self.read_decision()
        self.state.verify()
        if loss_sums is None and gramian is not None and self.ranks.alone:
            squares = gramian.diagonal().tolist()
            if all(squares) and math.isfinite(sum(squares)):
                columns = all_tasks_mask(len(squares)), *unknown_losses(len(squares), self.factor)
                return StepEvidence(*columns, gramian, resolution, regular=True)
        if loss_sums is None:
            loss_sums = np.zeros((3, len(self.tasks)))
        calls, divisor = loss_sums[2], np.maximum(loss_sums[2], 1)
        if not self.ranks.alone:
            means = np.stack([loss_sums[0] / divisor, loss_sums[1] / divisor, calls > 0])
            loss_sums = self.ranks.sum(torch.from_numpy(means)).numpy()
            calls = loss_sums[2]
        known = calls > 0
        divisor = np.maximum(calls, 1)
        losses = np.where(known, loss_sums[0] / (divisor if self.ranks.alone else self.ranks.size), np.nan)
        factor = np.where(known, loss_sums[1] / divisor, np.nan if self.factor is None else self.factor)
        # An all-masked loss is exactly zero.
        present = known & (losses != 0) & (factor != 0) if gramian is None else gramian.diagonal() != 0
        return StepEvidence(present, known, losses, factor, gramian, resolution)

    @property
    def may_reuse(self) -> bool:
        """Whether ``every`` allows the last weights in this step, if they cover all present tasks."""
        return self.every > 1 and self.state.last_weights()[0] not in (0, self.every)

    def reuse_weights(self, tasks: Callable[[], tuple[Mask, Mask]]) -> StepResult | None:
        """The step with the last weights, where they are :meth:`reusable`; else None."""
        result = self.reusable(tasks)
        return None if result is None else self.reuse(result)

    def reuse(self, result: StepResult) -> StepResult:
        """Count and record a step that :meth:`reusable` gave."""
        self.state.count_reuse()
        self.record(result)
        return result

    def reusable(self, tasks: Callable[[], tuple[Mask, Mask]]) -> StepResult | None:
        """The last weights, where ``every`` allows it and they cover every present task; else None. Nothing is changed.

        Args:
            tasks: gives the (all,) tasks that are present on this rank, and those that are not finite; then nothing is reused.
        """
        self.read_decision()
        self.state.verify()
        if not self.may_reuse:
            return None
        _, weights, heads = self.state.last_weights()
        here = np.stack(tasks()).astype(np.float64)
        present, bad = self.ranks.sum(torch.from_numpy(here)).numpy() > 0
        if bad.any() or np.isnan(weights[present]).any():
            return None
        evidence = StepEvidence(present, *unknown_losses(len(weights), None), reused=self.uses_gradients)
        own = None if np.isnan(heads).all() else np.where(present, heads, 0.0).tolist()
        return StepResult(evidence, np.where(present, weights, 0.0).tolist(), Status.SOLVED, heads=own)

    def run(self, evidence: StepEvidence, jacobian: Tensor | None = None, features: Tensor | None = None) -> StepResult:
        """One step of the method: the state advances, and the result is recorded."""
        return self.accept(*self.proposed(evidence, jacobian, features))

    def proposed(
        self, evidence: StepEvidence, jacobian: Tensor | None = None, features: Tensor | None = None
    ) -> tuple[StepResult, Any]:
        """The method's result on this evidence, and its next state; nothing is changed.

        Args:
            evidence: of all declared tasks.
            jacobian: (T, n) gradients of the present tasks, for a method that needs them.
            features: (B, D) the point at which a (T, B * D) Jacobian was taken, if it is known.
        """
        on_device = jacobian is not None
        index = None if evidence.regular or evidence.present.all() else evidence.present.nonzero()[0]
        method_evidence, factor = self._method_evidence(evidence, index, jacobian, features)
        call = self.method.calibrated if self.scale == "calibrated" else self.method.balance
        balance, state = call(method_evidence, self._state(on_device))
        weights, heads = self._for_all(balance.weights, index), self._for_all(balance.heads, index)
        update = balance.update
        if update is not None and not self.homogeneous:  # it is made of gradients that were divided
            update = update * float(factor.mean())
        return StepResult(evidence, weights, balance.status, update, heads), state

    def accept(self, result: StepResult, state: Any) -> StepResult:
        """Store the state after a step, and record its result."""
        self.state.store(state)
        if self.every > 1 and result.weights is not None:
            present = result.evidence.present
            weights = np.where(present, result.weights, np.nan)
            heads = np.where(present, np.nan if result.heads is None else result.heads, np.nan)
            self.state.store_weights(weights, heads)
        self.state.count_step()
        if result.status is Status.NOT_CONVERGED:
            self.warn_once("solve", f"{self.method} did not reach its tolerance on this Gramian: see .balance.status")
        self.record(result)
        return result

    def plain_sum(self, evidence: StepEvidence, status: Status) -> StepResult:
        """Record a step without the method: the state is unchanged, and every present task has weight 1."""
        result = StepResult(evidence, evidence.present.astype(np.float64).tolist(), status)
        self.record(result)
        return result

    # --- steps whose gradient is known after the state advanced ----------------------------------------------------------

    def undo_unless_finite(self, gradients: Sequence[Tensor | None], before: dict[str, Tensor]) -> bool:
        """Restore the state from before this step if the gradient that is passed on is not finite, on all ranks together.

        On one device the state is selected there, and the host reads the decision with the numbers of the next step.

        Args:
            gradients: of this rank.
            before: the snapshot of the state from before the step.

        Returns:
            whether the host knows that the gradient is not finite.
        """
        total = total_sum(gradients)
        on_device = total is not None and total.device.type != "cpu" and self.ranks.alone
        if total is not None and on_device and all(value.device == total.device for value in before.values()):
            self.state.keep_where(torch.isfinite(total), before)
            self._unread = total
            return False
        broken = total is not None and not all_finite(gradients)
        if not self.ranks.alone and before:  # a step without state has nothing to agree on
            broken = float(self.ranks.sum(torch.tensor(float(broken)))) > 0
        if broken:
            self.state.restore(before)
            self._record_nonfinite()
        return broken

    def unread_decision(self) -> list[Tensor]:
        """The number on a device that :meth:`read_decision` takes, for a joint transfer; empty where there is none."""
        return [] if self._unread is None else [self._unread]

    def read_decision(self, numbers: Sequence[Tensor] = ()) -> None:
        """Learn whether the last step's gradient was finite.

        Args:
            numbers: those of :meth:`unread_decision` on the host; without them a transfer brings them.
        """
        unread, self._unread = self._unread, None
        if unread is not None and not math.isfinite(float(numbers[0] if numbers else unread)):
            self.state.tensors_changed()
            self._record_nonfinite()

    def _record_nonfinite(self) -> None:
        if self.result is not None:
            self.record(self.result._replace(status=Status.NONFINITE))

    def _method_evidence(
        self, evidence: StepEvidence, index: NDArray[np.intp] | None, jacobian: Tensor | None, features: Tensor | None
    ) -> tuple[Evidence, Array]:
        """The evidence as methods take it, of the present tasks (``index``; None: all), and its factors."""
        regular, gramian, cross = evidence.regular, evidence.gramian, evidence.cross
        tasks, losses, factor = self.tasks, evidence.losses, evidence.factor
        if index is not None:
            tasks = tuple(self.tasks[task] for task in index)
            losses, factor = losses[index], factor[index]
            gramian = None if gramian is None else gramian[index[:, None], index]
            cross = None if cross is None else cross[index[:, None], index]
        if not regular or self.factor is not None:
            factor = np.where(np.isnan(factor), 1.0, factor)
        if not self.homogeneous:
            assert not np.isnan(factor).any(), "a method that is not homogeneous is not run without the factors"
            gramian = None if gramian is None else gramian / factor[:, None] / factor
            cross = None if cross is None else cross / factor[:, None] / factor
            jacobian = (
                None
                if jacobian is None
                else jacobian / to_device(torch.from_numpy(factor).to(jacobian.dtype), jacobian.device)[:, None]
            )
        method_evidence = Evidence(
            tasks=tasks,
            present=all_tasks_tensor(len(evidence.present)) if regular else torch.from_numpy(evidence.present),
            losses=None if regular or np.isnan(losses).any() else torch.from_numpy(losses),
            gramian=None if gramian is None else torch.from_numpy(gramian),
            cross=None if cross is None else torch.from_numpy(cross),
            jacobian=jacobian,
            factor=ones(len(factor)) if regular and self.factor is None else torch.from_numpy(factor),
            generator=step_generator(self.seed, self.state.steps()) if self.method.random else None,
            features=features,
            on_parameters=self.on_parameters,
            total=self.ranks.sum if jacobian is None else self.ranks.sum_on_device,
            resolution=evidence.resolution,
        )
        return method_evidence, factor

    def _for_all(self, values: Tensor | None, index: NDArray[np.intp] | None) -> list[float] | None:
        """(all,) numbers, zero for absent tasks, from (T,) those of the present ones; ``index``: which, None: all."""
        if values is None or index is None:
            return None if values is None else values.tolist()
        full = [0.0] * len(self.tasks)
        for task, value in zip(index, values.tolist(), strict=True):
            full[task] = value
        return full

    def _state(self, on_device: bool = False) -> Any:
        """The method's state, on the host or on its own device."""
        stored = self.state.fields()
        return self.state.assembled(stored if on_device else self.state.on_host()) if stored else None

    # --- between steps ---------------------------------------------------------------------------------------------------

    def observe(self, losses: Mapping[str, Tensor | None]) -> None:
        """Pass the losses on the same batch after the optimizer's step to methods that use them."""
        if self.observation is not None:
            self.observation.settle()
        with RestoredOnError(), torch.no_grad():
            given = checks.present_losses(losses, f"{self.owner}.observe")
            checks.check_known_tasks(given, self.tasks, f"{self.owner}.observe")
            index = [self.tasks.index(name) for name in given]
            like = next(iter(given.values()), torch.zeros(()))
            blank = torch.zeros(3, len(self.tasks), device=like.device, dtype=wide_dtype(like))
            unread, fields = self.unread_decision(), self.state.fields()
            sums, *stored = to_host([fill_loss_sums(blank, index, list(given.values())), *unread, *fields])
            self.read_decision(stored[: len(unread)])
            del stored[: len(unread)]
            evidence = self.evidence(sums.numpy())
            values = torch.from_numpy(np.where(evidence.losses_known, evidence.losses, np.nan))
            self.state.store(self.method.observe(values, self.state.assembled(stored)))

    def end_epoch(self) -> None:
        """Report the end of an epoch to methods that count in epochs."""
        if self.state.has_state:
            self.state.store(self.method.end_epoch(self._state()))

    # --- steps on gradients of this process ------------------------------------------------------------------------------

    def run_on(
        self,
        losses: Mapping[str, float],
        gradients: Gradients,
        gramian: Array,
        features: Tensor | None = None,
    ) -> StepResult:
        """One step on gradients that were computed on this process alone.

        Args:
            losses: values by task; absent tasks are left out.
            gradients: of the declared tasks.
            gramian: (all, all) their inner products, in any metric.
            features: (B, D) the point at which they were taken, for methods that use it.
        """
        loss_sums = np.zeros((3, len(self.tasks)))
        for task, value in losses.items():
            loss_sums[:, self.tasks.index(task)] = value, 1.0, 1.0
        evidence = self.evidence(loss_sums, gramian, gradients.resolution)
        if not self.uses_gradients:
            evidence = evidence._replace(present=evidence.losses_known & (evidence.losses != 0))
        if not evidence.present.any():
            return StepResult(evidence, [0.0] * len(self.tasks), Status.ABSENT)
        jacobian = None
        if Need.JACOBIAN in self.method.needs:
            jacobian = gradients.jacobian(torch.from_numpy(evidence.present))
        return self.run(evidence, jacobian, features)

    def head_weights(self, result: StepResult) -> Sequence[float]:
        """(all,) factors of the tasks' gradients on their heads: the weights of methods that need losses alone, else 1."""
        if not self.uses_gradients and result.weights is not None:
            return result.weights
        return [1.0] * len(self.tasks)

    # --- state outside a module ------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Tensor]:
        """The state and the counters, by the names of :class:`StateBuffers`."""
        return {name: tensor.detach() for name, tensor in self.state.tensors.items() if tensor is not None}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Restore what :meth:`state_dict` returned.

        Raises:
            ValueError: it is of other tasks or of another method.
        """
        stored = dict(state_dict)
        self.state.prepare_load(stored)
        own = self.state_dict()
        shapes, found = ({name: tuple(value.shape) for name, value in values.items()} for values in (own, stored))
        if shapes != found:
            raise ValueError(
                f"the stored state is of another method: {self.method} has {shapes or 'none'}, got {found or 'none'}"
            )
        for name, tensor in own.items():
            tensor.copy_(stored[name])
        self.state.tensors_changed()


def _balance_of(result: StepResult, unread: Tensor | None, tasks: tuple[str, ...]) -> Balance:
    """The record of a step; ``unread``: the sum of its gradient on a device, where that decides the status."""
    if unread is not None and not math.isfinite(float(unread)):
        result = result._replace(status=Status.NONFINITE)
    return result.balance(tasks)


def combined_gradient(result: StepResult, gradients: Gradients) -> list[Tensor]:
    """The combined gradient of a step, leaf by leaf."""
    if result.update is not None:
        return gradients.split(result.update)
    assert result.weights is not None
    return gradients.combined(result.weights)


def tasks_of_losses(loss_sums: Array) -> tuple[Mask, Mask]:
    """(all,) the tasks that are present in loss sums, see :meth:`MethodRunner.evidence`, and those whose loss is inf or nan."""
    return (loss_sums != 0).all(axis=0), ~np.isfinite(loss_sums[0])


def step_generator(seed: int, step: int) -> torch.Generator:
    """Random numbers that are a function of (seed, step): equal on all ranks, and saved by saving the step."""
    return torch.Generator().manual_seed((seed * 0x9E3779B1 + step) % 2**63)
