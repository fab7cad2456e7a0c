"""Search spaces of options: plain values that a method or an optimizer declares."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Range:
    """Numbers from ``low`` to ``high``, both included.

    Args:
        low: the smallest.
        high: the largest, above ``low``.
        log: distributed uniformly in the logarithm; ``low`` is then above 0.
        whole: whole numbers only.

    Raises:
        ValueError: bounds that are not finite or not in order, not positive for ``log``, or not whole for ``whole``.

    Example:
        >>> space = {"lr": Range(1e-4, 1e-1, log=True), "window": Range(5, 100, whole=True)}
        >>> space["lr"].high
        0.1
    """

    low: float
    high: float
    log: bool = False
    whole: bool = False

    def __post_init__(self) -> None:
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.low < self.high):
            raise ValueError(f"a range is from a finite number to a larger one, got {self.low} to {self.high}")
        if self.log and self.low <= 0:
            raise ValueError(f"a logarithmic range begins above 0, got {self.low}")
        if self.whole and not (float(self.low).is_integer() and float(self.high).is_integer()):
            raise ValueError(f"a range of whole numbers has whole bounds, got {self.low} to {self.high}")


@dataclass(frozen=True)
class Choice:
    """One of several plain values.

    Args:
        values: strings, numbers, booleans or None; two or more, all different.

    Raises:
        ValueError: fewer than two, or repeated.
    """

    values: tuple[str | int | float | bool | None, ...]

    def __post_init__(self) -> None:
        if len(self.values) < 2 or len(set(map(repr, self.values))) < len(self.values):
            raise ValueError(f"a choice is between two or more different values, got {self.values}")


@dataclass(frozen=True)
class PerTask:
    """A positive number for each task: an option that is a mapping by task name, such as the weights of ``Static``.

    Every number is drawn from ``range`` independently; then all are multiplied by one factor so that they sum to T: the search
    is over the ratios of the tasks, and the learning rate is searched separately.

    Args:
        range: of each number before the multiplication; above 0.

    Raises:
        ValueError: a range with numbers of 0 or below.
    """

    range: Range

    def __post_init__(self) -> None:
        if self.range.low <= 0:
            raise ValueError(f"numbers per task are positive, got a range that begins at {self.range.low}")


SearchSpace = Mapping[str, Range | Choice | PerTask]  # by the name of the option
