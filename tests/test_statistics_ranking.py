"""Ranks over workloads: Demsar's table, scipy, the closed form, false positives and power."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from paretorch.studies.statistics.ranking import critical_difference, rank_over_workloads


def test_friedman_statistic_equals_the_closed_form_and_scipy() -> None:
    values = np.random.default_rng(0).normal(size=(9, 5))
    result = rank_over_workloads(values)
    ranks = values.argsort(axis=1).argsort(axis=1) + 1.0
    assert result.ranks == pytest.approx(ranks.mean(axis=0))
    assert result.statistic == pytest.approx(12 * 9 / (5 * 6) * ((ranks.mean(axis=0) - 3) ** 2).sum())
    oracle = stats.friedmanchisquare(*values.T)
    assert (result.statistic, result.p) == pytest.approx((oracle.statistic, oracle.pvalue))
    assert result.p == pytest.approx(stats.chi2.sf(result.statistic, 4))


# critical values of Nemenyi's test at 5 % for 2 to 10 treatments: Demsar, Table 5
PRINTED = {2: 1.960, 3: 2.343, 4: 2.569, 5: 2.728, 6: 2.850, 7: 2.949, 8: 3.031, 9: 3.102, 10: 3.164}


@pytest.mark.parametrize("treatments", PRINTED)
def test_critical_difference_equals_the_published_table(treatments: int) -> None:
    for workloads in (3, 14):
        scale = math.sqrt(treatments * (treatments + 1) / (6 * workloads))
        assert critical_difference(treatments, workloads) == pytest.approx(
            PRINTED[treatments] * scale, abs=1e-3 * scale
        )


def test_nemenyi_p_agrees_with_the_critical_difference() -> None:
    random = np.random.default_rng(1)
    beyond = 0
    for _ in range(20):
        result = rank_over_workloads(random.normal(size=(12, 4)) + np.arange(4) * 0.8)
        apart = np.abs(result.ranks[:, None] - result.ranks) > result.critical_difference
        assert ((result.p_pairs < 0.05) == apart).all()
        beyond += int(apart.sum())
    assert 0 < beyond < 20 * 12


def test_groups_are_maximal_sets_without_a_difference() -> None:
    values = np.array([[1.0, 2.0, 3.0, 4.0]] * 8 + [[2.0, 1.0, 3.0, 4.0]] * 4)
    result = rank_over_workloads(values)
    assert result.ranks == pytest.approx([4 / 3, 5 / 3, 3.0, 4.0])
    assert result.critical_difference == pytest.approx(1.354, abs=1e-3)
    assert result.groups == ((0, 1), (1, 2), (2, 3))
    order = [3, 1, 0, 2]  # the same treatments in another order are the same groups
    moved = rank_over_workloads(values[:, order])
    assert {frozenset(order[i] for i in group) for group in moved.groups} == {frozenset(g) for g in result.groups}


def test_ties_share_the_mean_of_their_ranks() -> None:
    result = rank_over_workloads([[1.0, 1.0, 1.0]] * 4)
    assert result.ranks.tolist() == [2.0, 2.0, 2.0]
    assert (result.statistic, result.p, result.groups) == (0.0, 1.0, ((0, 1, 2),))
    tied = rank_over_workloads([[1.0, 1.0, 2.0], [1.0, 2.0, 3.0], [2.0, 1.0, 3.0], [1.0, 1.0, 3.0]])
    assert tied.ranks.tolist() == [1.5, 1.5, 3.0]


@pytest.mark.parametrize(("workloads", "treatments"), [(3, 3), (5, 4), (10, 8)])
def test_friedman_false_positive_rate_is_at_most_the_level(workloads: int, treatments: int) -> None:
    values = np.random.default_rng(2).normal(size=(2000, workloads, treatments))
    ranks = values.argsort(-1).argsort(-1).mean(axis=1) + 1.0
    chi = 12 * workloads / (treatments * (treatments + 1)) * ((ranks - (treatments + 1) / 2) ** 2).sum(-1)
    alarms = stats.chi2.sf(chi, treatments - 1) < 0.05
    assert alarms.mean() <= 0.06
    spread = ranks.max(-1) - ranks.min(-1)
    assert (spread > critical_difference(treatments, workloads)).mean() <= 0.06
    for place in (0, 1, 2):  # the vectorised statistic equals that of the function
        assert rank_over_workloads(values[place]).statistic == pytest.approx(chi[place])


def test_friedman_detects_a_treatment_that_is_best_on_all_workloads() -> None:
    values = np.random.default_rng(3).normal(size=(10, 4))
    values[:, 2] -= 10
    result = rank_over_workloads(values)
    assert result.ranks[2] == 1.0
    assert result.p < 0.05
    assert (result.workloads, result.level) == (10, 0.05)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.zeros((2, 5)), r"at least 3 workloads and 3 treatments, got the shape \(2, 5\)"),
        (np.zeros((5, 2)), r"got the shape \(5, 2\): compare fewer by their paired differences"),
        (np.zeros(3), "got the shape"),
        ([[1.0, 2.0, 3.0], [1.0, math.nan, 3.0], [1.0, 2.0, 3.0]], "got nan on workload 1 for treatment 1"),
    ],
)
def test_rank_over_workloads_refuses_too_few_and_nan(values: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        rank_over_workloads(values)  # type: ignore[arg-type]
