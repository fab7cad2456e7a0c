"""Delta m of the published tables, recomputed from the metrics of their rows."""

from __future__ import annotations

from decimal import Decimal

import numpy as np
import pytest
import torch

import paretorch as pt

# NYUv2: mean IoU, pixel accuracy, absolute error, relative error, normals: mean, median, < 11.25, < 22.5, < 30; printed Delta m
NYUV2_HIGHER = [True, True, False, False, False, False, True, True, True]
NYUV2 = """
single          38.30 63.76 .6754 .2780 25.01 19.21 30.14 57.20 69.15 0.00
sum             39.29 65.33 .5493 .2263 28.15 23.96 22.09 47.50 61.08 5.59
scale-invariant 38.45 64.27 .5354 .2201 27.60 23.37 22.53 48.57 62.32 4.39
RLW             37.17 63.77 .5759 .2410 28.27 24.18 22.26 47.05 60.62 7.78
DWA             39.11 65.31 .5510 .2285 27.61 23.18 24.17 50.18 62.39 3.57
uncertainty     36.87 63.17 .5446 .2260 27.04 22.61 23.54 49.05 63.65 4.05
MGDA            30.47 59.90 .6070 .2555 24.88 19.45 29.18 56.88 69.36 1.38
PCGrad          38.06 64.64 .5550 .2325 27.41 22.80 23.86 49.83 63.14 3.97
GradDrop        39.39 65.12 .5455 .2279 27.48 22.96 23.38 49.44 62.87 3.58
CAGrad          39.79 65.49 .5486 .2250 26.31 21.58 25.61 52.36 65.58 0.20
IMTL-G          39.35 65.60 .5426 .2256 26.02 21.19 26.20 53.13 66.24 -0.76
MoCo            40.30 66.07 .5575 .2135 26.67 21.83 25.61 51.78 64.85 0.16
Nash            40.13 65.93 .5261 .2171 25.26 20.08 28.40 55.47 68.15 -4.04
FAMO            38.88 64.90 .5474 .2194 25.06 19.57 29.21 56.61 68.98 -4.10
FairGrad        39.74 66.01 .5377 .2236 24.84 19.60 29.26 56.58 69.16 -4.66
Aligned         40.82 66.33 .530 .220 25.19 19.71 28.88 56.23 68.54 -4.93
SDMGrad         40.47 65.90 .5225 .2084 25.07 19.99 28.54 55.74 68.53 -4.84
GO4Align        40.42 65.37 .5492 .2167 24.76 18.94 30.54 57.87 69.84 -6.08
"""
# Rows whose printed Delta m does not follow from their printed metrics, and the value that does.
NYUV2_DIFFERS = {"IMTL-G": -0.60, "Aligned": -4.77}

# Cityscapes, two tasks: mean IoU, pixel accuracy, absolute error, relative error; printed Delta m
CITYSCAPES_HIGHER = [True, True, False, False]
CITYSCAPES = """
single      74.01 93.16 .0125 27.77 0.0
sum         75.18 93.49 .0155 46.77 22.6
uncertainty 72.02 92.85 .0140 30.13 5.9
MGDA        68.84 91.54 .0309 33.50 44.1
CAGrad      75.16 93.48 .0141 37.60 11.6
Nash        75.41 93.66 .0129 35.02 6.7
FAMO        74.54 93.29 .0145 32.59 8.1
FairGrad    75.72 93.68 .0134 32.25 5.2
"""


def rows(table: str) -> dict[str, list[str]]:
    """The printed numbers of a table by the name of the row."""
    return {name: numbers for name, *numbers in (line.split() for line in table.strip().splitlines())}


def half_digit(printed: str) -> float:
    """The largest rounding error of a printed number: half of its last decimal."""
    return 0.5 * 10.0 ** int(Decimal(printed).as_tuple().exponent)


def recomputed(table: str, higher: list[bool], name: str) -> tuple[float, float, float]:
    """Delta m of a row; the printed one; and the rounding of the printed numbers, propagated to first order."""
    *printed, value = rows(table)[name]
    baseline = rows(table)["single"][:-1]
    found = float(pt.metrics.delta_m([float(each) for each in printed], [float(each) for each in baseline], higher))
    errors = [
        (half_digit(m) + float(m) / float(b) * half_digit(b)) / float(b) for m, b in zip(printed, baseline, strict=True)
    ]
    return found, float(value), 100 * float(np.mean(errors)) + half_digit(value)


def test_metrics_tables_have_the_published_number_of_rows() -> None:
    assert len(rows(NYUV2)) == 18
    assert len(rows(CITYSCAPES)) == 8


@pytest.mark.parametrize("name", [name for name in rows(NYUV2) if name not in NYUV2_DIFFERS])
def test_metrics_delta_m_equals_the_printed_value_of_nyuv2(name: str) -> None:
    found, printed, _ = recomputed(NYUV2, NYUV2_HIGHER, name)
    assert found == pytest.approx(printed, abs=0.01)  # closer than the rounding of the inputs permits to expect


@pytest.mark.parametrize(("name", "value"), NYUV2_DIFFERS.items())
def test_metrics_delta_m_differs_from_the_printed_value_by_more_than_rounding(name: str, value: float) -> None:
    found, printed, rounding = recomputed(NYUV2, NYUV2_HIGHER, name)
    assert found == pytest.approx(value, abs=0.005)
    assert abs(found - printed) > 1.5 * rounding


@pytest.mark.parametrize("name", rows(CITYSCAPES))
def test_metrics_delta_m_equals_the_printed_value_of_cityscapes(name: str) -> None:
    found, printed, rounding = recomputed(CITYSCAPES, CITYSCAPES_HIGHER, name)
    assert abs(found - printed) <= rounding
    assert rounding < 0.5  # so that a method is not mistaken for another
    assert abs(found - printed) < 0.1


def test_metrics_mean_rank_of_the_published_rows_orders_methods() -> None:
    names = list(rows(CITYSCAPES))
    values = [[[float(each) for each in rows(CITYSCAPES)[name][:-1]]] for name in names]
    ranks = dict(zip(names, pt.metrics.mean_rank(values, CITYSCAPES_HIGHER), strict=True))
    # by hand: FairGrad is 1st, 1st, 3rd, 3rd of eight; the sum 3rd, 3rd, 7th, 8th
    assert ranks["FairGrad"] == 2.0
    assert ranks["sum"] == 5.25
    assert sum(ranks.values()) == pytest.approx(8 * 4.5)


def test_metrics_mean_rank_equals_that_of_scipy() -> None:
    stats = pytest.importorskip("scipy.stats")
    random = np.random.default_rng(3)
    values = random.integers(0, 4, (7, 5, 3)).astype(float)  # with many ties
    higher = [True, False, True]
    expected = stats.rankdata(values * [-1.0, 1.0, -1.0], axis=0).mean(axis=(1, 2))
    assert pt.metrics.mean_rank(values, higher).tolist() == expected.tolist()


def test_metrics_delta_m_needs_a_baseline_and_a_direction_for_each_metric() -> None:
    with pytest.raises(ValueError, match="as many metrics as baseline metrics and directions, got 2, 3 and 2"):
        pt.metrics.delta_m([1.0, 2.0], [1.0, 2.0, 3.0], [True, True])
    with pytest.raises(ValueError, match="got 2, 2 and 1: give one baseline value and one direction"):
        pt.metrics.delta_m([[1.0, 2.0]], [1.0, 2.0], [True])


def test_metrics_mean_rank_needs_three_axes() -> None:
    with pytest.raises(ValueError, match=r"shape \(treatments, seeds, 2\).*got \(3, 2\): add an axis"):
        pt.metrics.mean_rank(np.ones((3, 2)), [True, False])


def test_metrics_error_rate_is_what_accuracy_lacks_to_one_in_percent() -> None:
    generator = torch.Generator().manual_seed(5)
    error, accuracy = pt.metrics.ErrorRate(), pt.metrics.BinaryAccuracy()
    for size in (3, 17, 40):
        scores, targets = torch.randn(size, generator=generator), torch.randint(2, (size,), generator=generator)
        error.update(scores, targets)
        accuracy.update(scores, targets)
    assert error.compute() == pytest.approx(100 * (1 - accuracy.compute()), rel=1e-6)
    assert np.isnan(pt.metrics.ErrorRate().compute())
