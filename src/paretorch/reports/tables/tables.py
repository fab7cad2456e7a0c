"""Tables of text cells, written for the terminal, Markdown or LaTeX."""

from __future__ import annotations

import re
from dataclasses import dataclass

from paretorch.extras import extra

with extra("studies"):
    import rich.console
    import rich.table
    from rich import box
    from rich.text import Text

DIRECTION = re.compile("[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")  # Unicode's controls of bidirectional text
GAP = 2  # characters between two columns: the padding and the box's own blank
TEX = {
    "\\": r"\textbackslash{}",
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    **{symbol: f"\\{symbol}" for symbol in "{}%&#_$"},
    "Δm": r"$\Delta m$",
    "↑": r"$\uparrow$",
    "↓": r"$\downarrow$",
    "†": r"$^\dagger$",
    "\u00a0": "~",
}


@dataclass(frozen=True)
class Table:
    """Cells of text.

    Args:
        title: one line.
        header: of the columns. The first column names the rows and is aligned left, as are those in ``left``.
        rows: as many cells each as the header.
        notes: explanations, one line each.
        left: indices of further columns that contain words.
    """

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()
    left: tuple[int, ...] = ()

    def terminal(self, width: int = 80) -> rich.console.Group:
        """For a rich console of the given width; columns that do not fit form further tables below."""
        parts, here = [], [0]
        space = width - self._width(0)
        for place in range(1, len(self.header)):
            if len(here) > 1 and self._width(place) > space:
                parts.append(here)
                here, space = [0], width - self._width(0)
            here.append(place)
            space -= self._width(place)
        tables = (self._part(places, first=i == 0) for i, places in enumerate([*parts, here]))
        return rich.console.Group(*(part for table in tables for part in (table, "")), *map(Text, self.notes))

    def _part(self, places: list[int], first: bool) -> rich.table.Table:
        title = Text(self.title) if first else None
        table = rich.table.Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
        table.show_edge, table.pad_edge = False, False
        for place in places:
            words = place == 0 or place in self.left
            # rich would truncate words and intervals that it breaks
            table.add_column(
                Text(self.header[0] if place == 0 else _broken(self.header[place], words=True)),
                justify="left" if words else "right",
                min_width=self._width(place) - GAP if place == 0 else None,
                no_wrap=place > 0,
            )
        for row in self.rows:
            broken = (_broken(row[place], words=place in self.left) for place in places[1:])
            table.add_row(Text(row[0]), *map(Text, broken))
        return table

    def _width(self, place: int) -> int:
        """Characters of the widest line of a column whose cells are broken, and the gap before the next."""
        cells = [_broken(row[place], words=place in (0, *self.left)) for row in self.rows]
        return GAP + max(
            len(line) for cell in [*cells, _broken(self.header[place], words=True)] for line in cell.split("\n")
        )

    def markdown(self) -> str:
        """GitHub's Markdown."""
        rule = [":--" if place == 0 or place in self.left else "--:" for place in range(len(self.header))]
        lines = [self.header, rule, *self.rows]
        body = "\n".join("| " + " | ".join(map(escaped, line)) + " |" for line in lines)
        notes = "".join(f"\n- {escaped(note)}" for note in self.notes)
        return f"**{escaped(self.title)}**\n\n{body}\n" + (f"{notes}\n" if notes else "")

    def latex(self) -> str:
        """A tabular for the booktabs package."""
        columns = "".join("l" if place == 0 or place in self.left else "r" for place in range(len(self.header)))
        lines = [_tex_row(row) for row in (self.header, *self.rows)]
        body = "\n".join([r"\toprule", lines[0], r"\midrule", *lines[1:], r"\bottomrule"])
        return f"% {_line(self.title)}\n\\begin{{tabular}}{{{columns}}}\n{body}\n\\end{{tabular}}\n"


def _broken(cell: str, words: bool) -> str:
    """A cell on several lines: a mean above its interval, or one word on each line."""
    return cell.replace(" ", "\n") if words else cell.replace(" [", "\n[")


def _line(text: str) -> str:
    """Text on one line, with characters that change the direction of what follows as their code."""
    line = " ".join(text.splitlines()).strip(" ")
    return DIRECTION.sub(lambda match: f"U+{ord(match[0]):04X}", line)


def escaped(text: str) -> str:
    """Text escaped for GitHub's Markdown."""
    text = re.sub(r"&(?=#?\w+;)", "&amp;", _line(text)).replace("<", "&lt;")  # not all renderers accept \\< for <
    return re.sub(r"[\\`*_~$|]|\](?=[(\[])", r"\\\g<0>", text)


def code(text: str) -> str:
    """Text as code in GitHub's Markdown, outside tables.

    Example:
        >>> code("a `b` c")
        '`` a `b` c ``'
    """
    text = _line(text)
    ticks = "`" * (1 + max(map(len, re.findall("`+", text)), default=0))
    return f"{ticks} {text} {ticks}" if "`" in text else f"`{text}`"


def _tex(text: str) -> str:
    found = re.sub("|".join(map(re.escape, TEX)), lambda match: TEX[match[0]], _line(text))
    return re.sub(r"(?<![\w.])-(?=\d)", "$-$", found)


def _tex_row(cells: tuple[str, ...]) -> str:
    """A row of a tabular; its first character is not an argument of the command before it."""
    return re.sub(r"^[\[*]", r"{\g<0>}", " & ".join(map(_tex, cells))) + r" \\"
