"""Mean and standard deviation over seeds."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike


def seed_mean(values: ArrayLike) -> float:
    """Mean of the finite ones of (S,) values; nan if there is none."""
    values = np.asarray(values, float)
    finite = values[np.isfinite(values)]
    return float(finite.mean()) if len(finite) else float("nan")


def seed_std(values: ArrayLike) -> float:
    """Standard deviation of the finite ones of (S,) values; nan if there are fewer than two."""
    values = np.asarray(values, float)
    finite = values[np.isfinite(values)]
    return float(finite.std(ddof=1)) if len(finite) > 1 else float("nan")
