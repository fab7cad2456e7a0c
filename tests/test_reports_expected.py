"""Expected ranges and losses on test data, against hand-made numbers."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

import studies_synthetic as synthetic
from paretorch.reports.analysis.expected import range_verdict
from paretorch.reports.analysis.summary import Summary, summarize
from paretorch.reports.findings.findings import findings
from paretorch.reports.reading.load import load
from paretorch.reports.tables.expected import expected_table
from paretorch.reports.tables.losses import loss_table
from paretorch.studies.study import Expected


@pytest.fixture(scope="module")
def summary(tmp_path_factory: pytest.TempPathFactory) -> Summary:
    return summarize(load(synthetic.finished(tmp_path_factory.mktemp("study") / "five", seeds=5).path))


def expecting(summary: Summary, *ranges: Expected) -> Summary:
    plan = summary.results.plan
    study = dataclasses.replace(plan.study, expected=ranges)
    return dataclasses.replace(
        summary, results=dataclasses.replace(summary.results, plan=dataclasses.replace(plan, study=study))
    )


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ([0.2, 0.4], "inside"),
        ([0.3, 0.3], "inside"),
        ([0.1, 0.2], "outside, below"),
        ([0.9, 0.9], "outside, above"),
        ([np.nan, np.nan], "not measured"),
    ],
)
def test_range_verdict_of_mean(values: list[float], words: str) -> None:
    assert range_verdict(Expected("a", "left", "accuracy", 0.3, 0.5), np.array(values)) == words


def test_expected_ranges_have_a_row_each_and_one_sentence(summary: Summary) -> None:
    mean = float(summary.rows["good"].results.test[:, 0].mean())
    ranges = (
        Expected("good", "left", "accuracy", mean - 0.01, mean + 0.01),
        Expected("bad", "left", "accuracy", 2.0, 3.0),
        Expected("bad", "left", "no such metric", 2.0, 3.0),
    )
    found = expecting(summary, *ranges)
    assert [(row[0], row[-1]) for row in expected_table(found).rows] == [("good", "inside"), ("bad", "outside, below")]
    (finding,) = [finding for finding in findings(found) if finding.name == "expected ranges"]
    assert finding.sentence == "1 of 2 inside; not: bad left accuracy (outside, below)."
    assert "no results" in finding.definition


def test_report_without_expected_ranges_omits_table_and_finding(summary: Summary) -> None:
    assert expected_table(summary).rows == ()
    assert "expected ranges" not in [finding.name for finding in findings(summary)]


def test_loss_table_has_losses_and_their_sum(summary: Summary) -> None:
    good = summary.rows["good"].results
    losses = np.array([[1.0, 3.0], [2.0, 4.0], [3.0, 5.0], [2.0, 4.0], [2.0, 4.0]])
    assert dataclasses.replace(good, test_losses=losses).combined_test_losses.tolist() == [4.0, 6.0, 8.0, 6.0, 6.0]
    rows = {
        label: dataclasses.replace(
            row, results=dataclasses.replace(row.results, test_losses=losses + (row is not summary.rows["good"]))
        )
        for label, row in summary.rows.items()
    }
    table = loss_table(dataclasses.replace(summary, rows=rows))
    cells = {row[0]: row[1:] for row in table.rows}
    assert [float(cell.split(" ")[0]) for cell in cells["good"]] == [2.0, 4.0, 6.0]
    (best,) = [f for f in findings(dataclasses.replace(summary, rows=rows)) if f.name == "lowest combined loss"]
    assert best.sentence.startswith("good: 6.0")
    assert good.test_losses.shape == (5, len(summary.results.tasks))


def test_losses_equal_those_of_result_files(tmp_path: Path) -> None:
    folder = synthetic.finished(tmp_path / "study", seeds=3)
    given: dict[str, list[dict[str, float]]] = {}
    for job in folder.jobs():  # a loss of its own for each method, seed and task
        outcome = synthetic.result(job.run)
        name = job.run.method if job.label == "tuned" else job.label
        runs = given.setdefault(name, [{} for _ in range(3)])
        number = 100 * list(given).index(name) + 10 * job.run.seed
        losses = {task: float(number + synthetic.TASKS.index(task)) for task in outcome.tasks}
        runs[job.run.seed] |= losses
        synthetic.write(dataclasses.replace(outcome, test=dataclasses.replace(outcome.test, losses=losses)), job.folder)
    given["tuned"] = given["Static(2)"]  # the best of the grid
    found = load(folder.path)
    assert set(found.tasks) == set(synthetic.TASKS)
    assert set(found.treatments) == {"single task", "tuned", "good", "bad", "same"}
    for label, treatment in found.treatments.items():
        expected = [[losses[task] for task in found.tasks] for losses in given[label]]
        np.testing.assert_array_equal(treatment.test_losses, expected)
