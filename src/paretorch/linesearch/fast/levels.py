"""Levels of the fast search: candidates from cheap to sure."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

from paretorch.core.gradients.step_evidence import StepResult
from paretorch.core.method.runner import MethodRunner
from paretorch.linesearch.contract import SearchOutcome, Slopes
from paretorch.linesearch.fast.attempt import Attempt, Candidate, Ending
from paretorch.linesearch.fast.batch import Batch
from paretorch.linesearch.fast.direction import (
    StepDirection,
    common_descent_on_features,
    common_descent_on_parameters,
    gramian_slopes,
)
from paretorch.linesearch.fast.displacement import (
    feature_displacement,
    measured_displacement,
    projected_displacement,
    tangent_displacement,
)
from paretorch.linesearch.fast.state import FastState
from paretorch.linesearch.parts import changes_bound

REFUSED = (SearchOutcome.REJECTED, SearchOutcome.NOISE)

Prepared = tuple[Candidate, FastState]


@dataclass(frozen=True)
class Stage:
    """A step before its next attempt."""

    direction: StepDirection  # of the method
    method_result: StepResult  # the method's result
    runner: MethodRunner  # of the method
    state: FastState  # of the search
    last: Attempt | None = None  # the last attempt; None before the first

    @property
    def batch(self) -> Batch:
        """The batch."""
        return self.direction.gradients.batch

    @property
    def previous(self) -> Candidate:
        """The candidate of the last attempt."""
        assert self.last is not None
        return self.last.candidate

    @property
    def can_reuse(self) -> bool:
        """Whether measurements are expensive, and slopes predicted the last steps."""
        reuse = self.state.reuse.can_reuse and not changes_bound(self.batch.parts, self.state.search)
        return is_expensive(self.batch, self.state) and reuse

    @property
    def needs_measurement(self) -> bool:
        """Whether nothing was tried yet, or a trial without a measurement decreased a loss less than expected."""
        return self.last is None or self.last.ending is Ending.BELOW_EXPECTATION

    @property
    def is_ascent(self) -> bool:
        """Whether two secants show that the direction increases a loss."""
        return self.last is not None and self.last.ending is Ending.ASCENT

    @property
    def is_refused(self) -> bool:
        """Whether the rules accepted no step that is long enough to move a parameter."""
        return self.last is not None and self.last.result.outcome in REFUSED and not self.last.result.smallest

    @property
    def is_refused_along_tangent(self) -> bool:
        """Whether the tangent was searched too, along another direction than the parameters' common descent direction."""
        if self.last is None or self.last.result.accepted:
            return False
        return self.previous.verified and not self.previous.direction.by_parameters


@dataclass(frozen=True)
class Level:
    """One way to obtain a candidate."""

    applies: Callable[[Stage], bool]  # whether the level is tried
    candidate: Callable[[Stage], Prepared]  # direction, displacement and slopes, and the state after their computation


# --- the levels, in order ------------------------------------------------------------------------------------------------


def projected(stage: Stage) -> Prepared:
    """Displacement by projection: no forward; trusted while slopes predicted the last steps, and within expectation."""
    displacement = projected_displacement(stage.direction)
    slopes = stage.direction.slopes(displacement.parts)
    return _descending(Candidate(stage.direction, displacement, slopes, reused=True), stage.state)


def measured(stage: Stage) -> Prepared:
    """Displacement that the option names: up to one forward; a secant is trusted near the step over which it was measured."""
    direction = stage.direction
    if stage.batch.options.displacement == "gradient":
        slopes = gramian_slopes(direction, stage.method_result, stage.runner)
        return _following(*_descending(Candidate(direction, feature_displacement(direction), slopes), stage.state))
    displacement, state = measured_displacement(direction, stage.state)
    return _descending(Candidate(direction, displacement, direction.slopes(displacement.parts)), state)


def common_descent(stage: Stage) -> Prepared:
    """As :func:`measured`, along the common descent direction: T encoder backwards more; trusted as a measured one."""
    direction = stage.previous.direction
    return _replaced(direction, direction.slopes(stage.previous.displacement.at(0.0)), stage.state)


def verified_tangent(stage: Stage) -> Prepared:
    """Displacement by the tangent: one forward; each acceptable trial is confirmed by its own secant, for one more."""
    return _verified(stage.previous.direction), stage.state


def verified_common_descent(stage: Stage) -> Prepared:
    """As :func:`verified_tangent`, along the common descent direction: T encoder backwards more; the last level."""
    candidate, state = _replaced_on_parameters(stage.previous.direction, stage.previous.slopes, stage.state)
    return replace(_verified(candidate.direction), slopes=candidate.slopes), state


LEVELS = (
    Level(lambda stage: stage.last is None and stage.can_reuse, projected),
    Level(lambda stage: stage.needs_measurement, measured),
    Level(lambda stage: stage.is_ascent, common_descent),
    Level(lambda stage: stage.is_refused, verified_tangent),
    Level(lambda stage: stage.is_refused_along_tangent, verified_common_descent),
)


def is_expensive(batch: Batch, state: FastState) -> bool:
    """Whether a measurement is a forward of the whole batch along the gradient, which predictable steps can omit."""
    whole = batch.options.samples is not None and not state.encoder.subsample_reliable
    return whole and batch.options.displacement == "difference" and batch.parts.direction.is_gradient


# --- candidates along which every loss decreases -------------------------------------------------------------------------


def _descending(candidate: Candidate, state: FastState) -> Prepared:
    """The candidate; where a slope is not positive, the tangent (of a difference), then a common descent direction."""
    if candidate.slopes.all_positive:
        return candidate, state
    direction = candidate.direction
    if direction.gradients.batch.options.displacement == "difference":
        # the secant can increase where the tangent decreases, or a subsample where the batch decreases
        tangent = tangent_displacement(direction)
        candidate = Candidate(direction, tangent, direction.slopes(tangent.parts))
        if candidate.slopes.all_positive:
            return candidate, state
    return _replaced(direction, candidate.slopes, state)


def _replaced(direction: StepDirection, slopes: Slopes, state: FastState) -> Prepared:
    """A common descent direction in place of one with these slopes."""
    is_gradient = direction.gradients.batch.options.displacement == "gradient"
    if is_gradient and not direction.by_parameters:
        direction, slopes = common_descent_on_features(direction, slopes, state)
        return Candidate(direction, feature_displacement(direction), slopes), state
    return _replaced_on_parameters(direction, slopes, state)


def _replaced_on_parameters(direction: StepDirection, slopes: Slopes, state: FastState) -> Prepared:
    """The common descent direction of the gradients on the parameters in place of one with these slopes."""
    direction, slopes = common_descent_on_parameters(direction, slopes, state)
    if direction.gradients.batch.options.displacement == "gradient":
        return Candidate(direction, tangent_displacement(direction), slopes), state
    displacement, state = measured_displacement(direction, state)
    return Candidate(direction, displacement, slopes), state


def _following(candidate: Candidate, state: FastState) -> Prepared:
    """With ``"gradient"``, before a bound is found: the candidate, where the encoder's own step decreases every loss too.

    Elsewhere no bound is small enough: the common descent direction of the gradients on the parameters, verified.
    """
    if state.encoder_descends and math.isfinite(state.search.bound.bound):
        return candidate, state
    direction = candidate.direction
    true = direction.slopes(tangent_displacement(direction).parts)
    follows = candidate.slopes.all_positive and true.all_positive
    state = state._replace(encoder_descends=follows)
    if follows:
        return candidate, state._replace(search=state.search.forget_bound())
    candidate, state = _replaced_on_parameters(direction, true, state)
    return _verified(candidate.direction), state


def _verified(direction: StepDirection) -> Candidate:
    """The tangent along a direction, of which every acceptable trial is confirmed."""
    tangent = tangent_displacement(direction)
    return Candidate(direction, tangent, direction.slopes(tangent.parts), verified=True)
