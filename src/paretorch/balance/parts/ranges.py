"""Options out of their range are refused, and the range is named."""

from __future__ import annotations

import math
from numbers import Integral

from paretorch.core.checks import is_number


def above(option: str, value: float, least: float = 0.0) -> None:
    """The option's value is finite and above ``least``."""
    if not (is_number(value) and least < value < math.inf):
        raise ValueError(f"{option} must be above {least:g} and finite, got {value!r}")


def at_least(option: str, value: float, least: float = 0.0) -> None:
    """The option's value is finite and not below ``least``."""
    if not (is_number(value) and least <= value < math.inf):
        raise ValueError(f"{option} must be at least {least:g} and finite, got {value!r}")


def finite(option: str, value: float) -> None:
    """The option's value is a number like any other."""
    if not (is_number(value) and math.isfinite(value)):
        raise ValueError(f"{option} must be finite, got {value!r}")


def share(option: str, value: float, ends: str = "[)") -> None:
    """The option's value lies between 0 and 1; ``ends`` says by its brackets which of the two it may be."""
    inside = is_number(value) and (value > 0 or (value == 0 and ends[0] == "["))
    if not (inside and (value < 1 or (value == 1 and ends[1] == "]"))):
        raise ValueError(f"{option} must be in {ends[0]}0, 1{ends[1]}, got {value!r}")


def count(option: str, value: int, of: str = "") -> None:
    """The option's value is a whole number, at least 1."""
    if not isinstance(value, Integral) or isinstance(value, bool) or value < 1:
        raise ValueError(f"{option} is at least 1{of}, got {value!r}")
