"""Ranks of treatments over several workloads: Friedman's test and Nemenyi's critical difference.

Shapes: ``W`` workloads, ``N`` treatments. Lower values are better, as for Delta m. The sample consists of workloads: results of
several seeds on one workload are not independent observations, so they are averaged first.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from paretorch.core.arrays import Array
from paretorch.extras import extra

FEWEST_WORKLOADS = 3  # for a test
FEWEST_TREATMENTS = 3


@dataclass(frozen=True)
class Ranking:
    """Mean ranks of treatments over workloads, with tests.

    Args:
        ranks: (N,) mean ranks over the workloads, 1 is best.
        statistic: Friedman's chi square.
        p: p value of Friedman's test that all treatments have equal mean ranks.
        critical_difference: smallest significant difference of two mean ranks, by Nemenyi's test.
        p_pairs: (N, N) p values of Nemenyi's test for every pair, corrected for the number of pairs.
        groups: groups of a critical-difference diagram: indices of treatments without a significant difference among them,
            best first; only maximal groups of at least two treatments.
        level: level of the tests.
        workloads: number of workloads W.
    """

    ranks: Array
    statistic: float
    p: float
    critical_difference: float
    p_pairs: Array
    groups: tuple[tuple[int, ...], ...]
    level: float
    workloads: int


def rank_over_workloads(quality: ArrayLike, level: float = 0.05) -> Ranking:
    r"""Friedman's test over workloads, and Nemenyi's test for all pairs.

    .. math:: \chi^2 = \frac{12 W}{N (N + 1)} \sum_i \left(R_i - \frac{N + 1}{2}\right)^2, \qquad
              \mathrm{CD} = q_\alpha \sqrt{\frac{N (N + 1)}{6 W}}

    where R are the mean ranks; the statistic is corrected for ties. Pairs are valid only if Friedman's p is below the level.

    Args:
        quality: (W, N) a number for every workload and treatment, lower is better, such as the mean Delta m over seeds.
        level: level of both tests.

    Raises:
        ValueError: fewer than 3 workloads or treatments, or a number that is not finite.

    Example:
        >>> ranking = rank_over_workloads([[1.0, 2.0, 3.0], [0.1, 0.3, 0.2], [5.0, 6.0, 7.0], [1.0, 4.0, 9.0]])
        >>> ranking.ranks.tolist(), round(ranking.statistic, 2), ranking.groups
        ([1.0, 2.25, 2.75], 6.5, ((0, 1), (1, 2)))

    References:
        Demsar, "Statistical Comparisons of Classifiers over Multiple Data Sets", JMLR 7, 2006, section 3.2.2.
    """
    values = np.asarray(quality, float)
    if values.ndim != 2 or values.shape[0] < FEWEST_WORKLOADS or values.shape[1] < FEWEST_TREATMENTS:
        raise ValueError(
            f"Friedman's test needs at least {FEWEST_WORKLOADS} workloads and {FEWEST_TREATMENTS} treatments, got the "
            f"shape {values.shape}: compare fewer by their paired differences on each workload"
        )
    if not np.isfinite(values).all():
        workload, treatment = np.argwhere(~np.isfinite(values))[0].tolist()
        raise ValueError(
            f"expected a finite number for every workload and treatment, got {values[workload, treatment]} on workload "
            f"{workload} for treatment {treatment}: leave out that workload or treatment"
        )
    ranked = stats.rankdata(values, axis=1)
    ranks = ranked.mean(axis=0)
    if (ranked == ranked[0, 0]).all():  # every treatment ties on every workload: 0 / 0 in the statistic
        statistic, p = 0.0, 1.0
    else:
        statistic, p = map(float, stats.friedmanchisquare(*values.T))
    difference = critical_difference(values.shape[1], values.shape[0], level)
    with extra("studies"):
        import scikit_posthocs
    pairs = scikit_posthocs.posthoc_nemenyi_friedman(values).to_numpy(float)
    return Ranking(ranks, statistic, p, difference, pairs, _groups(ranks, difference), level, len(values))


def critical_difference(treatments: int, workloads: int, level: float = 0.05) -> float:
    """The smallest significant difference of two mean ranks, by Nemenyi's test; see :func:`rank_over_workloads`.

    Example:
        >>> round(critical_difference(4, 14), 2)       # Demsar's example
        1.25
    """
    q = stats.studentized_range.ppf(1 - level, treatments, math.inf) / math.sqrt(2)
    return float(q * math.sqrt(treatments * (treatments + 1) / (6 * workloads)))


def _groups(ranks: Array, difference: float) -> tuple[tuple[int, ...], ...]:
    order = np.argsort(ranks, kind="stable")
    groups: list[tuple[int, ...]] = []
    for start in range(len(order)):
        members = [int(index) for index in order[start:] if ranks[index] - ranks[order[start]] <= difference]
        if len(members) > 1 and not any(set(members) <= set(group) for group in groups):
            groups.append(tuple(members))
    return tuple(groups)
