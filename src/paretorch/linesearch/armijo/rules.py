"""Rules of a search: the acceptance condition, the order of the trials, the first trial."""

from __future__ import annotations

import math
from collections.abc import Generator
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

from paretorch.core.arrays import Array
from paretorch.core.option_checks import check_choice, check_fraction
from paretorch.linesearch.armijo.trials import TRIALS, TrialOptions, Trials, evaluate_trials, trial_steps
from paretorch.linesearch.contract import SearchOutcome, SearchResult, StepLine

Shrink = float | Literal["violation"]
Trial = Literal["backtracking", "parabolic", "golden"]
Memory = Literal["monotone", "nonmonotone", "smoothed"]
Start = Literal["reset", "keep", "grow", "polyak"]

MEMORIES = ("monotone", "nonmonotone", "smoothed")
STARTS = ("reset", "keep", "grow", "polyak")
AVERAGE = 0.85  # Zhang & Hager's weight of past losses
SMOOTH = 0.9  # weight of the past in the smoothed decrease and slope
SKIPPED = 10  # upper limit of the steps in a row that skip the search


class RulesState(NamedTuple):
    """State of the rules between steps; arrays are over all declared tasks, nan for a task that has not been present.

    Args:
        last: the last accepted step; nan before the first.
        epoch_steps: number of steps of the last complete epoch and of the current one, for growth per epoch.
        reference: (all,) Zhang & Hager's weighted mean of the losses.
        weight: (all,) its sum of weights.
        decrease: (all,) the smoothed decrease.
        slope: (all,) the smoothed slope.
        fast: moving mean of the accepted steps.
        slow: slower moving mean of the accepted steps.
        skip: number of following steps that skip the search.
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
    r"""Armijo's condition for every task, and the search for a step that fulfils it.

    .. math:: L_t(\theta - \eta d) \le R_t - \eta \beta s_t \quad \text{for all } t

    with the slopes s. R is the current loss (``"monotone"``) or the larger of the loss and its weighted mean (``"nonmonotone"``).
    ``"smoothed"`` accepts also where the same inequality holds between the moving means of decrease and slope, and skips the
    search for up to 9 steps while the accepted steps hardly change.

    Args:
        beta: required share of the slope, in (0, 1).
        shrink: factor on a refused step, in (0, 1); ``"violation"``: to 7/8 of the largest step at which the condition holds on
            the parabola through the worst task's loss, its slope and the refused trial. Long steps matter: steps just below the
            largest acceptable one keep the losses of a network flat, and permit long steps later. Halving ends a third lower
            on average, and the losses become steeper until its steps are a quarter as long.
        floor: the search stops below this part of the bound.
        trial: ``"backtracking"``, ``"parabolic"`` (to the minimum of the parabola through the worst task's loss, its slope
            and the refused trial) or ``"golden"`` (golden section for the step that decreases the worst task's loss most).
        memory: ``"monotone"``, ``"nonmonotone"``, ``"smoothed"``.
        start: first trial; ``"reset"``: the bound; ``"keep"``: the last accepted step; ``"grow"``: the last accepted step times
            2^(1/steps of an epoch); ``"polyak"``: min_t (L_t - f_t) / (2 beta s_t).
        lowest: f_t of the Polyak step, a lower bound of every loss.

    Raises:
        ValueError: a value is out of range.

    References:
        Fliege & Svaiter, "Steepest descent methods for multicriteria optimization", 2000; Zhang & Hager, SIAM J. Optim. 2004;
        Vaswani et al., "Painless stochastic gradient", NeurIPS 2019; Galli et al., "Don't be so monotone", NeurIPS 2023;
        Kenneweg et al., "Improving line search methods for large scale neural network training", 2024; Cavalcanti et al.,
        "Adaptive backtracking line search", 2025. All but the first treat one loss; here every task fulfils the condition,
        with its own memory. Galli et al. divide the Polyak step by a constant of their own, this class by 2 beta.
    """

    beta: float = 0.1
    shrink: Shrink = "violation"
    floor: float = 1e-10
    trial: Trial = "backtracking"
    memory: Memory = "monotone"
    start: Start = "reset"
    lowest: float = 0.0

    def __post_init__(self) -> None:
        check_fraction("beta, a share of the slope,", self.beta, "()")
        if isinstance(self.shrink, str):
            check_choice("shrink, if it is not a number in (0, 1),", self.shrink, ("violation",))
        else:
            check_fraction("shrink, if it is not 'violation',", self.shrink, "()")
        check_fraction("floor, a part of the largest step,", self.floor, "()")
        check_choice("trial", self.trial, TRIALS)
        check_choice("memory", self.memory, MEMORIES)
        check_choice("start", self.start, STARTS)

    def init(self, tasks: int) -> RulesState:
        """The state before the first step."""
        blank = np.full(tasks, np.nan)
        return RulesState(math.nan, (0, 0), blank, np.zeros(tasks), blank, blank, math.nan, math.nan, 0)

    def end_epoch(self, state: RulesState) -> RulesState:
        """The state after the end of an epoch."""
        return state._replace(epoch_steps=(state.epoch_steps[1], 0))

    def first_trial(self, line: StepLine, state: RulesState, bound: float) -> float:
        """The first step to try: above 0, at most the bound.

        Raises:
            ValueError: a loss is below ``lowest``, so that the Polyak step is undefined.
        """
        if self.start == "polyak":
            excess = line.losses - self.lowest
            if (excess < 0).any():
                task = line.tasks[int(excess.argmin())]
                raise ValueError(
                    f"start='polyak' requires that no loss is below lowest={self.lowest}, but task {task!r} has "
                    f"{line.losses.min()}: give a smaller lowest="
                )
            step = float((excess / (2 * self.beta * line.slopes)).min())
            return min(bound, step) if step > 0 else bound
        if self.start == "reset" or math.isnan(state.last):
            return bound
        steps = state.epoch_steps[0] or max(state.epoch_steps[1], 100)
        return min(bound, state.last * (2 ** (1 / steps) if self.start == "grow" else 1.0))

    def search(self, line: StepLine, state: RulesState, bound: float) -> tuple[SearchResult, RulesState]:
        """A step that fulfils the condition for every task, or the reason why there is none; and the next state.

        Args:
            line: the losses along the direction.
            state: of the rules.
            bound: largest step allowed, above 0.
        """
        return evaluate_trials(self.trials(line, state, bound), line.losses_at)

    def trials(
        self, line: StepLine, state: RulesState, bound: float
    ) -> Generator[float, Array, tuple[SearchResult, RulesState]]:
        """The same search as a generator, which yields each step to try and receives the (T,) losses there."""
        state = state._replace(epoch_steps=(state.epoch_steps[0], state.epoch_steps[1] + 1))
        if state.skip > 0 and state.last <= bound:
            losses = yield state.last
            result = SearchResult(SearchOutcome.ACCEPTED, state.last, losses, 1, first=False)
            if np.isfinite(losses).all() and line.is_resolvable(result.step).any():
                return result, self._after(line, result, state)._replace(skip=state.skip - 1)
        result = yield from self._searched(line, state, bound)
        return result, (self._after(line, result, state) if result.accepted else state)

    def _searched(self, line: StepLine, state: RulesState, bound: float) -> Trials:
        options = TrialOptions(self.trial, self.shrink, self.beta, self.floor)
        start = self.first_trial(line, state, bound)
        return trial_steps(options, line, lambda step, losses: self.violation(line, state, step, losses), start, bound)

    def violation(self, line: StepLine, state: RulesState, step: float, losses: Array) -> Array:
        """(T,) violation of the condition at a step: at most 0 where it is fulfilled, inf where a loss is not finite."""
        required = step * self.beta * line.required
        before = self._reference(line, state)
        violation = losses - (before - required) - line.slack(step)
        if self.memory == "smoothed":
            positions = list(line.positions)
            decrease = _moving_mean(state.decrease[positions], line.losses - losses)
            smoothed = step * self.beta * _moving_mean(state.slope[positions], line.required)
            # after failures of steps without a search, no small step restores the mean: the plain condition suffices too
            violation = np.fmin(violation, smoothed - decrease)
        return np.where(np.isfinite(losses), violation, np.inf)

    def _reference(self, line: StepLine, state: RulesState) -> Array:
        if self.memory != "nonmonotone":
            return line.losses
        return np.fmax(line.losses, state.reference[list(line.positions)])

    def _after(self, line: StepLine, result: SearchResult, state: RulesState) -> RulesState:
        """The state after an accepted step."""
        positions = list(line.positions)
        reference, weight = state.reference.copy(), state.weight.copy()
        old = np.where(np.isnan(reference[positions]), 0.0, reference[positions])
        weight[positions] = AVERAGE * state.weight[positions] + 1
        reference[positions] = (AVERAGE * state.weight[positions] * old + result.losses) / weight[positions]
        decrease, slope = state.decrease.copy(), state.slope.copy()
        decrease[positions] = _moving_mean(decrease[positions], line.losses - result.losses)
        slope[positions] = _moving_mean(slope[positions], line.required)
        fast = result.step if math.isnan(state.fast) else 0.9 * state.fast + 0.1 * result.step
        slow = result.step if math.isnan(state.slow) else 0.99 * state.slow + 0.01 * result.step
        ratio = max(fast / slow, slow / fast)
        skip = 0
        if self.memory == "smoothed" and state.skip == 0:
            skip = min(SKIPPED, int(1 / (ratio - 1))) - 1 if ratio > 1 + 1 / SKIPPED else SKIPPED - 1
            skip = max(0, skip)
        return RulesState(result.step, state.epoch_steps, reference, weight, decrease, slope, fast, slow, skip)


def _moving_mean(past: Array, new: Array) -> Array:
    """The moving means with the new values; the new value where there is no past."""
    mean: Array = np.where(np.isnan(past), new, SMOOTH * past + (1 - SMOOTH) * new)
    return mean
