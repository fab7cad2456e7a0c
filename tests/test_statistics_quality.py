"""Delta m, mean rank, and mean and standard deviation over seeds."""

from __future__ import annotations

import math

import numpy as np
import pytest

from paretorch.metrics import delta_m, mean_rank
from paretorch.studies.statistics.quality import seed_mean, seed_std


def test_delta_m_equals_a_published_row() -> None:
    # NYUv2: the plain sum relative to single tasks; 5.59 in the published table
    single = [38.30, 63.76, 0.6754, 0.2780, 25.01, 19.21, 30.14, 57.20, 69.15]
    plain = [39.29, 65.33, 0.5493, 0.2263, 28.15, 23.96, 22.09, 47.50, 61.08]
    higher = [True, True, False, False, False, False, True, True, True]
    assert float(delta_m(plain, single, higher)) == pytest.approx(5.59, abs=0.005)
    assert float(delta_m(single, single, higher)) == 0.0


def test_delta_m_is_computed_per_seed_and_propagates_nan() -> None:
    values = delta_m([[0.5, 2.0], [1.0, math.nan]], [1.0, 2.0], [True, False])
    assert values[0] == 25.0
    assert math.isnan(values[1])


def test_delta_m_refuses_a_baseline_of_zero() -> None:
    with pytest.raises(ValueError, match=r"other than 0, got \[1.0, 0.0\]: leave out the metric at index 1"):
        delta_m([1.0, 1.0], [1.0, 0.0], [True, True])


def test_mean_rank_shares_ties_and_ignores_incomplete_seeds() -> None:
    one = [[[3.0], [1.0]], [[2.0], [5.0]], [[3.0], [math.nan]]]  # (N = 3, S = 2, K = 1)
    assert mean_rank(one, [True]).tolist() == [1.5, 3.0, 1.5]
    assert mean_rank(one, [False]).tolist() == [2.5, 1.0, 2.5]
    assert np.isnan(mean_rank([[[math.nan]], [[1.0]]], [True])).all()


def test_seed_mean_and_seed_std_ignore_nan() -> None:
    assert seed_mean([1.0, math.nan, 3.0]) == 2.0
    assert seed_std([1.0, math.nan, 3.0]) == pytest.approx(math.sqrt(2))
    assert math.isnan(seed_mean([math.nan]))
    assert math.isnan(seed_std([1.0, math.nan]))
