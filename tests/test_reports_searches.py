"""Line searches in a report: statistics, tables and figures."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

import studies_synthetic as synthetic
from paretorch.reports.analysis.summary import Summary, summarize
from paretorch.reports.figures.curves import values
from paretorch.reports.figures.figures import figures
from paretorch.reports.figures.rates import rate_members, rates
from paretorch.reports.reading.load import load
from paretorch.reports.report import report
from paretorch.reports.tables.searches import kind, lowered_table, search_table, time_table
from paretorch.studies.folder import open_folder
from paretorch.studies.study import Study, Treatment, best_of_grid, single_task
from paretorch.training.record.result import Result
from paretorch.training.run import Run

RATES = (0.01, 0.03, 0.1)
SECONDS = {"Equal()": 1.0, "Good()": 2.0}  # of an epoch of a fixed step; a search takes three
REASON = "no task's loss falls <b>at all</b>: 1 -> 0.5"


def search_study() -> Study:
    base = Run("synthetic", epochs=synthetic.EPOCHS, method="Good()", optimizer="SGD", optimizer_options={"lr": 0.1})
    total = dataclasses.replace(base, method="Equal()")
    search = dataclasses.replace(base, optimizer="FastBacktracking", optimizer_options={"displacement": "gradient"})
    return Study(
        "searched",
        "Is a searched step as good?",
        (
            single_task("single task", total, synthetic.TASKS),
            best_of_grid(
                "sum", (dataclasses.replace(total, optimizer_options={"lr": rate}) for rate in reversed(RATES))
            ),
            best_of_grid("features", (dataclasses.replace(base, optimizer_options={"lr": rate}) for rate in RATES)),
            Treatment("searched", (search,)),
        ),
        reference="features",
        baseline="single task",
    )


def outcome(run: Run) -> Result:
    """A run's result: its loss is its rate's distance from 0.03, its seconds those of its kind."""
    found = synthetic.result(run)
    searched = run.optimizer == "FastBacktracking"
    rate = run.optimizer_options.get("lr")
    loss = 1.0 + (abs(np.log(float(rate) / 0.03)) if isinstance(rate, float) else 0.5) + 0.01 * run.seed
    seconds = 3.0 if searched else SECONDS[run.method]
    history = []
    for epoch in found.history:
        search_values = {
            "outcomes": {"accepted": 9, "stationary": 1}, "step": 0.5**epoch.epoch, "bound": 1.0, "trials": 2.5, "first": 3,
            "fallbacks": 1, "verified": 5, "raised": int(epoch.epoch == 1),
            **({"lowered": [{"step": 5, "reason": REASON}]} if epoch.epoch == 2 else {}),
        }  # fmt: skip
        losses = dict.fromkeys(found.tasks, loss / epoch.epoch)
        times = {"training": seconds, "evaluation": 0.5}
        history.append(
            dataclasses.replace(epoch, losses=losses, seconds=times, search=search_values if searched else {})
        )
    return dataclasses.replace(found, history=tuple(history), seconds_per_epoch=seconds)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("searched") / "study"
    opened = open_folder(path, search_study(), "smoke", 3, resume=False)
    for job in opened.jobs():
        job.folder.mkdir(parents=True)
        if job.run.optimizer == "FastBacktracking":
            lines = [
                {"event": "step", "epoch": 1, "step": step, "losses": {"left": 2.0, "ink": 3.0}, "search": {
                    "predicted": {"left": 1.5, "ink": 2.5}, **({"actual": {"left": 1.6, "ink": 3.1}} if step % 4 == 0 else {})}}
                for step in range(8)
            ]  # fmt: skip
            (job.folder / "events.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        synthetic.write(outcome(job.run), job.folder)
    return path


@pytest.fixture(scope="module")
def summary(folder: Path) -> Summary:
    return summarize(load(folder))


def test_line_search_statistics_equal_records(summary: Summary) -> None:
    found = summary.rows["searched"].results.searches
    assert found is not None
    assert found.step == pytest.approx(np.array([[0.5, 0.25, 0.125, 0.0625]] * 3))
    assert (found.steps, found.accepted, found.first, found.fallbacks) == (120, 0.9, 36, 12)
    assert (found.verified, found.raised) == (60, 3)
    assert [(each.seed, each.epoch) for each in found.lowered] == [(0, 1.5), (1, 1.5), (2, 1.5)]
    assert len(found.checked) == 3 * 2 * 2, "of eight lines two were verified, each with two tasks"
    assert {(c.task, c.before, c.predicted, c.actual) for c in found.checked} == {
        ("left", 2.0, 1.5, 1.6),
        ("ink", 3.0, 2.5, 3.1),
    }
    assert summary.rows["features"].results.searches is None


def test_rates_figure_has_sorted_rates_and_search_lines(summary: Summary) -> None:
    train, test = rates(summary)[0].panels
    assert (train.title, test.title) == ("training data", "test data")
    labels = list(summary.rows)
    *grids, search = train.marks
    assert [labels[grid.treatment] for grid in grids if grid.treatment is not None] == ["sum", "features"]
    for grid in grids:
        assert values(grid, 0).tolist() == list(RATES)
        means = values(grid, 1)
        assert means[1] == means.min()
        assert means[1] == pytest.approx(2 * 1.01 / synthetic.EPOCHS)
        assert grid.bounds[1] is not None
        assert (grid.bounds[1][0] < means).all()
    assert search.treatment == labels.index("searched")
    assert values(search, 1) == pytest.approx(np.full(3, 2 * 1.51 / synthetic.EPOCHS))


def test_grid_of_other_settings_is_not_drawn(summary: Summary) -> None:
    treatment = summary.rows["features"].results
    mixed = tuple(
        dataclasses.replace(member, settings=(dataclasses.replace(member.settings[0], batch_size=place + 1),))
        for place, member in enumerate(treatment.grid)
    )
    assert rate_members(dataclasses.replace(treatment, grid=mixed)) == {}
    assert list(rate_members(treatment)) == list(RATES)


def test_line_search_tables_have_outcomes_and_times(summary: Summary) -> None:
    (row,) = search_table(summary).rows
    assert row == ("searched", "90.0 %", "2.50", "33.3 %", "0.500", "0.0625", "12", "3 of 60", "3")
    times = time_table(summary)
    assert times.header[:3] == ("treatment", "time over (a)", "time over (c)")
    cells = {line[0]: line[1:] for line in times.rows}
    assert cells["searched"][0].startswith("3.0")
    assert cells["searched"][1].startswith("1.5")
    assert cells["searched"][2:] == ("1.05", ".15", "1.28")
    assert cells["features"] == ("2.000 [2.000, 2.000]", "1", ".95", ".14", "-")
    lowered = lowered_table(summary).rows
    assert lowered == tuple(("searched", str(seed), "1.50", REASON) for seed in range(3))


def test_line_search_figures_exist_for_searches_alone(folder: Path, tmp_path: Path) -> None:
    summary = summarize(load(folder))
    found = {figure.name: figure for figure in figures(summary)}
    assert list(found)[-4:] == ["rates", "combined-loss", "steps", "checked"]
    *curves, lowered = found["combined-loss"].panels[0].marks
    assert [curve.treatment for curve in curves] == [0, 1, 2, 3]
    assert (lowered.treatment, values(lowered, 0).tolist()) == (3, [1.5] * 3)
    text = report(folder).page.read_text()
    assert "<b>at all</b>" not in text
    assert "Time against fixed steps" in text
    plain = synthetic.finished(tmp_path / "plain", seeds=3)
    assert (
        not found.keys()
        & {"rates", "combined-loss", "steps", "checked"}
        & {figure.name for figure in figures(summarize(load(plain.path)))}
    )
    assert "Outcomes of the line searches" not in report(plain.path).page.read_text()


def test_kind_of_run_follows_from_settings() -> None:
    def of(**values: object) -> str:
        return kind(dataclasses.replace(Run("digits", optimizer="SGD"), **values))  # type: ignore[arg-type]

    assert [of(), of(method="MGDA()", surface="parameters"), of(method="MGDA()")] == ["a", "b", "c"]
    assert [of(optimizer="Adam"), of(tasks=("left",)), of(optimizer="FastBacktracking")] == ["", "", ""]
    assert of(optimizer="FastBacktracking", optimizer_options={"displacement": "gradient"}) == "fast"
    assert of(optimizer="Backtracking") == "classical"
    assert of(optimizer="Backtracking", optimizer_options={"direction": "Adam"}) == ""
