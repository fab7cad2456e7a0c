"""The best treatment in one number, and the treatments that are not distinguishable from it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from paretorch.core.arrays import Array
from paretorch.studies.statistics.paired import FEWEST_SEEDS, Interval, holm, interval, paired_t
from paretorch.studies.statistics.quality import seed_mean


@dataclass(frozen=True)
class CommonSeeds:
    """The seeds on which treatments are compared with each other.

    Args:
        labels: the treatments that are compared: those with at least three seeds, or all with a value if none has three.
        few: the others with a value.
        used: (S,) the seeds on which all that are compared have a value.
        complete: whether these are all seeds of every treatment with a value, so that the means of the tables are compared.
    """

    labels: tuple[str, ...]
    few: tuple[str, ...]
    used: NDArray[np.bool_]
    complete: bool


def common_seeds(values: Mapping[str, ArrayLike]) -> CommonSeeds:
    """The common seeds of (S,) values by label; nan or infinite if missing."""
    finite = {label: np.isfinite(np.asarray(row, float)) for label, row in values.items()}
    known = [label for label, found in finite.items() if found.any()]
    labels = [label for label in known if finite[label].sum() >= FEWEST_SEEDS] or known
    used = np.asarray(np.array([finite[label] for label in labels]).all(axis=0))
    complete = all((finite[label] == used).all() for label in known)
    return CommonSeeds(tuple(labels), tuple(label for label in known if label not in labels), used, complete)


@dataclass(frozen=True)
class Leader:
    """The treatment with the lowest mean on the seeds that are compared.

    Args:
        label: of the treatment.
        mean: over the common seeds; over the leader's own if there is no common seed.
        interval: of this mean; None if withheld.
        tied: the others that are not distinguishable from it on these seeds, with those that have too few seeds for a test.
        tested: number of the others with a test.
        seeds: number of seeds of the mean.
        common: the seeds that are compared.
    """

    label: str
    mean: float
    interval: Interval | None
    tied: tuple[str, ...]
    tested: int
    seeds: int
    common: CommonSeeds


def leader(values: Mapping[str, ArrayLike], level: float = 0.95) -> Leader | None:
    r"""The lowest mean, and paired t tests of it against all others.

    Means, interval and tests are over the same seeds, those that all treatments have; without such a seed, means are over the own
    seeds of each treatment, and there is no test. A treatment with fewer than three seeds leads only if no other has three: one
    seed is too little evidence, and would leave few seeds for the comparison.

    The leader is selected from the results, so its p-values are corrected as if every pair had been tested: Holm over all
    :math:`N (N - 1) / 2` pairs. Without the correction, the leader of many equal treatments often appears better than another.

    Args:
        values: (S,) by label, lower is better, paired by seed; nan or infinite if missing.
        level: coverage of the interval; the test is at 1 - level.

    Returns:
        None if no treatment has a value.

    Example:
        >>> found = leader({"a": [1.0, 1.1, 0.9, 1.0], "b": [2.0, 2.2, 1.9, 2.1], "c": [1.1, 1.0, 1.0, 0.9]})
        >>> found.label, found.tied
        ('a', ('c',))
    """
    common = common_seeds(values)
    if not common.labels:
        return None
    rows = {label: np.asarray(values[label], float) for label in (*common.labels, *common.few)}
    used = {label: row[common.used if common.used.any() else np.isfinite(row)] for label, row in rows.items()}
    best = min(common.labels, key=lambda label: seed_mean(used[label]))
    others = [label for label in rows if label != best]
    p = _against(
        best, others, {label: np.where(common.used & np.isfinite(row), row, math.nan) for label, row in rows.items()}
    )
    return Leader(
        label=best,
        mean=seed_mean(used[best]),
        interval=interval(used[best], level),
        tied=tuple(label for label, value in zip(others, p, strict=True) if not value < 1 - level),
        tested=int(np.isfinite(p).sum()),
        seeds=len(used[best]),
        common=common,
    )


def _against(best: str, others: list[str], rows: Mapping[str, Array]) -> Array:
    """(N - 1,) p of the best against each other one, corrected for all pairs; nan with too few seeds."""
    labels = [best, *others]
    table = np.array([rows[label] for label in labels])
    parts = [_paired(table[i + 1 :] - table[i]) for i in range(len(labels) - 1)]
    corrected = holm(np.concatenate(parts)) if parts else np.empty(0)
    return np.asarray(corrected[: len(others)])


def _paired(differences: Array) -> Array:
    """(n,) p of (n, S) differences, each over its finite seeds."""
    complete = np.isfinite(differences)
    found = np.full(len(differences), math.nan)
    for pattern in np.unique(complete, axis=0):
        if pattern.sum() >= FEWEST_SEEDS:
            rows = (complete == pattern).all(axis=1)
            found[rows] = paired_t(differences[rows][:, pattern])
    return found
