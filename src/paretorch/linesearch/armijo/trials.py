"""Which step is tried next: backtracking, parabolic interpolation, golden section."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from paretorch.core.arrays import Array
from paretorch.linesearch.contract import Found, Line, Outcome

if TYPE_CHECKING:
    from paretorch.linesearch.armijo.rules import Rules, SearchState

TRIALS = ("backtracking", "parabolic", "golden")
GOLDEN = (math.sqrt(5) - 1) / 2
SECTIONS = 8  # of a golden section: the bracket is then 1/50 of what it was
LEAST, MOST = 0.1, 0.5  # the parabola may not shrink a step by more, nor by less
LEAST_BY_VIOLATION = 0.01
BY_VIOLATION = 0.875  # of the largest step that a parabola through the refused trial allows

Missing = Callable[[float, Array], Array]


def next_trial(rules: Rules, line: Line, missing: Missing, state: SearchState, bound: float) -> Found:
    """The step at which nothing is missing, or why there is none.

    Args:
        rules: how to look for it.
        line: what is searched on.
        missing: (T,) what each task lacks of the condition at a step with these losses.
        state: what the search remembers.
        bound: the largest step allowed.
    """
    start = rules.first_trial(line, state, bound)
    if rules.trial == "golden":
        section = _golden_section(line, missing, start)
        if section.outcome is Outcome.ACCEPTED:
            return section
        found = _backtracked(rules, line, missing, section.step, bound)
        return Found(found.outcome, found.step, found.losses, found.trials + section.trials, False, found.worst)
    return _backtracked(rules, line, missing, start, bound)


def _backtracked(rules: Rules, line: Line, missing: Missing, start: float, bound: float) -> Found:
    step, trials = start, 0
    while True:
        losses = line.at(step)
        trials += 1
        lacking = missing(step, losses)
        worst = int(lacking.argmax())
        if not line.shown(step).any() and np.isfinite(losses).all():  # losses that do not change fulfil any condition
            return Found(Outcome.NOISE, 0.0, line.losses, trials, worst=worst)
        if lacking[worst] <= 0:
            return Found(Outcome.ACCEPTED, step, losses, trials, trials == 1)
        if not line.shown(step)[worst] and np.isfinite(losses).all():
            return Found(Outcome.NOISE, 0.0, line.losses, trials, worst=worst)
        step *= _factor(rules, line, step, losses, lacking)
        if not step > rules.floor * min(bound, start):
            return Found(Outcome.REJECTED, 0.0, line.losses, trials, worst=worst)


def _factor(rules: Rules, line: Line, step: float, losses: Array, lacking: Array) -> float:
    """By what a refused step is multiplied."""
    constant = BY_VIOLATION if isinstance(rules.shrink, str) else rules.shrink
    if not np.isfinite(losses).all():
        return min(constant, MOST)
    if rules.trial == "parabolic":
        # through loss and slope at 0 and the loss at the step; of each refused task, the least
        rise = (losses - line.losses + step * line.slopes)[lacking > 0]
        with np.errstate(divide="ignore"):
            minimum = (step * line.slopes[lacking > 0] / (2 * rise)).min()
        return float(min(max(minimum, LEAST), MOST)) if math.isfinite(minimum) and minimum > 0 else MOST
    if rules.shrink == "violation":
        refused = lacking > 0
        room = (
            step * (line.slopes - rules.beta * line.asked)[refused]
        )  # between the slope's line and that of the condition
        return max(LEAST_BY_VIOLATION, constant * float((room / (room + lacking[refused])).min()))
    return constant


def _golden_section(line: Line, missing: Missing, start: float) -> Found:
    """The step in (0, start] that lowers the worst task most, per unit of its slope, if the condition holds there.

    Where it does not, ``step`` is where backtracking may go on.
    """

    def tried(step: float) -> tuple[float, float, Array]:
        losses = line.at(step)
        with np.errstate(invalid="ignore"):
            worst = ((losses - line.losses) / line.slopes).max()
        return (float(worst) if np.isfinite(losses).all() else math.inf), step, losses

    best = tried(start)
    low, high = 0.0, start
    inner, outer = tried(high - GOLDEN * (high - low)), tried(low + GOLDEN * (high - low))
    for _ in range(SECTIONS):
        best = min(best, inner, outer, key=lambda trial: trial[0])
        if inner[0] <= outer[0]:
            high, outer = outer[1], inner
            inner = tried(high - GOLDEN * (high - low))
        else:
            low, inner = inner[1], outer
            outer = tried(low + GOLDEN * (high - low))
    best = min(best, inner, outer, key=lambda trial: trial[0])
    _, step, losses = best
    if line.shown(step).any() and (missing(step, losses) <= 0).all():
        return Found(Outcome.ACCEPTED, step, losses, SECTIONS + 3, step == start)
    return Found(Outcome.REJECTED, min(inner[1], step), line.losses, SECTIONS + 3)
