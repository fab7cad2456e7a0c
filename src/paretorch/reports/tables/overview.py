"""The tables of a study: the overview, means and differences by metric, convergence and stability, and what it cost."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from paretorch.reports.analysis.formatting import (
    mean_interval,
    metric_interval,
    number,
    points,
    signed_interval,
)
from paretorch.reports.analysis.summary import Summary, TreatmentSummary, without_delta_m
from paretorch.reports.reading.load import TaskMetric
from paretorch.reports.tables.row_order import MOST_IN_STUDY_ORDER, best_first
from paretorch.reports.tables.tables import Table
from paretorch.studies.statistics.paired import BOOTSTRAP_FROM, FEWEST_SEEDS
from paretorch.studies.statistics.quality import seed_mean

MOST_METRICS = 6  # in the overview; more metrics have a separate table of means


def overview(summary: Summary) -> Table:
    """The study's main table: means on test data, Delta m, its paired difference to the reference, costs, verdict.

    Treatments have the study's order; many are sorted by Delta m.
    """
    study = summary.results.plan.study
    tested = summary.results.tested
    shown = tested if len(tested) <= MOST_METRICS else []
    header = (
        "treatment",
        "verdict",
        "Δm\u00a0%",
        "difference",
        *(heading(summary.results.metrics[k]) for k in shown),
        "rank",
        "s/epoch",
        "peak\u00a0MiB",
    )
    rows = tuple(_overview_row(label, row, shown) for label, row in summary.rows.items())
    many = len(rows) > MOST_IN_STUDY_ORDER
    notes = (
        *(("The treatments are sorted by Δm, the lowest first.",) if many else ()),
        f"Means on test data over {summary.mean_seeds}{_mean_description(summary)}. ↑ higher is better, ↓ lower.",
        *(() if shown else (f"The means of all {len(tested)} metrics are a table of their own.",)),
        f"Δm: mean relative loss over all metrics against {study.baseline!r}, lower is better.",
        f"difference: of Δm to {study.reference!r}, paired by seed, with its {_interval_description(summary)}.",
        f"rank: mean over metrics and {_ranked_seeds(summary)}, 1 is best. s/epoch and peak MiB: training, mean over seeds.",
        "verdict: better or worse if the interval, simultaneous for all rows, excludes zero.",
        *_caveats(summary),
    )
    return best_first(Table(f"{study.name}: {study.question}", header, rows, notes, left=(1,)), summary)


def _ranked_seeds(summary: Summary) -> str:
    """The seeds that ranks are averaged over."""
    ranked = summary.ranked
    return "seeds" if all(ranked) else f"the {sum(ranked)} of {len(ranked)} seeds that every treatment has"


def _caveats(summary: Summary) -> Iterator[str]:
    """Missing seeds, omitted metrics, and notes of the plan."""
    results = summary.results
    seeds = len(results.plan.seeds)
    if summary.left_out:
        yield (
            f"Δm leaves {', '.join(summary.left_out)} out: the mean of {results.plan.study.baseline!r} is zero or missing, so "
            "no relative change can be taken."
        )
    for label, row in summary.rows.items():
        if row.comparison is not None and row.comparison.seeds < seeds:
            yield f"{label}: {row.comparison.note}"
        elif row.comparison is None and without_delta_m(results, label):
            yield f"{label}: {without_delta_m(results, label)}"
        elif row.comparison is None and row.results.seeds < seeds:
            yield f"{label}: {seeds - row.results.seeds} of {seeds} seeds have no result, for any comparison to it"
    yield from (f"{t.label}: {t.note}" for t in results.plan.study.treatments if t.note)
    yield from results.plan.notes


def means(summary: Summary) -> Table:
    """Every test metric's mean with its interval."""
    tested = summary.results.tested
    header = ("treatment", *(heading(summary.results.metrics[k]) for k in tested))
    rows = tuple(
        (label, *(mean_interval(row.results.test[:, k], summary.level) for k in tested))
        for label, row in summary.rows.items()
    )
    notes = (f"Means on test data over {summary.mean_seeds}{_mean_description(summary)}.",)
    return Table("Means by metric", header, rows, notes)


def by_metric(summary: Summary) -> Table:
    """Every test metric's paired difference to the reference, with its interval."""
    study, tested = summary.results.plan.study, summary.results.tested
    metrics = [summary.results.metrics[k] for k in tested]
    rows = []
    for label, row in summary.rows.items():
        if row.comparison is not None:
            cells = (metric_interval(row.metrics[k], m.higher_is_better) for k, m in zip(tested, metrics, strict=True))
            rows.append((label, *cells))
    notes = (
        f"Paired differences to {study.reference!r} on test data with their {_interval_description(summary)}.",
        "* better, † worse: the interval excludes zero.",
    )
    return Table("Differences by metric", ("treatment", *map(heading, metrics)), tuple(rows), notes)


def costs(summary: Summary) -> Table:
    """Time and memory of each treatment."""
    header = ("treatment", "runs", "seconds per epoch", "seconds in all", "peak memory MiB")
    rows = tuple(
        (
            label,
            str(row.results.runs),
            mean_interval(row.results.seconds_per_epoch, summary.level),
            f"{row.results.seconds.sum():.0f}",
            number(seed_mean(row.results.peak_memory) / 2**20, 3),
        )
        for label, row in summary.rows.items()
    )
    measures = "; ".join(summary.results.memory_measures)
    notes = (
        "seconds per epoch: median of an epoch's training, mean over seeds; of joined runs the sum.",
        "seconds in all: training and evaluation of all runs, those that were not chosen included.",
        f"peak memory: the largest of a seed's runs, mean over seeds ({measures}).",
    )
    return Table("Costs", header, rows, notes)


def dynamics(summary: Summary) -> Table:
    """Convergence to the reference's final quality, and stability, of each treatment."""
    header = ("treatment", "epochs to target", "speed", "reached by", "seconds to target", "late variation", "spikes")
    rows = tuple((label, *_dynamics_cells(row)) for label, row in summary.rows.items())
    if math.isnan(summary.target):
        target = "no target: the reference's Δm on validation data is never better than after its first epoch."
    else:
        target = (
            f"target: Δm of {points(summary.target)} % on validation data, where {summary.results.plan.study.reference!r} has "
            "made 95 % of its progress."
        )
    windows = sorted({row.stability.window for row in summary.rows.values()})
    window = str(windows[0]) if len(windows) == 1 else f"{windows[0]} to {windows[-1]}"
    notes = (
        target,
        "epochs and seconds to target: median over seeds; speed: the quarter of the epochs in which that falls.",
        f"late variation: standard deviation of Δm over the last {window} epochs about their own line, in percentage points, "
        "mean over seeds.",
        "spikes: epochs with an outlier above their neighbours, mean over seeds.",
    )
    return Table("Convergence and stability", header, rows, notes, left=(2,))


def _dynamics_cells(row: TreatmentSummary) -> tuple[str, ...]:
    steady = (number(row.stability.mean, 3), number(seed_mean(row.stability.spikes), 2))
    found = row.convergence
    if found is None:
        return ("-", "-", "-", "-", *steady)
    epochs = "not reached" if math.isinf(found.median) else number(found.median, 3)
    seconds = "not reached" if math.isinf(found.median_seconds) else number(found.median_seconds, 3)
    return (epochs, found.speed, f"{found.reached} of {found.seeds}", seconds, *steady)


def _overview_row(label: str, row: TreatmentSummary, metrics: Sequence[int]) -> tuple[str, ...]:
    return (
        label,
        "reference" if row.comparison is None else row.comparison.verdict.value,
        points(seed_mean(row.delta_m)),
        "" if row.comparison is None else signed_interval(row.comparison),
        *(mean_interval(row.results.test[:, k]) for k in metrics),
        number(row.rank, 3),
        number(seed_mean(row.results.seconds_per_epoch), 3),
        number(seed_mean(row.results.peak_memory) / 2**20, 3),
    )


def heading(metric: TaskMetric) -> str:
    """A metric's name, direction and unit, as the heading of a column."""
    unit = f" in\u00a0{metric.unit}" if metric.unit else ""
    return f"{metric.title}\u00a0{'↑' if metric.higher_is_better else '↓'}{unit}"


def _mean_description(summary: Summary) -> str:
    counts = summary.mean_counts
    if max(counts, default=0) < FEWEST_SEEDS:
        return f"; intervals are withheld, they need at least {FEWEST_SEEDS} seeds"
    methods = {count >= BOOTSTRAP_FROM for count in counts if count >= FEWEST_SEEDS}
    method = "bootstrap over seeds" if methods == {True} else "Student's t"
    if len(methods) == 2:
        method = f"Student's t below {BOOTSTRAP_FROM} seeds, bootstrap over seeds from there on"
    return f", with {100 * summary.level:.0f} % intervals of the mean ({method})"


def _interval_description(summary: Summary) -> str:
    found = [row.comparison for row in summary.rows.values() if row.comparison and row.comparison.interval]
    if not found:
        return "interval withheld: it needs at least 3 seeds"
    several = f", simultaneous for {len(found)} comparisons" if len(found) > 1 else ""
    return f"{100 * summary.level:.0f} % interval (Student's t{several})"
