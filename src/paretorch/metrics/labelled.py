"""Which pixels of a target are labelled."""

from __future__ import annotations

from torch import Tensor


def has_distance(target: Tensor) -> Tensor:
    """Pixels with a measured distance, which is above 0; not nan."""
    return target > 0


def has_direction(target: Tensor) -> Tensor:
    """(B, 3, H, W) -> (B, H, W): pixels whose direction is not a vector of zeros."""
    return target.abs().sum(dim=1) > 0
