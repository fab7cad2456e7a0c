"""Grids of learning rates: what each rate came to, beside treatments that have none.

Shapes: ``S`` seeds, ``R`` rates.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from paretorch.reports.analysis.summary import Summary
from paretorch.reports.figures.points import Point, point
from paretorch.reports.reading.load import Array, TreatmentResults

FEWEST_RATES = 3  # of a grid that is drawn


@dataclass(frozen=True)
class Grid:
    """A treatment that chose among learning rates.

    Args:
        label: of the treatment.
        place: in the study.
        rates: (R,) rising.
        points: (R,) a loss at each of them.
        chosen: the rate that was best on validation data.
    """

    label: str
    place: int
    rates: tuple[float, ...]
    points: tuple[Point, ...]
    chosen: float


@dataclass(frozen=True)
class Level:
    """A search's loss: it has no rate, and is a line across all of them."""

    label: str
    place: int
    point: Point


@dataclass(frozen=True)
class RatePanel:
    """One loss against the rate.

    Args:
        title: what is shown.
        quantity: label of the vertical axis.
        grids: over rates.
        levels: searches.
    """

    title: str
    quantity: str
    grids: tuple[Grid, ...]
    levels: tuple[Level, ...]


def rate_panels(summary: Summary) -> tuple[RatePanel, ...]:
    """The combined loss in the end, on training and on test data; none without a search and a grid of rates."""
    kinds = (
        ("training data", "combined training loss, last epoch, lower is better", training_loss),
        ("test data", "combined loss on test data, lower is better", test_loss),
    )
    panels = []
    for title, quantity, read in kinds:
        grids, levels = [], []
        for place, (label, treatment) in enumerate(summary.results.treatments.items()):
            members = rate_members(treatment)
            if treatment.searches is not None:
                levels.append(Level(label, place, point(read(treatment), summary.level)))
            elif len(members) >= FEWEST_RATES:
                points = tuple(point(read(member), summary.level) for member in members.values())
                best = next(rate for rate, member in members.items() if treatment.chosen == member.settings[0])
                grids.append(Grid(label, place, tuple(members), points, best))
        if grids and levels:
            panels.append(RatePanel(title, quantity, tuple(grids), tuple(levels)))
    return tuple(panels)


def rate_members(treatment: TreatmentResults) -> dict[float, TreatmentResults]:
    """The members of a grid by rising learning rate; empty where they differ in anything else, or one has no rate."""
    found: dict[float, TreatmentResults] = {}
    rest = set()
    for member in treatment.grid:
        run = member.settings[0]
        rate = run.optimizer_options.get("lr")
        if isinstance(rate, bool) or not isinstance(rate, int | float):
            return {}
        options = {name: value for name, value in run.optimizer_options.items() if name != "lr"}
        rest.add(repr({**run.to_json(), "optimizer_options": options}))
        found[float(rate)] = member
    return dict(sorted(found.items())) if len(rest) == 1 and len(found) == len(treatment.grid) else {}


def training_loss(treatment: TreatmentResults) -> Array:
    """(S,) the sum over tasks of the last epoch's mean training losses."""
    return np.asarray(treatment.losses[:, -1].sum(axis=1))


def test_loss(treatment: TreatmentResults) -> Array:
    """(S,) the sum over tasks of the losses on test data."""
    return treatment.combined_test_losses
