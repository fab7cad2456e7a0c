"""What the tasks' losses are divided by where one is so much more curved than the others that it alone would set the step."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from paretorch.core.arrays import Array
from paretorch.linesearch.contract import Found, Line

KEPT = 0.8  # of the past, in the moving mean of the logarithms
FEWEST = 5  # curvatures of a task before its loss is divided
TURN = 2.0  # doublings by which the curvatures must have moved before the divisors do
SHOWN = 64.0  # units of rounding that a curvature must show


class UnitsState(NamedTuple):
    """What is known of the tasks' curvatures.

    Args:
        logs: (all,) moving mean of the logarithm to base 2 of each task's curvature along the steps, up to a constant that
            all share; nan where none was seen.
        seen: (all,) how many were.
        exponents: (all,) losses are divided by 2 to these.
    """

    logs: Array
    seen: Array
    exponents: Array


@dataclass(frozen=True)
class Units:
    r"""Divisors that bring the tasks' curvatures within a factor of each other.

    .. math:: \kappa_t = \frac{2}{\eta^2} \big(L_t(\eta) - L_t + \eta s_t\big), \qquad
              c_t = \max\Big(1, \frac{\kappa_t}{\text{imbalance} \cdot \min_s \kappa_s}\Big)

    with kappa read off the loss, slope and accepted trial of each step, averaged over steps, and c rounded to a power of two.
    A direction on which all tasks must agree falls as fast for each of them: of two losses in units a thousand times apart, the
    larger allows steps a thousand times shorter than the other needs. Dividing a loss by a positive number changes neither
    which points are Pareto critical nor which steps fulfil Armijo's condition.

    Args:
        imbalance: what is left as it is, at least 1; inf: everything.

    Raises:
        ValueError: a value out of range.

    References:
        Chen, Tang & Yang, "A Barzilai-Borwein descent method for multiobjective optimization problems", European Journal of
        Operational Research 2023, who divide every gradient by the curvature along the last step. We divide only what is
        beyond ``imbalance``, so that balanced tasks are weighed as the method says, and average, since batches differ.
    """

    imbalance: float = 10.0

    def __post_init__(self) -> None:
        if not self.imbalance >= 1:
            raise ValueError(f"imbalance is a ratio of curvatures, at least 1, or inf, got {self.imbalance}")

    def init(self, tasks: int) -> UnitsState:
        """The state before the first step."""
        return UnitsState(np.full(tasks, np.nan), np.zeros(tasks), np.zeros(tasks))

    def after(self, state: UnitsState, line: Line, found: Found) -> UnitsState:
        """The state after an accepted step."""
        places = np.array(line.places)
        curved = found.losses - line.losses + found.step * line.slopes
        told = curved > SHOWN * line.resolution * np.maximum(np.abs(line.losses), np.abs(found.losses))
        # A loss so small beside the others that nothing shows at their steps: were its least value zero, a parabola with its
        # slope would be at least as curved as this.
        least = np.square(found.step * line.slopes) / (4 * np.abs(line.losses)).clip(1e-300)
        roughly = ~told & (state.seen[places] < FEWEST) & ~line.shown(found.step) & (line.slopes > 0)
        curved, told = np.where(roughly, least, curved), told | roughly & (least > 0)
        if math.isinf(self.imbalance) or not told.any():
            return state
        new, places = np.log2(curved[told]), places[told]
        old = state.logs[places]
        known = np.isfinite(old)
        if known.any():  # steps differ in length and direction: only what tasks are to each other is kept
            new = new + float((old - new)[known].mean())
        logs, seen = state.logs.copy(), state.seen.copy()
        logs[places] = np.where(known, KEPT * np.where(known, old, 0.0) + (1 - KEPT) * new, new)
        seen[places] += 1
        return UnitsState(logs, seen, self._exponents(logs, seen, state.exponents))

    def _exponents(self, logs: Array, seen: Array, before: Array) -> Array:
        enough = seen >= FEWEST
        if enough.sum() < 2:
            return before
        beyond = logs - logs[enough].min() - math.log2(self.imbalance)
        wanted = np.where(enough, np.fmax(np.round(beyond), 0.0), 0.0)
        # a division that is no longer needed goes as soon as it is as far off as one that is missing
        return wanted if (np.abs(wanted - before) >= TURN).any() else before
