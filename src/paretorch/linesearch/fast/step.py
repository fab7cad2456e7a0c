"""One step of the fast search."""

from __future__ import annotations

import math

from paretorch.core.gradients.finite import all_finite
from paretorch.core.method.runner import MethodRunner
from paretorch.linesearch.contract import Step
from paretorch.linesearch.fast.attempt import Attempt, attempt_search, share_of_slope
from paretorch.linesearch.fast.batch import Batch
from paretorch.linesearch.fast.direction import EncoderDirectionError, method_direction
from paretorch.linesearch.fast.displacement import projected_displacement
from paretorch.linesearch.fast.displacement_reuse import DisplacementReuse
from paretorch.linesearch.fast.gradients import BatchGradients, batch_gradients
from paretorch.linesearch.fast.levels import LEVELS, Stage, is_expensive
from paretorch.linesearch.fast.state import FastState
from paretorch.linesearch.loss_values import check_finite
from paretorch.linesearch.parts import verifies
from paretorch.linesearch.step_results import absent_step, accepted_step, refused_step

REMEASUREMENTS = 2  # secants that a step can measure again


def fast_step(batch: Batch, runner: MethodRunner, state: FastState) -> tuple[Step, FastState]:
    """Moves the parameters by one step: gradients, direction, and attempts from cheap to sure until one is accepted.

    Raises:
        FloatingPointError: a loss or a gradient is not finite.
    """
    if not batch.losses:
        return _absent(batch, state)
    gradients, state = batch_gradients(batch, state, runner.uses_gradients)
    if not gradients.values:
        return _absent(batch, state)
    try:
        return _searched(batch, gradients, runner, state)
    except EncoderDirectionError:
        broken = {task: math.nan if not all_finite(row) else 0.0 for task, row in gradients.parameter_rows().items()}
        check_finite({}, broken)
        raise


def _searched(
    batch: Batch, gradients: BatchGradients, runner: MethodRunner, state: FastState
) -> tuple[Step, FastState]:
    """The step from finite gradients on the features."""
    parts, options = batch.parts, batch.options
    direction, method_result = method_direction(gradients, runner)
    expensive = is_expensive(batch, state)
    measures = options.displacement == "difference" or (
        options.displacement == "calibrated" and not state.scaling_agrees
    )
    remeasurements = REMEASUREMENTS if measures else 0

    attempt: Attempt | None = None
    for level in LEVELS:
        stage = Stage(direction, method_result, runner, state, attempt)
        if level.applies(stage):
            candidate, state = level.candidate(stage)
            attempt, state = attempt_search(candidate, state, remeasurements)
            remeasurements = attempt.remeasurements
            if attempt.result.accepted:
                break
    assert attempt is not None

    fallback = attempt.candidate.direction.fallback
    actual = _moved(batch, attempt, state) if attempt.result.accepted else {}
    search = state.search._replace(differentiates=batch.decoding.graph)
    outcome = search, attempt.result, attempt.line, batch.losses, fallback, runner.balance
    if not attempt.result.accepted:
        step, search = refused_step(parts, *outcome)
        return step, state._replace(search=search)
    measured = not attempt.candidate.reused
    step, search = accepted_step(parts, *outcome, actual, attempt.moved, measured)
    reuse = _reuse_after(attempt, expensive, state) if measured else state.reuse.reused()
    return step, state._replace(search=search, reuse=reuse)


def _absent(batch: Batch, state: FastState) -> tuple[Step, FastState]:
    step, search = absent_step(state.search, batch.losses)
    return step, state._replace(search=search)


def _moved(batch: Batch, attempt: Attempt, state: FastState) -> dict[str, float]:
    """Moves all parameters; by task, the true losses after the step if it is verified."""
    shared, heads = attempt.moved
    values = attempt.candidate.direction.gradients.values
    batch.undo.callback(shared.move_to, 0)
    shared.move_to(attempt.result.step)
    heads.move_to(attempt.result.step)
    if verifies(batch.parts, state.search):
        return dict(zip(values, batch.model_losses(values).tolist(), strict=True))
    return {}


def _reuse_after(attempt: Attempt, expensive: bool, state: FastState) -> DisplacementReuse:
    """How well slopes predict steps, after an accepted step with a measurement."""
    direction, line, result = attempt.candidate.direction, attempt.line, attempt.result
    if direction.fallback:
        return state.reuse.measured(0.0)
    share, projected = share_of_slope(line, line.slopes, result.step, result.losses), 0.0
    if expensive and share > 0:
        slopes = direction.slopes(projected_displacement(direction).parts).total
        projected = share_of_slope(line, slopes, result.step, result.losses) if slopes.min() > 0 else 0.0
    return state.reuse.measured(share, projected)
