"""How good a treatment is, in one number over metrics of unlike units or over seeds.

Shapes: ``N`` treatments, ``S`` seeds, ``K`` metrics.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

Array = NDArray[np.float64]


def delta_m(metrics: ArrayLike, baseline: ArrayLike, higher_is_better: Sequence[bool]) -> Array:
    r"""Mean relative loss of quality against the single-task baseline, in percent. Lower is better, the baseline has 0.

    .. math:: \Delta_m = \frac{100}{K} \sum_k (-1)^{[\text{higher is better}]_k} \frac{M_k - B_k}{|B_k|}

    Args:
        metrics: (..., K) the treatment's metrics.
        baseline: (K,) the baseline's, none of them zero.
        higher_is_better: (K,) the metrics' directions.

    Returns:
        (...,) percent.

    Raises:
        ValueError: a baseline of zero, from which no relative change can be taken.

    Example:
        >>> round(float(delta_m([0.81, 2.2], [0.90, 2.0], [True, False])), 9)    # both 10 % worse
        10.0

    References:
        Maninis et al., "Attentive Single-Tasking of Multiple Tasks", CVPR 2019, eq. (4), with the opposite sign.
    """
    metrics, baseline = np.asarray(metrics, float), np.asarray(baseline, float)
    if np.any(baseline == 0):
        raise ValueError(
            f"Delta m expects baseline metrics other than 0, got {baseline.tolist()}: leave the metric at "
            f"place {int(np.flatnonzero(baseline == 0)[0])} out, or report another that is not 0 for the single tasks"
        )
    sign = np.where(np.asarray(higher_is_better, bool), -1.0, 1.0)
    return np.asarray(100 * np.mean(sign * (metrics - baseline) / np.abs(baseline), axis=-1))


def countable(baseline: float) -> bool:
    """Whether a relative change can be taken from the baseline's value of a metric."""
    return math.isfinite(baseline) and baseline != 0


def complete_seeds(metrics: ArrayLike) -> NDArray[np.bool_]:
    """(S,) the seeds on which each of (N, S, K) is there: those over which ranks are means."""
    found: NDArray[np.bool_] = np.isfinite(np.asarray(metrics, float)).all(axis=(0, 2))
    return found


def mean_rank(metrics: ArrayLike, higher_is_better: Sequence[bool]) -> Array:
    """Rank among the compared, 1 is best, ties share their mean; averaged over metrics and seeds.

    Args:
        metrics: (N, S, K); a seed in which a treatment's metric is nan is left out for all.
        higher_is_better: (K,)

    Returns:
        (N,) in 1..N; nan if no seed is complete.

    Example:
        >>> mean_rank([[[0.9, 1.0]], [[0.8, 1.0]]], [True, False])     # first wins one metric and ties in the other
        array([1.25, 1.75])
    """
    metrics = np.asarray(metrics, float)
    complete = complete_seeds(metrics)
    if not complete.any():
        return np.full(len(metrics), np.nan)
    cost = metrics[:, complete] * np.where(np.asarray(higher_is_better, bool), -1.0, 1.0)
    return np.asarray(stats.rankdata(cost, axis=0).mean(axis=(1, 2)), float)


def seed_mean(values: ArrayLike) -> float:
    """Mean over the seeds of (S,) that have a finite value; nan where none has."""
    values = np.asarray(values, float)
    finite = values[np.isfinite(values)]
    return float(finite.mean()) if len(finite) else float("nan")


def seed_spread(values: ArrayLike) -> float:
    """Standard deviation over the seeds of (S,) that have a finite value; nan where fewer than two have."""
    values = np.asarray(values, float)
    finite = values[np.isfinite(values)]
    return float(finite.std(ddof=1)) if len(finite) > 1 else float("nan")
