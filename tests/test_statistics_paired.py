"""Paired statistics: closed forms, scipy, and simulated coverage, power and false positives."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from paretorch.studies.statistics import paired as statistics
from paretorch.studies.statistics.paired import (
    BOOTSTRAP_FROM,
    Verdict,
    bootstrap_bounds,
    compare,
    holm,
    interval,
    paired_t,
    t_bounds,
    wilcoxon,
)

Array = NDArray[np.float64]


def draws(seeds: int, studies: int = 2000, mean: float = 0.0, key: int = 0) -> Array:
    """(studies, seeds) normal paired differences of standard deviation one."""
    return np.random.default_rng(key).normal(mean, 1.0, size=(studies, seeds))


def covered(bounds: tuple[Array, Array], truth: float = 0.0) -> float:
    low, high = bounds
    return float(np.mean((low <= truth) & (truth <= high)))


@pytest.mark.parametrize("seeds", [3, 5, 10, 30])
def test_paired_t_and_its_interval_equal_scipy(seeds: int) -> None:
    for d in draws(seeds, studies=20, mean=0.5):
        oracle = stats.ttest_1samp(d, 0.0)
        assert float(paired_t(d)) == pytest.approx(oracle.pvalue, rel=1e-10)
        expected = oracle.confidence_interval(0.9)
        low, high = t_bounds(d, 0.9)
        assert (float(low), float(high)) == pytest.approx((expected.low, expected.high), rel=1e-10)


def test_paired_t_of_equal_differences_is_the_sign_test() -> None:
    assert float(paired_t([0.0, 0.0, 0.0])) == 1.0
    assert float(paired_t([-0.1, -0.1, -0.1, -0.1])) == 0.125
    assert float(paired_t([-0.1] * 10)) == pytest.approx(2**-9)
    assert compare({"a": [-0.1] * 4})["a"].verdict is Verdict.NOT_DISTINGUISHABLE


def test_wilcoxon_is_exact_and_never_significant_with_five_seeds() -> None:
    assert wilcoxon([-1.0, -2.0, -3.0, -4.0, -5.0]) == 0.0625
    assert wilcoxon([-1.0, -2.0, -3.0, -4.0, -5.0, -6.0]) == pytest.approx(2 / 64)
    # rank sums of +: {1}, of 8 equally likely sign patterns 2 are at most as extreme on this side
    assert wilcoxon([1.0, -2.0, -3.0]) == pytest.approx(0.5)
    assert wilcoxon([0.0, 0.0, 0.0]) == 1.0


def test_holm_equals_hand_computed_values_and_is_at_most_bonferroni() -> None:
    assert holm([0.01, 0.02, 0.03, 0.005]).tolist() == pytest.approx([0.03, 0.04, 0.04, 0.02])
    assert holm([0.5, 0.9]).tolist() == [1.0, 1.0]
    p = np.random.default_rng(0).uniform(size=(50, 7))
    corrected = holm(p)
    assert (corrected >= p).all()
    assert (corrected <= np.minimum(7 * p, 1)).all()
    assert (np.diff(np.take_along_axis(corrected, np.argsort(p, -1), -1)) >= 0).all()


def test_holm_ignores_withheld_comparisons() -> None:
    corrected = holm([0.01, math.nan, 0.04])
    assert corrected[[0, 2]].tolist() == [0.02, 0.04]
    assert math.isnan(corrected[1])


@pytest.mark.parametrize("seeds", [3, 4, 5, 6])
def test_t_interval_covers_with_few_seeds_unlike_the_percentile_bootstrap(seeds: int) -> None:
    d = draws(seeds, studies=4000)
    resampled = np.random.default_rng(1).integers(0, seeds, size=(400, seeds))
    percentile = np.quantile(d[:, resampled].mean(-1), [0.025, 0.975], axis=-1)
    assert covered(t_bounds(d)) == pytest.approx(0.95, abs=0.012)
    assert covered((percentile[0], percentile[1])) < 0.88


@pytest.mark.parametrize("seeds", [BOOTSTRAP_FROM, 10, 20])
def test_bootstrap_interval_covers_from_seven_seeds_on(seeds: int) -> None:
    assert covered(bootstrap_bounds(draws(seeds, studies=4000))) >= 0.94


@pytest.mark.parametrize(("seeds", "share"), [(7, 0.940), (8, 0.943), (10, 0.946)])
@pytest.mark.sampled(3)
def test_bootstrap_interval_has_the_documented_coverage(seeds: int, share: float) -> None:
    parts = [draws(seeds, studies=4000, key=key) for key in range(5)]
    bootstrap, student = (np.mean([covered(bounds(d)) for d in parts]) for bounds in (bootstrap_bounds, t_bounds))
    assert bootstrap == pytest.approx(share, abs=0.006)  # 3.5 standard errors
    assert student == pytest.approx(0.95, abs=0.006)
    assert bootstrap < student
    assert f"{100 * share:.1f}" in str(statistics.__doc__)


def test_bootstrap_interval_covers_for_skewed_differences() -> None:
    skewed = np.random.default_rng(0).exponential(size=(4000, 20)) - 1.0
    assert covered(bootstrap_bounds(skewed)) >= covered(t_bounds(skewed)) >= 0.90


def test_interval_has_its_method_and_is_withheld_below_three_seeds() -> None:
    assert interval([1.0, 2.0]) is None
    few, many = interval(draws(6)[0]), interval(draws(7)[0])
    assert few is not None
    assert many is not None
    assert (few.method, many.method) == ("t", "bootstrap")
    assert many == interval(draws(7)[0]), "equal data give equal bounds"
    assert many.low < draws(7)[0].mean() < many.high


def judged(studies: Array) -> Array:
    """(studies,) the verdict of studies with a single comparison: -1 better, 1 worse, 0 not distinguishable."""
    return np.asarray(np.where(paired_t(studies) < 0.05, np.sign(studies.mean(-1)), 0.0))


def test_vectorised_verdicts_equal_compare() -> None:
    signs = {Verdict.BETTER: -1, Verdict.WORSE: 1, Verdict.NOT_DISTINGUISHABLE: 0}
    studies = draws(10, studies=200, mean=-0.5)
    assert [signs[compare({"one": d})["one"].verdict] for d in studies] == judged(studies).tolist()
    assert set(judged(studies)) == {-1, 0}


def test_comparison_with_ten_seeds_has_the_documented_power_and_false_positive_rate() -> None:
    different, null = judged(draws(10, studies=100_000, mean=-1.0)), judged(draws(10, studies=100_000, key=1))
    assert np.mean(different == -1) >= 0.75
    assert np.mean(different == 1) < 1e-4
    assert np.mean(null == 0) >= 0.94


def power(effect: float, seeds: int) -> float:
    """Power of the two-sided paired t test at 5 %, in the direction of an effect in standard deviations of the differences."""
    return float(stats.nct.sf(stats.t.ppf(0.975, seeds - 1), seeds - 1, effect * math.sqrt(seeds)))


@pytest.mark.parametrize(("shared", "seeds"), [(0.0, 10), (0.5, 10), (0.8, 10), (0.0, 18)])
def test_comparison_power_depends_on_the_shared_variance_as_documented(shared: float, seeds: int) -> None:
    """Pairing removes the variance that treatments share on a seed; at a correlation of one half both deviations are equal."""
    random = np.random.default_rng(0)
    seed = math.sqrt(shared) * random.normal(size=(100_000, seeds))
    mine, other = (seed + math.sqrt(1 - shared) * random.normal(size=(100_000, seeds)) for _ in range(2))
    better = np.mean(judged(mine - 1.0 - other) == -1)
    assert better == pytest.approx(power(1 / math.sqrt(2 * (1 - shared)), seeds), abs=0.006)
    assert (better >= 0.75) == (shared >= 0.5 or seeds >= 18)


@pytest.mark.parametrize("seeds", [3, 5, 10])
@pytest.mark.parametrize("treatments", [1, 7, 30])
@pytest.mark.parametrize("shape", ["normal", "uniform", "laplace"])
def test_comparisons_without_a_difference_have_few_false_positives(seeds: int, treatments: int, shape: str) -> None:
    """Equal treatments and reference: some interval excludes zero in at most 6 % of the studies."""
    random = np.random.default_rng([seeds, treatments])
    results: Array = getattr(random, shape)(size=(20_000, treatments + 1, seeds))
    differences = results[:, 1:] - results[:, :1]
    assert np.mean(excludes_zero(differences, 1 - 0.05 / treatments).any(axis=1)) <= 0.06
    if treatments > 1:
        assert np.mean(excludes_zero(differences, 0.95).any(axis=1)) > 0.08, "more without the correction"


def excludes_zero(differences: Array, level: float) -> NDArray[np.bool_]:
    low, high = t_bounds(differences, level)
    return np.asarray((low > 0) | (high < 0))


@pytest.mark.parametrize("seeds", [3, 5, 8, 12])
@pytest.mark.parametrize("treatments", [1, 4, 25])
def test_comparison_is_not_distinguishable_exactly_if_its_interval_touches_zero(seeds: int, treatments: int) -> None:
    """Also for equal differences, whose interval would have no width."""
    random = np.random.default_rng([seeds, treatments, 1])
    differences = {str(i): random.normal(i / 5, 1, seeds) for i in range(treatments)}
    differences |= {
        "constant": np.full(seeds, 0.3),
        "zero": np.zeros(seeds),
        "close": 1 + 1e-3 * random.normal(size=seeds),
    }
    found = compare(differences)
    assert {c.verdict for c in found.values()} >= {Verdict.NOT_DISTINGUISHABLE, Verdict.WORSE}
    for label, comparison in found.items():
        ends, alone = comparison.interval, comparison.uncorrected
        assert ends is not None
        assert alone is not None
        assert (comparison.verdict is Verdict.NOT_DISTINGUISHABLE) == (ends.low <= 0 <= ends.high), label
        assert (comparison.verdict is Verdict.NOT_DISTINGUISHABLE) == (comparison.p_corrected >= 0.05), label
        assert ends.low <= alone.low <= comparison.difference <= alone.high <= ends.high
        assert ends.level == pytest.approx(1 - 0.05 / len(differences))


def test_comparison_intervals_equal_hand_computed_bonferroni_bounds() -> None:
    found = compare({"a": [1.0, 2.0, 3.0], "b": [0.0, 1.0, 5.0]})
    half = stats.t.ppf(1 - 0.05 / 4, 2) / math.sqrt(3)  # the deviation is 1, and there are two comparisons
    ends = found["a"].interval
    assert ends is not None
    assert (ends.low, ends.high) == pytest.approx((2 - half, 2 + half))


def test_comparison_description_names_verdict_and_seeds() -> None:
    result = compare({"a": [-1.0, -1.1, -0.9, -1.0, -1.05], "b": [1.0, 1.1, 0.9, 1.0, 1.05], "c": [1, -1, 1, -1, 0.5]})
    assert [c.description for c in result.values()] == [
        "better with 5 seeds",
        "worse with 5 seeds",
        "not distinguishable with 5 seeds",
    ]
    assert result["a"].p_corrected == pytest.approx(3 * result["a"].p)
    assert result["a"].p_wilcoxon == 0.0625


def test_comparison_ignores_and_counts_missing_seeds() -> None:
    result = compare({"a": [-1.0, math.nan, -1.1, -0.9], "b": [math.nan, -1.0, math.nan, math.nan]})
    assert (result["a"].seeds, result["a"].note) == (3, "1 of 4 seeds have no result")
    assert result["a"].verdict is Verdict.BETTER
    assert result["b"].interval is None
    assert result["b"].description == "withheld: 1 seed, an interval needs at least 3; 3 of 4 seeds have no result"
    assert result["a"].p_corrected == result["a"].p, "a withheld comparison does not count"
    assert compare({}) == {}
