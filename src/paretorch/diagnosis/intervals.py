"""Simultaneous intervals for means over batches, with numpy alone."""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np

from paretorch.core.arrays import Array

LEVEL = 0.95
FEWEST = 4  # values for an interval


def student_quantile(probability: float, freedom: int) -> float:
    r"""Quantile of Student's distribution, by its expansion around the normal quantile z.

    .. math:: t \approx z + \frac{z^3 + z}{4 \nu} + \frac{5 z^5 + 16 z^3 + 3 z}{96 \nu^2}
              + \frac{3 z^7 + 19 z^5 + 17 z^3 - 15 z}{384 \nu^3}

    Args:
        probability: in (0, 1).
        freedom: degrees of freedom nu, at least 3; from 7 on, the error is below 2 % for probabilities up to 0.9999.

    Example:
        >>> round(student_quantile(0.975, 15), 3)
        2.131

    References:
        Abramowitz & Stegun, "Handbook of Mathematical Functions", 26.7.5.
    """
    z, nu = NormalDist().inv_cdf(probability), freedom
    return (
        z
        + (z**3 + z) / (4 * nu)
        + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * nu**2)
        + (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * nu**3)
    )


def mean_bounds(values: Array, comparisons: int = 1, level: float = LEVEL) -> tuple[Array, Array, Array]:
    """Means over batches and the ends of their intervals, which cover all means together at the level.

    Args:
        values: (K, ...) one value per batch; nan where there is none.
        comparisons: number of intervals that have the level together (Bonferroni).
        level: in (0, 1).

    Returns:
        (...,) mean, lower end and upper end; nan without a value, and nan ends with fewer than :data:`FEWEST` values.

    Example:
        >>> mean, low, high = mean_bounds(np.array([1.0, 2.0, 3.0, 4.0, 5.0]))
        >>> round(float(mean), 2), bool(low < 2), bool(high > 4)
        (3.0, True, True)
    """
    there = np.isfinite(values)
    count = there.sum(axis=0)
    filled = np.where(there, values, 0.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        mean = filled.sum(axis=0) / count
        variance = np.where(there, (values - mean) ** 2, 0.0).sum(axis=0) / (count - 1)
    probability = 1 - (1 - level) / (2 * max(1, comparisons))
    quantiles = {n: student_quantile(probability, n - 1) if n >= FEWEST else math.nan for n in set(count.flat)}
    factor = np.array([quantiles[n] / math.sqrt(n) if n else math.nan for n in count.flat]).reshape(count.shape)
    half = factor * np.sqrt(variance)
    return mean, mean - half, mean + half
