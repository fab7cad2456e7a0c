"""The page's figures of line searches: there wherever a record holds what searches did."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from paretorch.reports.analysis.summary import Summary
from paretorch.reports.figures import series
from paretorch.reports.figures.plots import Plot, lines_plot, short
from paretorch.reports.figures.points import Point
from paretorch.reports.figures.rates import rate_panels
from paretorch.reports.figures.series import Line
from paretorch.reports.reading.searches import Checked, Lowered, Searches

MOST_POINTS = 1200  # of all treatments in a panel


def plots(summary: Summary) -> list[Plot]:
    """The figures that the searches of one workload allow; none where nothing was searched."""
    found = {label: row.results.searches for label, row in summary.rows.items()}
    searched = {label: searches for label, searches in found.items() if searches is not None}
    if not searched:
        return []
    return [*_rates(summary), *_losses(summary, searched), *_steps(summary), *_checked(summary, searched)]


def _rates(summary: Summary) -> list[Plot]:
    panels = [
        {
            "title": panel.title,
            "quantity": panel.quantity,
            "grids": [
                {
                    "t": g.place,
                    "x": list(g.rates),
                    "points": [_ends(p) for p in g.points],
                    "chosen": g.rates.index(g.chosen),
                }
                for g in panel.grids
            ],
            "levels": [{"t": level.place, "point": _ends(level.point)} for level in panel.levels],
        }
        for panel in rate_panels(summary)
    ]
    if not panels:
        return []
    caption = (
        "The loss in the end against the fixed rate, mean over seeds with bands of 95 %; the large mark is the rate that "
        "validation data chose. Searches have no rate: they are horizontal lines, each with its band."
    )
    return [Plot("rates", "A searched step against every fixed one", caption, {"kind": "rates", "panels": panels})]


def _ends(point: Point) -> list[float | None]:
    return short(
        [point.mean, *((math.nan, math.nan) if point.low is None or point.high is None else (point.low, point.high))]
    )


def _losses(summary: Summary, searched: Mapping[str, Searches]) -> list[Plot]:
    """The combined training loss, with the places where bounds were lowered."""
    caption = (
        "Sum over tasks of the mean training losses of an epoch, mean over seeds. Crosses stand where a bound was lowered, of "
        "every seed; they say why when they are pointed at, and the table below the results lists them."
    )
    found = lines_plot(
        "combined-loss", "Loss, and where bounds were lowered", caption, series.combined_loss(summary), timed=True
    )
    for plot in found:
        for panel, drawn in zip(series.combined_loss(summary), plot.data["panels"], strict=True):
            for line, values in zip(panel.lines, drawn["lines"], strict=True):
                if line.label in searched and (marks := _marks(line, searched[line.label].lowered)):
                    values["m"] = marks
    return found


def _marks(line: Line, lowered: Sequence[Lowered]) -> list[list[Any]]:
    """Epoch, seconds, value and reason of each lowering, on the line."""
    there = np.isfinite(line.mean)
    if not there.any():
        return []
    epochs = np.array([max(1.0, each.epoch) for each in lowered])
    y = np.interp(epochs, line.epochs[there], line.mean[there])
    seconds = np.interp(epochs, line.epochs, line.seconds)
    return [
        [*short([epoch, second, value]), f"seed {each.seed}, epoch {each.epoch:.2f}: {each.reason}"]
        for each, epoch, second, value in zip(lowered, epochs, seconds, y, strict=True)
    ]


def _steps(summary: Summary) -> list[Plot]:
    caption = (
        "Geometric mean of an epoch's accepted steps, the largest step that was allowed at its end, and how many were tried "
        "for each accepted one; means over seeds with bands of 95 %."
    )
    return lines_plot("steps", "Steps that were found", caption, series.searched_steps(summary), timed=False)


def _checked(summary: Summary, searched: Mapping[str, Searches]) -> list[Plot]:
    each = max(20, MOST_POINTS // len(searched))
    kinds: tuple[tuple[str, str, bool, Callable[[Checked], tuple[float, float]]], ...] = (
        ("the loss", "loss", True, lambda c: (c.predicted, c.actual)),
        ("its decrease", "decrease of the loss", False, lambda c: (c.before - c.predicted, c.before - c.actual)),
    )
    panels = []
    for title, quantity, logarithmic, read in kinds:
        groups = []
        for place, label in enumerate(summary.rows):
            checked = searched[label].checked if label in searched else ()
            if checked:
                kept = [checked[i] for i in series.thinned(len(checked), each)]
                pairs = [read(c) for c in kept]
                tasks = list(dict.fromkeys(c.task for c in kept))
                groups.append(
                    {"t": place, "x": short(x for x, _ in pairs), "y": short(y for _, y in pairs), "tasks": tasks,
                     "of": [tasks.index(c.task) for c in kept]}
                )  # fmt: skip
        if groups:
            panels.append(
                {"title": title, "x": f"{quantity} that the accepted trial saw", "y": f"true {quantity}",
                 "log": logarithmic and _positive(groups), "groups": groups}
            )  # fmt: skip
    if not panels:
        return []
    caption = (
        "What the accepted trial saw of each task's loss on its batch, against what a true forward found after the step. On the "
        "line the search saw the truth; below zero on the right, a step raised a task."
    )
    return [Plot("checked", "Predicted and actual losses", caption, {"kind": "pairs", "panels": panels})]


def _positive(groups: Sequence[Mapping[str, Any]]) -> bool:
    return all(value is not None and value > 0 for group in groups for axis in ("x", "y") for value in group[axis])
