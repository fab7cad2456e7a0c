"""Curves by epoch: metrics, losses and weights, as means over seeds with bands.

Shapes: ``S`` seeds, ``E`` epochs, ``n`` points.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

import numpy as np

from paretorch.core.arrays import Array
from paretorch.reports.analysis.formatting import seed_count
from paretorch.reports.analysis.summary import Summary
from paretorch.reports.figures.description import Axis, Bounds, Figure, Marks, MarkStyle, Panel, Scale
from paretorch.reports.reading.load import TaskMetric, TreatmentResults
from paretorch.studies.statistics.paired import FEWEST_SEEDS, t_bounds

MOST_POINTS = 100  # of one curve
BUDGET = 60_000  # points of all curves of a figure, so that a page is small with hundreds of treatments
LOG_FROM = 50.0  # ratio of the largest to the smallest value from which an axis is logarithmic
EPOCH, SECONDS = Axis("epoch", integers=True), Axis("seconds of training")
VALUE = 2  # index of the vertical axis


def learning_curves(summary: Summary) -> list[Figure]:
    """Delta m and every metric on validation data."""
    metrics = summary.results.metrics
    count = 1 + len(metrics)
    panels = [
        curves_panel(summary, m.title, metric_title(m), lambda t, k=k: t.curves[:, :, k], count)  # type: ignore[misc]
        for k, m in enumerate(metrics)
    ]
    panels.append(
        curves_panel(
            summary,
            "Δm",
            "Δm on validation data (%), lower is better",
            lambda treatment: summary.rows[treatment.label].progress,
            count,
            logarithmic=False,
        )
    )
    caption = (
        "Validation data after every epoch, mean over seeds; bands are 95 % intervals of the mean. Time is that of training, "
        "without evaluation."
    )
    return curves_figure("curves", "Learning curves", caption, panels, "validation data", timed=True)


def training_losses(summary: Summary) -> list[Figure]:
    """Every task's mean training loss."""
    panels = _task_panels(summary, "training loss", lambda treatment: treatment.losses)
    caption = "Mean training loss of an epoch: the task's own loss, without its weight."
    return curves_figure("losses", "Training losses", caption, panels, timed=True)


def weights(summary: Summary) -> list[Figure]:
    """The factor of each task, mean over the steps of an epoch."""
    panels = _task_panels(summary, "weight", lambda treatment: treatment.weights)
    caption = "Factors by which each method multiplies a task, mean over an epoch's steps. Methods without weights have no curve."
    return curves_figure("weights", "Weights over time", caption, panels, "weights of the methods")


def _task_panels(summary: Summary, quantity: str, read: Callable[[TreatmentResults], Array]) -> list[Panel]:
    """A panel for each task, of the (S, E, T) values of a treatment."""
    tasks = summary.results.tasks
    return [
        curves_panel(summary, task, f"{quantity} of {task}", lambda t, k=k: read(t)[:, :, k], len(tasks))  # type: ignore[misc]
        for k, task in enumerate(tasks)
    ]


def curves_figure(
    name: str, title: str, caption: str, panels: Iterable[Panel], subject: str = "", timed: bool = False
) -> list[Figure]:
    """The panels that have curves, as one figure; none without them.

    Args:
        name: of the figure.
        title: of the figure.
        caption: of the figure.
        panels: of :func:`curves_panel`.
        subject: of the figure.
        timed: whether the reader may replace epochs by seconds, where any are known.
    """
    panels = tuple(panel for panel in panels if panel.marks)
    known = timed and any(np.isfinite(values(marks, 1)).any() for panel in panels for marks in panel.marks)
    switch = "by time instead of epoch" if known else ""
    return [Figure(name, title, caption, panels, subject, switch)] if panels else []


def curves_panel(
    summary: Summary,
    title: str,
    axis: str,
    read: Callable[[TreatmentResults], Array],
    panels: int,
    logarithmic: bool = True,
) -> Panel:
    """A curve of each treatment.

    Args:
        summary: of the study.
        title: of the panel.
        axis: title of the vertical axis.
        read: the (S, E) values of a treatment.
        panels: of the figure, which share its points.
        logarithmic: whether the axis is logarithmic if positive values have a wide range.
    """
    treatments = summary.results.treatments
    most = min(MOST_POINTS, max(8, BUDGET // max(1, panels * len(treatments))))
    found = (
        _curve(index, read(treatment), treatment.epoch_seconds, most, summary.level)
        for index, treatment in enumerate(treatments.values())
    )
    marks = [each for each in found if each is not None]
    scale: Scale = "decades" if logarithmic and _has_wide_range(marks) else "linear"
    if scale == "decades":
        # a logarithmic axis has no place for an interval that includes zero
        floor = min(float(np.nanmin(values(each))) for each in marks) / 10
        marks = [replace(each, bounds=_cut(each.bounds, floor)) for each in marks]
    return Panel(title, (EPOCH, SECONDS, Axis(axis, scale=scale)), tuple(marks), y=VALUE)


def curve_style(seeds: int) -> MarkStyle:
    """The style of a mean over so many seeds, for panels whose vertical axis is the third."""
    hover = f"<b>{{label}}</b><br>{{title}} {{2}}{{2.interval}}<br>{{0.name}} {{0}}, {seed_count(seeds)}"
    return MarkStyle(line=1.8, size=7, most_marks=8, intervals="band", hover=hover)


def values(curve: Marks, axis: int = VALUE) -> Array:
    """(n,) the positions of a curve on an axis."""
    found = curve.values[axis]
    assert found is not None
    return found


def metric_title(metric: TaskMetric) -> str:
    """Title of a metric's axis."""
    unit = f" ({metric.unit})" if metric.unit else ""
    return f"{metric.title}{unit}, {'higher' if metric.higher_is_better else 'lower'} is better"


def thinned(count: int, most: int) -> Array:
    """(n,) indices of at most ``most`` points among ``count``, evenly spaced, with the first and the last.

    Example:
        >>> thinned(9, 3).tolist(), thinned(2, 3).tolist()
        ([0, 4, 8], [0, 1])
    """
    return np.unique(np.linspace(0, count - 1, min(count, max(2, most))).round().astype(int))


def _curve(index: int, numbers: Array, seconds: Array, most: int, level: float) -> Marks | None:
    """The mean of (S, E) numbers over the complete seeds; over the available ones if none is complete."""
    complete = numbers[np.isfinite(numbers).all(axis=1)]
    kept = complete if len(complete) else numbers[np.isfinite(numbers).any(axis=1)]
    if not len(kept):
        return None
    at = thinned(numbers.shape[1], most)
    kept = kept[:, at]
    finite = np.isfinite(kept)
    count = finite.sum(axis=0)
    mean = np.where(count, np.where(finite, kept, 0.0).sum(axis=0) / np.maximum(count, 1), np.nan)
    bounds = t_bounds(kept.T, level) if len(complete) >= FEWEST_SEEDS else None
    timed = seconds[np.isfinite(seconds).all(axis=1)]
    elapsed = np.cumsum(timed, axis=1).mean(axis=0)[at] if len(timed) else np.full(len(at), np.nan)
    return Marks(curve_style(len(kept)), (at + 1.0, elapsed, mean), index, (None, None, bounds))


def _has_wide_range(marks: Sequence[Marks]) -> bool:
    means = np.concatenate([values(each) for each in marks] or [np.empty(0)])
    means = means[np.isfinite(means)]
    return bool(len(means) and means.min() > 0 and means.max() / means.min() >= LOG_FROM)


def _cut(bounds: tuple[Bounds | None, ...], floor: float) -> tuple[Bounds | None, ...]:
    """Intervals whose lower ends are at least ``floor``."""
    return tuple(None if ends is None else (np.maximum(ends[0], floor), ends[1]) for ends in bounds)
