"""Figures for papers: labelled axes with units, intervals over seeds, readable in black and white."""

from __future__ import annotations

import io
import math
import textwrap
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from paretorch.extras import extra
from paretorch.reports.analysis.summary import Summary, ordered
from paretorch.reports.figures import series
from paretorch.reports.figures.points import Point, cost_points, metric_points
from paretorch.reports.figures.series import Line, Panel
from paretorch.reports.figures.styles import look
from paretorch.storage import atomic
from paretorch.studies.statistics.paired import FEWEST_SEEDS
from paretorch.studies.statistics.ranking import Ranking

with extra("studies"):
    from matplotlib import rc_context
    from matplotlib.axes import Axes
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

FORMATS = ("svg", "pdf", "png")
COLUMNS = 4  # panels beside each other
MOST_PANELS = 16  # of one figure: what is beyond them is on the page
MOST_TREATMENTS = 12  # of one figure: reference, baseline and the best others; nobody can read more on paper


def learning_curves(summary: Summary) -> Figure:
    """Validation metrics by epoch: a panel for each metric, a line for each treatment, mean over seeds.

    Bands are Student's 95 % intervals of the mean; they are left out below 3 seeds, and the figure says so.
    """
    return _panels(summary, series.learning_curves(summary), "validation data")


def weights(summary: Summary) -> Figure | None:
    """By what each task was multiplied, by epoch; None where no method has weights."""
    panels = series.weights(summary)
    return _panels(summary, panels, "weights of the methods") if panels else None


def cosines(summary: Summary) -> Figure | None:
    """Mean cosines between the gradients of two tasks, by epoch; None where no method looks at gradients."""
    panels = series.cosines(summary)
    return _panels(summary, panels, "cosines between task gradients") if panels else None


def trade_off(summary: Summary) -> Figure | None:
    """The means of the first two tasks' first metrics, with intervals; None where there is one metric."""
    metrics = summary.results.metrics
    first = [next(k for k, metric in enumerate(metrics) if metric.task == task) for task in _tasks(summary)][:2]
    if len(first) < 2:
        return None
    x, y = (metric_points(summary, k) for k in first)
    return _plane(summary, x, y, *(f"{series.quantity(metrics[k])}, test data" for k in first))


def cost(summary: Summary) -> Figure:
    """Delta m against seconds per epoch, with intervals of both."""
    seconds, quality = cost_points(summary)["seconds per epoch"], cost_points(summary)["Δm"]
    return _plane(summary, seconds, quality, "seconds per epoch, training", "Δm on test data (%), lower is better")


def ranks(labels: Sequence[str], ranking: Ranking) -> Figure:
    """The critical-difference diagram: mean ranks over workloads, bars join what is not distinguishable."""
    with extra("studies"):
        import pandas
        from scikit_posthocs import critical_difference_diagram

    figure = Figure(figsize=(7.2, 1.2 + 0.22 * len(labels)), layout="constrained")
    FigureCanvasAgg(figure)
    axis = figure.subplots()
    same = pandas.DataFrame(ranking.p_pairs, index=list(labels), columns=list(labels))
    critical_difference_diagram(dict(zip(labels, ranking.ranks, strict=True)), same, ax=axis)
    axis.set_title(
        f"mean rank over {ranking.workloads} workloads, 1 is best; Nemenyi's critical difference "
        f"{ranking.critical_difference:.2f}",
        fontsize="medium",
    )
    return figure


def save(figure: Figure, folder: Path, name: str, formats: Sequence[str] = ("svg", "png")) -> tuple[Path, ...]:
    """Writes a figure once for each format (``svg``, ``pdf``, ``png``); the files' bytes depend on the figure alone."""
    paths = []
    for form in map(known, formats):
        path = folder / f"{name}.{form}"
        undated = {"svg": {"Date": None}, "pdf": {"CreationDate": None}, "png": {}}[form]
        with rc_context({"svg.hashsalt": name}):  # else the file's inner names are drawn anew each time
            drawn = io.BytesIO()  # written as a whole or not at all, and never through a link
            figure.savefig(drawn, format=form, dpi=160, metadata=undated)
            atomic.write(path, drawn.getvalue())
        paths.append(path)
    return tuple(paths)


def known(form: str) -> str:
    """The format, if figures are written in it."""
    if form not in FORMATS:
        raise ValueError(f"figures are written as svg, pdf or png, got {form!r}")
    return form


def _tasks(summary: Summary) -> list[str]:
    """Tasks that have a metric."""
    return list(dict.fromkeys(metric.task for metric in summary.results.metrics))


def _panels(summary: Summary, panels: Sequence[Panel], what: str) -> Figure:
    shown, kept = panels[:MOST_PANELS], _kept(summary)
    columns = min(COLUMNS, max(1, len(shown)))
    rows = max(1, math.ceil(len(shown) / columns))
    figure = Figure(figsize=(4.2 * columns, 3.6 * rows + 1.0), layout="constrained")
    FigureCanvasAgg(figure)
    axes: list[Axes] = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axis, panel in zip(axes, shown, strict=False):
        for line in panel.lines:
            if line.label in kept:
                _curve(axis, line)
        _label(axis, panel)
    for axis in axes[len(shown) :]:
        axis.remove()
    _legend(figure, axes[: len(shown)])
    seeds = len(summary.results.plan.seeds)
    bands = "95 % intervals of the mean" if seeds >= FEWEST_SEEDS else f"no intervals: fewer than {FEWEST_SEEDS} seeds"
    more = f"; the first {len(shown)} of {len(panels)} panels" if len(panels) > len(shown) else ""
    name = summary.results.plan.study.name
    title = f"{name}: {what}, mean over {seeds} seeds, {bands}{more}{_others(summary)}"
    figure.suptitle("\n".join(textwrap.wrap(title, 32 * columns)), fontsize="medium")
    return figure


def _kept(summary: Summary) -> set[str]:
    """Labels of the treatments that a figure shows."""
    study = summary.results.plan.study
    return set(list(dict.fromkeys([study.reference, study.baseline, *ordered(summary)]))[:MOST_TREATMENTS])


def _others(summary: Summary) -> str:
    """What a title says about treatments that are not shown."""
    count = len(summary.rows) - len(_kept(summary))
    return f"; {count} treatments with a higher Δm are on the page alone" if count > 0 else ""


def _legend(figure: Figure, axes: Sequence[Axes]) -> None:
    """One legend for all panels: not every treatment is in every panel."""
    handles = {label: handle for axis in axes for handle, label in zip(*axis.get_legend_handles_labels(), strict=True)}
    figure.legend(
        list(handles.values()),
        [_plain(label) for label in handles],
        loc="outside lower center",
        ncols=min(4, max(1, len(handles))),
        frameon=False,
        handlelength=4,
    )


def _curve(axis: Axes, line: Line) -> None:
    style = look(line.place)
    every = max(1, len(line.epochs) // 8)
    axis.plot(
        line.epochs,
        line.mean,
        color=style.colour,
        linestyle=style.line,
        marker=style.marker,
        markersize=4,
        markevery=(line.place % every, every),
        linewidth=1.4,
        label=_plain(line.label),
    )
    if line.low is not None and line.high is not None:
        axis.fill_between(line.epochs, line.low, line.high, color=style.colour, alpha=0.12, linewidth=0)


def _label(axis: Axes, panel: Panel) -> None:
    axis.set_xlabel("epoch")
    axis.set_ylabel(_plain(panel.quantity))
    if panel.log:
        axis.set_yscale("log")
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    _frame(axis)


def _frame(axis: Axes) -> None:
    axis.grid(True, linewidth=0.3)
    for side in ("top", "right"):
        axis.spines[side].set_visible(False)


def _plain(text: str) -> str:
    """Text that matplotlib shows as it stands: no mathematics between dollars, no label hidden by an underscore."""
    escaped = text.replace("$", r"\$")
    return f"\u200b{escaped}" if escaped.startswith("_") else escaped


def _plane(summary: Summary, x: Sequence[Point], y: Sequence[Point], across: str, up: str) -> Figure:
    figure = Figure(figsize=(6.4, 5.2), layout="constrained")
    FigureCanvasAgg(figure)
    axis = figure.subplots()
    kept = _kept(summary)
    for place, (label, one, other) in enumerate(zip(summary.rows, x, y, strict=True)):
        if label not in kept or not (math.isfinite(one.mean) and math.isfinite(other.mean)):
            continue
        style = look(place)
        axis.errorbar(
            [one.mean],
            [other.mean],
            xerr=_ends(one),
            yerr=_ends(other),
            color=style.colour,
            marker=style.marker,
            markersize=7,
            linestyle="none",
            elinewidth=0.8,
            capsize=2,
            label=_plain(label),
        )
    axis.set_xlabel(_plain(across))
    axis.set_ylabel(_plain(up))
    _frame(axis)
    _legend(figure, [axis])
    title = f"{summary.results.plan.study.name}: means over seeds{_ends_words(x, y)}{_others(summary)}"
    figure.suptitle("\n".join(textwrap.wrap(title, 70)), fontsize="medium")
    return figure


def _ends(point: Point) -> np.ndarray | None:
    if point.low is None or point.high is None:
        return None
    return np.array([[max(0.0, point.mean - point.low)], [max(0.0, point.high - point.mean)]])


def _ends_words(*points: Sequence[Point]) -> str:
    shown = any(point.low is not None for group in points for point in group)
    return " with 95 % intervals" if shown else f"; no intervals: fewer than {FEWEST_SEEDS} seeds"
