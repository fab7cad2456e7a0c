"""Formatting of numbers, intervals and names in tables and sentences."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from paretorch.studies.statistics.paired import Comparison, Interval, Verdict, interval
from paretorch.studies.statistics.quality import seed_mean

ROUNDING = 1e-12  # relative width of an interval of equal values
MOST_NAMED = 6  # names in one sentence; further ones are counted


def number(value: float, digits: int = 4, signed: bool = False) -> str:
    """A number with the given significant digits; a dash for nan.

    Example:
        >>> number(0.95377), number(-12.0, 3), number(3.0, 2, signed=True), number(float("nan")), number(-0.0)
        ('0.9538', '-12.0', '+3.0', '-', '0')
    """
    if math.isnan(value):
        return "-"
    if value == 0 or math.isinf(value):
        return f"{value + 0.0:g}"  # adding 0.0 turns -0.0 into 0.0
    places = max(0, digits - 1 - math.floor(math.log10(abs(value))))
    return f"{value:{'+' if signed else ''}.{places}f}"


def points(value: float) -> str:
    """Percentage points with their sign and two places; a dash for nan.

    Example:
        >>> points(-3.104), points(-0.0001), points(float("nan"))
        ('-3.10', '+0.00', '-')
    """
    return "-" if math.isnan(value) else f"{round(value, 2) + 0.0:+.2f}"  # adding 0.0 turns -0.0 into 0.0


def signed_interval(comparison: Comparison) -> str:
    """A mean difference in percentage points and its interval, ``-3.10 [-4.20, -2.00]``; a dash if withheld."""
    if math.isnan(comparison.difference):
        return "-"
    if comparison.interval is None:
        return f"{points(comparison.difference)} [-]"
    ends = f"{points(comparison.interval.low)}, {points(comparison.interval.high)}"
    return f"{points(comparison.difference)} [{ends}]"


def mean_interval(values: ArrayLike, level: float = 0.95) -> str:
    """The mean over (S,) seeds and its interval, to two digits of the half width; the mean alone if the interval is withheld.

    Example:
        >>> mean_interval([0.81, 0.82, 0.84]), mean_interval([0.81, float("nan")]), mean_interval([])
        ('0.823 [0.785, 0.861]', '0.8100', '-')
    """
    finite = np.asarray(values, float)
    finite = finite[np.isfinite(finite)]
    found = interval(finite, level)
    if found is None:
        return number(seed_mean(finite))
    places = _places(found)
    return f"{finite.mean():z.{places}f} [{found.low:z.{places}f}, {found.high:z.{places}f}]"


def _places(found: Interval) -> int:
    """Decimal places: for two digits of the interval's half width, unless that is the rounding of equal values."""
    if not found.high - found.low > ROUNDING * max(abs(found.low), abs(found.high)):
        return 3
    return max(0, 1 - math.floor(math.log10((found.high - found.low) / 2)))


def metric_interval(comparison: Comparison, higher_is_better: bool) -> str:
    """A metric's mean difference and interval in its own unit; ``*`` marks better, ``†`` worse.

    Args:
        comparison: with the sign that makes lower better, as in all comparisons.
        higher_is_better: the metric's direction; the result has this sign.
    """
    if math.isnan(comparison.difference):
        return "-"
    sign = -1.0 if higher_is_better else 1.0
    mean = sign * comparison.difference
    if comparison.interval is None:
        return f"{number(mean, 3, signed=True)} [-]"
    low, high = sorted((sign * comparison.interval.low, sign * comparison.interval.high))
    places = _places(comparison.interval)
    mark = {Verdict.BETTER: " *", Verdict.WORSE: " †"}.get(comparison.verdict, "")
    # Adding 0.0 turns -0.0 into 0.0.
    shown = [f"{round(value, places) + 0.0:+.{places}f}" for value in (mean, low, high)]
    return f"{shown[0]} [{shown[1]}, {shown[2]}]{mark}"


def join_names(labels: Sequence[str]) -> str:
    """Names joined by commas and "and"; of many names, the first ones and the number of the others.

    Example:
        >>> join_names(["a", "b", "c"]), join_names("abcdefgh")
        ('a, b and c', 'a, b, c, d, e and 3 more')
    """
    if len(labels) > MOST_NAMED:
        labels = [*labels[: MOST_NAMED - 1], f"{len(labels) - MOST_NAMED + 1} more"]
    comma = "; " if any("," in label for label in labels) else ", "
    return labels[0] if len(labels) == 1 else f"{comma.join(labels[:-1])} and {labels[-1]}"


def seed_count(seeds: int) -> str:
    """A number of seeds in words: ``1 seed``, ``5 seeds``."""
    return f"{seeds} {'seed' if seeds == 1 else 'seeds'}"


def short_titles(titles: Sequence[str]) -> list[str]:
    """Titles of workloads without their options, where the name alone distinguishes a workload from all others.

    Example:
        >>> short_titles(["digits(ink=True)", "tabular(table='a')", "tabular(table='b')"])
        ['digits', "tabular(table='a')", "tabular(table='b')"]
    """
    names = [title.partition("(")[0] for title in titles]
    return [name if names.count(name) == 1 else title for name, title in zip(names, titles, strict=True)]
