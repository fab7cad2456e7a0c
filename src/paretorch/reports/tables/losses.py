"""Losses on test data: of each task, and of all together."""

from __future__ import annotations

import numpy as np

from paretorch.reports.analysis.formatting import mean_interval
from paretorch.reports.analysis.summary import Summary
from paretorch.reports.tables.tables import Table

MOST_TASKS = 6  # with a column each; of more tasks the table has the sum alone


def loss_table(summary: Summary) -> Table:
    """Mean losses on test data by task, and their sum; no rows without a measurement."""
    tasks = summary.results.tasks if len(summary.results.tasks) <= MOST_TASKS else ()
    rows = tuple(
        (
            label,
            *(mean_interval(row.results.test_losses[:, k], summary.level) for k in range(len(tasks))),
            mean_interval(row.results.combined_test_losses, summary.level),
        )
        for label, row in summary.rows.items()
        if np.isfinite(row.results.test_losses).any()
    )
    header = ("treatment", *(f"{task} loss\u00a0↓" for task in tasks), "combined loss\u00a0↓")
    notes = (
        "Losses as the workload defines them (cross-entropy for classification), means over the test set.",
        "combined: the sum over tasks, without weights, independent of the method.",
    )
    return Table("Losses on test data", header, rows, notes)
