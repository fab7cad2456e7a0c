"""Tables in Weka's format ARFF, dense or sparse, as numbers and names; nothing is executed."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from paretorch.workloads.formats.cells import number as as_number

NUMBERS = ("numeric", "real", "integer")
# the last alternative is a quotation mark that is not closed, and all that follows it
WORDS = re.compile(r"'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\"|[^\s,{}'\"]+|(?P<open>['\"].*)")
MOST_CELLS = 1 << 26  # of a table: the zeros of a sparse one are stored
DIGITS = 10  # of an index


@dataclass(frozen=True)
class Attribute:
    """A column.

    Args:
        name: of the column.
        values: of a nominal column, in the order of the file; None: any text.
        number: whether the values are numbers.
    """

    name: str
    values: tuple[str, ...] | None = None
    number: bool = False

    @property
    def default(self) -> str:
        """The value that sparse rows omit: 0, the first of nominal values, or no text."""
        return "0" if self.number else self.values[0] if self.values else ""

    def values_of(self, cells: Sequence[str]) -> list[float] | list[str]:
        """The values of cells; a ``?`` is nan or, in a column of text, empty."""
        if self.number:
            return [math.nan if cell == "?" else as_number(cell) for cell in cells]
        return ["" if cell == "?" else cell for cell in cells]


def read_cells(text: str, where: str) -> list[tuple[Attribute, Sequence[str]]]:
    r"""The attributes in the text of an ARFF file, each with its cells as they are written.

    Numeric, real and integer attributes are numbers; nominal, string and date attributes are text. Rows in braces are sparse:
    attributes that they omit are 0, or the first of the nominal values.

    Args:
        text: of the file.
        where: its name in messages.

    Raises:
        ValueError: there is no attribute or row, a name is repeated, a type is unknown or relational, or a row does not fit the
            attributes; the message names the line.

    Example:
        >>> text = "@relation r\n@attribute size real\n@attribute kind {a, b}\n@data\n1.5, b\n{0 2}\n?, ?"
        >>> {attribute.name: attribute.values_of(cells) for attribute, cells in read_cells(text, "text")}
        {'size': [1.5, 2.0, nan], 'kind': ['b', 'a', '']}
    """
    attributes: list[Attribute] = []
    lines = iter(enumerate(text.splitlines(), start=1))
    for number, line in lines:
        stripped = line.strip()
        keyword = stripped.split(None, 1)[0].lower() if stripped else ""
        if keyword == "@attribute":
            attributes.append(_attribute(stripped, f"{where}, line {number}"))
        elif keyword == "@data":
            break
        elif stripped and not stripped.startswith("%") and keyword != "@relation":
            raise ValueError(f"{where}, line {number}: expected @relation, @attribute or @data, got {stripped[:60]!r}")
    names = [attribute.name for attribute in attributes]
    if repeated := sorted(name for name, count in Counter(names).items() if not name or count > 1):
        raise ValueError(f"{where}: expected a different name for each attribute, got {repeated} more than once")
    rows: list[list[str]] = []
    for number, line in lines:
        if not line.strip() or line.lstrip().startswith("%"):
            continue
        rows.append(_row(line.strip(), attributes, f"{where}, line {number}"))
        if len(rows) * len(attributes) > MOST_CELLS:  # a sparse row is much longer than its line
            raise ValueError(
                f"{where} has more than {MOST_CELLS:,} values in rows of {len(attributes):,}: that many are not read"
            )
    if not attributes or not rows:
        raise ValueError(
            f"{where}: expected attributes and, after @data, at least one row; got {len(attributes)} and {len(rows)}"
        )
    return list(zip(attributes, zip(*rows, strict=True), strict=True))


def _attribute(line: str, where: str) -> Attribute:
    found = _words(line.split(None, 1)[1] if " " in line or "\t" in line else "", where)
    name = _unquoted(found[0]) if found else ""
    kind = line.split(None, 1)[1].strip()[len(found[0]) :].strip() if found else ""
    if kind.startswith("{") and kind.endswith("}"):
        values = tuple(_unquoted(value) for value in _words(kind[1:-1], where))
        if not values:
            raise ValueError(f"{where}: attribute {name!r} has no values")
        return Attribute(name, values)
    word = kind.split(None, 1)[0].lower() if kind else ""
    if word in NUMBERS:
        return Attribute(name, number=True)
    if word in ("string", "date"):
        return Attribute(name)
    raise ValueError(
        f"{where}: expected a name and numeric, real, integer, string, date or values in braces, got {line[:80]!r}"
    )


def _words(text: str, where: str) -> list[str]:
    """The words and quoted texts, with their quotation marks."""
    found = list(WORDS.finditer(text))
    if found and found[-1]["open"]:
        raise ValueError(f"{where}: expected a closing quotation mark, got {found[-1]['open'][-60:]!r}")
    return [match[0] for match in found]


def _row(line: str, attributes: Sequence[Attribute], where: str) -> list[str]:
    if line.startswith("{"):
        return _sparse_row(line, attributes, where)
    cells = [_unquoted(cell) for cell in _split(line, where)]
    if len(cells) != len(attributes):
        raise ValueError(f"{where}: expected {len(attributes)} values, one for each attribute, got {len(cells)}")
    for cell, attribute in zip(cells, attributes, strict=True):
        _check(cell, attribute, where)
    return cells


def _sparse_row(line: str, attributes: Sequence[Attribute], where: str) -> list[str]:
    if not line.endswith("}"):
        raise ValueError(f"{where}: expected a closing brace, got {line[-60:]!r}")
    cells = [attribute.default for attribute in attributes]
    given: set[int] = set()
    for part in _split(line[1:-1], where) if line[1:-1].strip() else ():
        place, _, value = part.strip().partition(" ")
        known = place.isdecimal() and place.isascii() and len(place) < DIGITS and int(place) < len(attributes)
        if not known or not value.strip():
            raise ValueError(
                f"{where}: expected an index from 0 to {len(attributes) - 1} and a value, got {part.strip()[:60]!r}"
            )
        if int(place) in given:
            raise ValueError(f"{where}: expected each index once, got {place} again")
        given.add(int(place))
        cells[int(place)] = _unquoted(value.strip())
        _check(cells[int(place)], attributes[int(place)], where)
    return cells


def _split(line: str, where: str) -> list[str]:
    """The parts of a row between its commas, with their quotation marks."""
    quote = "'" if line.count("'") else '"'
    if quote not in line:
        return [part.strip() for part in line.split(",")]
    parts, start, inside, escaped = [], 0, "", False
    for place, letter in enumerate(line):
        if escaped:
            escaped = False
        elif letter == "\\":
            escaped = True
        elif inside:
            inside = "" if letter == inside else inside
        elif letter in "'\"":
            inside = letter
        elif letter == ",":
            parts.append(line[start:place].strip())
            start = place + 1
    if inside:
        raise ValueError(f"{where}: expected a closing quotation mark, got {line[-60:]!r}")
    return [*parts, line[start:].strip()]


def _check(cell: str, attribute: Attribute, where: str) -> None:
    if cell == "?":
        return
    if attribute.values is not None and cell not in attribute.values:
        raise ValueError(f"{where}: {attribute.name!r} is one of {', '.join(attribute.values)}, got {cell!r}")
    if attribute.number:
        try:
            as_number(cell)
        except ValueError:
            raise ValueError(f"{where}: {attribute.name!r} is a number, got {cell!r}") from None


def _unquoted(text: str) -> str:
    if len(text) > 1 and text[0] == text[-1] and text[0] in "'\"":
        return re.sub(r"\\(.)", r"\1", text[1:-1])
    return text
