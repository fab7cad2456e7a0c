"""Figures for the page: attributes of plotly and rounded numbers, as JSON."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable
from typing import Any

import numpy as np

from paretorch.reports.figures.description import Axis, Figure, Marks, MarkStyle, Panel

Json = Any
FEW = 10  # integers with a tick each


def rounded(values: Iterable[float]) -> list[float | None]:
    """Five significant digits; None for numbers that are not finite, which JSON does not have.

    Example:
        >>> rounded([0.1234567, float("nan"), 3.0])
        [0.12346, None, 3]
    """
    return [_shortest(f"{value:.5g}") if math.isfinite(value) else None for value in values]


def _shortest(digits: str) -> float:
    """The number, an integer if it is written as one: JSON then has no ``.0``."""
    return int(digits) if digits.lstrip("-").isdecimal() else float(digits)


def interactive(figure: Figure) -> dict[str, Json]:
    """The figure for the page's script, which adds colours and hover texts. Equal styles are written once."""
    styles = list(dict.fromkeys(marks.style for panel in figure.panels for marks in panel.marks))
    return {
        "panels": [
            _panel(panel, styles, all_axes=bool(figure.switch) or figure.choose_axes) for panel in figure.panels
        ],
        "styles": [_style(style, space=figure.panels[0].z is not None) for style in styles],
        "switch": figure.switch,
        "chooseAxes": figure.choose_axes,
        "choosePanel": figure.choose_panel,
    }


def _panel(panel: Panel, styles: list[MarkStyle], all_axes: bool) -> dict[str, Json]:
    used = range(len(panel.axes)) if all_axes else (panel.x, panel.y, panel.z)
    values: dict[str, Json] = {
        "title": panel.title,
        "axes": [_axis(axis, k, panel) for k, axis in enumerate(panel.axes)],
        "marks": [_marks(marks, styles, used) for marks in panel.marks],
        "x": panel.x,
        "y": panel.y,
    }
    if panel.z is not None:
        values["z"] = panel.z
    if panel.matrix is not None:
        values["matrix"] = [rounded(row) for row in panel.matrix]
    if panel.height:
        values["height"] = panel.height
    if panel.polar:
        values["polar"] = True
    return values


def _axis(axis: Axis, k: int, panel: Panel) -> dict[str, Json]:
    """Title, names of positions, and the axis in plotly's attributes."""
    layout: dict[str, Json] = {}
    if axis.scale != "linear":
        layout["type"] = "log"
    if axis.scale == "decades" or (axis.integers and _last(panel, k) <= FEW):
        layout["dtick"] = 1
    if axis.limits is not None:
        layout["range"] = list(np.log10(axis.limits) if axis.scale != "linear" else axis.limits)
    if axis.zero_line:
        layout |= {"zeroline": True, "zerolinewidth": 2}
    if not axis.grid:
        layout["showgrid"] = False
    values: dict[str, Json] = {"title": axis.title, "layout": layout}
    return values | ({"name": axis.name} if axis.name else {}) | ({"labels": list(axis.labels)} if axis.labels else {})


def _last(panel: Panel, k: int) -> float:
    """The largest position on an axis."""
    return max((float(np.max(v)) for marks in panel.marks if (v := marks.values[k]) is not None), default=0.0)


def _style(style: MarkStyle, space: bool) -> dict[str, Json]:
    parts = (["lines"] if style.line else []) + (["markers"] if style.size else [])
    outlined = style.symbol.endswith(("-open", "-thin"))
    marker = {"size": style.size, "line": {"width": 2 if outlined else 0}}
    trace = {"type": "scatter3d" if space else "scatter", "mode": "+".join(parts), "opacity": style.opacity}
    found = {
        "trace": {**trace, "line": {"width": style.line}, "marker": marker},
        "colour": style.colour,
        "symbol": style.symbol,
        "mostMarks": style.most_marks,
        "band": style.intervals == "band",
        "detail": style.detail,
        "hover": style.hover,
    }
    return found | ({"across": True} if style.across else {})


def _marks(marks: Marks, styles: list[MarkStyle], used: Collection[int | None]) -> dict[str, Json]:
    """Values on the axes in use, style, treatment, bounds, sizes and texts, under short names."""
    columns = [None if each is None or k not in used else rounded(each) for k, each in enumerate(marks.values)]
    values: dict[str, Json] = {"v": columns}
    if index := styles.index(marks.style):
        values["s"] = index
    if marks.treatment is not None:
        values["t"] = marks.treatment
    if any(ends is not None for ends in marks.bounds):
        values["b"] = [None if ends is None else [rounded(end) for end in ends] for ends in marks.bounds]
    named = {"size": marks.sizes, "text": marks.texts}
    return values | {name: each for name, each in named.items() if each}
