"""Figures of a study of fronts for the page: hypervolume against gradient evaluations and seconds, the fronts themselves."""

from __future__ import annotations

import numpy as np

from paretorch.reports.analysis.summary import Summary
from paretorch.reports.figures.plots import Plain, Plot, short
from paretorch.reports.figures.series import MOST_POINTS, thinned
from paretorch.reports.reading.front_results import Fronts
from paretorch.studies.statistics.paired import FEWEST_SEEDS, t_bounds


def plots(summary: Summary) -> list[Plot]:
    """The figures; none where no front was trained."""
    found = [
        (place, treatment.fronts, treatment.epoch_seconds)
        for place, treatment in enumerate(summary.results.treatments.values())
        if treatment.fronts is not None
    ]
    if not found:
        return []
    lines = [_line(place, fronts, seconds, summary.level) for place, fronts, seconds in found]
    panel = {
        "title": "",
        "quantity": "hypervolume on validation data, higher is better",
        "log": False,
        "x": "gradient evaluations, all models together",
        "lines": [line for line in lines if line is not None],
    }
    growth = (
        "How much of the space below the reference the models dominate together, mean over seeds with 95 % intervals, against "
        "the gradients that were computed for all of them; of an evolution, which takes none, against evaluations of the losses."
    )
    some = found[0][1]
    fronts = {
        "kind": "fronts",
        "tasks": list(some.tasks),
        "reference": short(some.reference),
        "points": [
            [place, [[short(row) for row in points] for points in fronts.points], fronts.alone]
            for place, fronts, _ in found
        ],
    }
    shown = (
        "The models of every seed by their losses on test data, below the reference; of the first seed, those that are not "
        "dominated are joined. Where a treatment has one network for each task, a star marks what they reach together."
    )
    return [
        Plot("hypervolume", "How fast the front grows", growth, {"kind": "lines", "timed": True, "panels": [panel]}),
        Plot("fronts", "The fronts", shown, fronts),
    ]


def _line(place: int, fronts: Fronts, seconds: np.ndarray, level: float) -> dict[str, Plain] | None:
    kept = np.isfinite(fronts.hypervolume).all(axis=1)
    if not kept.any():
        return None
    at = thinned(fronts.hypervolume.shape[1], MOST_POINTS)
    values = fronts.hypervolume[kept][:, at]
    line: dict[str, Plain] = {
        "t": place,
        "n": int(kept.sum()),
        "x": short(fronts.gradients[kept].mean(axis=0)[at]),
        "y": short(values.mean(axis=0)),
        "s": short(np.cumsum(seconds[kept], axis=1).mean(axis=0)[at]),
    }
    if len(values) >= FEWEST_SEEDS:
        low, high = t_bounds(values.T, level)
        line |= {"l": short(low), "h": short(high)}
    return line
