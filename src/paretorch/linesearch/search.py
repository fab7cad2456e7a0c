"""What every line search on a network shares: its parts, its state, and the step from a direction to moved parameters."""

from __future__ import annotations

import math
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from paretorch.core import checks
from paretorch.core.arrays import Array
from paretorch.core.contract import Balance, Method
from paretorch.core.method.runner import MethodRunner, Scale
from paretorch.linesearch.armijo.closures import detached
from paretorch.linesearch.armijo.largest import bounded
from paretorch.linesearch.armijo.rules import Rules, SearchState
from paretorch.linesearch.bound import BoundState, UpperBound
from paretorch.linesearch.contract import Found, Line, Outcome, Slopes, Step
from paretorch.linesearch.directions.directions import direction_from
from paretorch.linesearch.directions.metrics import Metric
from paretorch.linesearch.loss_scaling import Units, UnitsState
from paretorch.linesearch.parameter_line import Moving, stationarity
from paretorch.linesearch.refusals import check_method, check_search, why_not
from paretorch.linesearch.states import packed, unpacked

LossesOf = Callable[[Any], Mapping[str, Tensor | None]]


class LineSearch(ABC):
    """Moves the parameters of an encoder and its heads by a step that it finds itself. Not made directly.

    Args:
        encoder: inputs -> features, a tensor or any nesting of tensors.
        heads: modules by task, or one module that holds them all; their parameters move along their own task's gradient.
        method: the balancing method, such as ``MGDA()``.
        rules: acceptance, trials, start.
        max_step: the largest step; None: found, see :class:`~paretorch.UpperBound`.
        bound: when the largest step is lowered.
        direction: an optimizer or a metric that turns the balanced gradient into the direction; None: the gradient itself.
        accept: of which part of the slopes a share is asked as decrease: ``"both"``, ``"heads"``, ``"features"``.
        scale: of the method's weights, as in Fork and Balancer.
        imbalance: how many times as curved as another a task may be before its loss is divided; see ``linesearch.Units``.
        verify: a true forward tells the losses after every so many steps; 0: never.
        seed: of the method's random draws.
    """

    def __init__(
        self,
        encoder: nn.Module,
        heads: nn.Module | Mapping[str, nn.Module],
        method: Method[Any],
        max_step: float | None = None,
        *,
        beta: float = 0.1,
        shrink: float | Literal["violation"] = "violation",
        floor: float = 1e-10,
        trial: Literal["backtracking", "parabolic", "golden"] = "backtracking",
        memory: Literal["monotone", "nonmonotone", "smoothed"] = "monotone",
        start: Literal["reset", "keep", "grow", "polyak"] = "reset",
        lowest: float = 0.0,
        bound: UpperBound | Literal["fixed", "manual", "regression", "sasa"] = "fixed",
        direction: torch.optim.Optimizer | Metric | None = None,
        accept: Literal["both", "heads", "features"] = "both",
        scale: Scale = "calibrated",
        imbalance: float = 10.0,
        verify: int = 0,
        seed: int = 0,
    ) -> None:
        rules = Rules(beta, shrink, floor, trial, memory, start, lowest)
        check_search(encoder, max_step, verify, accept, scale)
        self.encoder, self.rules, self.max_step, self.accept, self.verify = encoder, rules, max_step, accept, verify
        self.heads = heads if isinstance(heads, nn.Module) else nn.ModuleDict(dict(heads))
        self.bound = UpperBound(bound) if isinstance(bound, str) else bound
        self.units = Units(imbalance)
        self.direction = direction_from(direction)
        self.shared = [leaf for leaf in encoder.parameters() if leaf.requires_grad]
        inside = {id(leaf) for leaf in self.shared}
        self.own = [leaf for leaf in self.heads.parameters() if leaf.requires_grad and id(leaf) not in inside]
        if not self.shared:
            raise ValueError("the encoder has no parameter that requires grad: nothing is shared or balanced")
        self.runner = MethodRunner(method, scale=scale, seed=seed, owner=type(self).__name__)
        check_method(method)
        self.tasks: tuple[str, ...] = ()
        self.steps = 0
        self.last: Step | None = None
        self.differentiates = False  # whether losses contain derivatives, so that trials need a graph
        self._said: set[str] = set()
        self._search: SearchState = rules.init(0)
        self._units: UnitsState = self.units.init(0)
        self._bound: BoundState = self.bound.init(0, math.nan)
        if isinstance(self.heads, nn.ModuleDict):
            self._declare(tuple(self.heads))

    # --- for the loop ----------------------------------------------------------------------------------------------------

    @abstractmethod
    def step(self, x: Any, losses_of: LossesOf) -> Step:
        """Moves the parameters by one step on a batch.

        Args:
            x: what the encoder is called with.
            losses_of: features -> scalar losses by task, through the heads; a task that is absent is left out, or None. It is
                called again for every trial, with the same random draws.

        Returns:
            what the step came to.

        Raises:
            ValueError: losses of unknown tasks, that are not scalars, or that do not come from the features given.
            FloatingPointError: a loss or gradient is not finite; nothing was changed.
        """

    def end_epoch(self) -> str:
        """Tells rules that count in epochs that one has ended; returns why the bound was lowered, empty where it was not."""
        if not self.tasks:
            return ""
        self.runner.end_epoch()
        self._search = self.rules.end_epoch(self._search)
        self._bound, reason = self.bound.end_epoch(self._bound)
        return reason

    @property
    def balance(self) -> Balance | None:
        """What the method said last."""
        return self.runner.balance

    def state_dict(self) -> dict[str, Any]:
        """What a resumed search needs beside the model's parameters."""
        return {
            "tasks": self.tasks,
            "steps": self.steps,
            "method": self.runner.state_dict(),
            "search": packed(self._search) if self.tasks else None,
            "bound": packed(self._bound) if self.tasks else None,
            "units": packed(self._units) if self.tasks else None,
            "direction": self.direction.state_dict(),
        }

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Takes the state back; a ``ValueError`` where it is of other tasks."""
        tasks = tuple(state_dict["tasks"])
        if self.tasks and set(tasks) != set(self.tasks):
            raise ValueError(f"the stored state is of the tasks {tasks}, this {type(self).__name__} has {self.tasks}")
        if tasks and tasks != self.tasks:
            self._declare(tasks)
        self.steps = int(state_dict["steps"])
        if tasks:
            self._search = unpacked(self._search, state_dict["search"])
            self._bound = unpacked(self._bound, state_dict["bound"])
            self._units = unpacked(self._units, state_dict["units"])
        self.runner.load_state_dict(state_dict["method"])
        self.direction.load_state_dict(dict(state_dict["direction"]))

    # --- for the searches ------------------------------------------------------------------------------------------------

    def _declare(self, tasks: tuple[str, ...]) -> None:
        state = self.runner.state
        if tasks != state.tasks:
            if state.tasks:
                state.undeclare()
                self.runner.record(None)
            state.declare(checks.task_names(tasks))
        self.tasks = tasks
        self._search = self.rules.init(len(tasks))
        self._units = self.units.init(len(tasks))
        self._bound = self.bound.init(len(tasks), math.nan if self.max_step is None else self.max_step)

    def given(self, losses: Mapping[str, Tensor | None]) -> dict[str, Tensor]:
        """The losses, checked; the first ones declare the tasks where the heads did not."""
        if (given := checks.given_losses(losses, "losses_of")) and not self.tasks:
            self._declare(checks.task_names(given))
        checks.known_tasks(given, self.tasks, "losses_of")
        return given

    def line(
        self, values: Mapping[str, float], slopes: Slopes, at: Callable[[float], Array], resolution: float
    ) -> Line:
        """What the rules see; ``resolution`` is that of :func:`~paretorch.linesearch.armijo.closures.resolution`."""
        return Line(
            tuple(values),
            tuple(self.tasks.index(task) for task in values),
            np.array(list(values.values())),
            slopes.total,
            slopes.asked(self.accept),
            at,
            resolution,
        )

    @property
    def last_bound(self) -> float:
        """The largest step now; nan before it is known."""
        return self._bound.bound

    @property
    def reviews_bound(self) -> bool:
        """Whether this step asks true losses how long steps may be."""
        return math.isnan(self._bound.bound) or self.bound.due(self._bound)

    def searched(self, line: Line, true_line: Callable[[], Line | None]) -> Found:
        """A step along the line; the first search of all finds the bound where none was given.

        Args:
            line: what the trials see.
            true_line: losses of whole forwards along the same direction, with slopes that are true of them; or None.
        """
        before = self._bound.bound
        self._bound, refused = bounded(self.rules, self.bound, self._bound, line, true_line)
        if refused is not None:
            return refused
        if math.isfinite(before):
            self._search = self._search._replace(last=self._search.last * self._bound.bound / before)
        found, self._search = self.rules.search(line, self._search, self._bound.bound)
        return found

    def acceptable(self, line: Line, step: float, losses: Array) -> bool:
        """Whether losses at a step fulfil the condition for every task."""
        return bool((self.rules.missing(line, self._search, step, losses) <= 0).all())

    def divisors(self, tasks: Iterable[str]) -> dict[str, float]:
        """By task, what its loss is divided by where directions must suit all: powers of two, at least 1."""
        return {task: float(2 ** self._units.exponents[self.tasks.index(task)]) for task in tasks}

    def forget_bound(self) -> None:
        """Lets the next step find the bound anew, where it was found at all."""
        self._bound = self._bound.forgotten()

    def usable(self, slopes: Slopes) -> bool:
        """Whether every task falls."""
        return bool((slopes.total > 0).all())

    def expected_step(self) -> float:
        """The step that the next search will probably accept; nan before the first."""
        return min(self._search.last, self._bound.bound) if self._bound.bound > 0 else math.nan

    def absent(self, given: Mapping[str, Tensor]) -> Step:
        """The report of a batch without any task."""
        return self._kept(
            Step(Outcome.ABSENT, 0.0, self._bound.bound if self.tasks else math.nan, 0, False, detached(given),
                 reason="no task was present in this batch")
        )  # fmt: skip

    def refused(self, found: Found, line: Line, given: Mapping[str, Tensor], fallback: str) -> Step:
        """The report of a step in which nothing moved."""
        bound = self._bound.bound
        reason = why_not(line, found, bound, self.rules.floor)
        if found.outcome is Outcome.REJECTED and "rejected" not in self._said:
            self._said.add("rejected")
            warnings.warn(reason, stacklevel=4)
        slopes = dict(zip(line.tasks, line.slopes.tolist(), strict=True))
        if found.outcome is Outcome.NOISE and found.trials == 1:
            self.forget_bound()  # no decrease shows at it: it was found amiss
        return self._kept(
            Step(found.outcome, 0.0, bound, found.trials, False, detached(given), slopes, fallback=fallback,
                 reason=reason, balance=self.runner.balance)
        )  # fmt: skip

    def accepted(
        self,
        found: Found,
        line: Line,
        given: Mapping[str, Tensor],
        fallback: str,
        actual: Mapping[str, float],
        movings: Sequence[Moving],
        told: bool = True,
    ) -> Step:
        """The report of an accepted step; the bound takes it in, and the units, where the features' way was ``told``."""
        bound = self._bound.bound
        losses = np.full(len(self.tasks), np.nan)
        losses[list(line.places)] = line.losses
        motion = stationarity(movings, found.step) if self.bound.rule == "sasa" else math.nan
        self._bound, lowered = self.bound.after(self._bound, losses, found.first, motion)
        self._bound = self.bound.at_bound(self._bound, found.step, found.first)
        units, self._units = self._units, self.units.after(self._units, line, found) if told else self._units
        if (units.exponents != self._units.exponents).any():
            self.forget_bound()  # it was of other directions
        return self._kept(
            Step(
                Outcome.ACCEPTED,
                found.step,
                bound,
                found.trials,
                found.first,
                detached(given),
                dict(zip(line.tasks, line.slopes.tolist(), strict=True)),
                dict(zip(line.tasks, found.losses.tolist(), strict=True)),
                actual,
                fallback,
                lowered=lowered,
                balance=self.runner.balance,
            )
        )

    def _kept(self, step: Step) -> Step:
        self.steps += 1
        self.last = step
        return step
