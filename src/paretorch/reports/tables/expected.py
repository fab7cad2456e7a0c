"""Table of expected ranges and measured means."""

from __future__ import annotations

from paretorch.reports.analysis.expected import expected_ranges
from paretorch.reports.analysis.formatting import mean_interval, number
from paretorch.reports.analysis.summary import Summary
from paretorch.reports.tables.tables import Table


def expected_table(summary: Summary) -> Table:
    """One row for each expected range; no rows if the study expects nothing."""
    rows = tuple(
        (
            found.expected.label,
            f"{found.expected.task} {found.expected.metric}",
            f"{number(found.expected.low)} to {number(found.expected.high)}",
            mean_interval(found.values, summary.level),
            found.verdict,
        )
        for found in expected_ranges(summary)
    )
    notes = (
        "expected: a range that was written down with the study before any measurement; it is not a result.",
        "measured: the mean on test data. The verdict refers to the mean.",
    )
    header = ("treatment", "metric", "expected", "measured", "verdict")
    return Table("Expected and measured", header, rows, notes, left=(1, 4))
