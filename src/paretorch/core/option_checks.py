"""Checks of options: each raises ValueError with the option's name and its range."""

from __future__ import annotations

import math
from numbers import Integral, Real


def is_number(value: object) -> bool:
    """Whether the value is a real number, and not a bool."""
    return isinstance(value, Real) and not isinstance(value, bool)


def check_above(option: str, value: float, least: float = 0.0) -> None:
    """The value is finite and above ``least``."""
    if not (is_number(value) and least < value < math.inf):
        raise ValueError(f"{option} must be above {least:g} and finite, got {value!r}")


def check_at_least(option: str, value: float, least: float = 0.0) -> None:
    """The value is finite and not below ``least``."""
    if not (is_number(value) and least <= value < math.inf):
        raise ValueError(f"{option} must be at least {least:g} and finite, got {value!r}")


def check_finite(option: str, value: float) -> None:
    """The value is a finite number."""
    if not (is_number(value) and math.isfinite(value)):
        raise ValueError(f"{option} must be finite, got {value!r}")


def check_fraction(option: str, value: float, ends: str = "[)") -> None:
    """The value is between 0 and 1; the brackets in ``ends`` include or exclude the end points."""
    inside = is_number(value) and (value > 0 or (value == 0 and ends[0] == "["))
    if not (inside and (value < 1 or (value == 1 and ends[1] == "]"))):
        raise ValueError(f"{option} must be in {ends[0]}0, 1{ends[1]}, got {value!r}")


def check_whole(option: str, value: object, least: int | None = 1, unit: str = "") -> None:
    """The value is a whole number, of at least ``least`` where that is given; ``unit`` follows it in the message."""
    if isinstance(value, bool) or not isinstance(value, Integral) or (least is not None and value < least):
        at_least = "" if least is None else f" of at least {least}"
        raise ValueError(f"{option} is a whole number{at_least}{unit}, got {value!r}")


def check_choice(option: str, value: object, choices: tuple[object, ...]) -> None:
    """The value is one of the choices."""
    if value not in choices:
        raise ValueError(f"{option} is {' or '.join(map(repr, choices))}, got {value!r}")
