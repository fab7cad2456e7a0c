"""Values of a line search: outcomes, slopes, losses along a direction, results. Start reading here.

A search works on the losses of all tasks along one direction: each task's loss, its slope, and the losses at any step. It
does not depend on the method that made the direction, on the cost of a trial, or on the model. Below, ``T`` is the number of
tasks that are present in the step and ``all`` the number of declared tasks.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from paretorch.core.arrays import EPS, Array
from paretorch.core.contract import Balance


class SearchOutcome(enum.Enum):
    """How a step ended."""

    ACCEPTED = "accepted"
    STATIONARY = "stationary"  # no direction decreases every task's loss to first order; the parameters are unchanged
    NOISE = "noise"  # the required decrease is below the rounding of the losses; the parameters are unchanged
    REJECTED = "rejected"  # no step that was tried fulfils the condition; the parameters are unchanged
    ABSENT = "absent"  # no task is present


@dataclass(frozen=True)
class Slopes:
    """(T,) rates at which the losses decrease along a direction: the parts of the heads' and of the shared parameters.

    Args:
        heads: (T,) from the heads' parameters.
        features: (T,) from the shared parameters.
    """

    heads: Array
    features: Array

    @property
    def total(self) -> Array:
        """(T,) the sum of both."""
        return self.heads + self.features

    @property
    def all_positive(self) -> bool:
        """Whether every loss decreases to first order."""
        return bool((self.total > 0).all())

    def required_decrease(self, accept: str) -> Array:
        """(T,) the part of the slopes of which a share is required as decrease, between 0 and the total slope."""
        part = {"both": self.total, "heads": self.heads, "features": self.features}[accept]
        return np.clip(part, 0.0, np.maximum(self.total, 0.0))


@dataclass(frozen=True)
class StepLine:
    """The tasks' losses along one direction.

    Args:
        tasks: (T,) names.
        positions: (T,) indices of these among the declared tasks, for states that are kept per task.
        losses: (T,) at step 0.
        slopes: (T,) -dL_t/dstep at step 0, all above 0.
        required: (T,) the part of the slopes of which a share is required as decrease.
        losses_at: (T,) losses at a step; nan or inf where a loss is not finite.
        resolution: relative spacing of the numbers in which the losses are computed.
    """

    tasks: tuple[str, ...]
    positions: tuple[int, ...]
    losses: Array
    slopes: Array
    required: Array
    losses_at: Callable[[float], Array]
    resolution: float = EPS

    def is_resolvable(self, step: float) -> NDArray[np.bool_]:
        """(T,) whether the decrease predicted by the slope at a step exceeds the rounding of the loss."""
        return step * self.slopes > self.rounding

    def slack(self, step: float) -> Array:
        """(T,) tolerance of the condition: the rounding of a loss whose decrease is not resolvable while another's is."""
        resolvable = self.is_resolvable(step)
        return np.where(resolvable, 0.0, self.rounding) if resolvable.any() else np.zeros(len(resolvable))

    @property
    def rounding(self) -> Array:
        """(T,) bound on the rounding error of the difference of two losses."""
        return 2 * self.resolution * np.abs(self.losses)


@dataclass(frozen=True)
class SearchResult:
    """Result of the trials along a :class:`StepLine`.

    Args:
        outcome: accepted, or why no step is taken.
        step: multiplier of the direction; 0 where no step is taken.
        losses: (T,) at that step, as computed by the trial; at step 0 where no step is taken.
        trials: number of steps that were tried.
        first: whether the first trial was accepted, so that the bound limits the step and not the condition.
        worst: of a refusal, the index among the T tasks of the one that prevents the step.
        smallest: of a step too short to change any parameter, the length that it must exceed; else 0.
    """

    outcome: SearchOutcome
    step: float
    losses: Array
    trials: int
    first: bool = False
    worst: int = 0
    smallest: float = 0.0

    @property
    def accepted(self) -> bool:
        """Whether a step was accepted."""
        return self.outcome is SearchOutcome.ACCEPTED


@dataclass(frozen=True)
class Step:
    """Result of one step of a line search.

    Args:
        outcome: accepted, or why the parameters are unchanged.
        step: multiplier of the direction; 0 where the parameters are unchanged.
        bound: largest step that was allowed.
        trials: number of evaluations of the losses along the direction.
        first: whether the first trial was accepted.
        losses: by task, before the step, without a graph.
        slopes: by task, predicted decrease per unit of step.
        predicted: by task, loss at the accepted trial; with a displacement it predicts the true loss.
        actual: by task, loss of a forward of the whole model after the step, in steps that are verified; else empty.
        fallback: why the direction was replaced by the common descent direction; empty where it was not.
        reason: why the parameters are unchanged; empty where they moved.
        lowered: why the bound was decreased at this step; empty where it was not.
        balance: result of the balancing method.
    """

    outcome: SearchOutcome
    step: float
    bound: float
    trials: int
    first: bool
    losses: Mapping[str, Tensor]
    slopes: Mapping[str, float] = field(default_factory=dict)
    predicted: Mapping[str, float] = field(default_factory=dict)
    actual: Mapping[str, float] = field(default_factory=dict)
    fallback: str = ""
    reason: str = ""
    lowered: str = ""
    balance: Balance | None = None

    @property
    def accepted(self) -> bool:
        """Whether the parameters moved."""
        return self.outcome is SearchOutcome.ACCEPTED
