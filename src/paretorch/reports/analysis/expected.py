"""Expected ranges of a study, compared with the means on test data."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from paretorch.core.arrays import Array
from paretorch.reports.analysis.summary import Summary
from paretorch.studies.statistics.quality import seed_mean
from paretorch.studies.study import Expected


@dataclass(frozen=True)
class ExpectedRange:
    """A range that was written down with the study, before any measurement.

    Args:
        expected: the range.
        values: (S,) measured on test data.
        verdict: ``"inside"``, ``"outside, below"``, ``"outside, above"`` or ``"not measured"``.
    """

    expected: Expected
    values: Array
    verdict: str


def expected_ranges(summary: Summary) -> Iterator[ExpectedRange]:
    """The ranges for metrics and treatments of this workload."""
    metrics = [(metric.task, metric.name) for metric in summary.results.metrics]
    for expected in summary.results.plan.study.expected:
        row = summary.rows.get(expected.label)
        if row is not None and (expected.task, expected.metric) in metrics:
            values = row.results.test[:, metrics.index((expected.task, expected.metric))]
            yield ExpectedRange(expected, values, range_verdict(expected, values))


def range_verdict(expected: Expected, values: Array) -> str:
    """The position of the mean over (S,) seeds relative to the range."""
    mean = seed_mean(values)
    if math.isnan(mean):
        return "not measured"
    if expected.low <= mean <= expected.high:
        return "inside"
    return f"outside, {'below' if mean < expected.low else 'above'}"
