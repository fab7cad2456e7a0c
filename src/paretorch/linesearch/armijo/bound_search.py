"""Search for an upper bound of the steps, where none is given."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from paretorch.linesearch.armijo.rules import Rules
from paretorch.linesearch.bound import BoundState, UpperBound
from paretorch.linesearch.contract import SearchOutcome, SearchResult, StepLine

DOUBLINGS = 60


def satisfies_armijo(rules: Rules, line: StepLine, step: float) -> bool:
    """Whether every task fulfils the condition at a step.

    Args:
        rules: with the condition.
        line: true losses along a direction, and their slopes.
        step: above 0.
    """
    losses = line.losses_at(step)
    limit = line.losses - step * rules.beta * line.required + line.slack(step)
    return bool(np.isfinite(losses).all() and (losses <= limit).all())


def largest_step(rules: Rules, line: StepLine) -> SearchResult:
    """The largest step, to a factor of two, at which every task fulfils the condition.

    Only steps with a resolvable decrease are tried: at shorter ones, losses that do not change fulfil any condition. If none
    is acceptable, the outcome is rejected if a loss increases at the shortest, and noise otherwise.

    Args:
        rules: with the condition.
        line: true losses along a direction, and their slopes.
    """
    sizes = np.abs(line.losses)
    step, trials = float((np.where(sizes > 0, sizes, line.slopes) / line.slopes).min()), 1
    if satisfies_armijo(rules, line, step):
        while trials < DOUBLINGS and satisfies_armijo(rules, line, 2 * step):
            step, trials = 2 * step, trials + 1
        return SearchResult(SearchOutcome.ACCEPTED, step, line.losses, trials)
    shortest = step
    while line.is_resolvable(step := step / 2).any():
        shortest, trials = step, trials + 1
        if satisfies_armijo(rules, line, step):
            return SearchResult(SearchOutcome.ACCEPTED, step, line.losses, trials)
    increase = line.losses_at(shortest) - line.losses - line.rounding
    outcome = SearchOutcome.NOISE if (increase <= 0).all() else SearchOutcome.REJECTED
    return SearchResult(outcome, 0.0, line.losses, trials, worst=int(increase.argmax()))


def updated_bound(
    rules: Rules, bound: UpperBound, state: BoundState, line: StepLine, true_line: Callable[[], StepLine | None]
) -> tuple[BoundState, SearchResult | None]:
    """The bound of this step, found or reviewed if necessary; and a refusal if none is found.

    Args:
        rules: with the condition.
        bound: the rule of the bound.
        state: of the bound.
        line: losses of the trials.
        true_line: true losses and their slopes; None where a slope is not positive.
    """
    if math.isnan(state.bound):
        true = true_line()
        if true is None:
            return state, SearchResult(SearchOutcome.REJECTED, 0.0, line.losses, 0, worst=int(line.slopes.argmin()))
        largest = largest_step(rules, true)
        if not largest.accepted:
            return state, largest
        return bound.initialised(state, largest.step), None
    if not bound.needs_review(state):
        return state, None
    true = true_line()
    doubled = true is not None and satisfies_armijo(rules, true, 2 * state.bound)
    return bound.reviewed(state, lambda: doubled), None
