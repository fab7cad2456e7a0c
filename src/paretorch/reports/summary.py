"""What a study's results say: each treatment's quality, and every comparison to the reference."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from paretorch.reports.load import Array, StudyResults, TreatmentResults
from paretorch.studies.quality import delta_m, mean_rank
from paretorch.studies.statistics import Comparison, compare


@dataclass(frozen=True)
class Row:
    """A treatment in numbers.

    Args:
        results: what its runs came to.
        delta_m: (S,) percent against the baseline's mean, lower is better; nan where a metric is missing.
        rank: mean rank over metrics and seeds, 1 is best; nan if no seed is complete in all treatments.
        comparison: Delta m against the reference's; None for the reference.
        metrics: (K,) each test metric against the reference's in the metric's own unit, turned so that lower is better;
            empty for the reference. Corrected for all treatments of this metric, not for the number of metrics.
    """

    results: TreatmentResults
    delta_m: Array
    rank: float
    comparison: Comparison | None
    metrics: tuple[Comparison, ...]


@dataclass(frozen=True)
class Summary:
    """All rows, by label in the study's order."""

    results: StudyResults
    rows: dict[str, Row]

    @property
    def reference(self) -> Row:
        """The row to which the others are compared."""
        return self.rows[self.results.folder.study.reference]


def summarize(results: StudyResults, level: float = 0.95) -> Summary:
    """Compares all treatments with the reference.

    Args:
        results: of a study.
        level: coverage of intervals; tests are at 1 - level.

    Raises:
        ValueError: the baseline's mean of a metric is 0, so that Delta m is not defined.
    """
    study, directions = results.folder.study, results.directions
    base = np.nanmean(results.treatments[study.baseline].test, axis=0)
    quality = {label: delta_m(treatment.test, base, directions) for label, treatment in results.treatments.items()}
    ranks = mean_rank([treatment.test for treatment in results.treatments.values()], directions)
    others = [label for label in results.treatments if label != study.reference]
    overall = compare({label: quality[label] - quality[study.reference] for label in others}, level)
    single = [
        compare({label: _differences(results, label, k) for label in others}, level)
        for k in range(len(results.metrics))
    ]
    rows = {
        label: Row(
            treatment,
            quality[label],
            float(ranks[i]),
            overall.get(label),
            tuple(metric[label] for metric in single) if label in overall else (),
        )
        for i, (label, treatment) in enumerate(results.treatments.items())
    }
    return Summary(results, rows)


def _differences(results: StudyResults, label: str, k: int) -> Array:
    sign = -1.0 if results.metrics[k].higher_is_better else 1.0
    reference = results.treatments[results.folder.study.reference]
    return np.asarray(sign * (results.treatments[label].test[:, k] - reference.test[:, k]))
