"""Which treatments are at least as good as others in every metric."""

from __future__ import annotations

import numpy as np

from paretorch.reports.analysis.summary import Summary
from paretorch.reports.tables.tables import Table
from paretorch.studies.statistics.quality import seed_mean

NONE = "–"


def dominance_table(summary: Summary) -> Table:
    """Dominance by the means of all metrics on test data; no rows with one metric."""
    results = summary.results
    kept = [k for k, counted in enumerate(results.counted) if counted]
    if len(kept) < 2:
        return Table("", (), (), ())
    signs = np.array([-1.0 if results.metrics[k].higher_is_better else 1.0 for k in kept])
    means = {
        label: signs * np.array([seed_mean(row.results.test[:, k]) for k in kept])
        for label, row in summary.rows.items()
    }
    means = {label: values for label, values in means.items() if np.isfinite(values).all()}

    def dominates(one: str, other: str) -> bool:
        return bool((means[one] <= means[other]).all() and (means[one] < means[other]).any())

    rows = tuple(
        (
            label,
            ", ".join(other for other in means if dominates(label, other)) or NONE,
            ", ".join(other for other in means if dominates(other, label)) or NONE,
        )
        for label in means
    )
    notes = (
        f"A treatment dominates another if its means of all {len(kept)} metrics on test data are at least as good, and one is "
        "better. No interval is taken into account.",
    )
    return Table("Who dominates whom", ("treatment", "dominates", "is dominated by"), rows, notes, left=(1, 2))
