"""Summary of a study: the quality of each treatment, and its comparison to the reference."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from paretorch.core.arrays import Array
from paretorch.metrics.comparison import complete_seeds, mean_rank
from paretorch.reports.reading.load import StudyResults, TreatmentResults, quality
from paretorch.studies.statistics.curves import Convergence, Stability, convergence, convergence_target, stability
from paretorch.studies.statistics.paired import Comparison, Verdict, compare
from paretorch.studies.statistics.quality import seed_mean


@dataclass(frozen=True)
class TreatmentSummary:
    """Numbers of one treatment.

    Args:
        results: of its runs.
        delta_m: (S,) percent against the baseline's mean, lower is better; nan if a metric is missing.
        rank: mean rank over metrics and seeds, 1 is best; nan if no seed is complete in all treatments.
        comparison: Delta m against the reference's; None for the reference.
        metrics: (K,) each test metric against the reference's in the metric's own unit, with the sign that makes lower better;
            empty for the reference. Corrected for all treatments of this metric, not for the number of metrics.
        progress: (S, E) Delta m on validation data after every epoch.
        convergence: when ``progress`` reaches the summary's target; None without a target.
        stability: of ``progress``, in percentage points.
    """

    results: TreatmentResults
    delta_m: Array
    rank: float
    comparison: Comparison | None
    metrics: tuple[Comparison, ...]
    progress: Array
    convergence: Convergence | None
    stability: Stability


@dataclass(frozen=True)
class Summary:
    """All rows, by label in the study's order.

    Args:
        results: of all runs.
        rows: by label.
        target: the Delta m on validation data that defines convergence; nan if the reference makes no progress.
        level: coverage of the intervals; tests are at 1 - level.
    """

    results: StudyResults
    rows: dict[str, TreatmentSummary]
    target: float
    level: float = 0.95

    @property
    def reference(self) -> TreatmentSummary:
        """The row to which the others are compared."""
        return self.rows[self.results.plan.study.reference]

    @property
    def by_verdict(self) -> dict[Verdict, list[str]]:
        """Labels of the compared treatments, for each verdict."""
        compared = {label: row.comparison for label, row in self.rows.items() if row.comparison is not None}
        return {kind: [label for label, c in compared.items() if c.verdict is kind] for kind in Verdict}

    @property
    def ranked(self) -> list[bool]:
        """(S,) the seeds over which ranks are means: those that are complete in all treatments with a result."""
        tests = [row.results.test for row in self.rows.values() if row.results.seeds]
        return list(map(bool, complete_seeds(tests))) if tests else []

    @property
    def left_out(self) -> list[str]:
        """Titles of the metrics that Delta m omits, as the baseline's mean is zero or missing."""
        results = self.results
        return [metric.title for metric, use in zip(results.metrics, results.counted, strict=True) if not use]


def summarize(results: StudyResults, level: float = 0.95) -> Summary:
    """Compares all treatments with the reference.

    Args:
        results: of the runs on one workload.
        level: coverage of intervals; tests are at 1 - level.
    """
    study, directions = results.plan.study, results.directions
    base = results.treatments[study.baseline]
    delta_m = {label: quality(t.test, base.test, directions) for label, t in results.treatments.items()}
    progress = {label: quality(t.curves, base.validation, directions) for label, t in results.treatments.items()}
    # with a treatment without results, no seed would be complete
    ranked = {label: treatment.test for label, treatment in results.treatments.items() if treatment.seeds}
    ranks = dict(zip(ranked, mean_rank(list(ranked.values()), directions), strict=True)) if ranked else {}
    others = [label for label in results.treatments if label != study.reference]
    overall = compare({label: delta_m[label] - delta_m[study.reference] for label in others}, level)
    single = [
        compare({label: _differences(results, label, k) for label in others}, level)
        for k in range(len(results.metrics))
    ]
    target = convergence_target(progress[study.reference])
    rows = {
        label: TreatmentSummary(
            treatment,
            delta_m[label],
            float(ranks.get(label, math.nan)),
            overall.get(label),
            tuple(metric[label] for metric in single) if label in overall else (),
            progress[label],
            None if math.isnan(target) else convergence(progress[label], target, treatment.epoch_seconds),
            stability(progress[label]),
        )
        for label, treatment in results.treatments.items()
    }
    return Summary(results, rows, target, level)


def ordered(summary: Summary) -> Sequence[str]:
    """Labels, the lowest mean Delta m first; those without one last."""
    means = {label: seed_mean(row.delta_m) for label, row in summary.rows.items()}
    return sorted(means, key=lambda label: math.inf if math.isnan(means[label]) else means[label])


def by_priority(summary: Summary) -> list[str]:
    """Labels, those first that a figure shows if it cannot show all: reference and baseline, then the lowest Delta m."""
    study = summary.results.plan.study
    return list(dict.fromkeys([study.reference, study.baseline, *ordered(summary)]))


def _differences(results: StudyResults, label: str, k: int) -> Array:
    sign = -1.0 if results.metrics[k].higher_is_better else 1.0
    reference = results.treatments[results.plan.study.reference]
    return np.asarray(sign * (results.treatments[label].test[:, k] - reference.test[:, k]))
