"""What was expected before anything was measured, held against what was: inside or outside. Never a result."""

from __future__ import annotations

import math

from paretorch.reports.findings.summary import Summary
from paretorch.reports.reading.load import Array
from paretorch.reports.tables.numbers import mean_interval, number
from paretorch.reports.tables.tables import Table
from paretorch.studies.statistics.quality import seed_mean
from paretorch.studies.study import Expected

DEFINITION = (
    "means on test data against ranges that were written down before anything was measured, which are no results"
)


def expected_table(summary: Summary) -> Table:
    """A line for each range that the study expected; no lines where it expected nothing."""
    study = summary.results.plan.study
    rows = []
    for found in study.expected:
        values = measured(summary, found)
        if values is not None:
            where = placed(found, values)
            ends = f"{number(found.low)} to {number(found.high)}"
            cell = mean_interval(values, summary.level)
            rows.append((found.label, f"{found.task} {found.metric}", ends, cell, where))
    notes = (
        "expected: a range that was written down with the study before anything was measured; it is no result.",
        "measured: the mean on test data; inside or outside is said of the mean.",
    )
    return Table(
        "Expected and measured",
        ("treatment", "metric", "expected", "measured", "verdict"),
        tuple(rows),
        notes,
        left=(1, 4),
    )


def expected_sentence(summary: Summary) -> str:
    """How many ranges hold what was measured, and which do not; empty where nothing was expected."""
    ranges = [(found, measured(summary, found)) for found in summary.results.plan.study.expected]
    said = [(found, placed(found, values)) for found, values in ranges if values is not None]
    inside = sum(where == "inside" for _, where in said)
    outside = [f"{found.label} {found.task} {found.metric} ({where})" for found, where in said if where != "inside"]
    rest = f"; not: {'; '.join(outside)}." if outside else "."
    return f"{inside} of {len(said)} inside{rest}" if said else ""


def measured(summary: Summary, expected: Expected) -> Array | None:
    """(S,) what a range was expected of, on test data; None where this workload has no such metric."""
    places = [k for k, m in enumerate(summary.results.metrics) if (m.task, m.name) == (expected.task, expected.metric)]
    row = summary.rows.get(expected.label)
    return None if row is None or not places else row.results.test[:, places[0]]


def placed(expected: Expected, values: Array) -> str:
    """Inside, below, above, or not measured."""
    mean = seed_mean(values)
    if math.isnan(mean):
        return "not measured"
    if expected.low <= mean <= expected.high:
        return "inside"
    return f"outside, {'below' if mean < expected.low else 'above'}"
