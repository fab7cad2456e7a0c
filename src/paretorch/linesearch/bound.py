"""Upper bound of the steps, and the rules that change it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from statistics import NormalDist
from typing import Literal, NamedTuple

import numpy as np

from paretorch.core.arrays import Array
from paretorch.core.option_checks import check_choice, check_fraction, check_whole

RULES = ("fixed", "manual", "regression", "sasa")
BINDING = 0.9  # share of first trials accepted above which the bound limits the steps and not the condition
NEWEST = 0.5  # part of the window that SASA+ uses
STREAK = 10  # steps at the bound after which a bound that was found, not given, can change
CAUTION = 16  # divisor of the largest step that one batch permits
TREND = 2 * STREAK  # steps over which the trend of the losses is tested
BATCHES = 10  # into which SASA+'s window is divided for the interval of its mean


class BoundState(NamedTuple):
    """State of the rule of a bound.

    Args:
        bound: largest step; nan before it is known.
        since: steps since the last change by a rule.
        epochs: number of completed epochs.
        logs: (window, all) the newest losses, in logarithms where they are above 0; nan where there is none.
        doubted: whether the effect of the last decrease is not known yet.
        firsts: (window,) 1 where the first trial was accepted, 0 where not; nan where there is none.
        stationarity: (window,) SASA+'s statistic; nan where there is none.
        streak: steps in a row that were accepted at the bound, at the first trial.
        patience: length of the streak at which the bound is reviewed next.
        open: whether the bound can increase: it was found, not given, and no rule has decreased it.
    """

    bound: float
    since: int
    epochs: int
    logs: Array
    doubted: bool
    firsts: Array
    stationarity: Array
    streak: int
    patience: int
    open: bool

    def forgotten(self) -> BoundState:
        """The state in which a bound that was found is unknown again; a bound that was given is unchanged."""
        return self._replace(bound=math.nan, streak=0) if self.open else self


@dataclass(frozen=True)
class UpperBound:
    r"""Upper bound of the steps, and when it decreases.

    * ``"fixed"``: never.
    * ``"manual"``: by ``factor`` every ``every`` epochs.
    * ``"regression"``: by ``factor`` when a one-sided regression test finds a decrease in no task's log-loss over the last
      ``window`` steps and more than 90 % of them were accepted at the first trial, so that the bound limits the training and
      not the condition. A plateau gives the same result, and shorter steps only prolong it: if the losses decrease no more
      after the change than before, the bound is restored and unchanged for twice as long.
    * ``"sasa"``: by ``factor`` when the confidence interval of the mean of
      :math:`\eta_k \langle \theta_k, d_k \rangle - \frac{\eta_k^2}{2} \lVert d_k \rVert^2`, which is zero in stationary
      motion, contains zero.

    After a decrease the bound is unchanged for ``window`` steps, which replace the old ones in the window.

    A bound that is not given (``max_step=None``) starts at a sixteenth of the largest step that the first batch permits: a step
    can decrease a batch's losses by fitting its noise, and increase the next batch's. While the steps are at the bound, and no
    rule has decreased it with effect, it doubles where some task's losses decrease from batch to batch and none increase, and
    halves where some increase and none decrease.

    Args:
        rule: one of the four.
        factor: in (0, 1).
        every: epochs.
        window: number of steps of a test, at least 20.
        confidence: of the tests, in (0, 1).

    Raises:
        ValueError: a value is out of range.

    Example:
        >>> UpperBound("manual", factor=0.5, every=10).rule
        'manual'

    References:
        Zhang et al., "Statistical adaptive stochastic gradient methods", 2020 (SASA+), for one loss and a fixed
        rate; here the statistic is of the shared direction and its step. We take the newest half of ``window`` steps in place
        of the leaky bucket's, and batch means for the interval, since neighbouring steps are correlated.
    """

    rule: Literal["fixed", "manual", "regression", "sasa"] = "fixed"
    factor: float = 0.5
    every: int = 10
    window: int = 100
    confidence: float = 0.95

    def __post_init__(self) -> None:
        check_choice("the rule of a bound", self.rule, RULES)
        check_fraction("factor of a decrease of the bound", self.factor, "()")
        check_whole("every", self.every, unit=" epochs")
        check_whole("window", self.window, 20, " steps, since tests of fewer are not significant")
        check_fraction("confidence", self.confidence, "()")

    def init(self, tasks: int, max_step: float) -> BoundState:
        """The state before the first step."""
        blank = np.full(self.window, np.nan)
        logs = np.full((self.window, tasks), np.nan)
        return BoundState(max_step, 0, 0, logs, False, blank, blank, 0, STREAK, math.isnan(max_step))

    def initialised(self, state: BoundState, largest: float) -> BoundState:
        """The state after the largest step that a batch permits is found."""
        return state._replace(bound=largest / CAUTION, streak=0)

    def end_epoch(self, state: BoundState) -> tuple[BoundState, str]:
        """The state after an epoch, and the reason for a decrease of the bound; empty where there is none."""
        state = state._replace(epochs=state.epochs + 1)
        if self.rule != "manual" or state.epochs % self.every:
            return state, ""
        return self._lowered(state, f"epoch {state.epochs}: every {self.every} epochs")

    def at_bound(self, state: BoundState, step: float, first: bool) -> BoundState:
        """The state after an accepted step, with the streak of steps at the bound."""
        if first and step >= state.bound:
            return state._replace(streak=state.streak + 1)
        return state._replace(streak=0, patience=STREAK)

    def needs_review(self, state: BoundState) -> bool:
        """Whether a bound that was found is to be reviewed, after a streak of steps at it."""
        return state.open and not state.doubted and state.streak >= state.patience

    def reviewed(self, state: BoundState, doubled: Callable[[], bool]) -> BoundState:
        """The state after a review: halved where losses increase and none decreases, doubled in the opposite case if acceptable.

        Args:
            state: before the review.
            doubled: whether twice the bound fulfils the condition on the present batch.
        """
        trends, limit = self._trends(state.logs[-max(TREND, state.streak) :]), normal_quantile(self.confidence)
        decrease, increase = any(t < -limit for t in trends), any(t > limit for t in trends)
        if increase and not decrease:
            return state._replace(bound=state.bound / 2, streak=0, patience=STREAK)
        if decrease and not increase and doubled():
            return state._replace(bound=state.bound * 2, streak=0, patience=STREAK)
        return state._replace(patience=min(2 * state.patience, state.streak + self.window))

    def after(self, state: BoundState, losses: Array, first: bool, stationarity: float) -> tuple[BoundState, str]:
        """The state after an accepted step, and the reason for a decrease of the bound; empty where there is none.

        Args:
            state: before the step.
            losses: (all,) before the step; nan where a task was absent.
            first: whether the first trial was accepted.
            stationarity: SASA+'s statistic; nan where it was not computed.
        """
        with np.errstate(divide="ignore", invalid="ignore"):
            logs = np.where(losses > 0, np.log(losses), losses)
        state = state._replace(
            since=state.since + 1,
            logs=np.vstack([state.logs[1:], logs]),
            firsts=np.append(state.firsts[1:], float(first)),
            stationarity=np.append(state.stationarity[1:], stationarity),
        )
        if self.rule in ("fixed", "manual") or state.since < self.window:
            return state, ""
        if self.rule == "sasa":
            reason = self._stationary(state)
            return self._lowered(state, reason) if reason else (state, "")
        reason = self._stalled(state)
        if reason and state.doubted:
            return self._restored(state, reason)
        if reason:
            state, reason = self._lowered(state, reason)
            return state._replace(doubted=True), reason
        return state._replace(doubted=False, open=state.open and not state.doubted), ""

    def _lowered(self, state: BoundState, reason: str) -> tuple[BoundState, str]:
        bound = state.bound * self.factor
        keeps_open = state.open and self.rule == "regression"  # until the effect of the decrease is known
        state = state._replace(bound=bound, since=0, streak=0, open=keeps_open)
        return state, f"{reason}: {bound / self.factor:.4g} -> {bound:.4g}"

    def _restored(self, state: BoundState, reason: str) -> tuple[BoundState, str]:
        bound = state.bound / self.factor
        restored = state._replace(bound=bound, since=-self.window, streak=0, doubted=False)
        return restored, f"restored, a smaller step had no effect; {reason}: {state.bound:.4g} -> {bound:.4g}"

    def _stalled(self, state: BoundState) -> str:
        share = float(np.nanmean(state.firsts))
        if share <= BINDING:
            return ""
        trends = self._trends(state.logs)
        limit = -normal_quantile(self.confidence)
        if not trends or min(trends) < limit:
            return ""
        return (
            f"no task's loss decreases over {self.window} steps (t = {min(trends):.1f} at best, significant below {limit:.1f}), "
            f"and {share:.0%} of the steps were accepted at the first trial"
        )

    @staticmethod
    def _trends(logs: Array) -> list[float]:
        """The t statistics of the tasks of which at least half of the rows are known."""
        return [trend(column) for column in logs.T if np.isfinite(column).sum() >= len(logs) // 2]

    def _stationary(self, state: BoundState) -> str:
        newest = state.stationarity[-int(self.window * NEWEST) :]
        newest = newest[np.isfinite(newest)]
        if len(newest) < 2 * BATCHES:
            return ""
        means = np.array([part.mean() for part in np.array_split(newest, BATCHES)])
        error = means.std(ddof=1) / math.sqrt(BATCHES)
        t = student_quantile((1 + self.confidence) / 2, BATCHES - 1)
        low, high = means.mean() - t * error, means.mean() + t * error
        return f"stationary: the interval [{low:.2g}, {high:.2g}] contains zero" if low <= 0 <= high else ""


def trend(values: Array) -> float:
    """The t statistic of the slope of a line through equidistant values; nan values are omitted.

    Example:
        >>> trend(np.array([3.0, 2.1, 1.0, 0.1, -1.0])) < -10
        True
    """
    position = np.flatnonzero(np.isfinite(values)).astype(np.float64)
    values = values[np.isfinite(values)]
    position = position - position.mean()
    spread = float(position @ position)
    slope = float(position @ values) / spread
    residual = values - values.mean() - slope * position
    error = math.sqrt(max(float(residual @ residual) / (len(values) - 2), 0.0) / spread)
    if error == 0:
        return math.copysign(math.inf, slope) if slope else 0.0
    return slope / error


def normal_quantile(share: float) -> float:
    """The quantile of the standard normal distribution.

    Example:
        >>> round(normal_quantile(0.95), 4)
        1.6449
    """
    return NormalDist().inv_cdf(share)


def student_quantile(share: float, freedom: int) -> float:
    """The quantile of Student's t, by an expansion of the normal's in 1/freedom; the error is below 1 % from 8 degrees on.

    Example:
        >>> abs(student_quantile(0.975, 9) - 2.262) < 0.01
        True

    References:
        Abramowitz & Stegun 26.7.5.
    """
    z = normal_quantile(share)
    first = (z**3 + z) / 4
    second = (5 * z**5 + 16 * z**3 + 3 * z) / 96
    third = (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384
    return z + first / freedom + second / freedom**2 + third / freedom**3
