"""A bound for the steps where none was given, by true losses."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from paretorch.core.nonnegative import Array
from paretorch.linesearch.contract import Line
from paretorch.linesearch.rules import Rules


def holds(rules: Rules, line: Line, at: Callable[[float], Array], step: float) -> bool:
    """Whether the condition holds for every task at a step, by its true losses."""
    losses = at(step)
    return bool(
        np.isfinite(losses).all() and (losses <= line.losses - step * rules.beta * line.asked + line.slack(step)).all()
    )


def largest_step(rules: Rules, line: Line, at: Callable[[float], Array]) -> float:
    """The largest step, to a factor of two, at which the condition holds for every task: a bound where none was given.

    Args:
        rules: the condition.
        line: losses and slopes.
        at: (T,) true losses at a step.
    """
    sizes = np.abs(line.losses)
    step = float((np.where(sizes > 0, sizes, line.slopes) / line.slopes).min())
    if holds(rules, line, at, step):
        for _ in range(60):
            if not holds(rules, line, at, 2 * step):
                break
            step *= 2
        return step
    for _ in range(200):
        step /= 2
        if holds(rules, line, at, step):
            break
    return step
