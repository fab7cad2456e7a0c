"""What the page's script draws: the numbers of every figure as plain values, short enough for a page of many runs."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from paretorch.reports.analysis.summary import Summary
from paretorch.reports.figures import series
from paretorch.reports.figures.points import Point, cost_points, metric_points
from paretorch.reports.figures.series import Line, Panel
from paretorch.reports.tables.across import Across

Plain = Any  # JSON


@dataclass(frozen=True)
class Plot:
    """A figure of the page.

    Args:
        name: part of its anchor.
        title: heading.
        caption: what is shown, and how to read it.
        data: for the script; ``kind`` says how it is drawn.
    """

    name: str
    title: str
    caption: str
    data: dict[str, Plain]


def plots(summary: Summary) -> list[Plot]:
    """The figures of one workload that its results allow; the first shows the differences the verdict rests on."""
    return [*_forest(summary), *_curves(summary), *_trade_off(summary), *_cost(summary), *_mechanism(summary)]


def ranks(found: Across) -> list[Plot]:
    """The critical-difference diagram; none where there is no test."""
    ranking = found.ranking
    if ranking is None:
        return []
    data = {
        "kind": "ranks",
        "labels": list(found.labels),
        "ranks": short(ranking.ranks),
        "difference": ranking.critical_difference,
        "groups": [list(group) for group in ranking.groups],
    }
    caption = (
        f"Mean ranks over {ranking.workloads} workloads, 1 is best. Bars join treatments that Nemenyi's test cannot tell apart: "
        f"their ranks differ by less than {ranking.critical_difference:.2f}."
    )
    return [Plot("ranks", "Ranks over workloads", caption, data)]


def short(values: Iterable[float]) -> list[float | None]:
    """Five significant digits; None for what is not finite, for JSON has no such numbers.

    Example:
        >>> short([0.1234567, float("nan"), 3.0])
        [0.12346, None, 3.0]
    """
    return [float(f"{value:.5g}") if math.isfinite(value) else None for value in values]


def _forest(summary: Summary) -> list[Plot]:
    rows = []
    for place, row in enumerate(summary.rows.values()):
        if row.comparison is not None and math.isfinite(row.comparison.difference):
            c = row.comparison
            ends = (math.nan, math.nan) if c.interval is None else (c.interval.low, c.interval.high)
            rows.append([place, *short([c.difference, *ends]), c.verdict.value])
    if not rows:
        return []
    reference = summary.results.plan.study.reference
    caption = (
        f"Differences of Δm to {reference} on test data, paired by seed, with 95 % intervals; left of 0 is better. The marks' "
        "shapes say the verdicts, which are corrected for the number of treatments; an interval is for its row alone."
    )
    data = {"kind": "forest", "rows": rows, "axis": f"difference of Δm to {reference} (percentage points)"}
    return [Plot("differences", "How much better or worse", caption, data)]


def _curves(summary: Summary) -> list[Plot]:
    caption = (
        "Validation data after every epoch, mean over seeds; bands are 95 % intervals of the mean. Time is that of training, "
        "without evaluation."
    )
    found = [lines_plot("curves", "Learning curves", caption, series.learning_curves(summary), timed=True)]
    caption = "Mean training loss of an epoch, as the task's own loss, before any weight."
    found.append(lines_plot("losses", "Training losses", caption, series.training_losses(summary), timed=True))
    return [plot for plots in found for plot in plots]


def _mechanism(summary: Summary) -> list[Plot]:
    caption = (
        "By what each method multiplied a task, mean over an epoch's steps. Methods without weights are not shown."
    )
    found = lines_plot("weights", "Weights over time", caption, series.weights(summary))
    pairs, panels = len(summary.results.pairs), series.cosines(summary)
    caption = (
        "Mean cosine between the gradients of two tasks where the method compares them; below 0 they conflict. Methods that do "
        "not look at gradients are not shown."
    )
    if pairs > len(panels):
        caption += f" Of {pairs} pairs, these are the {len(panels)} with the lowest mean; the matrix has all."
    return [*found, *lines_plot("cosines", "Do the tasks agree?", caption, panels), *_matrix(summary)]


def lines_plot(name: str, title: str, caption: str, panels: Sequence[Panel], timed: bool = False) -> list[Plot]:
    """Lines over epochs, and over seconds where those are known; none without a panel."""
    if not panels:
        return []
    timed = timed and any(np.isfinite(line.seconds).any() for panel in panels for line in panel.lines)
    return [Plot(name, title, caption, {"kind": "lines", "timed": timed, "panels": [_panel(p, timed) for p in panels]})]


def _panel(panel: Panel, timed: bool) -> dict[str, Plain]:
    lines = [_line(line, timed) for line in panel.lines]
    return {"title": panel.title, "quantity": panel.quantity, "log": panel.log, "lines": lines}


def _line(line: Line, timed: bool) -> dict[str, Plain]:
    values: dict[str, Plain] = {
        "t": line.place,
        "n": line.seeds,
        "x": [int(e) for e in line.epochs],
        "y": short(line.mean),
    }
    if timed:
        values["s"] = short(line.seconds)
    if line.low is not None and line.high is not None:
        values |= {"l": short(line.low), "h": short(line.high)}
    return values


def _trade_off(summary: Summary) -> list[Plot]:
    metrics = summary.results.metrics
    if len(metrics) < 2:
        return []
    axes = [_axis(series.quantity(metric), metric_points(summary, k)) for k, metric in enumerate(metrics)]
    other = next((k for k, metric in enumerate(metrics) if metric.task != metrics[0].task), 1)
    caption = (
        "Two metrics on test data, means with 95 % intervals; small marks are single seeds. A treatment is worse in both than "
        "one that lies beyond it in both directions of better."
    )
    return [Plot("trade-off", "Trade-off between tasks", caption, {"kind": "plane", "axes": axes, "x": 0, "y": other})]


def _cost(summary: Summary) -> list[Plot]:
    found = cost_points(summary)
    titles = {"Δm": "Δm on test data (%), lower is better"}
    axes = [
        _axis(titles.get(name, name), points)
        for name, points in found.items()
        if any(math.isfinite(point.mean) for point in points)
    ]
    if len(axes) < 2 or axes[0]["title"] != titles["Δm"]:
        return []
    caption = "What a treatment costs and what it brings, means with 95 % intervals; lower left is best."
    return [Plot("cost", "Cost against quality", caption, {"kind": "plane", "axes": axes, "x": 1, "y": 0})]


def _axis(title: str, points: Sequence[Point]) -> dict[str, Plain]:
    marks = [
        [
            *short([p.mean, *((math.nan, math.nan) if p.low is None or p.high is None else (p.low, p.high))]),
            short(p.each),
        ]
        for p in points
    ]
    return {"title": title, "points": marks}


def _matrix(summary: Summary) -> list[Plot]:
    """All pairs at once, over the whole training; for two tasks the curve says it all."""
    tasks, pairs = summary.results.tasks, summary.results.pairs
    if len(tasks) < 3:
        return []
    first, second = (np.array([tasks.index(pair[side]) for pair in pairs]) for side in (0, 1))
    matrices = []
    for place, row in enumerate(summary.rows.values()):
        values = row.results.cosines.reshape(-1, len(pairs))
        there = np.isfinite(values)
        if not there.any():
            continue
        means = np.where(
            there.any(axis=0), np.where(there, values, 0.0).sum(axis=0) / np.maximum(there.sum(axis=0), 1), np.nan
        )
        square = np.full((len(tasks), len(tasks)), np.nan)
        square[first, second] = square[second, first] = means
        matrices.append([place, [short(line) for line in square.round(3)]])
    if not matrices:
        return []
    caption = "Mean cosine between the gradients of every two tasks, over all epochs and seeds of a treatment."
    data = {"kind": "matrix", "tasks": list(tasks), "matrices": matrices}
    return [Plot("matrix", "Who agrees with whom", caption, data)]
