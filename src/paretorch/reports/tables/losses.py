"""Losses on test data: of each task, and of all together."""

from __future__ import annotations

import numpy as np

from paretorch.reports.analysis.formatting import mean_interval
from paretorch.reports.analysis.summary import Summary
from paretorch.reports.tables.tables import Table

MOST_TASKS = 6  # with a column each; of more tasks the table has the sum alone


def loss_table(summary: Summary) -> Table:
    """Mean losses on test data by task, and their sum; no rows without a measurement."""
    names = summary.results.tasks
    absent = {k for row in summary.rows.values() for k in row.results.without_loss}
    present = [k for k in range(len(names)) if k not in absent]
    shown = present if len(present) <= MOST_TASKS else []
    rows = tuple(
        (
            label,
            *(mean_interval(row.results.test_losses[:, k], summary.level) for k in shown),
            mean_interval(row.results.combined_test_losses, summary.level),
        )
        for label, row in summary.rows.items()
        if np.isfinite(row.results.test_losses).any()
    )
    header = ("treatment", *(f"{names[k]} loss\u00a0↓" for k in shown), "combined loss\u00a0↓")
    has_fronts = any(row.results.fronts is not None for row in summary.rows.values())
    of_fronts = (
        "Of a front, each task's loss is the lowest of any of its models, and the combined loss that of one model, the one "
        "with the lowest sum.",
    )
    notes = (
        "Losses as the workload defines them (cross-entropy for classification), means over the test set.",
        "combined: the sum over tasks, without weights, independent of the method.",
        *(f"No run has a loss of {names[k]} on test data: it is left out, of the sum too." for k in sorted(absent)),
        *(of_fronts if has_fronts else ()),
    )
    return Table("Losses on test data", header, rows, notes)
