"""A bound for the steps where none was given, by true losses."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from paretorch.linesearch.armijo.rules import Rules
from paretorch.linesearch.bound import BoundState, UpperBound
from paretorch.linesearch.contract import Found, Line, Outcome

DOUBLINGS = 60


def holds(rules: Rules, line: Line, step: float) -> bool:
    """Whether the condition holds for every task at a step.

    Args:
        rules: the condition.
        line: true losses, and the slopes that they have.
        step: above 0.
    """
    losses = line.at(step)
    return bool(
        np.isfinite(losses).all() and (losses <= line.losses - step * rules.beta * line.asked + line.slack(step)).all()
    )


def largest_step(rules: Rules, line: Line) -> Found:
    """The largest step, to a factor of two, at which the condition holds for every task: a bound where none was given.

    Only steps at which the losses' numbers can show a decrease are tried: below these, losses that do not change fulfil any
    condition. Where none of them fulfils it, that is rejected if some loss is higher at the shortest, and else noise.

    Args:
        rules: the condition.
        line: true losses, and the slopes that they have.
    """
    sizes = np.abs(line.losses)
    step, trials = float((np.where(sizes > 0, sizes, line.slopes) / line.slopes).min()), 1
    if holds(rules, line, step):
        while trials < DOUBLINGS and holds(rules, line, 2 * step):
            step, trials = 2 * step, trials + 1
        return Found(Outcome.ACCEPTED, step, line.losses, trials)
    shortest = step
    while line.shown(step := step / 2).any():
        shortest, trials = step, trials + 1
        if holds(rules, line, step):
            return Found(Outcome.ACCEPTED, step, line.losses, trials)
    rise = line.at(shortest) - line.losses - line.rounding
    outcome = Outcome.NOISE if (rise <= 0).all() else Outcome.REJECTED
    return Found(outcome, 0.0, line.losses, trials, worst=int(rise.argmax()))


def bounded(
    rules: Rules, bound: UpperBound, state: BoundState, line: Line, true_line: Callable[[], Line | None]
) -> tuple[BoundState, Found | None]:
    """The bound of this step, found or reviewed where that is due; and a refusal where none is found.

    Args:
        rules: the condition.
        bound: the rule of the bound.
        state: what it remembers.
        line: what the trials see.
        true_line: true losses, and the slopes that they have; None where some do not fall.
    """
    if math.isnan(state.bound):
        true = true_line()
        if true is None:
            return state, Found(Outcome.REJECTED, 0.0, line.losses, 0, worst=int(line.slopes.argmin()))
        largest = largest_step(rules, true)
        if largest.outcome is not Outcome.ACCEPTED:
            return state, largest
        return bound.found(state, largest.step), None
    if not bound.due(state):
        return state, None
    true = true_line()
    doubled = true is not None and holds(rules, true, 2 * state.bound)
    return bound.reviewed(state, lambda: doubled), None
