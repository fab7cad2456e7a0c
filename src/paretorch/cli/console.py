"""Plain lines on a console."""

from __future__ import annotations

from paretorch.extras import extra

with extra("studies"):
    from rich.console import Console


def print_line(console: Console, text: str, style: str | None = None) -> None:
    """Prints a text as it is: without markup, colours of numbers and line breaks."""
    console.print(text, style=style, markup=False, highlight=False, soft_wrap=True)
