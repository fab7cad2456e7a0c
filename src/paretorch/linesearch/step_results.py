"""From a direction and its slopes to the result of a step, and the state after it."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from paretorch.core.arrays import Array
from paretorch.core.contract import Balance
from paretorch.linesearch.armijo.bound_search import updated_bound
from paretorch.linesearch.contract import SearchOutcome, SearchResult, Slopes, Step, StepLine
from paretorch.linesearch.parameter_line import ParameterLine, stationarity
from paretorch.linesearch.parts import SearchParts, SearchState, detached


def step_line(
    parts: SearchParts,
    state: SearchState,
    values: Mapping[str, float],
    slopes: Slopes,
    losses_at: Callable[[float], Array],
    resolution: float,
) -> StepLine:
    """The line of a search; ``resolution`` is that of :func:`~paretorch.linesearch.loss_values.resolution`."""
    return StepLine(
        tuple(values),
        state.positions(values),
        np.array(list(values.values())),
        slopes.total,
        slopes.required_decrease(parts.accept),
        losses_at,
        resolution,
    )


def with_bound(
    parts: SearchParts, state: SearchState, line: StepLine, true_line: Callable[[], StepLine | None]
) -> tuple[SearchResult | None, SearchState]:
    """A refusal if no bound is found, else None; and the state with the bound of this step, found or reviewed if necessary."""
    before = state.bound.bound
    bound, refusal = updated_bound(parts.rules, parts.bound, state.bound, line, true_line)
    state = state._replace(bound=bound)
    if refusal is None and math.isfinite(before):
        state = state._replace(rules=state.rules._replace(last=state.rules.last * bound.bound / before))
    return refusal, state


def satisfies_rules(parts: SearchParts, state: SearchState, line: StepLine, step: float, losses: Array) -> bool:
    """Whether the losses at a step fulfil the condition for every task."""
    return bool((parts.rules.violation(line, state.rules, step, losses) <= 0).all())


def absent_step(state: SearchState, losses: Mapping[str, Tensor]) -> tuple[Step, SearchState]:
    """The result of a batch without any task."""
    bound = state.bound.bound if state.tasks else math.nan
    reason = "no task was present in this batch"
    return _counted(Step(SearchOutcome.ABSENT, 0.0, bound, 0, False, detached(losses), reason=reason), state)


def refused_step(
    parts: SearchParts,
    state: SearchState,
    result: SearchResult,
    line: StepLine,
    losses: Mapping[str, Tensor],
    fallback: str,
    balance: Balance | None,
) -> tuple[Step, SearchState]:
    """The result of a step that leaves the parameters unchanged; the first rejected one of a search warns."""
    reason = refusal(line, result, state.bound.bound, parts.rules.floor)
    step = _step(state, result, line, losses, fallback, balance, reason=reason)
    if result.outcome is SearchOutcome.REJECTED and not state.warned:
        state = state._replace(warned=True)
        warnings.warn(reason, stacklevel=4)
    if result.outcome is SearchOutcome.NOISE and result.trials == 1:
        state = state.forget_bound()  # the decrease at the bound is not resolvable
    return _counted(step, state)


def accepted_step(
    parts: SearchParts,
    state: SearchState,
    result: SearchResult,
    line: StepLine,
    losses: Mapping[str, Tensor],
    fallback: str,
    balance: Balance | None,
    actual: Mapping[str, float],
    moved: Sequence[ParameterLine],
    measured: bool = True,
) -> tuple[Step, SearchState]:
    """The result of an accepted step; ``measured``: whether the displacement was, so that curvatures are known."""
    before = np.full(len(state.tasks), np.nan)
    before[list(line.positions)] = line.losses
    motion = stationarity(moved, result.step) if parts.bound.rule == "sasa" else math.nan
    bound, lowered = parts.bound.after(state.bound, before, result.first, motion)
    bound = parts.bound.at_bound(bound, result.step, result.first)
    scaling = parts.scaling.after(state.scaling, line, result) if measured else state.scaling
    after = state._replace(bound=bound, scaling=scaling)
    if (scaling.exponents != state.scaling.exponents).any():
        after = after.forget_bound()  # it belongs to the former directions
    predicted = dict(zip(line.tasks, result.losses.tolist(), strict=True))
    step = _step(state, result, line, losses, fallback, balance, predicted=predicted, actual=actual, lowered=lowered)
    return _counted(step, after)


def _step(
    state: SearchState,
    result: SearchResult,
    line: StepLine,
    losses: Mapping[str, Tensor],
    fallback: str,
    balance: Balance | None,
    **details: Any,
) -> Step:
    """What accepted and refused steps have in common, and the fields that only one of them has."""
    slopes = dict(zip(line.tasks, line.slopes.tolist(), strict=True))
    taken = result.outcome, result.step, state.bound.bound, result.trials, result.first
    return Step(*taken, detached(losses), slopes, fallback=fallback, balance=balance, **details)


def _counted(step: Step, state: SearchState) -> tuple[Step, SearchState]:
    return step, state._replace(steps=state.steps + 1, previous_bound=step.bound)


def refusal(line: StepLine, result: SearchResult, bound: float, floor: float) -> str:
    """The reason why a step leaves the parameters unchanged."""
    outcome = result.outcome
    worst = int(line.slopes.argmin()) if outcome is SearchOutcome.STATIONARY else result.worst
    task = f"task {line.tasks[worst]!r} (loss {line.losses[worst]:.6g}, slope {line.slopes[worst]:.3g})"
    if outcome is SearchOutcome.STATIONARY:
        return f"stationary: no direction was found that decreases every task's loss; it is prevented by {task}"
    if outcome is SearchOutcome.NOISE and result.smallest:
        return (
            f"noise: {task} permits only steps below {result.smallest:.2g}, at which rounding leaves every parameter unchanged, "
            "so that no parameter moves: keep the parameters in a wider dtype"
        )
    if outcome is SearchOutcome.NOISE:
        return (
            f"noise: the decrease that the slope of {task} predicts is below the rounding of the loss at every step left to try, "
            f"which is a relative {line.resolution:.1g}: the point is stationary to rounding; or compute the losses in float64"
        )
    tried = f"{result.trials} steps from {bound:.3g} down to a {floor:.1g} part of it"
    if math.isnan(bound):
        tried = "the steps whose decrease is resolvable"
    return (
        f"rejected: {task} did not decrease as its slope predicts at any of {tried}: "
        "is the loss a smooth function of the parameters, and the same at every call of losses_of?"
    )
