"""What a report has on many metrics: the polar diagram and the table of dominance."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

import studies_synthetic as synthetic
from paretorch.reports.analysis.summary import Summary, summarize
from paretorch.reports.figures import radar as radar_module
from paretorch.reports.figures.radar import OUTERMOST, radar
from paretorch.reports.reading.load import load
from paretorch.reports.tables.dominance import NONE, dominance_table


@pytest.fixture(scope="module")
def summary(tmp_path_factory: pytest.TempPathFactory) -> Summary:
    return summarize(load(synthetic.finished(tmp_path_factory.mktemp("study") / "five", seeds=5).path))


def test_radar_is_left_out_with_few_metrics(summary: Summary) -> None:
    assert radar(summary) == []


def test_radar_has_the_relative_gain_of_each_metric_as_radius(
    summary: Summary, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(radar_module, "FEWEST", 2)
    (figure,) = radar(summary)
    (panel,) = figure.panels
    results = summary.results
    base = results.treatments[results.plan.study.baseline].test.mean(axis=0)
    for index, label in enumerate(summary.rows):
        (curve,) = [marks for marks in panel.marks if marks.treatment == index]
        x, y = curve.values
        assert x is not None
        assert y is not None
        assert (x[0], y[0]) == (x[-1], y[-1]), "the curve is closed"
        means = summary.rows[label].results.test.mean(axis=0)
        signs = np.array([1 if metric.higher_is_better else -1 for metric in results.metrics])
        expected = np.clip(100 + 100 * signs * (means - base) / abs(base), 0, OUTERMOST)
        np.testing.assert_allclose(np.hypot(x, y)[:-1], expected[list(map(bool, results.counted))], rtol=1e-9)


def test_dominance_agrees_with_the_means(summary: Summary) -> None:
    table = dominance_table(summary)
    cells = {label: (worse, better) for label, worse, better in table.rows}
    signs = np.array([-1 if metric.higher_is_better else 1 for metric in summary.results.metrics])
    means = {label: signs * row.results.test.mean(axis=0) for label, row in summary.rows.items()}
    for one in means:
        dominated = [o for o in means if (means[one] <= means[o]).all() and (means[one] < means[o]).any()]
        assert cells[one][0] == (", ".join(dominated) or NONE)
        for other in dominated:
            assert one in cells[other][1].split(", ")


def test_dominance_leaves_out_a_treatment_without_a_metric(summary: Summary) -> None:
    label = next(iter(summary.rows))
    row = summary.rows[label]
    empty = dataclasses.replace(
        row, results=dataclasses.replace(row.results, test=np.full_like(row.results.test, np.nan))
    )
    table = dominance_table(dataclasses.replace(summary, rows={**summary.rows, label: empty}))
    assert label not in [cells[0] for cells in table.rows]
