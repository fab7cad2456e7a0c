"""Who is best in a number that every treatment has on every seed, and from whom it cannot be told apart."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from paretorch.studies.statistics.paired import FEWEST_SEEDS, Interval, holm, interval, paired_t
from paretorch.studies.statistics.quality import seed_mean


@dataclass(frozen=True)
class Leader:
    """The treatment with the lowest mean on the seeds that are compared.

    Args:
        label: its name.
        mean: over its seeds.
        interval: of its mean; None where withheld.
        tied: the others from which it cannot be told apart; those with too few seeds to be tested among them.
        tested: how many of the others could be tested.
        seeds: of the leader.
    """

    label: str
    mean: float
    interval: Interval | None
    tied: tuple[str, ...]
    tested: int
    seeds: int


def leader(values: Mapping[str, ArrayLike], level: float = 0.95) -> Leader | None:
    r"""The lowest mean, and paired t tests of it against all others.

    Means are compared over the seeds that all have. One with fewer than three seeds leads only where all have as few: a single
    lucky seed is no lead, and would leave few seeds to compare on.

    The leader is chosen by looking at the results, so its p-values are corrected as if every pair had been tested: Holm over
    all :math:`N (N - 1) / 2` pairs. Otherwise the luckiest of many equal treatments would often seem better than some other.

    Args:
        values: (S,) by label, lower is better, paired by seed; nan where there is none.
        level: coverage of the interval; the test is at 1 - level.

    Returns:
        None where no treatment has a value.

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


def _lowest(rows: Mapping[str, NDArray[np.float64]]) -> str:
    """The lowest mean over the seeds that all have, of those that have enough."""
    complete = {label: np.isfinite(row) for label, row in rows.items()}
    enough = [label for label, there in complete.items() if there.sum() >= FEWEST_SEEDS] or list(rows)
    common = np.logical_and.reduce([complete[label] for label in enough])
    return min(enough, key=lambda label: seed_mean(rows[label][common] if common.any() else rows[label]))


def _against(best: str, others: list[str], rows: Mapping[str, NDArray[np.float64]]) -> NDArray[np.float64]:
    """(N - 1,) p of the best against each other one, corrected for all pairs; nan where there are too few seeds."""
    labels = [best, *others]
    table = np.array([rows[label] for label in labels])
    parts = [_paired(table[i + 1 :] - table[i]) for i in range(len(labels) - 1)]
    corrected = holm(np.concatenate(parts)) if parts else np.empty(0)
    return np.asarray(corrected[: len(others)])


def _paired(differences: NDArray[np.float64]) -> NDArray[np.float64]:
    """(n,) p of (n, S) differences, each over the seeds that it has."""
    complete = np.isfinite(differences)
    found = np.full(len(differences), math.nan)
    for pattern in np.unique(complete, axis=0):
        if pattern.sum() >= FEWEST_SEEDS:
            rows = (complete == pattern).all(axis=1)
            found[rows] = paired_t(differences[rows][:, pattern])
    return found
