"""Colour, dashes and marker of every treatment, distinguishable without colour."""

from __future__ import annotations

from dataclasses import dataclass

# Okabe and Ito's colours, which any colour vision distinguishes; pale or dark ones differ on a dark page
COLOURS = ("#000000", "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#B8860B", "#56B4E9", "#8A5A44")
COLOURS_ON_DARK = ("#FFFFFF", "#4FA9E6", "#FF8C42", "#2FC79A", "#E79BC4", "#F0C03E", "#9AD4F7", "#C99A83")
LINES = ("-", "--", "-.", ":", (0, (5, 1)), (0, (3, 1, 1, 1)), (0, (1, 1)), (0, (8, 3)))
DASHES = ("solid", "8px,5px", "8px,3px,2px,3px", "2px,4px", "12px,3px", "4px,2px,2px,2px", "2px,2px", "16px,6px")
MARKERS = ("o", "s", "^", "v", "D", "P", "X", "*")
SYMBOLS = ("circle", "square", "triangle-up", "triangle-down", "diamond", "cross", "x", "star")
STYLES = 64  # before they repeat

Dash = str | tuple[int, tuple[int, ...]]


@dataclass(frozen=True)
class Style:
    """Colour on a light and on a dark page; line and marker as named by matplotlib, dash and symbol as named by plotly."""

    colour: str
    on_dark: str
    line: Dash
    marker: str
    dash: str
    symbol: str


def style(index: int) -> Style:
    """The style of the treatment with this index in the study; the first 64 differ, with colour and without.

    Example:
        >>> style(0).marker, style(8).marker
        ('o', '^')
    """
    colour, turn = index % 8, index // 8
    line, marker = (colour + turn) % 8, (colour + 2 * turn) % 8
    return Style(COLOURS[colour], COLOURS_ON_DARK[colour], LINES[line], MARKERS[marker], DASHES[line], SYMBOLS[marker])
