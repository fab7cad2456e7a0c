"""Why a search took no step, in words that name the task and the cure."""

from __future__ import annotations

import math

from paretorch.linesearch.contract import Found, Line, Outcome


def why_not(line: Line, found: Found, bound: float, floor: float) -> str:
    """The sentence of a step in which nothing moved.

    Args:
        line: what was searched on.
        found: the refusal.
        bound: the largest step that was allowed.
        floor: the part of it at which the search ended.
    """
    outcome = found.outcome
    worst = int(line.slopes.argmin()) if outcome is Outcome.STATIONARY else found.worst
    who = f"task {line.tasks[worst]!r} (loss {line.losses[worst]:.6g}, slope {line.slopes[worst]:.3g})"
    if outcome is Outcome.STATIONARY:
        return f"stationary: no direction was found that lowers every task; {who} stands in the way"
    if outcome is Outcome.NOISE and found.least:
        return (
            f"noise: {who} allows only steps below {found.least:.2g}, by which no parameter moves as it is rounded: keep the "
            "parameters in a wider dtype"
        )
    if outcome is Outcome.NOISE:
        return (
            f"noise: {who} cannot show the decrease that its slope promises at any step left to try, since its loss is "
            f"computed to a relative {line.resolution:.1g}: as good as stationary, or compute the losses in float64"
        )
    tried = f"{found.trials} steps from {bound:.3g} down to a {floor:.1g} part of it"
    if math.isnan(bound):
        tried = "the steps whose decrease its numbers can show"
    return (
        f"rejected: {who} did not fall as its slope promises at any of {tried}: "
        "is the loss a smooth function of the parameters, and the same at every call of losses_of?"
    )
