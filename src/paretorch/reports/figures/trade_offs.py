"""Trade-offs between two numbers of every treatment: metrics of two tasks, or cost and quality."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace

import numpy as np

from paretorch.core.arrays import Array
from paretorch.reports.analysis.summary import Summary, TreatmentSummary
from paretorch.reports.figures.curves import metric_title
from paretorch.reports.figures.description import Axis, Bounds, Figure, Marks, MarkStyle, Panel
from paretorch.studies.statistics.paired import interval
from paretorch.studies.statistics.quality import seed_mean
from paretorch.studies.study import Combine

MEAN = MarkStyle(size=12, hover="<b>{label}</b><br>{x.name}: {x}<br>{y.name}: {y}")
ACROSS = replace(MEAN, across=True)  # of single tasks
TRIAL = MarkStyle(size=8, hover="<b>{label}</b><br>{x.name}: {x}<br>{y.name}: {y}")
SEED = MarkStyle(size=5, opacity=0.35, detail=True)


def trade_off(summary: Summary) -> list[Figure]:
    """Pairs of metrics on test data; none with a single metric."""
    tested = summary.results.tested
    metrics = [summary.results.metrics[k] for k in tested]
    if len(metrics) < 2:
        return []
    axes = {
        metric_title(metric): [row.results.test[:, k] for row in summary.rows.values()]
        for k, metric in zip(tested, metrics, strict=True)
    }
    other = next((k for k, metric in enumerate(metrics) if metric.task != metrics[0].task), 1)
    caption = (
        "Two metrics on test data, means with 95 % intervals; small marks are single seeds. A treatment is worse in both metrics "
        "than one that is further in both directions of improvement."
    )
    joined = {t.label for t in summary.results.plan.study.treatments if t.combine is Combine.JOIN}
    if joined:
        caption += " Dotted lines: a model for each task."
    panel = _plane(summary, axes, 0, other, joined)
    return [Figure("trade-off", "Trade-off between tasks", caption, (panel,), "metrics on test data", choose_axes=True)]


def trials(summary: Summary) -> list[Figure]:
    """Pairs of metrics of the trials of all searches, on validation data; none with one metric, or where no search has two."""
    metrics = summary.results.metrics
    found = [row.results.trials for row in summary.rows.values()]
    if len(metrics) < 2 or max((len(each) for each in found), default=0) < 2:
        return []
    other = next((k for k, metric in enumerate(metrics) if metric.task != metrics[0].task), 1)
    marks = [
        Marks(TRIAL, tuple(each[:, k] for k in range(len(metrics))), index)
        for index, each in enumerate(found)
        if len(each)
    ]
    caption = (
        "Two metrics on validation data of all trials from which settings were chosen, such as the points of a grid of static "
        "weights; one run each, with a seed of their own. Of single tasks it is the best trial of each task, as one mark."
    )
    panel = Panel("", tuple(Axis(metric_title(metric)) for metric in metrics), tuple(marks), 0, other)
    return [
        Figure("trials", "Trials of the searches", caption, (panel,), "trials on validation data", choose_axes=True)
    ]


def cost(summary: Summary) -> list[Figure]:
    """Delta m against what the training of every treatment took; none without Delta m."""
    rows = summary.rows.values()
    axes = {
        "Δm on test data (%), lower is better": [row.delta_m for row in rows],
        "seconds per epoch": [row.results.seconds_per_epoch for row in rows],
        "seconds of all its runs, per seed": [_positive(row) for row in rows],
        "peak memory (MiB)": [row.results.peak_memory / 2**20 for row in rows],
    }
    known = {title: values for title, values in axes.items() if any(np.isfinite(each).any() for each in values)}
    if len(known) < 2 or next(iter(known)) != next(iter(axes)):
        return []
    caption = "The cost of a treatment and its quality, means with 95 % intervals; lower left is best."
    panel = _plane(summary, known, 1, 0)
    return [Figure("cost", "Cost against quality", caption, (panel,), "cost and quality", choose_axes=True)]


def mean_and_bounds(values: Array, level: float) -> tuple[float, float, float]:
    """The mean of (S,) values, and the ends of its interval; nan if withheld."""
    found = interval(values[np.isfinite(values)], level)
    return (seed_mean(values), *((np.nan, np.nan) if found is None else (found.low, found.high)))


def _positive(row: TreatmentSummary) -> Array:
    """(S,) seconds of all runs of a seed; nan for a seed without a run, which has no cost."""
    return np.where(row.results.seconds > 0, row.results.seconds, np.nan)


def _plane(summary: Summary, axes: Mapping[str, list[Array]], x: int, y: int, across: Collection[str] = ()) -> Panel:
    """The means of all treatments with their intervals, and the seeds; lines across the panel at some of the treatments."""
    marks = []
    for index, label in enumerate(summary.rows):
        seeds = tuple(values[index] for values in axes.values())
        means = np.array([mean_and_bounds(each, summary.level) for each in seeds])  # (axes, 3)
        bounds: tuple[Bounds | None, ...] = tuple(
            (low[None], high[None]) if np.isfinite(low) else None for _, low, high in means
        )
        marks.append(Marks(SEED, seeds, index))
        marks.append(
            Marks(ACROSS if label in across else MEAN, tuple(mean[None] for mean, _, _ in means), index, bounds)
        )
    return Panel("", tuple(map(Axis, axes)), tuple(marks), x, y)
