"""How a treatment looks in every figure: colour, dashes and marker, so that it is known without colour too."""

from __future__ import annotations

from dataclasses import dataclass

# Okabe and Ito's colours, told apart with any colour vision; black becomes white, and pale or dark ones move, on a dark page
COLOURS = ("#000000", "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#B8860B", "#56B4E9", "#8A5A44")
COLOURS_ON_DARK = ("#FFFFFF", "#4FA9E6", "#FF8C42", "#2FC79A", "#E79BC4", "#F0C03E", "#9AD4F7", "#C99A83")
LINES = ("-", "--", "-.", ":", (0, (5, 1)), (0, (3, 1, 1, 1)), (0, (1, 1)), (0, (8, 3)))
DASHES = ("solid", "8px,5px", "8px,3px,2px,3px", "2px,4px", "12px,3px", "4px,2px,2px,2px", "2px,2px", "16px,6px")
MARKERS = ("o", "s", "^", "v", "D", "P", "X", "*")
SYMBOLS = ("circle", "square", "triangle-up", "triangle-down", "diamond", "cross", "x", "star")

Dash = str | tuple[int, tuple[int, ...]]


@dataclass(frozen=True)
class Look:
    """Colour on a light and on a dark page; line and marker in matplotlib's words, dash and symbol in plotly's."""

    colour: str
    on_dark: str
    line: Dash
    marker: str
    dash: str
    symbol: str


def look(place: int) -> Look:
    """The look of the treatment at this place in the study; 64 of them are different, with colour and without.

    Example:
        >>> look(0).marker, look(8).marker
        ('o', '^')
    """
    colour, turn = place % 8, place // 8
    line, marker = (colour + turn) % 8, (colour + 2 * turn) % 8
    return Look(COLOURS[colour], COLOURS_ON_DARK[colour], LINES[line], MARKERS[marker], DASHES[line], SYMBOLS[marker])
