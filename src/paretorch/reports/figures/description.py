"""Figures as values: panels, axes and marks, without a plotting library."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from paretorch.core.arrays import Array

Scale = Literal["linear", "log", "decades"]  # decades: logarithmic, with ticks at the powers of ten alone
Bounds = tuple[Array, Array]  # (n,) lower and (n,) upper ends of intervals


@dataclass(frozen=True)
class Axis:
    """One axis of a panel.

    Args:
        title: with unit and direction.
        name: in the text of a mark; the title if empty.
        scale: of numbers.
        labels: names of the positions 0, 1, 2, ...; empty for an axis of numbers.
        limits: both ends; None if they follow from the data.
        integers: whether all ticks are integers.
        grid: whether the panel has grid lines across the axis.
        zero_line: whether the position 0 is emphasized.
    """

    title: str
    name: str = ""
    scale: Scale = "linear"
    labels: tuple[str, ...] = ()
    limits: tuple[float, float] | None = None
    integers: bool = False
    grid: bool = True
    zero_line: bool = False


@dataclass(frozen=True)
class MarkStyle:
    """The appearance of marks, apart from the style of their treatment.

    Args:
        line: width of the line that joins the marks; 0: no line.
        size: of a mark; 0: no marks.
        most_marks: on a line, the number of points that have a mark; 0: all.
        symbol: name in plotly; the treatment's if empty.
        colour: one of the page's named colours; the treatment's if empty.
        opacity: in 0..1.
        intervals: bars, or a band along the line.
        across: whether dotted lines cross the panel at the mark.
        detail: whether the marks are drawn on the page alone, and for few treatments alone.
        hover: text of a mark, with places for numbers: ``{0}`` for axis 0, ``{0.interval}`` for its interval, ``{x}`` and ``{y}``
            for the axes in use, ``{x.name}``, ``{label}`` of the treatment, ``{title}`` of the panel, ``{text}`` of the mark,
            ``{all}`` for each label of the horizontal axis with its value. Without hover text if empty.
    """

    line: float = 0.0
    size: float = 0.0
    most_marks: int = 0
    symbol: str = ""
    colour: str = ""
    opacity: float = 1.0
    intervals: Literal["bars", "band"] = "bars"
    across: bool = False
    detail: bool = False
    hover: str = ""


@dataclass(frozen=True)
class Marks:
    """A curve, or a set of points.

    Args:
        style: of all marks.
        values: for each axis of the panel the (n,) positions; None for 0, 1, ..., n - 1.
        treatment: index in the study, which determines colour, dash and symbol; None if the marks belong to no treatment.
        bounds: for each axis the ends of intervals, or None; empty without any.
        sizes: (n,) of the marks, if they differ.
        texts: (n,) for the hover text.
    """

    style: MarkStyle
    values: tuple[Array | None, ...]
    treatment: int | None = None
    bounds: tuple[Bounds | None, ...] = ()
    sizes: tuple[float, ...] = ()
    texts: tuple[str, ...] = ()


@dataclass(frozen=True)
class Panel:
    """One pair of axes, or three of them in space.

    Args:
        title: heading; may be empty.
        axes: that can be used.
        marks: in the order in which they are drawn.
        x: index of the horizontal axis.
        y: index of the vertical axis.
        z: index of the third axis; None in a plane.
        polar: whether both axes have equal units and are not drawn, as for curves around a centre.
        matrix: (n, n) values in -1..1, drawn as coloured cells in place of marks.
        height: in pixels; 0: that of other panels.
    """

    title: str
    axes: tuple[Axis, ...]
    marks: tuple[Marks, ...] = ()
    x: int = 0
    y: int = 1
    z: int | None = None
    polar: bool = False
    matrix: Array | None = None
    height: int = 0


@dataclass(frozen=True)
class Figure:
    """Panels of one subject.

    Args:
        name: part of its anchor on the page.
        title: heading on the page.
        caption: what the figure shows and how to read it.
        panels: at least one.
        subject: what the figure shows, in few words, for the title of a figure file.
        switch: label of a button that replaces a panel's axis 0 by axis 1; empty: no button.
        choose_axes: whether the reader chooses both axes.
        over_seeds: whether it shows means over seeds.
        choose_panel: label of a list from which the reader chooses a single panel; empty: no list, unless panels are many.
    """

    name: str
    title: str
    caption: str
    panels: tuple[Panel, ...]
    subject: str = ""
    switch: str = ""
    choose_axes: bool = False
    over_seeds: bool = True
    choose_panel: str = ""
