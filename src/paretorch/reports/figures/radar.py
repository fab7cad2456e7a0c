"""All metrics of every treatment in one polar diagram, relative to the baseline."""

from __future__ import annotations

import numpy as np

from paretorch.core.arrays import Array
from paretorch.reports.analysis.formatting import number
from paretorch.reports.analysis.summary import Summary
from paretorch.reports.figures.description import Axis, Figure, Marks, MarkStyle, Panel
from paretorch.studies.statistics.quality import seed_mean

FEWEST = 5  # metrics: fewer are easier to compare in the table
RINGS = (50.0, 100.0, 150.0)
OUTERMOST = 200.0  # at least twice as good as the baseline
HEIGHT = 560
CURVE = MarkStyle(line=1.5, size=4, hover="<b>{label}</b><br>{text}")
RING = MarkStyle(line=1, colour="soft")
BASELINE = MarkStyle(line=2, colour="ink")
END = MarkStyle(size=3, colour="soft", hover="{text}")


def radar(summary: Summary) -> list[Figure]:
    """The metrics of a treatment as a closed curve around the baseline's circle; none with few metrics."""
    results = summary.results
    kept = [k for k, counted in enumerate(results.counted) if counted]
    if len(kept) < FEWEST:
        return []
    base = np.array([seed_mean(results.treatments[results.plan.study.baseline].test[:, k]) for k in kept])
    angles = np.pi / 2 - 2 * np.pi * np.arange(len(kept)) / len(kept)
    marks = [_ring(radius) for radius in RINGS]
    titles = tuple(results.metrics[k].title for k in kept)
    marks.append(Marks(END, _positions(np.full(len(kept), OUTERMOST), angles), texts=titles))
    for index, row in enumerate(summary.rows.values()):
        means = np.array([seed_mean(row.results.test[:, k]) for k in kept])
        signs = np.array([1.0 if results.metrics[k].higher_is_better else -1.0 for k in kept])
        gains = 100 * signs * (means - base) / np.abs(base)
        if not np.isfinite(gains).any():
            continue
        texts = [
            f"{title}: {number(mean)} ({gain:+.1f} %)" for title, mean, gain in zip(titles, means, gains, strict=True)
        ]
        closed = np.append(np.arange(len(kept)), 0)
        x, y = _positions(np.clip(100 + gains, 0.0, OUTERMOST), angles)
        marks.append(Marks(CURVE, (x[closed], y[closed]), index, texts=tuple(texts[k] for k in closed)))
    baseline = results.plan.study.baseline
    caption = (
        "All metrics on test data, one direction for each, clockwise from the top in the order of the table of means. The circle "
        f"at 100 is {baseline!r}; further out is better: at 110 a metric is 10 % better. Means over seeds; the inner and the "
        "outer ring are 50 % worse and better."
    )
    panel = Panel("", (Axis(""), Axis("")), tuple(marks), height=HEIGHT, polar=True)
    return [
        Figure(
            "radar", "All metrics relative to the baseline", caption, (panel,), "all metrics relative to the baseline"
        )
    ]


def _ring(radius: float) -> Marks:
    angles = np.linspace(0, 2 * np.pi, 121)
    return Marks(BASELINE if radius == 100 else RING, _positions(np.full(len(angles), radius), angles))


def _positions(radii: Array, angles: Array) -> tuple[Array, Array]:
    return radii * np.cos(angles), radii * np.sin(angles)
