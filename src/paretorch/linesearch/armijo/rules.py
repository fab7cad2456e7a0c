"""The rules of a search: which step is accepted, which is tried next, and where the next search starts. Pure functions."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

from paretorch.core import checks
from paretorch.core.arrays import Array
from paretorch.linesearch.armijo.trials import TRIALS, next_trial
from paretorch.linesearch.contract import Found, Line, Outcome

MEMORIES = ("monotone", "nonmonotone", "smoothed")
STARTS = ("reset", "keep", "grow", "polyak")
AVERAGE = 0.85  # Zhang & Hager's weight of the past
SMOOTH = 0.9  # of the smoothed decrease and slope
SKIPPED = 10  # at most so many steps without a search


class SearchState(NamedTuple):
    """What a search remembers; of tasks, for all declared ones, nan where one was not met yet.

    Args:
        last: the last accepted step; nan before the first.
        epoch_steps: steps of the last whole epoch, and of this one so far: what growth by the epoch is measured in.
        reference: (all,) Zhang & Hager's weighted mean of the losses so far; ``weight``: (all,) its sum of weights.
        decrease: (all,) the smoothed decrease; ``slope``: (all,) the smoothed slope.
        fast: moving mean of the accepted steps; ``slow``: a slower one.
        skip: steps to take without a search.
    """

    last: float
    epoch_steps: tuple[int, int]
    reference: Array
    weight: Array
    decrease: Array
    slope: Array
    fast: float
    slow: float
    skip: int


@dataclass(frozen=True)
class Rules:
    r"""Armijo's condition for every task at once, and how a step that fulfils it is looked for.

    .. math:: L_t(\theta - \eta d) \le R_t - \eta \beta s_t \quad \text{for all } t

    with s the slopes and R the losses themselves (``"monotone"``), the larger of them and their weighted mean
    (``"nonmonotone"``), or the same inequality between moving means of decrease and slope (``"smoothed"``, which also takes the
    last step without a search for up to 9 steps while the accepted steps hardly change).

    Args:
        beta: share of the slope asked for, in (0, 1).
        shrink: factor on a refused step, in (0, 1); ``"violation"``: to 7/8 of the largest step at which the condition would hold
            on the parabola through the worst task's loss, its slope and the refused trial. Long steps matter: along a network's
            training, those just below what every task allows keep its losses flat, and allow long steps later on; halving ends
            a third below on average, and the losses grow steeper until its steps are a quarter as long.
        floor: the search ends below this part of the bound.
        trial: ``"backtracking"``, ``"parabolic"`` (to the minimum of the parabola through the worst task's loss, its slope
            and the refused trial) or ``"golden"`` (golden section for the step that lowers the worst task most).
        memory: ``"monotone"``, ``"nonmonotone"``, ``"smoothed"``.
        start: ``"reset"``: at the bound; ``"keep"``: at the last accepted step; ``"grow"``: there, times 2^(1/steps of an
            epoch); ``"polyak"``: at min_t (L_t - f_t) / (2 beta s_t).
        lowest: f_t of the Polyak step: no loss falls below it.

    Raises:
        ValueError: a value out of range.

    References:
        Fliege & Svaiter, "Steepest descent methods for multicriteria optimization", 2000; Zhang & Hager, SIAM J. Optim. 2004;
        Vaswani et al., "Painless stochastic gradient", NeurIPS 2019; Galli et al., "Don't be so monotone", NeurIPS 2023;
        Kenneweg et al., "Improving line search methods for large scale neural network training", 2024; Cavalcanti et al.,
        "Adaptive backtracking line search", 2025. All but the first speak of one loss; here every task fulfils the
        condition, with a memory of its own. Galli et al. divide the Polyak step by a constant of their own, we by 2 beta.
    """

    beta: float = 0.1
    shrink: float | Literal["violation"] = "violation"
    floor: float = 1e-10
    trial: Literal["backtracking", "parabolic", "golden"] = "backtracking"
    memory: Literal["monotone", "nonmonotone", "smoothed"] = "monotone"
    start: Literal["reset", "keep", "grow", "polyak"] = "reset"
    lowest: float = 0.0

    def __post_init__(self) -> None:
        if not 0 < self.beta < 1:
            raise ValueError(f"beta is a share of the slope, in (0, 1), got {self.beta}")
        if isinstance(self.shrink, str):
            checks.one_of("shrink, where it is no number in (0, 1),", self.shrink, ("violation",))
        elif not 0 < self.shrink < 1:
            raise ValueError(f"shrink is a factor in (0, 1), or 'violation', got {self.shrink}")
        if not 0 < self.floor < 1:
            raise ValueError(f"floor is a part of the largest step, in (0, 1), got {self.floor}")
        checks.one_of("trial", self.trial, TRIALS)
        checks.one_of("memory", self.memory, MEMORIES)
        checks.one_of("start", self.start, STARTS)

    def init(self, tasks: int) -> SearchState:
        """The state before the first step."""
        blank = np.full(tasks, np.nan)
        return SearchState(math.nan, (0, 0), blank, np.zeros(tasks), blank, blank, math.nan, math.nan, 0)

    def end_epoch(self, state: SearchState) -> SearchState:
        """The state at the end of an epoch: growth by the epoch counts its steps."""
        return state._replace(epoch_steps=(state.epoch_steps[1], 0))

    def first_trial(self, line: Line, state: SearchState, bound: float) -> float:
        """Where a search starts: above 0, at most the bound.

        Raises:
            ValueError: a loss is below ``lowest``, which the Polyak step rests on.
        """
        if self.start == "polyak":
            gap = line.losses - self.lowest
            if (gap < 0).any():
                task = line.tasks[int(gap.argmin())]
                raise ValueError(
                    f"start='polyak' takes lowest={self.lowest} for the least that a loss can be, but task {task!r} has "
                    f"{line.losses.min()}: give a smaller lowest="
                )
            step = float((gap / (2 * self.beta * line.slopes)).min())
            return min(bound, step) if step > 0 else bound
        if self.start == "reset" or math.isnan(state.last):
            return bound
        steps = state.epoch_steps[0] or max(state.epoch_steps[1], 100)
        return min(bound, state.last * (2 ** (1 / steps) if self.start == "grow" else 1.0))

    def search(self, line: Line, state: SearchState, bound: float) -> tuple[Found, SearchState]:
        """A step that fulfils the condition for every task, or why there is none; and the next state.

        Args:
            line: what is searched on.
            state: what the search remembers.
            bound: the largest step allowed, above 0.
        """
        state = state._replace(epoch_steps=(state.epoch_steps[0], state.epoch_steps[1] + 1))
        if state.skip > 0 and state.last <= bound:
            found = Found(Outcome.ACCEPTED, state.last, line.at(state.last), 1, first=False)
            if np.isfinite(found.losses).all() and line.shown(found.step).any():
                return found, self._remembered(line, found, state)._replace(skip=state.skip - 1)
        found = next_trial(self, line, lambda step, losses: self.missing(line, state, step, losses), state, bound)
        return found, (self._remembered(line, found, state) if found.outcome is Outcome.ACCEPTED else state)

    def missing(self, line: Line, state: SearchState, step: float, losses: Array) -> Array:
        """(T,) what each task lacks of the condition at a step: at most 0 where it is fulfilled, inf where not finite."""
        asked = step * self.beta * line.asked
        before = self._reference(line, state)
        lacking = losses - (before - asked) - line.slack(step)
        if self.memory == "smoothed":
            places = list(line.places)
            decrease = _mixed(state.decrease[places], line.losses - losses)
            wanted = step * self.beta * _mixed(state.slope[places], line.asked)
            # where steps without a search went wrong, no small step mends the mean: the plain condition does as well
            lacking = np.fmin(lacking, wanted - decrease)
        return np.where(np.isfinite(losses), lacking, np.inf)

    def _reference(self, line: Line, state: SearchState) -> Array:
        if self.memory != "nonmonotone":
            return line.losses
        return np.fmax(line.losses, state.reference[list(line.places)])

    def _remembered(self, line: Line, found: Found, state: SearchState) -> SearchState:
        """The state after an accepted step."""
        places = list(line.places)
        reference, weight = state.reference.copy(), state.weight.copy()
        old = np.where(np.isnan(reference[places]), 0.0, reference[places])
        weight[places] = AVERAGE * state.weight[places] + 1
        reference[places] = (AVERAGE * state.weight[places] * old + found.losses) / weight[places]
        decrease, slope = state.decrease.copy(), state.slope.copy()
        decrease[places] = _mixed(decrease[places], line.losses - found.losses)
        slope[places] = _mixed(slope[places], line.asked)
        fast = found.step if math.isnan(state.fast) else 0.9 * state.fast + 0.1 * found.step
        slow = found.step if math.isnan(state.slow) else 0.99 * state.slow + 0.01 * found.step
        ratio = max(fast / slow, slow / fast)
        skip = 0
        if self.memory == "smoothed" and state.skip == 0:
            skip = min(SKIPPED, int(1 / (ratio - 1))) - 1 if ratio > 1 + 1 / SKIPPED else SKIPPED - 1
            skip = max(0, skip)
        return SearchState(found.step, state.epoch_steps, reference, weight, decrease, slope, fast, slow, skip)


def _mixed(past: Array, new: Array) -> Array:
    """Moving means; where there is no past, the new value."""
    mixed: Array = np.where(np.isnan(past), new, SMOOTH * past + (1 - SMOOTH) * new)
    return mixed
