"""Line searches: the loss and reductions of the bound, accepted steps, and predicted against actual losses."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from paretorch.core.arrays import Array
from paretorch.reports.analysis.summary import Summary
from paretorch.reports.figures.curves import curves_figure, curves_panel, thinned, values
from paretorch.reports.figures.description import Axis, Figure, Marks, MarkStyle, Panel, Scale
from paretorch.reports.reading.load import TreatmentResults
from paretorch.reports.reading.searches import BoundReduction, Searches, VerifiedLoss

MOST_POINTS = 1200  # of all treatments in a panel
LOWERED = MarkStyle(size=12, symbol="cross-thin", hover="<b>{label}</b><br>{text}")
CHECKED = MarkStyle(size=6, opacity=0.6, hover="<b>{label}</b><br>{text}<br>predicted {0}, actual {1}")


def combined_loss(summary: Summary) -> list[Figure]:
    """The combined training loss, with marks where a bound was lowered."""
    title = "combined training loss, lower is better"
    panel = curves_panel(summary, "all tasks", title, lambda t: np.asarray(t.losses.sum(axis=2)), 1)
    labels = list(summary.rows)
    lowered = []
    for curve in panel.marks:
        assert curve.treatment is not None
        searches = summary.rows[labels[curve.treatment]].results.searches
        if searches is not None and searches.lowered and np.isfinite(values(curve)).any():
            lowered.append(_lowered(curve, searches.lowered))
    caption = (
        "Sum over tasks of the mean training losses of an epoch, mean over seeds. Crosses mark reductions of a bound, of every "
        "seed; their hover text gives the reason, and a table below the results lists them."
    )
    panels = [replace(panel, marks=(*panel.marks, *lowered))]
    return curves_figure("combined-loss", "Loss, and reductions of the bound", caption, panels, timed=True)


def steps(summary: Summary) -> list[Figure]:
    """Accepted steps, the bound, and trials."""
    panels = [
        curves_panel(summary, "accepted step", "accepted step", lambda t: _searched(t, lambda s: s.step), 3),
        curves_panel(
            summary, "largest step allowed", "largest step allowed", lambda t: _searched(t, lambda s: s.bound), 3
        ),
        curves_panel(
            summary, "trials per step", "trials per step", lambda t: _searched(t, lambda s: s.trials), 3, False
        ),
    ]
    caption = (
        "Geometric mean of an epoch's accepted steps, the largest step allowed at its end, and the number of trials for each "
        "step; means over seeds with bands of 95 %."
    )
    return curves_figure("steps", "Accepted steps", caption, panels)


def checked(summary: Summary) -> list[Figure]:
    """Predicted against actual losses of verified steps; none without such steps."""
    found = {index: row.results.searches for index, row in enumerate(summary.rows.values())}
    searched = {index: searches.checked for index, searches in found.items() if searches is not None}
    most = max(20, MOST_POINTS // max(1, len(searched)))
    verified = {
        index: [checked[i] for i in thinned(len(checked), most)] for index, checked in searched.items() if checked
    }
    if not verified:
        return []
    panels = (
        _checked("the loss", "loss", verified, lambda c: (c.predicted, c.actual), True),
        _checked(
            "its decrease",
            "decrease of the loss",
            verified,
            lambda c: (c.before - c.predicted, c.before - c.actual),
            False,
        ),
    )
    caption = (
        "Each task's loss on its batch as predicted by the accepted trial, against the loss of a forward pass after the step. On "
        "the line the prediction is exact; below zero on the right, a step increased the loss of a task."
    )
    return [Figure("checked", "Predicted and actual losses", caption, panels)]


def _searched(treatment: TreatmentResults, read: Callable[[Searches], Array]) -> Array:
    """(S, E) a number of line searches; nan without them."""
    return np.full(treatment.losses.shape[:2], math.nan) if treatment.searches is None else read(treatment.searches)


def _lowered(curve: Marks, lowered: Sequence[BoundReduction]) -> Marks:
    """Marks on the curve, at the epochs of the reductions."""
    epochs, seconds, loss = (values(curve, axis) for axis in range(3))
    known = np.isfinite(loss)
    at = np.array([max(1.0, each.epoch) for each in lowered])
    positions = (at, np.interp(at, epochs, seconds), np.interp(at, epochs[known], loss[known]))
    texts = tuple(f"seed {each.seed}, epoch {each.epoch:.2f}: {each.reason}" for each in lowered)
    return Marks(LOWERED, positions, curve.treatment, texts=texts)


def _checked(
    title: str,
    quantity: str,
    verified: Mapping[int, Sequence[VerifiedLoss]],
    read: Callable[[VerifiedLoss], tuple[float, float]],
    logarithmic: bool,
) -> Panel:
    points = {index: np.array([read(each) for each in checked]).T for index, checked in verified.items()}  # (2, n) each
    everything = np.concatenate([each.ravel() for each in points.values()])
    finite = everything[np.isfinite(everything)]
    diagonal = np.array([finite.min(), finite.max()]) if len(finite) else np.empty(0)
    marks = [Marks(MarkStyle(line=1, colour="soft"), (diagonal, diagonal))] if len(finite) else []
    marks += [
        Marks(CHECKED, (x, y), index, texts=tuple(each.task for each in verified[index]))
        for index, (x, y) in points.items()
    ]
    scale: Scale = "log" if logarithmic and len(finite) == len(everything) and bool((finite > 0).all()) else "linear"
    axes = (Axis(f"predicted {quantity}", scale=scale), Axis(f"actual {quantity}", scale=scale))
    return Panel(title, axes, tuple(marks))
