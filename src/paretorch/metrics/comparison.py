"""Comparison of models by all their metrics: Delta m against a baseline, and the mean rank.

Shapes: ``N`` models or treatments, ``S`` seeds, ``K`` metrics.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]


def delta_m(metrics: ArrayLike, baseline: ArrayLike, higher_is_better: Sequence[bool]) -> Array:
    r"""Mean relative loss of quality to the single-task baseline, in percent. Lower is better; the baseline has 0.

    .. math:: \Delta_m = \frac{100}{K} \sum_k (-1)^{[\text{higher is better}]_k} \frac{M_k - B_k}{|B_k|}

    Every metric of every task has the weight 1/K, whatever its unit. A negative value is better than the baseline on average.

    Args:
        metrics: (..., K) metrics of the model, in any units.
        baseline: (K,) metrics of the baseline in the same units, none of them zero.
        higher_is_better: (K,) directions of the metrics.

    Returns:
        (...,) percent; nan where a metric is nan.

    Raises:
        ValueError: a baseline metric of zero, to which no change is relative; numbers of metrics that differ.

    Example:
        >>> round(float(delta_m([0.81, 2.2], [0.90, 2.0], [True, False])), 9)    # both 10 % worse
        10.0

    References:
        Maninis et al., "Attentive Single-Tasking of Multiple Tasks", CVPR 2019, eq. (4), with the opposite sign; and over all
        metrics, not tasks, as later papers have it (Navon et al., "Multi-Task Learning as a Bargaining Game", ICML 2022).
    """
    metrics, baseline = np.asarray(metrics, float), np.asarray(baseline, float)
    counts = (metrics.shape[-1] if metrics.ndim else 1, baseline.size, len(higher_is_better))
    if len(set(counts)) > 1 or baseline.ndim != 1:
        raise ValueError(
            f"Delta m expects as many metrics as baseline metrics and directions, got {counts[0]}, {counts[1]} and "
            f"{counts[2]}: give one baseline value and one direction for each metric"
        )
    if np.any(baseline == 0):
        raise ValueError(
            f"Delta m expects baseline metrics other than 0, got {baseline.tolist()}: leave out the metric at "
            f"index {int(np.flatnonzero(baseline == 0)[0])}, or report one that is not 0 for the single tasks"
        )
    sign = np.where(np.asarray(higher_is_better, bool), -1.0, 1.0)
    return np.asarray(100 * np.mean(sign * (metrics - baseline) / np.abs(baseline), axis=-1))


def is_valid_baseline(baseline: float) -> bool:
    """Whether the change of a metric relative to this value is defined."""
    return math.isfinite(baseline) and baseline != 0


def delta_m_to_best(metrics: ArrayLike, higher_is_better: Sequence[bool]) -> Array:
    """Delta m of each of N results relative to the best value of every metric among them, which needs no single-task runs.

    Args:
        metrics: (N, K) metrics; a metric whose best value is 0 is left out.
        higher_is_better: (K,) directions of the metrics.

    Returns:
        (N,) percent, at least 0; infinite where a metric is not finite.

    Raises:
        ValueError: the best value of every metric is 0.

    Example:
        >>> delta_m_to_best([[0.9, 2.0], [0.45, 1.0]], [True, False])     # one metric is best, the other twice or half as good
        array([50., 25.])
    """
    metrics, higher = np.asarray(metrics, float), np.asarray(higher_is_better, bool)
    values = np.full(len(metrics), np.inf)
    finite = np.isfinite(metrics).all(axis=1)
    if not finite.any():
        return values
    best = np.where(higher, metrics[finite].max(axis=0), metrics[finite].min(axis=0))
    used = best != 0
    if not used.any():
        raise ValueError("the best value of every metric is 0, to which no change is relative: report another metric")
    values[finite] = delta_m(metrics[finite][:, used], best[used], higher[used].tolist())
    return values


def complete_seeds(metrics: ArrayLike) -> NDArray[np.bool_]:
    """(S,) whether all of the (N, S, K) metrics are finite on a seed; mean ranks are over these seeds."""
    complete: NDArray[np.bool_] = np.isfinite(np.asarray(metrics, float)).all(axis=(0, 2))
    return complete


def mean_rank(metrics: ArrayLike, higher_is_better: Sequence[bool]) -> Array:
    r"""Rank among the treatments, 1 is best, ties share the mean of their ranks; averaged over metrics and seeds.

    .. math:: \frac{1}{S K} \sum_{s,k} \Big( 1 + |\{m : c_{msk} < c_{nsk}\}|
        + \tfrac{1}{2} |\{m \ne n : c_{msk} = c_{nsk}\}| \Big)

    where ``c`` is the metric, with the opposite sign where higher is better. It ignores by how much a metric is better, and
    changes with the set of treatments.

    Args:
        metrics: (N, S, K) metrics; a seed with a nan is ignored for all treatments.
        higher_is_better: (K,) directions of the metrics.

    Returns:
        (N,) mean ranks in 1..N; nan if no seed is complete.

    Raises:
        ValueError: ``metrics`` is not of shape (N, S, K), or the number of directions is not K.

    Example:
        >>> mean_rank([[[0.9, 1.0]], [[0.8, 1.0]]], [True, False])     # the first is better in one metric, equal in the other
        array([1.25, 1.75])

    References:
        Navon et al., "Multi-Task Learning as a Bargaining Game", ICML 2022, "mean rank".
    """
    metrics = np.asarray(metrics, float)
    if metrics.ndim != 3 or metrics.shape[-1] != len(higher_is_better):
        raise ValueError(
            f"the mean rank expects metrics of shape (treatments, seeds, {len(higher_is_better)}), one direction for each "
            f"metric, got {metrics.shape}: add an axis for a single seed, or give the missing directions"
        )
    complete = complete_seeds(metrics)
    if not complete.any():
        return np.full(len(metrics), np.nan)
    cost = metrics[:, complete] * np.where(np.asarray(higher_is_better, bool), -1.0, 1.0)
    better = (cost[None] < cost[:, None]).sum(axis=1)
    equal = (cost[None] == cost[:, None]).sum(axis=1)  # itself included
    return np.asarray((better + (equal + 1) / 2).mean(axis=(1, 2)), float)
