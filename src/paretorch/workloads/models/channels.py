"""Numbers of channels at a width."""

from __future__ import annotations


def scaled_channels(channels: int, width: float) -> int:
    """``channels`` times ``width``, rounded to a multiple of 8, at least 8.

    Example:
        >>> scaled_channels(64, 1.0), scaled_channels(64, 0.35), scaled_channels(64, 0.01)
        (64, 24, 8)
    """
    return max(8, round(channels * width / 8) * 8)
