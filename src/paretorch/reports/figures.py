"""Figures for pages and papers: labelled axes, bands over seeds, readable in black and white."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import cycle, islice
from pathlib import Path

import numpy as np

from paretorch.reports.load import Metric, StudyResults, TreatmentResults
from paretorch.studies.statistics import FEWEST_SEEDS, t_bounds
from paretorch.workloads.extras import extra

with extra("studies"):
    from matplotlib import rc_context
    from matplotlib.axes import Axes
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

# Okabe and Ito's colours, told apart with any colour vision; beside them line style and marker differ as well
COLOURS = ("#000000", "#E69F00", "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#8C6D1F")
LINES = ("-", "--", "-.", ":", (0, (5, 1)), (0, (3, 1, 1, 1)), (0, (1, 1)), (0, (8, 3)))
MARKERS = ("o", "s", "^", "v", "D", "P", "X", "*")


def learning_curves(results: StudyResults) -> Figure:
    """Validation metrics by epoch: a panel for each metric, a line for each treatment, mean over seeds.

    Bands are Student's 95 % intervals of the mean; they are left out below 3 seeds, and the figure says so.
    """
    count = len(results.metrics)
    figure = Figure(figsize=(4.2 * count, 4.6), layout="constrained")
    FigureCanvasAgg(figure)
    axes: Sequence[Axes] = figure.subplots(1, count, squeeze=False)[0]
    for k, (axis, metric) in enumerate(zip(axes, results.metrics, strict=True)):
        for place, treatment in enumerate(results.treatments.values()):
            _curve(axis, treatment, k, place)
        _label(axis, metric)
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=min(4, len(labels)), frameon=False, handlelength=4)
    seeds = len(results.folder.seeds)
    bands = "95 % intervals of the mean" if seeds >= FEWEST_SEEDS else f"no intervals: fewer than {FEWEST_SEEDS} seeds"
    figure.suptitle(
        f"{results.folder.study.name}: validation data, mean over {seeds} seeds, {bands}", fontsize="medium"
    )
    return figure


def save(figure: Figure, folder: Path, name: str, formats: Sequence[str] = ("svg", "png")) -> tuple[Path, ...]:
    """Writes a figure once for each format (``svg``, ``pdf``, ``png``); the files' bytes depend on the figure alone."""
    paths = []
    for form in formats:
        if form not in ("svg", "pdf", "png"):
            raise ValueError(f"figures are written as svg, pdf or png, got {form!r}")
        path = folder / f"{name}.{form}"
        undated = {"svg": {"Date": None}, "pdf": {"CreationDate": None}, "png": {}}[form]
        with rc_context({"svg.hashsalt": name}):  # else the file's inner names are drawn anew each time
            figure.savefig(path, dpi=160, metadata=undated)
        paths.append(path)
    return tuple(paths)


def _curve(axis: Axes, treatment: TreatmentResults, k: int, place: int) -> None:
    curves = treatment.curves[np.isfinite(treatment.curves[:, :, k]).all(axis=1), :, k]
    if not len(curves):
        return
    epochs = np.arange(1, curves.shape[1] + 1)
    colour, line, marker = (next(islice(cycle(styles), place, None)) for styles in (COLOURS, LINES, MARKERS))
    every = max(1, len(epochs) // 8)
    axis.plot(
        epochs,
        curves.mean(axis=0),
        color=colour,
        linestyle=line,
        marker=marker,
        markersize=4,
        markevery=(place % every, every),
        linewidth=1.4,
        label=treatment.label,
    )
    if len(curves) >= FEWEST_SEEDS:
        low, high = t_bounds(curves.T)
        axis.fill_between(epochs, low, high, color=colour, alpha=0.12, linewidth=0)


def _label(axis: Axes, metric: Metric) -> None:
    unit = f" ({metric.unit})" if metric.unit else ""
    axis.set_xlabel("epoch")
    axis.set_ylabel(f"{metric.title}{unit}, {'higher' if metric.higher_is_better else 'lower'} is better")
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axis.grid(True, linewidth=0.3)
    for side in ("top", "right"):
        axis.spines[side].set_visible(False)
