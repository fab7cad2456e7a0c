"""The best treatment in one number, and the treatments that are not distinguishable from it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from paretorch.core.arrays import Array
from paretorch.studies.statistics.paired import FEWEST_SEEDS, Interval, holm, interval, paired_t
from paretorch.studies.statistics.quality import seed_mean


@dataclass(frozen=True)
class Leader:
    """The treatment with the lowest mean on the seeds that are compared.

    Args:
        label: of the treatment.
        mean: over its seeds.
        interval: of its mean; None if withheld.
        tied: the others that are not distinguishable from it, with those that have too few seeds for a test.
        tested: number of the others with a test.
        seeds: number of the leader's seeds.
    """

    label: str
    mean: float
    interval: Interval | None
    tied: tuple[str, ...]
    tested: int
    seeds: int


def leader(values: Mapping[str, ArrayLike], level: float = 0.95) -> Leader | None:
    r"""The lowest mean, and paired t tests of it against all others.

    Means are compared over the seeds that all treatments have. A treatment with fewer than three seeds leads only if no other
    has three: one seed is too little evidence, and would leave few seeds for the comparison.

    The leader is selected from the results, so its p-values are corrected as if every pair had been tested: Holm over all
    :math:`N (N - 1) / 2` pairs. Without the correction, the leader of many equal treatments often appears better than another.

    Args:
        values: (S,) by label, lower is better, paired by seed; nan if missing.
        level: coverage of the interval; the test is at 1 - level.

    Returns:
        None if no treatment has a value.

    Example:
        >>> found = leader({"a": [1.0, 1.1, 0.9, 1.0], "b": [2.0, 2.2, 1.9, 2.1], "c": [1.1, 1.0, 1.0, 0.9]})
        >>> found.label, found.tied
        ('a', ('c',))
    """
    rows = {label: np.asarray(row, float) for label, row in values.items()}
    means = {label: seed_mean(row) for label, row in rows.items()}
    known = [label for label, mean in means.items() if not math.isnan(mean)]
    if not known:
        return None
    best = _lowest({label: rows[label] for label in known})
    others = [label for label in known if label != best]
    p = _against(best, others, rows)
    own = rows[best][np.isfinite(rows[best])]
    return Leader(
        label=best,
        mean=means[best],
        interval=interval(own, level),
        tied=tuple(label for label, value in zip(others, p, strict=True) if not value < 1 - level),
        tested=int(np.isfinite(p).sum()),
        seeds=len(own),
    )


def _lowest(rows: Mapping[str, Array]) -> str:
    """The lowest mean over the common seeds of the treatments with enough seeds."""
    complete = {label: np.isfinite(row) for label, row in rows.items()}
    enough = [label for label, there in complete.items() if there.sum() >= FEWEST_SEEDS] or list(rows)
    common = np.logical_and.reduce([complete[label] for label in enough])
    return min(enough, key=lambda label: seed_mean(rows[label][common] if common.any() else rows[label]))


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
