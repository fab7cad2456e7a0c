"""A bound for the steps where none was given, by true losses."""

from __future__ import annotations

import numpy as np

from paretorch.linesearch.contract import Found, Line, Outcome
from paretorch.linesearch.rules import Rules

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
