"""Checks of options: each raises ValueError with the option's name and its range."""

from __future__ import annotations

import math
from numbers import Integral

from paretorch.core.checks import is_number


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


def check_count(option: str, value: int, unit: str = "") -> None:
    """The value is an integer of at least 1; ``unit`` follows the number in the message."""
    if not isinstance(value, Integral) or isinstance(value, bool) or value < 1:
        raise ValueError(f"{option} is at least 1{unit}, got {value!r}")


def check_choice(option: str, value: object, choices: tuple[object, ...]) -> None:
    """The value is one of the choices."""
    if value not in choices:
        raise ValueError(f"{option} is one of {choices}, got {value!r}")
