"""Divisors of the tasks' losses, for tasks of very different curvature."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from paretorch.core.arrays import Array
from paretorch.core.option_checks import is_number
from paretorch.linesearch.contract import SearchResult, StepLine

PAST = 0.8  # weight of the past in the moving mean of the logarithms
FEWEST = 5  # curvatures of a task before its loss is divided
TURN = 2.0  # doublings by which the wanted divisors must differ before they change
RESOLVABLE = 64.0  # units of rounding that a curvature must exceed


class LossScalingState(NamedTuple):
    """Estimates of the tasks' curvatures.

    Args:
        logs: (all,) moving mean of the logarithm to base 2 of each task's curvature along the steps, up to a constant that
            all tasks share; nan where there is none.
        counts: (all,) number of curvatures.
        exponents: (all,) the losses are divided by 2 to these.
    """

    logs: Array
    counts: Array
    exponents: Array


@dataclass(frozen=True)
class LossScaling:
    r"""Divisors of the losses that bring the tasks' curvatures within a factor of each other.

    .. math:: \kappa_t = \frac{2}{\eta^2} \big(L_t(\eta) - L_t + \eta s_t\big), \qquad
              c_t = \max\Big(1, \frac{\kappa_t}{\text{imbalance} \cdot \min_s \kappa_s}\Big)

    with kappa from the loss, slope and accepted trial of each step, averaged over steps, and c rounded to a power of two.
    A common descent direction decreases every loss at the same rate: of two losses in units a thousand times apart, the
    larger permits steps a thousand times shorter than the other needs. Dividing a loss by a positive number changes neither
    which points are Pareto critical nor which steps fulfil Armijo's condition.

    Args:
        imbalance: ratio of curvatures that is not corrected, at least 1; inf: none is.

    Raises:
        ValueError: a value is out of range.

    References:
        Chen, Tang & Yang, "A Barzilai-Borwein descent method for multiobjective optimization problems", European Journal of
        Operational Research 2023, who divide every gradient by the curvature along the last step. We divide only by what
        exceeds ``imbalance``, so that balanced tasks keep the method's weights, and average, since batches differ.
    """

    imbalance: float = 10.0

    def __post_init__(self) -> None:
        if not (is_number(self.imbalance) and self.imbalance >= 1):
            raise ValueError(f"imbalance is a ratio of curvatures, at least 1, or inf, got {self.imbalance}")

    def init(self, tasks: int) -> LossScalingState:
        """The state before the first step."""
        return LossScalingState(np.full(tasks, np.nan), np.zeros(tasks), np.zeros(tasks))

    def after(self, state: LossScalingState, line: StepLine, result: SearchResult) -> LossScalingState:
        """The state after an accepted step."""
        positions = np.array(line.positions)
        curvatures = result.losses - line.losses + result.step * line.slopes
        sizes = np.maximum(np.abs(line.losses), np.abs(result.losses))
        known = curvatures > RESOLVABLE * line.resolution * sizes
        # A loss so much smaller than the others that its change at their steps is not resolvable: if its minimum were zero, the
        # curvature of a parabola with its slope would be at least this.
        least = np.square(result.step * line.slopes) / (4 * np.abs(line.losses)).clip(1e-300)
        roughly = ~known & (state.counts[positions] < FEWEST) & ~line.is_resolvable(result.step) & (line.slopes > 0)
        curvatures, known = np.where(roughly, least, curvatures), known | roughly & (least > 0)
        if math.isinf(self.imbalance) or not known.any():
            return state
        new, positions = np.log2(curvatures[known]), positions[known]
        old = state.logs[positions]
        past = np.isfinite(old)
        if past.any():  # steps differ in length and direction: only the ratios between tasks are averaged
            new = new + float((old - new)[past].mean())
        logs, counts = state.logs.copy(), state.counts.copy()
        logs[positions] = np.where(past, PAST * np.where(past, old, 0.0) + (1 - PAST) * new, new)
        counts[positions] += 1
        return LossScalingState(logs, counts, self._exponents(logs, counts, state.exponents))

    def _exponents(self, logs: Array, counts: Array, before: Array) -> Array:
        enough = counts >= FEWEST
        if enough.sum() < 2:
            return before
        excess = logs - logs[enough].min() - math.log2(self.imbalance)
        wanted = np.where(enough, np.fmax(np.round(excess), 0.0), 0.0)
        # a divisor changes in either direction only where it differs by TURN doublings
        return wanted if (np.abs(wanted - before) >= TURN).any() else before
