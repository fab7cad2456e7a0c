"""Differences to the reference with their intervals, and mean ranks over workloads."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from paretorch.reports.analysis.summary import Summary
from paretorch.reports.figures.description import Axis, Figure, Marks, MarkStyle, Panel
from paretorch.studies.statistics.paired import Verdict
from paretorch.studies.statistics.ranking import Ranking

SYMBOLS = {
    Verdict.BETTER: ("triangle-left", "better"),
    Verdict.WORSE: ("triangle-right-open", "worse"),
    Verdict.NOT_DISTINGUISHABLE: ("circle-open", "same"),
    Verdict.WITHHELD: ("x-thin-open", "same"),
}
HOVER = "<b>{text}</b><br>{0}{0.interval}"


def differences(summary: Summary) -> list[Figure]:
    """Differences of Delta m, one row for each treatment, the best on top; none without a difference."""
    found = {label: row.comparison for label, row in summary.rows.items() if row.comparison is not None}
    known = {label: comparison for label, comparison in found.items() if math.isfinite(comparison.difference)}
    if not known:
        return []
    known = dict(sorted(known.items(), key=lambda item: -item[1].difference))
    marks = []
    for position, comparison in enumerate(known.values()):
        symbol, colour = SYMBOLS[comparison.verdict]
        style = MarkStyle(size=11, symbol=symbol, colour=colour, hover=f"{HOVER}<br>{comparison.verdict.value}")
        ends = comparison.interval
        bounds = None if ends is None else (np.array([ends.low]), np.array([ends.high]))
        values = (np.array([comparison.difference]), np.array([float(position)]))
        label = list(known)[position]
        marks.append(Marks(style, values, None, (bounds, None), texts=(label,)))
    reference = summary.results.plan.study.reference
    axes = (
        Axis(f"difference of Δm to {reference} (percentage points)", zero_line=True),
        Axis("", labels=tuple(known), limits=(-0.7, len(known) - 0.3), grid=False),
    )
    caption = (
        f"Differences of Δm to {reference} on test data, paired by seed, with 95 % intervals that are simultaneous for all "
        "rows; left of 0 is better. The shape of a mark shows the verdict: not distinguishable if the interval touches 0."
    )
    panel = Panel("", axes, tuple(marks), height=_height(len(known)))
    return [Figure("differences", "How much better or worse", caption, (panel,))]


def ranks(labels: Sequence[str], ranking: Ranking) -> Figure:
    """The critical-difference diagram.

    Args:
        labels: of the treatments.
        ranking: of the treatments over several workloads.
    """
    order = np.argsort(ranking.ranks, kind="stable")
    position = {int(index): row for row, index in enumerate(order)}
    rank = MarkStyle(size=11, colour="ink", hover="<b>{text}</b><br>mean rank {0}")
    names = tuple(labels[index] for index in order)
    marks = [Marks(rank, (ranking.ranks[order], None), texts=names)]
    for group in ranking.groups:
        rows = [position[index] for index in group]
        right = max(float(ranking.ranks[index]) for index in group) + 0.12
        ends = np.array([min(rows) - 0.2, max(rows) + 0.2])
        marks.append(Marks(MarkStyle(line=5, colour="soft"), (np.array([right, right]), ends)))
    caption = (
        f"Mean ranks over {ranking.workloads} workloads, 1 is best. Bars join treatments that Nemenyi's test cannot distinguish: "
        f"their ranks differ by less than {ranking.critical_difference:.2f}."
    )
    axes = (Axis("mean rank, 1 is best"), Axis("", labels=names, limits=(len(names) - 0.4, -0.6)))
    panel = Panel("", axes, tuple(marks), height=_height(len(names)))
    return Figure("ranks", "Ranks over workloads", caption, (panel,))


def _height(rows: int) -> int:
    """Pixels of a panel with a row for each treatment; many rows are closer to each other."""
    return 95 + (30 if rows <= 20 else 23) * rows
