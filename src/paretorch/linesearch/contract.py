"""What a search sees and what it answers. Read this page first.

A search sees, for every task, the loss, its slope along a direction and the loss at any step along it. It never learns which
method made the direction, whether a trial costs a whole forward or the heads' alone, nor what is being trained. Below ``T`` is
the number of tasks that take part in this step and ``all`` the number of declared ones.
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


class Outcome(enum.Enum):
    """How a step ended."""

    ACCEPTED = "accepted"
    STATIONARY = "stationary"  # no direction lowers every task to first order: nothing moved
    NOISE = "noise"  # the decrease asked for is below what the losses' numbers can show: nothing moved
    REJECTED = "rejected"  # no step down to the floor fulfilled the condition: nothing moved
    ABSENT = "absent"  # no task was present


@dataclass(frozen=True)
class Slopes:
    """(T,) how fast each task falls along a direction: by what its head's parameters do, and by what the shared ones do."""

    heads: Array
    features: Array

    @property
    def total(self) -> Array:
        """(T,) both."""
        return self.heads + self.features

    def asked(self, accept: str) -> Array:
        """(T,) the part of which a share is asked as decrease; never a rise, nor more than all that the task falls."""
        part = {"both": self.total, "heads": self.heads, "features": self.features}[accept]
        return np.clip(part, 0.0, np.maximum(self.total, 0.0))


@dataclass(frozen=True)
class Line:
    """The tasks' losses along one direction, as a search sees them.

    Args:
        tasks: (T,) names.
        places: (T,) where they stand among the declared tasks; a search with memory per task indexes it with these.
        losses: (T,) at step 0.
        slopes: (T,) -dL_t/dstep at step 0, all above 0.
        asked: (T,) the part of the slopes of which the search asks a share as decrease.
        at: (T,) losses at a step; nan or inf where they are not finite.
        resolution: relative spacing of the numbers that the losses are computed in.
    """

    tasks: tuple[str, ...]
    places: tuple[int, ...]
    losses: Array
    slopes: Array
    asked: Array
    at: Callable[[float], Array]
    resolution: float = EPS

    def shown(self, step: float) -> NDArray[np.bool_]:
        """(T,) whether a loss, as it is rounded, can show the decrease that its slope promises at a step."""
        return step * self.slopes > self.rounding

    def slack(self, step: float) -> Array:
        """(T,) by what a loss may miss its decrease: its rounding, where it cannot show one and another task's can."""
        shown = self.shown(step)
        return np.where(shown, 0.0, self.rounding) if shown.any() else np.zeros(len(shown))

    @property
    def rounding(self) -> Array:
        """(T,) by what the difference of two losses may be off, each as it is rounded."""
        return 2 * self.resolution * np.abs(self.losses)


@dataclass(frozen=True)
class Found:
    """What a search answers.

    Args:
        outcome: accepted, or why no step is taken.
        step: the step along the direction; 0 where none is taken.
        losses: (T,) at that step, as the trials computed them; those at step 0 where none is taken.
        trials: how many steps were tried.
        first: whether the first trial was accepted, so that the bound and not the condition limited the step.
        worst: of a refusal, the place among the T tasks of the one that stood in the way.
        least: of a step so short that the parameters, as they are rounded, would not move: what it is too short for; else 0.
    """

    outcome: Outcome
    step: float
    losses: Array
    trials: int
    first: bool = False
    worst: int = 0
    least: float = 0.0


@dataclass(frozen=True)
class Step:
    """What a step of a line search came to.

    Args:
        outcome: accepted, or why nothing moved.
        step: by which the direction was multiplied; 0 where nothing moved.
        bound: the largest step that was allowed.
        trials: losses evaluated along the direction.
        first: whether the first trial was accepted.
        losses: by task, before the step, without a graph.
        slopes: by task, the decrease per unit of step that was promised.
        predicted: by task, the loss that the accepted trial saw; with a displacement it is a prediction of the true one.
        actual: by task, the loss of a true forward after the step, in the steps that were verified; else empty.
        fallback: why the direction was replaced by the common descent direction; empty where it was not.
        reason: in words, why nothing moved; empty where something did.
        lowered: why the bound was lowered at this step; empty where it was not.
        balance: what the method said.
    """

    outcome: Outcome
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
        return self.outcome is Outcome.ACCEPTED
