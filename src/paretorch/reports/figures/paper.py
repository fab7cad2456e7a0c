"""Figure files for papers, drawn by matplotlib: axes with units, intervals over seeds, readable in black and white."""

from __future__ import annotations

import io
import math
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from paretorch.core.arrays import Array
from paretorch.extras import extra
from paretorch.reports.analysis.summary import Summary, by_priority
from paretorch.reports.figures.description import Bounds, Figure, Marks, Panel
from paretorch.reports.figures.styles import style
from paretorch.storage import atomic
from paretorch.studies.statistics.paired import FEWEST_SEEDS
from paretorch.studies.statistics.ranking import Ranking

with extra("studies"):
    from matplotlib import figure as matplotlib
    from matplotlib import rc_context, rcParams
    from matplotlib.axes import Axes
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.ticker import MaxNLocator

FORMATS = ("svg", "pdf", "png")
COLUMNS = 4  # panels beside each other
MOST_PANELS = 16  # of one figure; the page has all
MOST_LETTERS = 80  # of a name; a title has four times as many
HANDLE = 4.0  # length of a line in the legend, in units of the font size
LETTER = 0.6  # width of a letter in the same units, on average
MOST_LETTERS_OF_RANKS = 36  # of a name in the diagram of ranks
MOST_TREATMENTS = 12  # of one figure: reference, baseline and the best others; more are not legible on paper


def draw(figure: Figure, summary: Summary) -> matplotlib.Figure:
    """The figure with the treatments that are legible together, and a legend.

    Intervals are left out below 3 seeds, and the title states so.

    Args:
        figure: what is drawn.
        summary: of the study, which determines title and treatments.
    """
    shown = figure.panels[:MOST_PANELS]
    kept = _legible(summary)
    columns = min(COLUMNS, len(shown))
    rows = math.ceil(len(shown) / columns)
    size = (4.2 * columns, 3.6 * rows + 1.0) if len(shown) > 1 else (6.4, 5.2)
    drawn = matplotlib.Figure(figsize=size, layout="constrained")
    FigureCanvasAgg(drawn)
    axes: list[Axes] = list(drawn.subplots(rows, columns, squeeze=False).flat)
    for axis, panel in zip(axes, shown, strict=False):
        for marks in panel.marks:
            if marks.treatment in kept and not marks.style.detail:
                _draw_marks(axis, panel, marks, kept[marks.treatment])
        _draw_axes(axis, panel)
    for axis in axes[len(shown) :]:
        axis.remove()
    _draw_legend(drawn, axes[: len(shown)])
    title = _title(figure, summary, len(shown))
    drawn.suptitle(
        "\n".join(textwrap.wrap(_shortened(title, 4 * MOST_LETTERS), 32 * columns if len(shown) > 1 else 70)),
        fontsize="medium",
    )
    return drawn


def draw_ranks(labels: Sequence[str], ranking: Ranking) -> matplotlib.Figure:
    """The critical-difference diagram: mean ranks over workloads; bars join what is not distinguishable."""
    with extra("studies"):
        import pandas
        from scikit_posthocs import critical_difference_diagram

    drawn = matplotlib.Figure(figsize=(7.2, 1.2 + 0.22 * len(labels)), layout="constrained")
    FigureCanvasAgg(drawn)
    axis = drawn.subplots()
    names = _plain_names(labels, MOST_LETTERS_OF_RANKS)
    same = pandas.DataFrame(ranking.p_pairs, index=names, columns=names)
    artists = critical_difference_diagram(dict(zip(names, ranking.ranks, strict=True)), same, ax=axis)
    for bar in (line for lines in artists["crossbars"] for line in lines):
        bar.set_xdata(sorted(bar.get_xdata()))  # it has the order of a set, which differs between processes
    axis.set_title(
        f"mean rank over {ranking.workloads} workloads, 1 is best; Nemenyi's critical difference "
        f"{ranking.critical_difference:.2f}",
        fontsize="medium",
    )
    return drawn


def save(
    drawn: matplotlib.Figure, folder: Path, name: str, formats: Sequence[str] = ("svg", "png")
) -> tuple[Path, ...]:
    """Writes one file for each format (``svg``, ``pdf``, ``png``); their bytes depend on the figure alone."""
    paths = []
    for form in map(check_format, formats):
        path = folder / f"{name}.{form}"
        undated = {"svg": {"Date": None}, "pdf": {"CreationDate": None}, "png": {}}[form]
        with rc_context({"svg.hashsalt": name}):  # without it, identifiers in the file are random
            content = io.BytesIO()  # so that the file is written atomically, and never through a link
            drawn.savefig(content, format=form, dpi=160, metadata=undated)
            atomic.write(path, content.getvalue())
        paths.append(path)
    return tuple(paths)


def check_format(form: str) -> str:
    """The format, if figure files can have it."""
    if form not in FORMATS:
        raise ValueError(f"figures are written as svg, pdf or png, got {form!r}")
    return form


def _legible(summary: Summary) -> Mapping[int | None, str]:
    """Names of the treatments that a figure contains, by index."""
    first = by_priority(summary)[:MOST_TREATMENTS]
    labels = {index: label for index, label in enumerate(summary.rows) if label in first}
    return dict(zip(labels, _plain_names(list(labels.values()), MOST_LETTERS), strict=True))


def _title(figure: Figure, summary: Summary, panels: int) -> str:
    others = len(summary.rows) - MOST_TREATMENTS
    trained = max(summary.mean_counts, default=0)
    bands = (
        ", 95 % intervals of the mean"
        if trained >= FEWEST_SEEDS
        else f", no intervals: fewer than {FEWEST_SEEDS} seeds"
    )
    if not any(marks.bounds for panel in figure.panels for marks in panel.marks):
        bands = ""
    more = f"; the first {panels} of {len(figure.panels)} panels" if len(figure.panels) > panels else ""
    left_out = f"; {others} treatments with a higher Δm are on the page alone" if others > 0 else ""
    over = f", mean over {summary.mean_seeds}" if figure.over_seeds else ""
    return f"{summary.results.plan.study.name}: {figure.subject}{over}{bands}{more}{left_out}"


def _draw_marks(axis: Axes, panel: Panel, marks: Marks, label: str) -> None:
    x, y = marks.values[panel.x], marks.values[panel.y]
    if x is None or y is None or not (np.isfinite(x) & np.isfinite(y)).any():
        return
    assert marks.treatment is not None
    own = style(marks.treatment)
    every = max(1, len(x) // marks.style.most_marks) if marks.style.most_marks else 1
    axis.plot(
        x,
        y,
        color=own.colour,
        marker=own.marker,
        markersize=4 if marks.style.line else 7,
        markevery=(marks.treatment % every, every),
        linestyle=own.line if marks.style.line else "none",
        linewidth=1.4,
        label=label,
    )
    if marks.style.across:
        for line, value in ((axis.axvline, x[0]), (axis.axhline, y[0])):
            line(value, color=own.colour, linestyle=":", linewidth=0.8, zorder=0)
    x_ends, y_ends = (marks.bounds[k] if marks.bounds else None for k in (panel.x, panel.y))
    if marks.style.intervals == "band" and y_ends is not None:
        axis.fill_between(x, *y_ends, color=own.colour, alpha=0.12, linewidth=0)
    elif x_ends is not None or y_ends is not None:
        x_bars, y_bars = _lengths(x, x_ends), _lengths(y, y_ends)
        axis.errorbar(x, y, y_bars, x_bars, fmt="none", ecolor=own.colour, elinewidth=0.8, capsize=2)


def _lengths(values: Array, ends: Bounds | None) -> Array | None:
    """(2, n) lengths of the bars on both sides of (n,) values."""
    return None if ends is None else np.maximum(0.0, [values - ends[0], ends[1] - values])


def _draw_axes(axis: Axes, panel: Panel) -> None:
    x, y = panel.axes[panel.x], panel.axes[panel.y]
    axis.set_xlabel(_plain(x.title))
    axis.set_ylabel(_plain(y.title))
    if y.scale != "linear":
        axis.set_yscale("log")
    if x.integers:
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    if panel.polar:
        circle = np.linspace(0, 2 * np.pi, 121)
        axis.plot(100 * np.cos(circle), 100 * np.sin(circle), color="black", linewidth=0.8)
        axis.set_aspect("equal")
        axis.axis("off")
    axis.grid(True, linewidth=0.3)
    for side in ("top", "right"):
        axis.spines[side].set_visible(False)


def _draw_legend(drawn: matplotlib.Figure, axes: Sequence[Axes]) -> None:
    """One legend for all panels, as a panel may lack a treatment."""
    handles = {label: handle for axis in axes for handle, label in zip(*axis.get_legend_handles_labels(), strict=True)}
    drawn.legend(
        list(handles.values()),
        list(handles),
        loc="outside lower center",
        ncols=_legend_columns(list(handles), float(drawn.get_figwidth())),
        frameon=False,
        handlelength=HANDLE,
    )


def _legend_columns(labels: Sequence[str], width: float) -> int:
    """As many columns, four at most, as have room in a figure of that width in inches."""
    em = rcParams["font.size"] / 72
    letters = max((len(label) for label in labels), default=0)
    return max(1, min(4, len(labels), int(width / (em * (HANDLE + 3 + LETTER * letters)))))


def _shortened(text: str, most: int) -> str:
    """Text without its middle, if it is long: names of treatments often differ in their ends alone."""
    return text if len(text) <= most else f"{text[: most // 2 - 1]}…{text[-most // 2 :]}"


def _plain(text: str, most: int = MOST_LETTERS) -> str:
    """Text that matplotlib shows unchanged: no mathematics between dollars, no label hidden by an underscore."""
    escaped = _shortened(text, most).replace("$", r"\$")
    return f"\u200b{escaped}" if escaped.startswith("_") else escaped


def _plain_names(labels: Sequence[str], most: int) -> list[str]:
    """A name for each label: different ones, although labels may differ in what is left out."""
    names: list[str] = []
    for label in labels:
        name, number = _plain(label, most), 2
        while name in names:
            name, number = f"{_plain(label, most)} ({number})", number + 1
        names.append(name)
    return names
