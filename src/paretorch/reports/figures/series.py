"""The numbers behind every figure, thinned: the page and the figures for papers are drawn from the same ones.

Shapes: ``S`` seeds, ``E`` epochs, ``n`` points.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from paretorch.reports.analysis.summary import Summary
from paretorch.reports.reading.load import Array, Metric, StudyResults, TreatmentResults
from paretorch.studies.statistics.paired import FEWEST_SEEDS, t_bounds

MOST_POINTS = 100  # of one line
BUDGET = 60_000  # points of all lines of a kind of panel, so that a page stays small with hundreds of treatments
MOST_PAIRS = 15  # panels of cosines: those of the tasks that disagree most
LOG_FROM = 50.0  # ratio of the largest to the smallest value from which an axis is logarithmic


@dataclass(frozen=True)
class Line:
    """A treatment's mean over seeds.

    Args:
        label: the treatment.
        place: of the treatment in the study, which decides its look.
        epochs: (n,) counted from 1.
        seconds: (n,) of training until then, mean over seeds; nan where they were not measured.
        mean: (n,) over ``seeds``.
        low: (n,) lower end of Student's 95 % interval of the mean; None below 3 seeds.
        high: (n,) upper end.
        seeds: that the mean is taken of.
    """

    label: str
    place: int
    epochs: Array
    seconds: Array
    mean: Array
    low: Array | None
    high: Array | None
    seeds: int


@dataclass(frozen=True)
class Panel:
    """One pair of axes over epochs, with a line for each treatment that has numbers.

    Args:
        title: what is shown.
        quantity: label of the vertical axis, with its unit and direction.
        lines: in the study's order.
        log: whether values span so much, all above zero, that the axis is logarithmic.
    """

    title: str
    quantity: str
    lines: tuple[Line, ...]
    log: bool = False


def learning_curves(summary: Summary) -> tuple[Panel, ...]:
    """Delta m and every metric on validation data by epoch."""
    results = summary.results
    progress = _panel(
        summary,
        "Δm",
        "Δm on validation data (%), lower is better",
        lambda treatment: summary.rows[treatment.label].progress,
        1 + len(results.metrics),
        logarithmic=False,
    )
    rest = (
        _panel(summary, m.title, quantity(m), lambda t, k=k: t.curves[:, :, k], 1 + len(results.metrics))  # type: ignore[misc]
        for k, m in enumerate(results.metrics)
    )
    return _filled([*rest, progress])


def training_losses(summary: Summary) -> tuple[Panel, ...]:
    """Every task's mean training loss by epoch."""
    tasks = summary.results.tasks
    panels = (
        _panel(summary, task, f"training loss of {task}", lambda t, k=k: t.losses[:, :, k], len(tasks))  # type: ignore[misc]
        for k, task in enumerate(tasks)
    )
    return _filled(panels)


def combined_loss(summary: Summary) -> tuple[Panel, ...]:
    """The sum over tasks of the mean training losses by epoch, as each task's own loss."""
    axis = "combined training loss, lower is better"
    return _filled([_panel(summary, "all tasks", axis, lambda t: np.asarray(t.losses.sum(axis=2)), 1)])


def searched_steps(summary: Summary) -> tuple[Panel, ...]:
    """What line searches did by epoch: accepted steps, the bound, trials; none where nothing was searched."""

    def read(name: str) -> Callable[[TreatmentResults], Array]:
        def values(treatment: TreatmentResults) -> Array:
            empty = np.full(treatment.losses.shape[:2], math.nan)
            return empty if treatment.searches is None else np.asarray(getattr(treatment.searches, name))

        return values

    return _filled(
        [
            _panel(summary, "accepted step", "accepted step", read("step"), 3),
            _panel(summary, "largest step allowed", "largest step allowed", read("bound"), 3),
            _panel(summary, "trials per step", "trials per step", read("trials"), 3, logarithmic=False),
        ]
    )


def weights(summary: Summary) -> tuple[Panel, ...]:
    """By what each task was multiplied, mean over the steps of an epoch."""
    tasks = summary.results.tasks
    panels = (
        _panel(summary, task, f"weight of {task}", lambda t, k=k: t.weights[:, :, k], len(tasks))  # type: ignore[misc]
        for k, task in enumerate(tasks)
    )
    return _filled(panels)


def cosines(summary: Summary) -> tuple[Panel, ...]:
    """Mean cosines between the gradients of two tasks; of many pairs those that disagree most."""
    results = summary.results
    panels = (
        _panel(
            summary,
            f"{results.pairs[k][0]} and {results.pairs[k][1]}",
            "mean cosine between gradients",
            lambda t, k=k: t.cosines[:, :, k],  # type: ignore[misc]
            min(len(results.pairs), MOST_PAIRS),
            logarithmic=False,
        )
        for k in most_opposed(results)
    )
    return _filled(panels)


def most_opposed(results: StudyResults) -> list[int]:
    """Places of the pairs that are shown: all if they are few, else those with the lowest mean cosine, lowest first."""
    count = len(results.pairs)
    if count <= MOST_PAIRS:
        return list(range(count))
    values = np.concatenate([t.cosines.reshape(-1, count) for t in results.treatments.values()])
    there = np.isfinite(values)
    sums = np.where(there, values, 0.0).sum(axis=0)
    means = np.where(there.any(axis=0), sums / np.maximum(there.sum(axis=0), 1), math.inf)
    return [int(place) for place in np.argsort(means, kind="stable")[:MOST_PAIRS]]


def quantity(metric: Metric) -> str:
    """A metric's axis."""
    unit = f" ({metric.unit})" if metric.unit else ""
    return f"{metric.title}{unit}, {'higher' if metric.higher_is_better else 'lower'} is better"


def thinned(count: int, most: int) -> Array:
    """(n,) places of at most ``most`` points among ``count``, evenly spread, the first and the last among them.

    Example:
        >>> thinned(9, 3).tolist(), thinned(2, 3).tolist()
        ([0, 4, 8], [0, 1])
    """
    return np.unique(np.linspace(0, count - 1, min(count, max(2, most))).round().astype(int))


def _panel(
    summary: Summary,
    title: str,
    axis: str,
    read: Callable[[TreatmentResults], Array],
    panels: int,
    logarithmic: bool = True,
) -> Panel:
    treatments = summary.results.treatments
    most = min(MOST_POINTS, max(8, BUDGET // max(1, panels * len(treatments))))
    found = (
        _line(label, place, read(treatment), treatment.epoch_seconds, most, summary.level)
        for place, (label, treatment) in enumerate(treatments.items())
    )
    lines = tuple(line for line in found if line is not None)
    if not (logarithmic and _spans(lines)):
        return Panel(title, axis, lines)
    # an interval may reach below zero, where a logarithmic axis has no place
    floor = min(float(np.nanmin(line.mean)) for line in lines) / 10
    cut = (line if line.low is None else replace(line, low=np.maximum(line.low, floor)) for line in lines)
    return Panel(title, axis, tuple(cut), log=True)


def _line(label: str, place: int, values: Array, seconds: Array, most: int, level: float) -> Line | None:
    """The mean of (S, E) values over the seeds that are complete; over those that there are, where none is."""
    complete = values[np.isfinite(values).all(axis=1)]
    kept = complete if len(complete) else values[np.isfinite(values).any(axis=1)]
    if not len(kept):
        return None
    at = thinned(values.shape[1], most)
    kept = kept[:, at]
    finite = np.isfinite(kept)
    count = finite.sum(axis=0)
    mean = np.where(count, np.where(finite, kept, 0.0).sum(axis=0) / np.maximum(count, 1), math.nan)
    low = high = None
    if len(complete) >= FEWEST_SEEDS:
        low, high = t_bounds(kept.T, level)
    timed = seconds[np.isfinite(seconds).all(axis=1)]
    elapsed = np.cumsum(timed, axis=1).mean(axis=0)[at] if len(timed) else np.full(len(at), math.nan)
    return Line(label, place, at + 1.0, elapsed, mean, low, high, len(kept))


def _spans(lines: Sequence[Line]) -> bool:
    values = np.concatenate([line.mean[np.isfinite(line.mean)] for line in lines]) if lines else np.empty(0)
    return bool(len(values) and values.min() > 0 and values.max() / values.min() >= LOG_FROM)


def _filled(panels: Iterable[Panel]) -> tuple[Panel, ...]:
    return tuple(panel for panel in panels if panel.lines)
