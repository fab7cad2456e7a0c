"""Order of the trials: backtracking, parabolic interpolation, golden section."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator
from dataclasses import replace
from typing import NamedTuple, TypeVar

import numpy as np

from paretorch.core.arrays import Array
from paretorch.linesearch.contract import SearchOutcome, SearchResult, StepLine

R = TypeVar("R")
TRIALS = ("backtracking", "parabolic", "golden")
GOLDEN = (math.sqrt(5) - 1) / 2
SECTIONS = 8  # of a golden section: the bracket shrinks to 1/50
SECTION_TRIALS = SECTIONS + 3  # with its ends and the first inner step
LEAST, MOST = 0.1, 0.5  # limits of the factor by which the parabola shrinks a step
LEAST_BY_VIOLATION = 0.01
BY_VIOLATION = 0.875  # part of the largest step that fulfils the condition on a parabola through the refused trial

Violation = Callable[[float, Array], Array]
Trials = Generator[float, Array, SearchResult]


class TrialOptions(NamedTuple):
    """The fields of the same names of :class:`~paretorch.linesearch.Rules`."""

    trial: str
    shrink: float | str
    beta: float
    floor: float


def evaluate_trials(trials: Generator[float, Array, R], losses_at: Callable[[float], Array]) -> R:
    """The return value of a generator that yields steps, given the losses at each of them."""
    step, result = next_trial(trials)
    while step is not None:
        step, result = next_trial(trials, losses_at(step))
    assert result is not None
    return result


def next_trial(trials: Generator[float, Array, R], losses: Array | None = None) -> tuple[float | None, R | None]:
    """The next step of a generator, and None; or None, and its return value."""
    try:
        return (next(trials) if losses is None else trials.send(losses)), None
    except StopIteration as end:
        return None, end.value


def trial_steps(options: TrialOptions, line: StepLine, violation: Violation, start: float, bound: float) -> Trials:
    """Yields the steps to try and receives the losses there; returns an acceptable step, or why there is none."""
    if options.trial == "golden":
        section, start = yield from _golden_section(line, violation, start)
        if section is not None:
            return section
        found = yield from _backtracking(options, line, violation, start, bound)
        return replace(found, trials=found.trials + SECTION_TRIALS, first=False)
    return (yield from _backtracking(options, line, violation, start, bound))


def _backtracking(options: TrialOptions, line: StepLine, violation: Violation, start: float, bound: float) -> Trials:
    step, trials = start, 0
    while True:
        losses = yield step
        trials += 1
        violations = violation(step, losses)
        worst = int(violations.argmax())
        resolvable, finite = line.is_resolvable(step), np.isfinite(losses).all()
        if not resolvable.any() and finite:  # losses that do not change fulfil any condition
            return SearchResult(SearchOutcome.NOISE, 0.0, line.losses, trials, worst=worst)
        if violations[worst] <= 0:
            return SearchResult(SearchOutcome.ACCEPTED, step, losses, trials, trials == 1)
        if not resolvable[worst] and finite:
            return SearchResult(SearchOutcome.NOISE, 0.0, line.losses, trials, worst=worst)
        step *= _factor(options, line, step, losses, violations)
        if not step > options.floor * min(bound, start):
            return SearchResult(SearchOutcome.REJECTED, 0.0, line.losses, trials, worst=worst)


def _factor(options: TrialOptions, line: StepLine, step: float, losses: Array, violations: Array) -> float:
    """The factor on a refused step."""
    constant = BY_VIOLATION if isinstance(options.shrink, str) else options.shrink
    if not np.isfinite(losses).all():
        return min(constant, MOST)
    refused = violations > 0
    if options.trial == "parabolic":
        # the parabola through loss and slope at 0 and the loss at the step; the shortest minimum of the refused tasks
        curved = (losses - line.losses + step * line.slopes)[refused]
        with np.errstate(divide="ignore"):
            minimum = (step * line.slopes[refused] / (2 * curved)).min()
        return float(min(max(minimum, LEAST), MOST)) if math.isfinite(minimum) and minimum > 0 else MOST
    if options.shrink == "violation":
        margin = step * (line.slopes - options.beta * line.required)[refused]  # of the condition above the tangent
        return max(LEAST_BY_VIOLATION, constant * float((margin / (margin + violations[refused])).min()))
    return constant


def _golden_section(
    line: StepLine, violation: Violation, start: float
) -> Generator[float, Array, tuple[SearchResult | None, float]]:
    """The step in (0, start] that decreases the worst task's loss most, relative to its slope; None if it is not acceptable.

    And the step at which backtracking starts then.
    """

    def tried(step: float) -> Generator[float, Array, tuple[float, float, Array]]:
        losses = yield step
        with np.errstate(invalid="ignore"):
            worst = ((losses - line.losses) / line.slopes).max()
        return (float(worst) if np.isfinite(losses).all() else math.inf), step, losses

    best = yield from tried(start)
    low, high = 0.0, start
    inner = yield from tried(high - GOLDEN * (high - low))
    outer = yield from tried(low + GOLDEN * (high - low))
    for _ in range(SECTIONS):
        best = min(best, inner, outer, key=lambda trial: trial[0])
        if inner[0] <= outer[0]:
            high, outer = outer[1], inner
            inner = yield from tried(high - GOLDEN * (high - low))
        else:
            low, inner = inner[1], outer
            outer = yield from tried(low + GOLDEN * (high - low))
    best = min(best, inner, outer, key=lambda trial: trial[0])
    _, step, losses = best
    if line.is_resolvable(step).any() and (violation(step, losses) <= 0).all():
        return SearchResult(SearchOutcome.ACCEPTED, step, losses, SECTION_TRIALS, step == start), step
    return None, min(inner[1], step)
