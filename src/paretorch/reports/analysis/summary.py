"""Summary of a study: the quality of each treatment, and its comparison to the reference."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from paretorch.core.arrays import Array
from paretorch.metrics.comparison import complete_seeds, mean_rank
from paretorch.reports.reading.hypervolume_reference import with_common_reference
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
        rank: mean rank over metrics and seeds, 1 is best; nan if no seed is complete in all treatments that have every metric.
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
        """(S,) the seeds over which ranks are means: those that are complete in all ranked treatments."""
        tests = _rankable(self.results)
        return list(map(bool, complete_seeds(list(tests.values())))) if tests else []

    @property
    def mean_counts(self) -> list[int]:
        """Numbers of seeds of the means on test data, of each treatment and metric."""
        tests = (np.isfinite(row.results.test).sum(axis=0) for row in self.rows.values())
        return [int(counts[k]) for counts in tests for k in self.results.tested]

    @property
    def mean_seeds(self) -> str:
        """The seeds of the means of metrics, in words: ``5 seeds``, or their numbers if some treatment lacks a seed."""
        planned = len(self.results.plan.seeds)
        counts = [count for count in self.mean_counts if count]
        least, most = min(counts, default=planned), max(counts, default=planned)
        if least == planned:
            return f"{planned} {'seed' if planned == 1 else 'seeds'}"
        return f"each treatment's own seeds, {least if least == most else f'{least} to {most}'} of {planned}"

    @property
    def left_out(self) -> list[str]:
        """Titles of the metrics that Delta m omits, as the baseline's mean is zero or missing; without those that no run has."""
        results, counted = self.results, self.results.counted
        return [results.metrics[k].title for k in results.tested if not counted[k]]


def summarize(results: StudyResults, level: float = 0.95) -> Summary:
    """Compares all treatments with the reference.

    Hypervolumes of fronts are measured from one point; see
    :func:`~paretorch.reports.reading.hypervolume_reference.with_common_reference`.

    Args:
        results: of the runs on one workload.
        level: coverage of intervals; tests are at 1 - level.
    """
    results = with_common_reference(results)
    study, directions = results.plan.study, results.directions
    base = results.treatments[study.baseline]
    delta_m = {label: quality(t.test, base.test, directions) for label, t in results.treatments.items()}
    progress = {label: quality(t.curves, base.validation, directions) for label, t in results.treatments.items()}
    ranked = _rankable(results)
    tested = [directions[k] for k in results.tested]
    ranks = dict(zip(ranked, mean_rank(list(ranked.values()), tested), strict=True)) if ranked else {}
    others = [label for label in results.treatments if label != study.reference]
    overall = compare(
        {label: paired_difference(delta_m[label], delta_m[study.reference]) for label in others},
        level,
        {label: np.isfinite(delta_m[label]) for label in others},
    )
    overall = {label: _with_reason(comparison, results, delta_m, label) for label, comparison in overall.items()}
    single = [
        compare(
            {label: _differences(results, label, k) for label in others},
            level,
            {label: np.isfinite(results.treatments[label].test[:, k]) for label in others},
        )
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


def _rankable(results: StudyResults) -> dict[str, Array]:
    """(S, K) the metrics on test data that any treatment has, of those treatments that have all of them on some seed.

    With a treatment that has none, no seed would be complete.
    """
    tests = {label: treatment.test[:, results.tested] for label, treatment in results.treatments.items()}
    return {label: test for label, test in tests.items() if np.isfinite(test).all(axis=1).any() and test.shape[1]}


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
    return sign * paired_difference(results.treatments[label].test[:, k], reference.test[:, k])


def paired_difference(values: Array, reference: Array) -> Array:
    """(S,) differences of the finite values; nan for others."""
    both = np.isfinite(values) & np.isfinite(reference)
    return np.where(both, np.where(both, values, 0.0) - np.where(both, reference, 0.0), math.nan)


def _with_reason(comparison: Comparison, results: StudyResults, delta_m: Mapping[str, Array], label: str) -> Comparison:
    """The comparison; if the treatment or the reference has results but no Delta m, its note is the reason."""
    for each in (label, results.plan.study.reference):
        reason = "" if np.isfinite(delta_m[each]).any() else without_delta_m(results, each)
        if reason:
            return replace(comparison, note=f"{each} has {reason}" if each != label else reason)
    return comparison


def without_delta_m(results: StudyResults, label: str) -> str:
    """The reason for which a treatment with results on all metrics that it has is without Delta m; empty without results."""
    treatment = results.treatments[label]
    if not treatment.seeds:
        return ""
    counted = np.flatnonzero(results.counted)
    if not len(counted):
        return f"no Δm: the mean of every metric of {results.plan.study.baseline!r} is zero or missing"
    absent = [results.metrics[k].title for k in counted if not np.isfinite(treatment.test[:, k]).any()]
    return f"no Δm: no value of {', '.join(absent)}" if absent else ""
