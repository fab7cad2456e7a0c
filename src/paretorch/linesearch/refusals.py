"""What a search refuses: options out of range, and in which words it says why it took no step."""

from __future__ import annotations

import math
from typing import Any

import torch.distributed as dist
from torch import nn

from paretorch.core import checks
from paretorch.core.contract import Method
from paretorch.linesearch.contract import Found, Line, Outcome

ACCEPTS = ("both", "heads", "features")


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


def check_method(method: Method[Any]) -> None:
    """The method needs one batch, before the step alone.

    Raises:
        ValueError: it does not.
    """
    if method.batches > 1 or method.observes:
        raise ValueError(
            f"a line search takes a method that needs one batch before the step, {method} does not: use it in a Fork or Balancer"
        )


def check_search(encoder: object, max_step: float | None, verify: int, accept: str, scale: str) -> None:
    """The options of a search are in range, and it runs in one process.

    Raises:
        ValueError: the message says what was expected.
    """
    if max_step is not None and not (max_step > 0 and math.isfinite(max_step)):
        raise ValueError(f"max_step is the largest step, above 0, or None to find it; got {max_step}")
    if verify < 0:
        raise ValueError(f"verify is a number of steps, 0 for never, got {verify}")
    checks.one_of("accept", accept, ACCEPTS)
    checks.one_of("scale", scale, ("calibrated", "paper"))
    if not isinstance(encoder, nn.Module):
        raise ValueError(f"encoder is a module, got {type(encoder).__name__}")
    if dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
        raise ValueError(
            "a line search on several ranks would accept another step on each of them: train in one process, or with a "
            "fixed step and a Fork"
        )
