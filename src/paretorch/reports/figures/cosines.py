"""Cosines between the gradients of two tasks: curves by epoch, and a matrix of all pairs."""

from __future__ import annotations

import numpy as np

from paretorch.core.arrays import Array
from paretorch.reports.analysis.summary import Summary
from paretorch.reports.figures.curves import curves_figure, curves_panel
from paretorch.reports.figures.description import Axis, Figure, Panel
from paretorch.reports.reading.load import StudyResults

MOST_PAIRS = 15  # panels: the pairs with the lowest mean cosine


def cosine_curves(summary: Summary) -> list[Figure]:
    """Mean cosines by epoch; of many pairs those that conflict most."""
    results = summary.results
    shown = most_opposed(results)
    panels = [
        curves_panel(
            summary,
            f"{results.pairs[k][0]} and {results.pairs[k][1]}",
            "mean cosine between gradients",
            lambda t, k=k: t.cosines[:, :, k],  # type: ignore[misc]
            len(shown),
            logarithmic=False,
        )
        for k in shown
    ]
    caption = "Mean cosine between the gradients of two tasks, for methods that compare gradients; below 0 the tasks conflict."
    filled = sum(bool(panel.marks) for panel in panels)
    if len(results.pairs) > filled:
        caption += f" Of {len(results.pairs)} pairs, these are the {filled} with the lowest mean; the matrix has all."
    return curves_figure("cosines", "Do the tasks agree?", caption, panels, "cosines between task gradients")


def cosine_matrices(summary: Summary) -> list[Figure]:
    """Means over all epochs and seeds, a matrix for each treatment; none for two tasks, whose curve is enough."""
    tasks, pairs = summary.results.tasks, summary.results.pairs
    if len(tasks) < 3:
        return []
    first, second = (np.array([tasks.index(pair[side]) for pair in pairs]) for side in (0, 1))
    axes = (Axis("", labels=tuple(tasks), grid=False), Axis("", labels=tuple(tasks), grid=False))
    panels = []
    for label, row in summary.rows.items():
        values = row.results.cosines.reshape(-1, len(pairs))
        if np.isfinite(values).any():
            square = np.full((len(tasks), len(tasks)), np.nan)
            square[first, second] = square[second, first] = _means(values, np.nan)
            height = max(300, min(900, 120 + 22 * len(tasks)))
            panels.append(Panel(label, axes, matrix=square.round(3), height=height))
    if not panels:
        return []
    caption = "Mean cosine between the gradients of every two tasks, over all epochs and seeds of a treatment."
    return [Figure("matrix", "Which tasks agree?", caption, tuple(panels), choose_panel="Treatment:")]


def most_opposed(results: StudyResults) -> list[int]:
    """Indices of the pairs that have a panel: all of few, else those with the lowest mean cosine, the lowest first."""
    count = len(results.pairs)
    if count <= MOST_PAIRS:
        return list(range(count))
    values = np.concatenate([t.cosines.reshape(-1, count) for t in results.treatments.values()])
    return [int(index) for index in np.argsort(_means(values, np.inf), kind="stable")[:MOST_PAIRS]]


def _means(values: Array, missing: float) -> Array:
    """(P,) means of the finite values of (n, P)."""
    finite = np.isfinite(values)
    sums = np.where(finite, values, 0.0).sum(axis=0)
    return np.where(finite.any(axis=0), sums / np.maximum(finite.sum(axis=0), 1), missing)
