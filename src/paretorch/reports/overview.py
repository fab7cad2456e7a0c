"""The tables of a study: the overview, differences metric by metric, and what it cost."""

from __future__ import annotations

from paretorch.reports.load import Metric
from paretorch.reports.numbers import metric_interval, number, points, signed_interval
from paretorch.reports.summary import Row, Summary
from paretorch.reports.tables import Table
from paretorch.studies.quality import seed_mean


def overview(summary: Summary) -> Table:
    """The study's main table: means on test data, Delta m, its paired difference to the reference, time, verdict."""
    study, seeds = summary.results.folder.study, len(summary.results.folder.seeds)
    header = ("treatment", *map(_heading, summary.results.metrics), "Δm\u00a0%", "difference", "s/epoch", "verdict")
    rows = tuple(_overview_row(label, row) for label, row in summary.rows.items())
    notes = (
        f"Means on test data over {_seeds(seeds)}. ↑ higher is better, ↓ lower.",
        f"Δm: mean relative loss over all metrics against {study.baseline!r}, lower is better.",
        f"difference: of Δm to {study.reference!r}, paired by seed, with its {_interval_words(summary)}.",
        "verdict: paired t test at 5 %, Holm-corrected for all rows; each interval is for its row alone.",
        *(
            f"{label}: {row.comparison.note}"
            for label, row in summary.rows.items()
            if row.comparison and row.comparison.seeds < seeds
        ),
    )
    return Table(f"{study.name}: {study.question}", header, rows, notes, left=(len(header) - 1,))


def by_metric(summary: Summary) -> Table:
    """Every test metric's paired difference to the reference, with its interval."""
    study, metrics = summary.results.folder.study, summary.results.metrics
    rows = []
    for label, row in summary.rows.items():
        if row.comparison is not None:
            cells = (metric_interval(c, m.higher_is_better) for c, m in zip(row.metrics, metrics, strict=True))
            rows.append((label, *cells))
    notes = (
        f"Paired differences to {study.reference!r} on test data with their {_interval_words(summary)}.",
        "* better, † worse: paired t test, Holm-corrected for all treatments of this metric, 5 % level.",
    )
    return Table("Differences by metric", ("treatment", *map(_heading, metrics)), tuple(rows), notes)


def costs(summary: Summary) -> Table:
    """What each treatment took, and its mean rank."""
    header = ("treatment", "mean rank", "runs", "seconds per epoch", "seconds in all", "peak memory MiB")
    rows = tuple(
        (
            label,
            number(row.rank, 3),
            str(row.results.runs),
            number(seed_mean(row.results.seconds_per_epoch), 3),
            f"{row.results.seconds.sum():.0f}",
            number(seed_mean(row.results.peak_memory) / 2**20, 3),
        )
        for label, row in summary.rows.items()
    )
    notes = (
        "mean rank: among the treatments, over metrics and seeds, 1 is best.",
        "seconds per epoch: median of an epoch's training, mean over seeds; of joined runs the sum.",
        "seconds in all: training and evaluation of all runs, those that were not chosen included.",
        "peak memory: the largest of a seed's runs, mean over seeds.",
    )
    return Table("Costs", header, rows, notes)


def _overview_row(label: str, row: Row) -> tuple[str, ...]:
    means = [number(seed_mean(row.results.test[:, k])) for k in range(row.results.test.shape[1])]
    return (
        label,
        *means,
        points(seed_mean(row.delta_m)),
        "reference" if row.comparison is None else signed_interval(row.comparison),
        number(seed_mean(row.results.seconds_per_epoch), 3),
        "" if row.comparison is None else row.comparison.verdict.value,
    )


def _heading(metric: Metric) -> str:
    unit = f" in\u00a0{metric.unit}" if metric.unit else ""
    return f"{metric.title}\u00a0{'↑' if metric.higher_is_better else '↓'}{unit}"


def _seeds(count: int) -> str:
    return f"{count} {'seed' if count == 1 else 'seeds'}"


def _interval_words(summary: Summary) -> str:
    found = [row.comparison.interval for row in summary.rows.values() if row.comparison and row.comparison.interval]
    if not found:
        return "interval withheld: it needs at least 3 seeds"
    names = {"t": "Student's t", "bootstrap": "paired bootstrap over seeds"}
    methods = sorted({names[interval.method] for interval in found})
    return f"{100 * found[0].level:.0f} % interval ({' or '.join(methods)})"
