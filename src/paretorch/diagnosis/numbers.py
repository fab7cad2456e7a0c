"""Numbers as short text."""

from __future__ import annotations

import math


def short(value: float) -> str:
    """Three significant digits, with commas from 1000 on and without an exponent up to a million; a dash if not finite.

    Example:
        >>> short(0.0123456), short(2697.0), short(3.0e8), short(float("nan"))
        ('0.0123', '2,700', '3e+08', '-')
    """
    if not math.isfinite(value):
        return "-"
    rounded = float(f"{value:.3g}")
    return f"{rounded:,.0f}" if 1000 <= abs(rounded) < 1e6 else f"{value:.3g}"
