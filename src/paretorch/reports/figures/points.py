"""Treatments as points with intervals: for the trade-off plane, and for cost against quality."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from paretorch.reports.analysis.summary import Summary
from paretorch.reports.reading.load import Array
from paretorch.studies.statistics.paired import interval
from paretorch.studies.statistics.quality import seed_mean


@dataclass(frozen=True)
class Point:
    """A mean over seeds and its interval, which is None below 3 seeds; nan where there is no result."""

    mean: float
    low: float | None
    high: float | None
    each: Array


def metric_points(summary: Summary, k: int) -> tuple[Point, ...]:
    """Every treatment's k-th metric on test data."""
    return _points((row.results.test[:, k] for row in summary.rows.values()), summary.level)


def cost_points(summary: Summary) -> dict[str, tuple[Point, ...]]:
    """Every treatment's Delta m and what it cost, by name."""
    rows = list(summary.rows.values())
    level = summary.level
    return {
        "Δm": _points((row.delta_m for row in rows), level),
        "seconds per epoch": _points((row.results.seconds_per_epoch for row in rows), level),
        "seconds of all its runs, per seed": _points((_seconds(row.results.seconds) for row in rows), level),
        "peak memory (MiB)": _points((row.results.peak_memory / 2**20 for row in rows), level),
    }


def _seconds(values: Array) -> Array:
    """A seed without a run took no time, which says nothing."""
    return np.where(values > 0, values, np.nan)


def _points(values: Iterable[Array], level: float) -> tuple[Point, ...]:
    return tuple(point(each, level) for each in values)


def point(each: Array, level: float) -> Point:
    """The mean of (S,) values with its interval; seeds without a value are left out."""
    found = interval(each[np.isfinite(each)], level)
    low, high = (None, None) if found is None else (found.low, found.high)
    return Point(seed_mean(each), low, high, each)
