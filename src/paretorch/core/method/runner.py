"""What Fork and Balancer share: one balanced step on what all ranks saw, and its record."""

from __future__ import annotations

import math
import warnings
import weakref
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, ClassVar, Literal

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor

from paretorch.core import checks
from paretorch.core.arrays import EPS, Array
from paretorch.core.contract import Balance, Evidence, Method, Need, Status
from paretorch.core.gradients.ranks import Ranks
from paretorch.core.gradients.step_evidence import (
    StepEvidence,
    StepResult,
    all_tasks_mask,
    all_tasks_tensor,
    filled,
    ones,
    unknown_losses,
)
from paretorch.core.gradients.task_gradients import to_host, wide_dtype
from paretorch.core.method.state_buffers import StateHolder, draws
from paretorch.core.method.step_memory import Memory

Scale = Literal["calibrated", "paper"]


class Door(StateHolder):
    """Takes one balanced step at a time. Not made directly: see Fork and Balancer."""

    on_parameters: ClassVar[bool] = False  # whether gradients are compared there, or on features
    skipped: dict[str, int]  # by task, the steps from which it was left out
    _open = False  # whether the first step declares the tasks

    def __init__(
        self,
        method: Method[Any],
        *,
        scale: Scale,
        every: int,
        factor: float | None,
        group: dist.ProcessGroup | str | None,
        seed: int,
    ) -> None:
        if not isinstance(method, Method):
            raise ValueError(f"expected a balancing method such as paretorch.MGDA(), got {method!r}")
        checks.one_of("scale", scale, ("calibrated", "paper"))
        checks.whole("every", every)
        if every > 1 and Need.JACOBIAN in method.needs:
            raise ValueError(f"every is 1 for a method without weights; got {every} for {method}")
        if factor is not None and not (isinstance(factor, int | float) and 0 < factor < math.inf):
            raise ValueError(f"factor is dTotal/dL_t, a number above zero and finite, got {factor!r}")
        checks.whole("seed", seed, least=None)
        super().__init__(method, every)
        self.scale, self.factor, self.seed = scale, factor, seed
        self.ranks, self.skipped = Ranks(group), {}
        self._said: set[str] = set()
        self._memory = Memory()

    def extra_repr(self) -> str:
        """The method and the tasks, in the model's print."""
        return f"{self.method}, tasks={self.tasks}"

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_memory": Memory()}

    def reset_state(self) -> None:
        """As before the first step: state, counters, record. A Balancer that was made without tasks forgets its tasks.

        Example:
            >>> import paretorch as pt
            >>> fork = pt.Fork(pt.FAMO(), tasks=("left", "right"))
            >>> _ = fork.state_logits.fill_(1.0)
            >>> fork.reset_state()
            >>> fork.state_logits
            tensor([0., 0.], dtype=torch.float64)
        """
        self._begin_anew()
        self._memory, self.skipped = Memory(), {}
        if self._open:
            self._forget()

    def _buffers_changed(self) -> None:
        self._memory.mirror = self._memory.drawn = None

    @property
    def balance(self) -> Balance | None:
        """What the last step came to, or None before the first."""
        memory = self._memory
        if memory.balance is None and memory.outcome is not None:
            memory.balance = memory.outcome.balance(self.tasks)
        return memory.balance

    def said(self) -> Callable[[], Balance | None]:
        """Gives :attr:`balance` of this step whenever it is asked for, without the combined gradient of a Jacobian method."""
        outcome = self._memory.outcome
        return partial(outcome.without_update().balance, self.tasks) if outcome is not None else lambda: None

    def _recorded(self, outcome: StepResult) -> StepResult:
        self._memory.record(outcome)
        return outcome

    @property
    def _homogeneous(self) -> bool:
        """Whether gradients twice as long give an update twice as long."""
        return self.method.homogeneous and (self.scale == "calibrated" or self.method.homogeneous_on_paper)

    # --- one step --------------------------------------------------------------------------------------------------------

    def _seen(self, told: Array | None, gramian: Array | None = None, resolution: float = EPS) -> StepEvidence:
        """What all ranks saw together; their losses are averaged.

        Args:
            told: (3, all) sums over calls of loss and of factor, and the number of calls, on this rank.
            gramian: (all, all) of the gradients of the averaged losses, or None where losses are all that is known.
            resolution: bound on the rounding error of an inner product, relative to the lengths of the two gradients.
        """
        self._verify_state()
        if told is None and gramian is not None and self.ranks.alone:
            squares = gramian.diagonal().tolist()
            if all(squares) and math.isfinite(sum(squares)):
                columns = all_tasks_mask(len(squares)), *unknown_losses(len(squares), self.factor)
                return StepEvidence(*columns, gramian, resolution, regular=True)
        if told is None:
            told = np.zeros((3, len(self.tasks)))
        calls, divisor = told[2], np.maximum(told[2], 1)
        if not self.ranks.alone:
            means = np.stack([told[0] / divisor, told[1] / divisor, calls > 0])
            told = self.ranks.sum(torch.from_numpy(means)).numpy()
            calls = told[2]
        known = calls > 0
        divisor = np.maximum(calls, 1)
        losses = np.where(known, told[0] / (divisor if self.ranks.alone else self.ranks.size), np.nan)
        factor = np.where(known, told[1] / divisor, np.nan if self.factor is None else self.factor)
        # An all-masked loss is exactly zero.
        present = known & (losses != 0) & (factor != 0) if gramian is None else gramian.diagonal() != 0
        return StepEvidence(present, known, losses, factor, gramian, resolution)

    def _reused(self, known: Sequence[int], broken: Callable[[], NDArray[np.bool_]]) -> StepResult | None:
        """The last weights, where ``every`` says that they still serve and they cover every task that is present.

        Not where something is ``broken``, (all,) of this rank's tasks: that is a step of its own.
        """
        self._verify_state()
        if self.every == 1:
            return None
        if self._memory.mirror is None:
            weights, heads = (
                held.to("cpu", torch.float64).numpy().copy() for held in (self.last_weights, self.last_heads)
            )
            self._memory.mirror = (int(self.age), weights, heads)
        age, weights, heads = self._memory.mirror
        if age in (0, self.every):
            return None
        here = np.zeros((2, len(self.tasks)))
        here[0, list(known)] = 1
        here[1] = broken()
        present, bad = self.ranks.sum(torch.from_numpy(here)).numpy() > 0
        if bad.any() or np.isnan(weights[present]).any():
            return None
        self.age += 1
        self._memory.mirror = (age + 1, weights, heads)
        seen = StepEvidence(present, *unknown_losses(len(weights), None))
        own = None if np.isnan(heads).all() else np.where(present, heads, 0.0).tolist()
        return self._recorded(StepResult(seen, np.where(present, weights, 0.0).tolist(), Status.SOLVED, heads=own))

    def _solve(self, seen: StepEvidence, jacobian: Tensor | None = None, features: Tensor | None = None) -> StepResult:
        """One step of the method on what was seen: state advances, and the outcome is recorded."""
        return self._settle(*self._ask(seen, jacobian, features))

    def _settle(self, outcome: StepResult, state: Any) -> StepResult:
        """Keep the state that a step ends with, and record its outcome."""
        self._keep(state)
        seen = outcome.seen
        if self.every > 1 and outcome.weights is not None:
            weights = np.where(seen.present, outcome.weights, np.nan)
            heads = np.where(seen.present, np.nan if outcome.heads is None else outcome.heads, np.nan)
            self._memory.mirror = (1, weights, heads)
            self.age.fill_(1)
            self.last_weights.copy_(torch.from_numpy(weights))
            self.last_heads.copy_(torch.from_numpy(heads))
        if self._memory.drawn is not None:
            self._memory.drawn += 1
            self.steps.fill_(self._memory.drawn)
        if outcome.status is Status.NOT_CONVERGED:
            self._say("solve", f"{self.method} did not reach its tolerance on this Gramian: see .balance.status")
        return self._recorded(outcome)

    def _follow(self, leaves: Sequence[Tensor]) -> None:
        """Rows of gradients that are remembered begin anew where they are of other leaves than these."""
        if not self._rows:
            return
        before, length = [ref() for ref in self._memory.surface], sum(leaf.numel() for leaf in leaves)
        same = len(before) == len(leaves) and all(old is new for old, new in zip(before, leaves, strict=True))
        if not (same if before else self._fits(length)):
            self._keep(self._first())
            self._say(
                "surface",
                f"the gradients that {self.method} remembers are of other parameters than the {length} numbers that are compared "
                "from now on: it begins anew. Balancer(..., shared=encoder) says what is compared whatever tasks are present",
            )
        self._memory.surface = list(map(weakref.ref, leaves))

    def _ask(
        self, seen: StepEvidence, jacobian: Tensor | None = None, features: Tensor | None = None
    ) -> tuple[StepResult, Any]:
        """The method's answer to what was seen, and its next state; nothing is changed."""
        tasks, losses, factor, gramian, cross = self.tasks, seen.losses, seen.factor, seen.gramian, seen.cross
        index = None if seen.regular or seen.present.all() else seen.present.nonzero()[0]
        if index is not None:
            tasks = tuple(self.tasks[task] for task in index)
            losses, factor = losses[index], factor[index]
            gramian = None if gramian is None else gramian[index[:, None], index]
            cross = None if cross is None else cross[index[:, None], index]
        if not seen.regular or self.factor is not None:
            factor = np.where(np.isnan(factor), 1.0, factor)
        if not self._homogeneous:
            assert not np.isnan(factor).any(), "a method that is not homogeneous is not asked without the factors"
            gramian = None if gramian is None else gramian / factor[:, None] / factor
            cross = None if cross is None else cross / factor[:, None] / factor
            jacobian = None if jacobian is None else jacobian / torch.from_numpy(factor).to(jacobian)[:, None]
        on_device = jacobian is not None
        evidence = Evidence(
            tasks=tasks,
            present=all_tasks_tensor(len(seen.present)) if seen.regular else torch.from_numpy(seen.present),
            losses=None if seen.regular or np.isnan(losses).any() else torch.from_numpy(losses),
            gramian=None if gramian is None else torch.from_numpy(gramian),
            cross=None if cross is None else torch.from_numpy(cross),
            jacobian=jacobian,
            factor=ones(len(factor)) if seen.regular and self.factor is None else torch.from_numpy(factor),
            generator=self._generator(),
            features=features,
            on_parameters=self.on_parameters,
            total=self.ranks.sum_on_device if on_device else self.ranks.sum,
            resolution=seen.resolution,
        )
        act = self.method.calibrated if self.scale == "calibrated" else self.method.balance
        answer, state = act(evidence, self._state(on_device))
        weights, heads = self._for_all(answer.weights, index), self._for_all(answer.heads, index)
        update = answer.update
        if update is not None and not self._homogeneous:  # it is made of gradients that were divided
            update = update * float(factor.mean())
        return StepResult(seen, weights, answer.status, update, heads), state

    def _for_all(self, values: Tensor | None, index: NDArray[np.intp] | None) -> list[float] | None:
        """(all,) numbers, zero for absent tasks, from (T,) those of the present ones; ``index``: which, None: all."""
        if values is None or index is None:
            return None if values is None else values.tolist()
        full = [0.0] * len(self.tasks)
        for task, value in zip(index, values.tolist(), strict=True):
            full[task] = value
        return full

    def _state(self, on_device: bool = False) -> Any:
        """The method's state, on the host unless asked for where it is."""
        held = self.state_tensors()
        return self._as_state(held if on_device else to_host(held)) if held else None

    def _passed_on(self, seen: StepEvidence, status: Status) -> StepResult:
        """A step in which the method is not asked and its state waits: every present task counts as in a plain sum."""
        return self._recorded(StepResult(seen, seen.present.astype(np.float64).tolist(), status))

    def _generator(self) -> torch.Generator | None:
        """The random numbers of the next step, for a method that draws."""
        if not self.method.random:
            return None
        return draws(self.seed, self._step_number())

    def _step_number(self) -> int:
        """The steps that were taken, by which random numbers are drawn."""
        self._memory.drawn = int(self.steps) if self._memory.drawn is None else self._memory.drawn
        return self._memory.drawn

    def _say(self, what: str, sentence: str) -> None:
        """Warn once in this door's life."""
        if what not in self._said:
            self._said.add(what)
            warnings.warn(sentence, stacklevel=3)

    # --- what a loop may call beside -------------------------------------------------------------------------------------

    def observe(self, losses: Mapping[str, Tensor | None]) -> None:
        """Tell the losses on the same batch after the optimizer's step, to methods that look at them (FAMO).

        Args:
            losses: scalars by task name; compute them under ``torch.no_grad()``, with the same dropout masks.
        """
        with torch.no_grad():
            given = checks.given_losses(losses, f"{type(self).__name__}.observe")
            checks.known_tasks(given, self.tasks, f"{type(self).__name__}.observe")
            told, *held = to_host([self._told(given), *self.state_tensors()])
            seen = self._seen(told.numpy())
            values = torch.from_numpy(np.where(seen.told, seen.losses, np.nan))
            self._keep(self.method.observe(values, self._as_state(held)))

    def end_epoch(self) -> None:
        """Tell methods that count in epochs that one has ended."""
        if self._structure is not None:
            self._keep(self.method.end_epoch(self._state()))

    def _told(self, given: Mapping[str, Tensor]) -> Tensor:
        """(3, all) losses as they are told: value, factor one, one call; on the losses' device."""
        index = [self.tasks.index(name) for name in given]
        like = next(iter(given.values()), torch.zeros(()))
        blank = torch.zeros(3, len(self.tasks), device=like.device, dtype=wide_dtype(like))
        return filled(blank, index, list(given.values()))
