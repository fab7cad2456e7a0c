"""Numbers in the cells of a table, and numbers in notations that are not read."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

MOST_DIGITS = 15  # of a whole number that float64 represents exactly, whatever the digits are
LONGEST = 60  # characters of a cell that may be a number in another notation

SIGN = r"[+\-\u2212]?\s?"
CURRENCY = r"(?:[A-Z]{0,3}[$\u20ac\u00a3\u00a5\u20b9\u20bd\u20a9]|USD|EUR|GBP|CHF|JPY|CNY|INR)"
NUMBER = r"""(?:
    \d{1,3}(?:,\d{2,3})*,\d{3}(?:\.\d+)?                             # 1,003.5 or 1,00,000
    | \d{1,3}(?:\.\d{3})+,\d+ | \d{1,3}(?:\.\d{3}){2,}               # 1.003,5 or 1.000.000; not 1.003, which is read
    | \d{1,3}(?P<mark>[ _'\u2019\u00a0\u2009\u202f])\d{3}(?:(?P=mark)\d{3})*(?:[.,]\d+)?
    | \d*,\d+(?:[eE][+-]?\d+)?                                       # 4,064
    | (?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?                          # in digits other than those of ASCII, or with a unit
)"""
OTHER = re.compile(
    rf"{SIGN}(?:{NUMBER}(?:\s?(?:[%\u2030]|{CURRENCY}))?|0[xX][0-9a-fA-F]+)"
    rf"|{SIGN}{CURRENCY}\s?{SIGN}{NUMBER.replace('mark', 'after')}\s?[kKMB]?",
    re.VERBOSE,
)
MEASURE = re.compile(rf"{SIGN}{NUMBER}\s?(?P<unit>(?!st|nd|rd|th)(?:[^\W\d_]|[/^\u00b0\u00b7])+[23]?)", re.VERBOSE)
WHOLE = re.compile(r"[+-]?[0-9]+(?:\.0*)?")


def number(text: str) -> float:
    """The number that a text is: digits of ASCII, or inf and nan as Python spells them.

    Raises:
        ValueError: it is no number, or one with underscores or other digits, which ``float`` would read too.

    Example:
        >>> number("-1.5e3")
        -1500.0
        >>> number("1_000")
        Traceback (most recent call last):
        ...
        ValueError: '1_000' is not a number
    """
    if not text.isascii() or "_" in text:
        raise ValueError(f"{text!r} is not a number")
    return float(text)


def is_number(text: str) -> bool:
    """Whether a text is a :func:`number`."""
    try:
        number(text)
    except ValueError:
        return False
    return True


def is_other_notation(text: str) -> bool:
    """Whether a text that is no :func:`number` is beyond doubt a number in another notation.

    These are a decimal comma, separators of thousands, per cent, a currency, ``0x`` and digits or a minus sign outside ASCII.
    Ranges, dates, versions, codes and numbers with a unit are not: they may be categories.

    Example:
        >>> [is_other_notation(text) for text in ("4,064", "1 003.5", "12 %", "$3", "0x1F")]
        [True, True, True, True, True]
        >>> [is_other_notation(text) for text in ("1-2", "2021-05", "1.2.3", "A1", "12 345 6", "36 months")]
        [False, False, False, False, False, False]
    """
    return len(text) <= LONGEST and OTHER.fullmatch(text) is not None


def unit_of(text: str) -> str:
    """The unit after a number; empty if the text has another form.

    Example:
        >>> [unit_of(text) for text in ("36 months", "3.5m2", "4th", "A1")]
        ['months', 'm2', '', '']
    """
    found = MEASURE.fullmatch(text) if len(text) <= LONGEST else None
    return found["unit"] if found else ""


class RoundedPair(NamedTuple):
    """Two different whole numbers of a column that are the same in float64.

    Args:
        rows: of the cells, from 0.
        cells: as they are written.
    """

    rows: tuple[int, int]
    cells: tuple[str, str]


def rounded_pair(cells: Sequence[str]) -> RoundedPair | None:
    """The first two cells whose different whole numbers are the same in float64; None if there are none.

    Example:
        >>> rounded_pair(["7", "9007199254740992", "", "9007199254740993"])
        RoundedPair(rows=(1, 3), cells=('9007199254740992', '9007199254740993'))
    """
    known: dict[float, tuple[str, int, str]] = {}
    for row, cell in enumerate(cells):
        if len(cell) <= MOST_DIGITS or "." in cell[:MOST_DIGITS] or not WHOLE.fullmatch(text := cell.strip()):
            continue
        digits = text.partition(".")[0].removeprefix("+")
        sign = "-" if digits.startswith("-") else ""
        digits = sign + digits.removeprefix("-").lstrip("0")
        before, first, written = known.setdefault(float(text), (digits, row, text))
        if before != digits and len(digits) > MOST_DIGITS:
            return RoundedPair((first, row), (written, text))
    return None
