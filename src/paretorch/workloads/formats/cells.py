"""Numbers in the cells of a table."""

from __future__ import annotations


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
