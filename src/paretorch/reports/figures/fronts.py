"""Sets of models on a front: growth of the hypervolume, and the losses of the models."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import torch

from paretorch.core.arrays import Array
from paretorch.pareto.dominance import non_dominated
from paretorch.reports.analysis.front_indicators import attainment_surface, missing_package
from paretorch.reports.analysis.summary import Summary
from paretorch.reports.figures.curves import MOST_POINTS, SECONDS, curve_style, thinned
from paretorch.reports.figures.description import Axis, Figure, Marks, MarkStyle, Panel
from paretorch.reports.reading.front_results import Fronts
from paretorch.studies.statistics.paired import FEWEST_SEEDS, t_bounds


def fronts(summary: Summary) -> list[Figure]:
    """Hypervolume against gradient evaluations, and the models; none if no front was trained."""
    treatments = enumerate(summary.results.treatments.values())
    found = {index: treatment for index, treatment in treatments if treatment.fronts is not None}
    sets = {index: treatment.fronts for index, treatment in found.items() if treatment.fronts is not None}
    if not sets:
        return []
    growth = [_growth(index, each, found[index].epoch_seconds, summary.level) for index, each in sets.items()]
    axes = (
        Axis("gradient evaluations, all models together"),
        SECONDS,
        Axis("hypervolume on validation data, higher is better"),
    )
    caption = (
        "The volume below the reference that the models dominate together, mean over seeds with 95 % intervals, against the "
        "number of gradients computed for all of them; an evolutionary algorithm computes none, and is shown against evaluations "
        "of the losses."
    )
    panel = Panel("", axes, tuple(marks for marks in growth if marks is not None), y=2)
    models = (
        "The models of every seed by their losses on test data, below the reference; of the first seed, the non-dominated ones "
        "are joined. If a treatment has one network for each task, a star marks the point of their lowest losses."
    )
    return [
        Figure("hypervolume", "How fast the front grows", caption, (panel,), switch="by time"),
        Figure("fronts", "The fronts", models, (_models(sets),)),
        *_attainment(sets),
    ]


def _attainment(sets: dict[int, Fronts]) -> list[Figure]:
    """The median attainment surfaces of two tasks; none with other numbers of tasks, one seed, or without moocore."""
    tasks = next(iter(sets.values())).tasks
    seeds = max(len(found.points) for found in sets.values())
    if len(tasks) != 2 or seeds < 2 or missing_package() is not None:
        return []
    caption = (
        f"For each treatment the losses that at least half of its {seeds} seeds attain: they have a model that is at most as "
        "large in both. The nearer to the lower left, the better; where two lines cross, neither treatment is better everywhere."
    )
    style = MarkStyle(line=1.6, hover="<b>{label}</b><br>" + "<br>".join(f"{{{t}.name}} {{{t}}}" for t in range(2)))
    marks = []
    for index, found in sets.items():
        corners = attainment_surface([_below_reference(found, points) for points in found.points], 0.5)
        if len(corners):
            marks.append(Marks(style, tuple(_staircase(corners, np.array(found.reference)).T), index))
    axes = tuple(Axis(f"{task} loss, lower is better", name=task) for task in tasks)
    return [Figure("attainment", "What half of the seeds attain", caption, (Panel("", axes, tuple(marks)),))]


def _staircase(corners: Array, reference: Array) -> Array:
    """(2 n + 1, 2) points of the boundary of what (n, 2) corners dominate, up to the reference."""
    first = np.repeat(np.append(corners[:, 0], reference[0]), 2)[:-1]
    second = np.repeat(np.append(reference[1], corners[:, 1]), 2)[1:]
    return np.stack([first, second], axis=1)


def _growth(index: int, found: Fronts, seconds: Array, level: float) -> Marks | None:
    complete = np.isfinite(found.hypervolume).all(axis=1)
    if not complete.any():
        return None
    at = thinned(found.hypervolume.shape[1], MOST_POINTS)
    values = found.hypervolume[complete][:, at]
    elapsed = np.cumsum(seconds[complete], axis=1).mean(axis=0)[at]
    bounds = t_bounds(values.T, level) if len(values) >= FEWEST_SEEDS else None
    positions = (found.gradients[complete].mean(axis=0)[at], elapsed, values.mean(axis=0))
    return Marks(curve_style(int(complete.sum())), positions, index, (None, None, bounds))


def _models(sets: dict[int, Fronts]) -> Panel:
    """The losses in a plane, in space, or as lines over the tasks."""
    tasks = next(iter(sets.values())).tasks
    titles = [f"{task} loss, lower is better" for task in tasks]
    hover = "<br>".join(["<b>{label}</b>", *(f"{{{t}.name}} {{{t}}}" for t in range(len(tasks)))])
    if len(tasks) > 3:
        parallel = (Axis("", labels=tasks), Axis("loss, lower is better"))
        lines = tuple(marks for index, found in sets.items() for marks in _parallel(index, found))
        return Panel("", parallel, lines)
    axes = tuple(Axis(title, name=task) for title, task in zip(titles, tasks, strict=True))
    marks = tuple(marks for index, found in sets.items() for marks in _points(index, found, hover))
    return Panel("", axes, marks, z=2 if len(tasks) == 3 else None)


def _parallel(index: int, found: Fronts) -> Iterator[Marks]:
    """A line over the tasks for each model."""
    for seed, points in enumerate(found.points):
        style = MarkStyle(line=1, opacity=0.25 if seed else 0.8, hover="<b>{label}</b><br>{all}")
        for point in _below_reference(found, points):
            yield Marks(style, (None, point), index)


def _points(index: int, found: Fronts, hover: str) -> Iterator[Marks]:
    space = len(found.tasks) == 3
    first = MarkStyle(size=5, symbol="circle", hover=hover) if space else MarkStyle(line=1.4, size=8, hover=hover)
    other = MarkStyle(size=2.5 if space else 4, symbol="circle" if space else "", opacity=0.35, hover=hover)
    ideal = replace(other, size=7 if space else 15, symbol="diamond" if space else "star", opacity=1.0)
    for seed, points in enumerate(found.points):
        kept = _below_reference(found, points)
        if seed == 0:
            kept = kept[non_dominated(torch.from_numpy(kept)).numpy()] if len(kept) else kept
        if len(kept):
            yield Marks(other if seed else first, tuple(kept.T), index)
        if seed == 0 and found.single_task and len(points):
            yield Marks(ideal, tuple(np.nanmin(points, axis=0)[:, None]), index)


def _below_reference(found: Fronts, points: Array) -> Array:
    """The (n, T) points below the reference, by the first task's loss."""
    kept = points[(points < np.array(found.reference)).all(axis=1)]
    return kept[np.argsort(kept[:, 0], kind="stable")]
