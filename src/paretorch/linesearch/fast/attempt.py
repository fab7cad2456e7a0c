"""Search along one direction and one displacement."""

from __future__ import annotations

import enum
from dataclasses import dataclass, replace
from functools import partial

from torch.autograd import _unsafe_preserve_version_counter  # type: ignore[attr-defined]

from paretorch.core.arrays import Array
from paretorch.linesearch.armijo.trials import next_trial
from paretorch.linesearch.contract import SearchOutcome, SearchResult, Slopes, StepLine
from paretorch.linesearch.fast.direction import StepDirection
from paretorch.linesearch.fast.displacement import (
    Displacement,
    reliable_samples,
    secant_displacement,
    tangent_displacement,
)
from paretorch.linesearch.fast.state import FastState
from paretorch.linesearch.loss_values import resolution
from paretorch.linesearch.parameter_line import ParameterLine, refuse_unresolved
from paretorch.linesearch.step_results import satisfies_rules, step_line, with_bound

NEAR = 1.25  # factor between an accepted step and the span of a secant, beyond which the secant is measured again


@dataclass(frozen=True)
class Candidate:
    """A direction with a displacement of the features, to search along."""

    direction: StepDirection  # of all parameters
    displacement: Displacement  # of the features
    slopes: Slopes  # (T,) along it
    reused: bool = False  # whether the displacement is not measured in this step
    verified: bool = False  # whether each acceptable trial is confirmed by a secant on the whole batch


class Ending(enum.Enum):
    """How an attempt ended."""

    FINISHED = enum.auto()  # the rules have a result
    BELOW_EXPECTATION = enum.auto()  # of a displacement that is not measured: a trial decreases less than expected
    ASCENT = enum.auto()  # two secants show that the direction increases a loss from the start


@dataclass(frozen=True)
class Attempt:
    """A search along a candidate."""

    candidate: Candidate  # with the displacement that was measured last
    line: StepLine  # losses along it
    ending: Ending  # how the attempt ended
    result: SearchResult  # of the rules; without meaning unless they finished
    # the shared parameters and those of the heads along the direction, where a step was accepted
    moved: tuple[ParameterLine, ...]
    remeasurements: int  # number of secants that the step can still measure


def attempt_search(candidate: Candidate, state: FastState, remeasurements: int) -> tuple[Attempt, FastState]:
    """Searches along a candidate; a trial that its secant does not justify is evaluated with another secant.

    The heads' parameters are at the accepted step afterwards, and unchanged where none is accepted.
    """
    direction = candidate.direction
    gradients, batch = direction.gradients, direction.gradients.batch
    parts, values = batch.parts, gradients.values
    heads = ParameterLine(parts.head_parameters, direction.heads)
    batch.undo.callback(heads.move_to, 0)

    finest = resolution(batch.losses, batch.leaves[0])
    true_losses = partial(_true_losses, direction, heads)
    line = step_line(parts, state.search, values, candidate.slopes, true_losses, finest)
    unfinished = SearchResult(SearchOutcome.STATIONARY, 0.0, line.losses, 0)
    if not candidate.slopes.all_positive:
        return Attempt(candidate, line, Ending.FINISHED, unfinished, (), remeasurements), state
    result, search = with_bound(parts, state.search, line, lambda: _true_line(candidate, line))
    state = state._replace(search=search)
    if result is None:
        trials = parts.rules.trials(line, search.rules, search.bound.bound)
        step, finished = next_trial(trials)
        while step is not None:
            trial, state = _evaluated(candidate, heads, line, state, step, remeasurements)
            candidate, remeasurements = trial.candidate, trial.remeasurements
            if trial.ending is not Ending.FINISHED:
                heads.move_to(0)
                return Attempt(candidate, line, trial.ending, unfinished, (), remeasurements), state
            step, finished = next_trial(trials, trial.losses)
        assert finished is not None
        result, rules = finished
        state = state._replace(search=state.search._replace(rules=rules))
    moved: tuple[ParameterLine, ...] = ()
    if result.accepted:
        moved = ParameterLine(parts.shared, direction.encoder.parts), heads
        result = refuse_unresolved(result, moved)
    if not result.accepted:
        heads.move_to(0)
        moved = ()
    return Attempt(candidate, line, Ending.FINISHED, result, moved, remeasurements), state


@dataclass(frozen=True)
class _Trial:
    """The losses of a trial, and what the search continues with."""

    losses: Array
    candidate: Candidate
    remeasurements: int
    ending: Ending = Ending.FINISHED


def _evaluated(
    candidate: Candidate, heads: ParameterLine, line: StepLine, state: FastState, step: float, remeasurements: int
) -> tuple[_Trial, FastState]:
    """The losses at a step, measured again where the displacement does not justify to accept it.

    A secant over a step of another length is replaced by that over this step; one of a subsample, where the step decreases a
    loss by less than expected, by that of the whole batch. A verified candidate measures every acceptable trial.
    """
    parts = candidate.direction.gradients.batch.parts
    losses = _losses_at(candidate, heads, step)
    below = state.reuse.below_expectation(share_of_slope(line, line.slopes, step, losses))
    if candidate.reused:
        ending = Ending.BELOW_EXPECTATION if below else Ending.FINISHED
        return _Trial(losses, candidate, remeasurements, ending), state
    former = candidate.displacement
    below = below and former.subsampled
    if former.is_near(step, NEAR) and not below:
        return _Trial(losses, candidate, remeasurements), state
    if not (candidate.verified or remeasurements) or not satisfies_rules(parts, state.search, line, step, losses):
        return _Trial(losses, candidate, remeasurements), state
    samples = None
    if not (candidate.verified or below):
        samples, state = reliable_samples(candidate.direction, state)
    measured = secant_displacement(candidate.direction, step, samples, state)
    if not candidate.verified:
        remeasurements -= 1
        if not below:
            own = former.span, former.parts
            earlier = [own] if former.shorter is None else [own, former.shorter]
            measured = replace(measured, shorter=min(earlier, key=lambda each: each[0]))
    confirmed = replace(candidate, displacement=measured)
    losses = _losses_at(confirmed, heads, step)
    if satisfies_rules(parts, state.search, line, step, losses):
        return _Trial(losses, confirmed, remeasurements), state
    if candidate.verified:  # shorter steps are evaluated along the tangent again
        return _Trial(losses, candidate, remeasurements), state
    direction = candidate.direction
    if not direction.fallback and not direction.slopes(measured.at(0.0)).all_positive:
        return _Trial(losses, confirmed, remeasurements, Ending.ASCENT), state
    return _Trial(losses, confirmed, remeasurements), state


def share_of_slope(line: StepLine, slopes: Array, step: float, losses: Array) -> float:
    """The least share of its slope that a task keeps over a step."""
    return float(((line.losses - losses) / (step * slopes)).min())


def _losses_at(candidate: Candidate, heads: ParameterLine, step: float) -> Array:
    """(T,) losses of the heads at a step, on the features at that step."""
    gradients = candidate.direction.gradients
    heads.move_to(step)
    return gradients.batch.losses_on(candidate.displacement.moved(gradients.batch.leaves, step), gradients.values)


def _true_line(candidate: Candidate, line: StepLine) -> StepLine | None:
    """True losses along the direction, and the slopes of these; None where a slope is not positive.

    With ``displacement="gradient"`` the slopes of the candidate are not the true ones.
    """
    direction = candidate.direction
    if direction.gradients.batch.options.displacement != "gradient" or candidate.verified:
        return line
    slopes = direction.slopes(tangent_displacement(direction).parts).total
    return replace(line, slopes=slopes, required=slopes) if (slopes > 0).all() else None


def _true_losses(direction: StepDirection, heads: ParameterLine, step: float) -> Array:
    """(T,) losses of the whole model at a step; the shared parameters are restored."""
    batch, values = direction.gradients.batch, direction.gradients.values
    shared = ParameterLine(batch.parts.shared, direction.encoder.parts)
    # a backward through the graph can follow, and every value is restored
    with _unsafe_preserve_version_counter(tuple(shared.parameters)):
        try:
            shared.move_to(step)
            heads.move_to(step)
            return batch.model_losses(values)
        finally:
            shared.move_to(0)
