"""Convergence and stability of learning curves: closed forms, censored runs, trends without variation."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from paretorch.studies.statistics.curves import convergence, convergence_target, stability

Array = NDArray[np.float64]
NAN, INF = math.nan, math.inf


def falling(rate: float, epochs: int = 12) -> Array:
    return np.asarray(np.exp(-rate * np.arange(1, epochs + 1)))


def test_convergence_of_exponentials_has_its_closed_form() -> None:
    curves = np.stack([falling(0.1), falling(0.5), falling(2.0)])
    result = convergence(curves, target=math.exp(-1.0), seconds=np.full(curves.shape, 3.0))
    assert result.epochs.tolist() == [10, 2, 1]
    assert result.seconds.tolist() == [30, 6, 3]
    assert (result.reached, result.seeds, result.median) == (3, 3, 2.0)


def test_convergence_is_the_first_epoch_at_or_below_the_target() -> None:
    assert convergence([[3.0, 1.0, 5.0, 0.5]], target=1.0).epochs.tolist() == [2]
    assert convergence([[NAN, 1.0, 0.0]], target=1.0).epochs.tolist() == [2], "nan does not reach the target"


def test_convergence_seconds_are_the_sum_until_the_target() -> None:
    result = convergence([[3.0, 2.0, 1.0]] * 2, 2.0, seconds=[[1.0, 10.0, 100.0], [2.0, 20.0, 200.0]])
    assert result.seconds.tolist() == [11, 22]
    assert result.median_seconds == 16.5
    assert np.isnan(convergence([[3.0, 2.0]], 2.0).seconds).all()


def test_convergence_counts_censored_runs() -> None:
    result = convergence([[1.0, 0.0], [1.0, 1.0], [0.0, 0.0], [NAN, NAN]], target=0.0)
    assert result.epochs.tolist()[:3] == [2, INF, 1]
    assert math.isnan(result.epochs[3])
    assert (result.reached, result.seeds, result.median) == (2, 3, 2.0)
    assert result.restricted.tolist()[:3] == [2, 2, 1]
    assert math.isnan(result.restricted[3])
    assert result.description == "epoch 2 (median), very slow; 1 of 3 runs never reach it"
    most = convergence([[1.0], [1.0], [0.0]], target=0.0)
    assert math.isinf(most.median)
    assert most.description == "not reached within 1 epochs by 2 of 3 runs"
    assert convergence([[NAN, NAN]], 0.0).description == "no result"
    even = convergence([[0.0, 0.0], [1.0, 1.0]], target=0.0)
    assert math.isinf(even.median), "half of the runs never reach it"


def test_convergence_restricted_mean_is_the_area_under_the_survival_curve() -> None:
    epochs = np.random.default_rng(0).integers(1, 30, size=200)
    curves = np.where(np.arange(1, 21) >= epochs[:, None], 0.0, 1.0)
    result = convergence(curves, target=0.0)
    survival = [np.mean(epochs > epoch) for epoch in range(20)]
    assert result.restricted.mean() == pytest.approx(sum(survival))


@pytest.mark.parametrize(("epoch", "word"), [(1, "fast"), (3, "fast"), (4, "medium"), (7, "slow"), (12, "very slow")])
def test_convergence_speed_is_a_quarter_of_the_budget(epoch: int, word: str) -> None:
    assert convergence([[1.0] * (epoch - 1) + [0.0] * (13 - epoch)], target=0.0).speed == word


def test_convergence_target_is_a_share_of_the_progress() -> None:
    curves = [[10.0, 4.0, 2.0, 3.0], [12.0, 6.0, 0.0, 3.0]]
    assert convergence_target(curves, share=1.0) == 1.0
    assert convergence_target(curves, share=0.9) == pytest.approx(2.0)
    assert convergence_target([*curves, [NAN] * 4], share=1.0) == 1.0, "a seed without a result is ignored"
    assert math.isnan(convergence_target([[1.0, 2.0]]))
    assert math.isnan(convergence_target([[NAN, 2.0]]))
    assert convergence(curves, convergence_target(curves)).reached == 1


def test_stability_late_variation_is_the_residual_of_the_last_quarter() -> None:
    values = np.random.default_rng(0).normal(size=(3, 40))
    result = stability(values)
    assert result.window == 10
    for seed in range(3):
        late, x = values[seed, -10:], np.arange(10.0)
        fit = stats.linregress(x, late)
        residual = late - fit.intercept - fit.slope * x
        assert result.late[seed] == pytest.approx(math.sqrt((residual**2).sum() / 8))
    assert result.final_std == pytest.approx(values[:, -1].std(ddof=1))
    assert result.mean == pytest.approx(result.late.mean())


def test_stability_ignores_a_linear_decrease_and_measures_noise() -> None:
    assert stability([np.linspace(10, 0, 20)]).late == pytest.approx([0.0], abs=1e-12)
    noise = 0.3 * np.random.default_rng(1).normal(size=(400, 80))
    assert math.sqrt((stability(noise + np.linspace(9, 0, 80)).late ** 2).mean()) == pytest.approx(0.3, abs=0.005)


def test_stability_uses_at_least_four_epochs() -> None:
    assert [stability([np.arange(float(epochs))]).window for epochs in (3, 4, 7, 16, 17)] == [3, 4, 4, 4, 5]
    for epochs in (1, 2):
        short = stability(np.zeros((2, epochs)))
        assert np.isnan(short.late).all()
        assert np.isnan(short.spikes).all()
        assert short.final_std == 0.0
    assert np.isnan(stability([[1.0, NAN, 1.0, 1.0]]).late).all()


def test_stability_counts_upward_spikes() -> None:
    smooth = falling(0.2, 30)
    spiky = smooth + 0.001 * np.random.default_rng(0).normal(size=30)
    spiky[[10, 20]] += 1.0
    dip = smooth.copy()
    dip[15] -= 1.0
    result = stability([smooth, spiky, np.full(30, 2.0), dip])
    assert result.spikes.tolist() == [0, 2, 0, 0]
    noise = stability(np.random.default_rng(5).normal(size=(500, 40)))
    assert noise.spikes.mean() < 0.1, "noise is counted as spikes"
    assert stability([np.array([1.0, 1.0, 5.0, 1.0, 1.0, 1.0, 1.0])]).spikes.tolist() == [1]


@pytest.mark.parametrize(
    ("curves", "target", "seconds"),
    [([1.0], 0.0, None), (np.zeros((2, 0)), 0.0, None), ([[1.0]], NAN, None), ([[1.0]], 0.0, [[1.0, 2.0]])],
)
def test_convergence_refuses_wrong_shapes_and_targets(curves: Array, target: float, seconds: object) -> None:
    with pytest.raises(ValueError, match="expected"):
        convergence(curves, target, seconds)  # type: ignore[arg-type]


def test_convergence_target_and_stability_refuse_wrong_arguments() -> None:
    with pytest.raises(ValueError, match=r"share is in \(0, 1\], got 0"):
        convergence_target([[1.0]], share=0)
    with pytest.raises(ValueError, match=r"expected curves \(S, E\)"):
        stability([1.0])
