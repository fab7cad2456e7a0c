"""Indicators of fronts: closed forms, agreement with our hypervolume, and reports without moocore."""

from __future__ import annotations

import math
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from paretorch.pareto.hypervolume import _volume, hypervolume
from paretorch.reports.analysis.front_indicators import (
    attainment_surface,
    indicators,
    missing_package,
    reference_set,
)
from paretorch.reports.analysis.summary import Summary, summarize
from paretorch.reports.figures.figures import figures
from paretorch.reports.reading.load import load
from paretorch.reports.tables.all_tables import all_tables
from paretorch.training.fronts.run import train_front
from paretorch.training.run import Run

UNIT = np.array([[0.0, 1.0], [1.0, 0.0]])  # its range is 1, so that normalization changes nothing


def test_reference_set_has_the_non_dominated_points_of_all_sets_once() -> None:
    found = reference_set(
        [np.array([[0.0, 8.0], [4.0, 4.0], [math.nan, 0.0]]), np.array([[4.0, 4.0], [5.0, 4.0], [6.0, 0.0]])]
    )
    assert found is not None
    assert found.points.tolist() == [[0.0, 8.0], [4.0, 4.0], [6.0, 0.0]]
    assert found.normalize(np.array([[3.0, 2.0]])).tolist() == [[0.5, 0.25]]
    assert reference_set([np.full((2, 2), math.nan)]) is None
    assert reference_set([]) is None


def test_reference_set_of_one_point_has_a_range_of_one() -> None:
    found = reference_set([np.array([[2.0, 3.0]])])
    assert found is not None
    assert found.normalize(np.array([[2.5, 3.0]])).tolist() == [[0.5, 0.0]]


def test_indicators_equal_their_closed_forms() -> None:
    pytest.importorskip("moocore")
    reference = reference_set([UNIT])
    assert reference is not None
    middle = indicators(np.array([[0.5, 0.5]]), reference)
    # one half away from both points in one loss; the integral of max(w, 1 - w) / 2 over w is 3/8
    assert middle.igd_plus == pytest.approx(0.5)
    assert middle.epsilon == pytest.approx(0.5)
    assert middle.r2 == pytest.approx(3 / 8)
    itself = indicators(UNIT, reference)
    assert itself.igd_plus == 0.0
    assert itself.epsilon == pytest.approx(0.0)
    assert itself.r2 == pytest.approx(1 / 4)  # the integral of min(w, 1 - w)


def test_indicators_do_not_depend_on_the_units_of_the_losses() -> None:
    pytest.importorskip("moocore")
    points = np.random.default_rng(2).random((6, 2)) + 0.3
    units = np.array([1000.0, 0.01])
    plain, scaled = reference_set([UNIT, points]), reference_set([UNIT * units, points * units])
    assert plain is not None
    assert scaled is not None
    one, other = indicators(points, plain), indicators(points * units, scaled)
    assert (one.igd_plus, one.epsilon, one.r2) == pytest.approx((other.igd_plus, other.epsilon, other.r2))


def test_indicators_of_three_tasks_have_no_r2_and_of_no_points_are_nan() -> None:
    pytest.importorskip("moocore")
    reference = reference_set([np.eye(3)])
    assert reference is not None
    found = indicators(np.full((1, 3), 0.5), reference)
    assert found.epsilon == pytest.approx(0.5)
    assert found.igd_plus == pytest.approx(0.5**0.5)
    assert math.isnan(found.r2)
    assert math.isnan(indicators(np.full((2, 3), math.nan), reference).igd_plus)
    assert math.isnan(indicators(np.empty((0, 3)), reference).epsilon)


def test_attainment_surface_is_what_a_share_of_the_seeds_attain() -> None:
    pytest.importorskip("moocore")
    seeds = [np.array([[1.0, 1.0]]), np.array([[2.0, 2.0]]), np.array([[3.0, 3.0]])]
    assert attainment_surface(seeds, 0.5).tolist() == [[2.0, 2.0]]  # two of three
    assert attainment_surface(seeds, 1.0).tolist() == [[3.0, 3.0]]
    assert attainment_surface(seeds, 0.1).tolist() == [[1.0, 1.0]]
    crossing = [np.array([[0.0, 2.0]]), np.array([[2.0, 0.0]])]
    assert attainment_surface(crossing, 1.0).tolist() == [[2.0, 2.0]]
    assert attainment_surface(crossing, 0.5).tolist() == [[0.0, 2.0], [2.0, 0.0]]


def test_attainment_surface_counts_seeds_without_points_as_not_attaining() -> None:
    pytest.importorskip("moocore")
    empty = np.empty((0, 2))
    assert attainment_surface([np.array([[1.0, 1.0]]), empty], 0.5).tolist() == [[1.0, 1.0]]
    assert len(attainment_surface([np.array([[1.0, 1.0]]), empty], 1.0)) == 0
    assert attainment_surface([np.array([[1.0, 1.0]]), np.array([[2.0, 2.0]]), empty, empty], 0.5).tolist() == [
        [2.0, 2.0]
    ]


@pytest.mark.parametrize("tasks", [2, 3, 4])
def test_hypervolume_equals_that_of_moocore(tasks: int) -> None:
    moocore = pytest.importorskip("moocore")
    random = np.random.default_rng(tasks)
    for count in (1, 7, 40):
        points = random.random((count, tasks)) * 1.3  # some are not below the reference
        corner = np.ones(tasks)
        expected = moocore.hypervolume(points, ref=corner)
        assert hypervolume(torch.from_numpy(points), torch.from_numpy(corner)) == pytest.approx(expected, rel=1e-12)
        below = points[(points < corner).all(axis=1)]
        assert (_volume(below, corner) if len(below) else 0.0) == pytest.approx(expected, rel=1e-12)  # ours for any T


def test_missing_package_names_what_is_not_computed_and_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "moocore", None)
    message = missing_package()
    assert message is not None
    assert "IGD+, additive epsilon, R2 and attainment surfaces" in message
    assert "pip install 'paretorch[fronts]'" in message
    reference = reference_set([UNIT])
    assert reference is not None
    with pytest.raises(ModuleNotFoundError, match="moocore"):
        indicators(UNIT, reference)


# --- in a report ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def summary(tmp_path_factory: pytest.TempPathFactory) -> Summary:
    """Two algorithms on two seeds of a problem with a known front."""
    root = tmp_path_factory.mktemp("fronts")
    run = Run(
        "synthetic",
        {"problem": "vlmop2"},
        optimizer="SGD",
        optimizer_options={"lr": 0.1},
        epochs=2,
        front="MT2O()",
        front_options={"models": 4, "execution": "vmap"},
    )
    for front in ("MT2O()", "Sweep()"):
        for seed in range(2):
            train_front(replace(run, front=front, seed=seed), root / f"{front[:4]}-{seed}", progress=None)
    return summarize(load(root))


def test_report_has_the_indicators_next_to_the_hypervolume(summary: Summary) -> None:
    pytest.importorskip("moocore")
    table = all_tables(summary)["indicators"]
    assert table.header == ("treatment", "hypervolume ↑", "IGD+ ↓", "additive epsilon ↓", "R2 ↓")
    assert len(table.rows) == 2
    points = [each for t in summary.results.treatments.values() if t.fronts is not None for each in t.fronts.points]
    reference = reference_set(points)
    assert reference is not None
    assert f"the {len(reference.points)} points that no other model" in table.notes[0]
    expected = np.mean([indicators(each, reference).igd_plus for each in points[:2]])
    assert float(table.rows[0][2].split()[0]) == pytest.approx(expected, rel=0.02)  # as printed
    assert all(cell not in ("", "-") for row in table.rows for cell in row)


def test_report_draws_the_median_attainment_surface_of_each_treatment(summary: Summary) -> None:
    pytest.importorskip("moocore")
    (figure,) = [each for each in figures(summary) if each.name == "attainment"]
    marks = figure.panels[0].marks
    assert len(marks) == 2
    for each in marks:
        first, second = each.values
        assert first is not None
        assert second is not None
        assert (np.diff(first) >= 0).all()
        assert (np.diff(second) <= 0).all()  # a staircase


def test_report_without_moocore_has_one_line_about_it(summary: Summary, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "moocore", None)
    tables = all_tables(summary)
    assert "indicators" not in tables
    assert len([note for note in tables["fronts"].notes if "pip install 'paretorch[fronts]'" in note]) == 1
    assert "attainment" not in [each.name for each in figures(summary)]
