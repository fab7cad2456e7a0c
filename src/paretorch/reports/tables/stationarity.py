"""How far from Pareto stationary each treatment's models are."""

from __future__ import annotations

import numpy as np

from paretorch.reports.analysis.formatting import mean_interval, number
from paretorch.reports.analysis.summary import Summary
from paretorch.reports.tables.tables import Table


def stationarity_table(summary: Summary) -> Table:
    """The Pareto stationarity residuals of the trained models; no rows if none was computed."""
    found = {
        label: row.results.residuals for label, row in summary.rows.items() if np.isfinite(row.results.residuals).any()
    }
    rows = tuple(
        (
            label,
            mean_interval(values, summary.level),
            number(float(np.nanmin(values))),
            number(float(np.nanmax(values))),
        )
        for label, values in found.items()
    )
    samples = {run.stationarity for label in found for run in summary.rows[label].results.settings}
    notes = (
        "residual: the norm of the shortest convex combination of the gradients of all tasks with respect to all parameters, of "
        "the weights that are reported, zero at Pareto stationary points.",
        f"It is of the mean losses over the first {' or '.join(map(str, sorted(samples)))} training samples in the stored order, "
        "in eval mode. Mean over seeds, and the least and the largest.",
    )
    return Table("Distance from Pareto stationarity", ("treatment", "residual", "least", "largest"), rows, notes)
