"""Order of the rows of a table that has a row for each treatment."""

from __future__ import annotations

import dataclasses

from paretorch.reports.analysis.summary import Summary, ordered
from paretorch.reports.tables.tables import Table

MOST_IN_STUDY_ORDER = 12  # treatments; more are sorted, as a reader no longer finds the best among them


def best_first(table: Table, summary: Summary) -> Table:
    """The table with the lowest mean Delta m first, if treatments are many; otherwise, and without such rows, unchanged.

    Args:
        table: that names a treatment in its first column; a treatment may have several rows, which stay in their order.
        summary: of the workload.
    """
    place = {label: i for i, label in enumerate(ordered(summary))}
    if len(place) <= MOST_IN_STUDY_ORDER or any(row[0] not in place for row in table.rows):
        return table
    return dataclasses.replace(table, rows=tuple(sorted(table.rows, key=lambda row: place[row[0]])))
