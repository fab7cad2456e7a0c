"""Grids of learning rates: the final loss at each rate, compared with line searches.

Shapes: ``S`` seeds, ``R`` rates.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from paretorch.core.arrays import Array
from paretorch.reports.analysis.summary import Summary
from paretorch.reports.figures.description import Axis, Figure, Marks, MarkStyle, Panel, Scale
from paretorch.reports.figures.trade_offs import mean_and_bounds
from paretorch.reports.reading.load import TreatmentResults

FEWEST_RATES = 3  # of a grid that is drawn
LOG_FROM = 8.0  # ratio of the largest to the smallest loss from which the axis is logarithmic
RATE = MarkStyle(line=1.8, size=6, intervals="band", hover="<b>{label}</b><br>{1}{1.interval}<br>rate {0}{text}")
SEARCH = MarkStyle(line=1.8, size=9, intervals="band", hover="<b>{label}</b><br>{1}{1.interval}<br>searched")


def rates(summary: Summary) -> list[Figure]:
    """The combined loss on training and on test data against the rate; none without a line search and a grid of rates."""
    kinds = (
        ("training data", "combined training loss, last epoch, lower is better", _training_loss),
        ("test data", "combined loss on test data, lower is better", lambda results: results.combined_test_losses),
    )
    panels = [panel for kind in kinds for panel in _panel(summary, *kind)]
    caption = (
        "The final loss against the fixed rate, mean over seeds with bands of 95 %; the large mark is the rate that is best on "
        "validation data. Line searches have no rate: each is a horizontal line with its band."
    )
    return [Figure("rates", "A searched step against every fixed one", caption, tuple(panels))] if panels else []


def rate_members(treatment: TreatmentResults) -> dict[float, TreatmentResults]:
    """The members of a grid by increasing learning rate; empty if they differ in anything else, or one has no rate."""
    found: dict[float, TreatmentResults] = {}
    others = set()
    for member in treatment.grid:
        run = member.settings[0]
        rate = run.optimizer_options.get("lr")
        if isinstance(rate, bool) or not isinstance(rate, int | float):
            return {}
        options = {name: value for name, value in run.optimizer_options.items() if name != "lr"}
        others.add(repr({**run.to_json(), "optimizer_options": options}))
        found[float(rate)] = member
    return dict(sorted(found.items())) if len(others) == 1 and len(found) == len(treatment.grid) else {}


def _training_loss(treatment: TreatmentResults) -> Array:
    """(S,) the sum over tasks of the last epoch's mean training losses."""
    return np.asarray(treatment.losses[:, -1].sum(axis=1))


def _panel(summary: Summary, title: str, axis: str, read: Callable[[TreatmentResults], Array]) -> Sequence[Panel]:
    """The panel of one loss; none without a line search and a grid."""
    treatments = list(summary.results.treatments.values())
    grids = {index: rate_members(treatment) for index, treatment in enumerate(treatments) if treatment.searches is None}
    grids = {index: members for index, members in grids.items() if len(members) >= FEWEST_RATES}
    searched = [index for index, treatment in enumerate(treatments) if treatment.searches is not None]
    if not grids or not searched:
        return ()
    known = sorted({rate for members in grids.values() for rate in members})
    low, high = known[0] / 1.3, known[-1] * 1.3
    marks = []
    for index, members in grids.items():
        chosen = [treatments[index].chosen == member.settings[0] for member in members.values()]
        points = np.array([mean_and_bounds(read(member), summary.level) for member in members.values()])  # (R, 3)
        sizes = tuple(13.0 if best else 6.0 for best in chosen)
        texts = tuple(", chosen on validation data" if best else "" for best in chosen)
        marks.append(_marks(RATE, index, list(members), points, sizes, texts))
    for order, index in enumerate(searched):
        point = mean_and_bounds(read(treatments[index]), summary.level)
        at = low * (high / low) ** ((order + 0.5) / len(searched))  # marks beside each other, if lines coincide
        marks.append(_marks(SEARCH, index, [low, at, high], np.array([point] * 3), (0.0, 9.0, 0.0)))
    axes = (Axis("fixed learning rate", scale="decades", limits=(low, high)), _loss_axis(axis, marks))
    return (Panel(title, axes, tuple(marks)),)


def _marks(
    style: MarkStyle,
    index: int,
    rates: Sequence[float],
    points: Array,
    sizes: tuple[float, ...],
    texts: tuple[str, ...] = (),
) -> Marks:
    """Marks at (R, 3) means and ends of intervals."""
    bounds = (points[:, 1], points[:, 2]) if np.isfinite(points[:, 1:]).any() else None
    return Marks(style, (np.array(rates), points[:, 0]), index, (None, bounds), sizes, texts)


def _loss_axis(title: str, marks: Sequence[Marks]) -> Axis:
    values = np.concatenate([each.values[1] for each in marks if each.values[1] is not None])
    values = values[values > 0]
    scale: Scale = "log" if len(values) and values.max() > LOG_FROM * values.min() else "linear"
    limits = (float(values.min()) / 1.6, float(values.max()) * 1.6) if scale == "log" else None
    return Axis(title, scale=scale, limits=limits)
