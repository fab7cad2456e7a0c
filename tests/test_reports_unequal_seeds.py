"""Reports of runs whose seeds, tasks or metrics are not the same for all treatments."""

from __future__ import annotations

import dataclasses
import math
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pytest

import reports_many as many
import studies_synthetic as synthetic
from paretorch.reports.analysis.leaders import leader
from paretorch.reports.analysis.summary import Summary, summarize
from paretorch.reports.figures import paper
from paretorch.reports.figures.curves import learning_curves
from paretorch.reports.figures.trade_offs import trade_off
from paretorch.reports.findings.definitions import definitions
from paretorch.reports.findings.findings import findings
from paretorch.reports.findings.headline import headline, runs_of
from paretorch.reports.page.page import Contents, page
from paretorch.reports.reading.load import load, quality
from paretorch.reports.tables.losses import loss_table
from paretorch.reports.tables.overview import by_metric, means, overview
from paretorch.reports.tables.spreadsheets import seeds_csv, treatments_csv
from paretorch.reports.tables.tables import Table
from paretorch.reports.tables.tuning import tuning_table
from paretorch.studies.failure_record import FailureRecord, write_failure
from paretorch.studies.folder import StudyFolder, open_folder
from paretorch.studies.job import Job
from paretorch.studies.statistics.paired import Verdict, compare
from paretorch.studies.study import Study, Treatment
from paretorch.training.run import Run


def single(path: Path, run: Run, place: int = 0) -> None:
    """A finished run that belongs to no study."""
    path.mkdir(parents=True)
    many.result(run, list(run.tasks), place).save(path)


def test_order_of_tasks_is_that_of_the_run_with_most_tasks(tmp_path: Path) -> None:
    for seed in range(3):
        single(tmp_path / f"all{seed}", Run("drawn", tasks=("a", "b", "c", "d"), seed=seed))
        single(tmp_path / f"some{seed}", Run("drawn", method="MGDA()", tasks=("c", "d"), seed=seed), 1)
    results = load(tmp_path)
    assert results.tasks == ("a", "b", "c", "d")
    assert [metric.task for metric in results.metrics] == ["a", "b", "c", "d"]


def with_sum() -> Study:
    """The synthetic study, and the plain sum: a run that is also a candidate of the grid, and the worst of them."""
    study = synthetic.study()
    run = next(t for t in study.treatments if t.label == "tuned").runs[0]
    return dataclasses.replace(study, treatments=(*study.treatments, Treatment("sum", (run,))))


def finished(path: Path, study: Study, seeds: int, keep: Callable[[Job], bool] = lambda _: True) -> StudyFolder:
    """The folder of a study with the results of the kept runs."""
    folder = open_folder(path, study, "smoke", seeds, resume=False)
    for job in folder.jobs():
        if keep(job):
            synthetic.write(synthetic.result(job.run), job.folder)
    return folder


def test_grid_selects_the_same_member_after_a_study_with_more_seeds_of_one_member_is_merged(tmp_path: Path) -> None:
    finished(tmp_path / "a", with_sum(), 3)
    alone = load(tmp_path / "a").treatments["tuned"]
    plain = dataclasses.replace(with_sum(), treatments=with_sum().treatments[-1:], reference="sum", baseline="sum")
    finished(tmp_path / "b", plain, 4)
    summary = summarize(load(tmp_path))
    merged = summary.rows["tuned"].results
    assert summary.rows["sum"].results.seeds == 4
    assert merged.chosen is not None
    assert merged.chosen.method == "Static(2)"
    assert merged.chosen == alone.chosen
    assert merged.test[:3].tolist() == alone.test.tolist()
    assert all(map(math.isnan, merged.test[3]))
    assert merged.choice is not None
    assert (merged.choice.seeds, merged.choice.candidates, merged.choice.runs) == (3, 3, 9)
    assert merged.choice.seconds == 9 * synthetic.EPOCHS * 2.5
    assert runs_of(summary, "tuned") == 9
    (row,) = tuning_table(summary).rows
    assert row[2:6] == ("9", "0", str(9 * synthetic.EPOCHS), "90")
    (finding,) = [finding for finding in findings(summary) if finding.name == "chosen for tuned"]
    assert finding.sentence == (
        "Static(2), on 3 of 4 seeds, on which all candidates were trained; finding it took 9 runs and 90 s."
    )


def test_grid_of_an_unfinished_study_keeps_its_member(tmp_path: Path) -> None:
    finished(tmp_path, with_sum(), 5, lambda job: job.run.seed < 4 or job.run.method == "Static(1)")
    tuned = load(tmp_path).treatments["tuned"]
    assert tuned.chosen is not None
    assert tuned.chosen.method == "Static(2)"
    assert tuned.choice is not None
    assert (tuned.choice.seeds, tuned.choice.runs, tuned.runs) == (4, 12, 13)


@pytest.mark.parametrize("how", ["diverged", "failed"])
def test_grid_does_not_select_a_member_that_failed_on_a_seed(tmp_path: Path, how: str) -> None:
    folder = finished(tmp_path, with_sum(), 4, lambda job: job.run.seed < 3)
    for job in folder.jobs():
        if job.run.method == "Static(2)" and job.run.seed == 1:
            outcome = synthetic.result(job.run)
            nan = dataclasses.replace(
                outcome.validation, metrics={"left": {"accuracy": math.nan}, "ink": {"error": 2.0}}
            )
            shutil.rmtree(job.folder)
            if how == "failed":
                write_failure(job.folder, job.run, FailureRecord("ValueError: no", "no"))
            else:
                job.folder.mkdir()
                synthetic.write(dataclasses.replace(outcome, validation=nan), job.folder)
    tuned = load(tmp_path).treatments["tuned"]
    assert tuned.chosen is not None
    assert tuned.chosen.method == "Static(3)"
    assert tuned.choice is not None
    assert (tuned.choice.seeds, tuned.choice.candidates) == (3, 3)


def test_grid_selects_among_the_members_that_were_trained(tmp_path: Path) -> None:
    finished(tmp_path, with_sum(), 3, lambda job: job.run.method != "Static(2)")
    summary = summarize(load(tmp_path))
    choice = summary.rows["tuned"].results.choice
    assert choice is not None
    assert (choice.run.method, choice.seeds, choice.candidates, choice.runs) == ("Static(3)", 3, 2, 6)
    (finding,) = [finding for finding in findings(summary) if finding.name == "chosen for tuned"]
    assert finding.sentence == "Static(3), 1 of 3 candidates have no result; finding it took 6 runs and 60 s."


def test_members_of_a_grid_without_a_common_seed_are_judged_by_their_own(tmp_path: Path) -> None:
    own = {"Static(1)": 0, "Static(2)": 1, "Static(3)": 2}
    finished(tmp_path, with_sum(), 3, lambda job: own.get(job.run.method, job.run.seed) == job.run.seed)
    choice = load(tmp_path).treatments["tuned"].choice
    assert choice is not None
    assert (choice.run.method, choice.seeds, choice.runs) == ("Static(2)", 0, 3)


METHODS = ("Equal()", "MGDA()")


def accuracies(folder: Path, values: dict[str, dict[int, float]]) -> Summary:
    """Single runs with a given accuracy of task ``a`` on test data, by method and seed; that of task ``b`` is 0.5."""
    for place, (method, by_seed) in enumerate(values.items()):
        for seed, value in by_seed.items():
            run = Run("drawn", method=method, tasks=("a", "b"), seed=seed, epochs=4)
            outcome = many.result(run, ["a", "b"], place)
            metrics = {"a": {"accuracy": value}, "b": {"accuracy": 0.5}}
            path = folder / f"{place}-{seed}"
            path.mkdir(parents=True)
            dataclasses.replace(outcome, test=dataclasses.replace(outcome.test, metrics=metrics)).save(path)
    return summarize(load(folder))


def sentences(summary: Summary) -> dict[str, str]:
    return {finding.name: finding.sentence for finding in findings(summary)}


def test_leader_and_its_mean_are_of_the_seeds_that_the_finding_names(tmp_path: Path) -> None:
    one = {0: 0.1, 1: 0.1, 2: 0.51, 3: 0.52, 4: 0.53}  # lower over all its seeds, higher on each common one
    other = {2: 0.41, 3: 0.42, 4: 0.43, 5: 0.9, 6: 0.9}
    summary = accuracies(tmp_path, dict(zip(METHODS, (one, other), strict=True)))
    found = sentences(summary)
    assert found["best a accuracy"].startswith("Equal(): 0.5200 [0.4952, 0.5448] on the common seeds 2, 3 and 4; ")
    delta_m = summary.rows["Equal()"].delta_m[2:5]
    assert found["best overall"].startswith(f"Equal(): Δm {delta_m.mean():+.2f} % [")
    assert " on the common seeds 2, 3 and 4; " in found["best overall"]
    alike = min(np.std(row.delta_m[2:5], ddof=1) for row in summary.rows.values())
    assert f": {alike:.2f} points on the common seeds 2, 3 and 4." in found["most alike over seeds"]
    assert " on the common seeds 2, 3 and 4; " in found["fastest convergence"]
    for row in summary.rows.values():
        assert row.convergence is not None
        if found["fastest convergence"].startswith(row.results.label):
            assert f"epoch {np.median(row.convergence.epochs[2:5]):g} (median)" in found["fastest convergence"]


def test_leader_without_common_seeds_has_the_lowest_mean_of_the_table(tmp_path: Path) -> None:
    values = dict(zip(METHODS, ({0: 0.1, 1: 0.2, 2: 0.3}, {3: 0.4, 4: 0.5, 5: 0.6}), strict=True))
    found = sentences(accuracies(tmp_path, values))["best a accuracy"]
    assert found == ("MGDA(): 0.5000 [0.2516, 0.7484], each treatment on its own seeds, as all share none; untested")


@pytest.mark.parametrize("missing", [math.nan, math.inf, -math.inf])
def test_leader_has_the_lowest_mean_of_the_common_seeds_with_any_missing_values(missing: float) -> None:
    draw = np.random.default_rng(0)
    for _ in range(200):
        rows = draw.normal(size=(4, 8))
        rows[draw.random(size=rows.shape) < 0.3] = missing
        found = leader({str(i): row for i, row in enumerate(rows)})
        assert found is not None
        compared = [label for label in range(4) if np.isfinite(rows[label]).sum() >= 3]
        common = np.isfinite(rows[compared]).all(axis=0)
        assert found.common.used.tolist() == common.tolist()
        if common.any():
            assert found.mean == pytest.approx(rows[compared][:, common].mean(axis=1).min())
            assert found.mean == pytest.approx(rows[int(found.label), common].mean())
            assert found.seeds == common.sum()
        assert found.common.complete == all((np.isfinite(row) == common).all() for row in rows)
        assert found.tested == (len(compared) - 1 if common.sum() >= 3 else 0)


def test_infinite_metric_is_left_out_of_the_mean_of_a_leader(tmp_path: Path) -> None:
    one = {0: 0.5, 1: 0.5, 2: 0.5, 3: -math.inf}
    other = {0: 0.4, 1: 0.4, 2: 0.4, 3: 0.99}
    summary = accuracies(tmp_path, dict(zip(METHODS, (one, other), strict=True)))
    assert sentences(summary)["best a accuracy"].startswith(
        "Equal(): 0.5000 [0.5000, 0.5000] on the common seeds 0, 1 and 2;"
    )
    mean = summary.rows["Equal()"].delta_m[:3].mean()
    assert sentences(summary)["best overall"].startswith(f"Equal(): Δm {mean:+.2f} % [")


def test_leader_that_the_verdict_has_worse_is_not_ahead_of_the_reference(tmp_path: Path) -> None:
    values: dict[str, dict[int, float]] = {
        "Equal()": {seed: 0.6 + 0.001 * (seed % 3) for seed in range(12)},
        "MGDA()": {0: 0.61, 1: 0.58, 2: 0.65} | {seed: 0.4 + 0.0013 * (seed % 2) for seed in range(3, 12)},
        "FAMO()": dict.fromkeys(range(3), 0.3),
    }
    summary = accuracies(tmp_path, values)
    comparison = summary.rows["MGDA()"].comparison
    assert comparison is not None
    assert comparison.verdict.value == "worse"
    found = sentences(summary)["best overall"]
    assert found.startswith("MGDA(): ")
    assert " on the common seeds 0, 1 and 2; tied with Equal()" in found


def with_absent_metric(folder: Path, on_validation: bool) -> Summary:
    """Two treatments of tasks ``a``, ``b`` and ``c`` with three seeds; no run has a metric and a loss of ``c`` on test data.

    Args:
        folder: of the runs.
        on_validation: whether the runs have the metric on validation data.
    """
    nan = {"accuracy": math.nan}
    for place, method in enumerate(METHODS):
        for seed in range(3):
            outcome = many.result(Run("drawn", method=method, tasks=("a", "b", "c"), seed=seed, epochs=4), "abc", place)
            tested = outcome.test
            tested = dataclasses.replace(
                tested,
                losses={"a": 1.0 + place + seed, "b": 2.0, "c": math.nan},
                metrics={"a": {"accuracy": 0.9 - 0.1 * place + 0.01 * seed}, "b": {"accuracy": 0.5}, "c": nan},
            )
            outcome = dataclasses.replace(outcome, test=tested)
            if not on_validation:
                history = tuple(
                    dataclasses.replace(
                        epoch,
                        validation=dataclasses.replace(
                            epoch.validation, metrics={**epoch.validation.metrics, "c": dict(nan)}
                        ),
                    )
                    for epoch in outcome.history
                )
                outcome = dataclasses.replace(outcome, history=history, validation=history[-1].validation)
            path = folder / f"{place}-{seed}"
            path.mkdir(parents=True)
            outcome.save(path)
    return summarize(load(folder))


@pytest.mark.parametrize("on_validation", [False, True])
def test_metric_that_no_run_has_is_left_out_of_counts_ranks_and_tables(tmp_path: Path, on_validation: bool) -> None:
    summary = with_absent_metric(tmp_path, on_validation)
    assert [row.results.seeds for row in summary.rows.values()] == [3, 3]
    assert [row.rank for row in summary.rows.values()] == [1.25, 1.75]
    assert summary.ranked == [True] * 3
    comparison = summary.rows["MGDA()"].comparison
    assert comparison is not None
    assert comparison.seeds == 3
    assert comparison.difference == pytest.approx(50 * 0.1 / 0.91)
    assert headline(summary).endswith("the other cannot be distinguished from it (3 seeds).")
    table = overview(summary)
    assert [head for head in table.header if "accuracy" in head] == ["a accuracy\u00a0↑", "b accuracy\u00a0↑"]
    assert "0.910 [0.885, 0.935]" in table.rows[0]
    where = " on test data: left out of all numbers on test data." if on_validation else ": left out."
    assert f"No run has a finite value of c accuracy{where}" in table.notes
    assert not any("have no result" in note or "Δm leaves" in note for note in table.notes)
    assert len(means(summary).header) == 3
    assert len(by_metric(summary).header) == 3
    assert len(trade_off(summary)[0].panels[0].axes) == 2
    assert treatments_csv(summary).splitlines()[1].startswith("Equal(),3,0.91,")
    heads = seeds_csv(summary).splitlines()[0].split(",")
    assert "c accuracy test" not in heads
    assert ("c accuracy validation" in heads) == on_validation
    assert len(learning_curves(summary)[0].panels) == (4 if on_validation else 3)


def test_combined_loss_is_over_the_tasks_with_a_loss(tmp_path: Path) -> None:
    summary = with_absent_metric(tmp_path, on_validation=True)
    assert [row.results.combined_test_losses.tolist() for row in summary.rows.values()] == [[3, 4, 5], [4, 5, 6]]
    assert sentences(summary)["lowest combined loss"].startswith("Equal(): 4.000 [")
    table = loss_table(summary)
    assert table.header == ("treatment", "a loss\u00a0↓", "b loss\u00a0↓", "combined loss\u00a0↓")
    assert "No run has a loss of c on test data: it is left out, of the sum too." in table.notes


def test_treatment_of_a_subset_of_the_tasks_has_results_and_does_not_change_ranks(tmp_path: Path) -> None:
    for seed in range(3):
        for place, method in enumerate(METHODS):
            single(tmp_path / f"{place}-{seed}", Run("drawn", method=method, tasks=("a", "b"), seed=seed), place)
        single(tmp_path / f"some{seed}", Run("drawn", tasks=("b",), seed=seed), 2)
    summary = summarize(load(tmp_path))
    assert {label: row.results.seeds for label, row in summary.rows.items()} == dict.fromkeys(summary.rows, 3)
    assert [math.isnan(row.rank) for row in summary.rows.values()].count(True) == 1
    assert runs_of(summary, "Equal()") == 1


def steps(seeds: Iterable[int], start: float = 0.5) -> dict[int, float]:
    """Different accuracies by seed."""
    return {seed: start + 0.01 * (seed % 5) for seed in seeds}


def test_counts_of_a_report_are_those_of_results_and_pairs(tmp_path: Path) -> None:
    summary = accuracies(tmp_path, dict(zip(METHODS, (steps(range(5)), steps(range(2, 7), 0.6)), strict=True)))
    comparison = summary.rows["MGDA()"].comparison
    assert comparison is not None
    assert comparison.seeds == 3
    assert comparison.note == "2 of 7 seeds have no result; 2 of 7 have a result, but none of the reference"
    notes = overview(summary).notes
    assert f"MGDA(): {comparison.note}" in notes
    assert "Equal(): 2 of 7 seeds have no result, for any comparison to it" in notes
    assert notes[0].startswith("Means on test data over each treatment's own seeds, 5 of 7, with 95 % intervals")
    assert means(summary).notes[0].startswith("Means on test data over each treatment's own seeds, 5 of 7, ")
    assert headline(summary).endswith(" (3 seeds).")
    assert sentences(summary)["missing of MGDA()"].startswith("2 runs have no result: ")
    text = page((Contents.of(summary),))
    assert "Fewer than 7 seeds have a result for: Equal() (5); MGDA() (5)." in text
    assert "mean over the 5 of 7 seeds with all metrics" in dict(definitions(summary))["Δm"]
    title = str(paper.draw(learning_curves(summary)[0], summary).get_suptitle())
    assert "mean over each treatment's own seeds, 5 of 7, 95 % intervals" in " ".join(title.split())


def test_headline_has_the_least_and_the_most_pairs_of_its_comparisons(tmp_path: Path) -> None:
    values = {"Equal()": steps(range(6)), "MGDA()": steps(range(6), 0.6), "FAMO()": steps(range(4), 0.4)}
    values["CAGrad()"] = steps(range(1), 0.4)  # without a verdict
    summary = accuracies(tmp_path, values)
    assert "(4 to 6 seeds)" in headline(summary)
    assert "1 without a verdict" in headline(summary)
    assert "own seeds, 1 to 6 of 6, with 95 % intervals of the mean (Student's t)." in overview(summary).notes[0]


def test_headline_of_treatments_without_common_seeds_has_no_verdict(tmp_path: Path) -> None:
    summary = accuracies(tmp_path, dict(zip(METHODS, (steps(range(4)), steps(range(2, 6))), strict=True)))
    assert headline(summary) == (
        "No verdict: no other treatment has Δm on 3 seeds on which Equal() has it, and intervals and tests need so many."
    )


@pytest.mark.parametrize(
    ("seeds", "method"),
    [
        ((6, 6), "Student's t"),
        ((8, 7), "bootstrap over seeds"),
        ((8, 6), "Student's t below 7 seeds, bootstrap over seeds from there on"),
        ((8, 2), "bootstrap over seeds"),
    ],
)
@pytest.mark.parametrize("table", [overview, means])
def test_tables_name_the_methods_of_their_intervals(
    tmp_path: Path, seeds: tuple[int, int], method: str, table: Callable[[Summary], Table]
) -> None:
    values = {name: steps(range(count)) for name, count in zip(METHODS, seeds, strict=True)}
    notes = table(accuracies(tmp_path, values)).notes
    assert [note for note in notes if f"% intervals of the mean ({method})" in note]


def test_delta_m_of_the_baseline_is_zero_with_missing_metrics_and_seeds() -> None:
    nan = math.nan
    base = np.array([[0.5, 2.0, 0.0], [0.6, nan, 0.0], [0.7, 2.4, nan], [nan, 2.3, 0.0], [0.9, 2.9, 0.0]])
    found = quality(base, base, [True, False, True])
    assert np.isfinite(found).tolist() == [True, False, True, False, True]
    assert np.nanmean(found) == pytest.approx(0.0, abs=1e-12)
    expected = 50 * (-(0.5 - 0.7) / 0.7 + (2.0 - 7.3 / 3) / (7.3 / 3))  # means over the seeds 0, 2 and 4
    assert found[0] == pytest.approx(expected)
    assert quality(base[:, :1], base[:, :1], [True])[0] == pytest.approx(100 * (0.675 - 0.5) / 0.675)
    none = np.array([[0.5, nan], [nan, 2.0]])  # no complete seed
    assert quality(np.array([0.25, 2.0]), none, [True, False]) == pytest.approx(25.0)


def test_delta_m_of_the_baseline_is_zero_in_a_report_with_a_missing_seed_of_one_task(tmp_path: Path) -> None:
    study = synthetic.study()
    finished(tmp_path, study, 5, lambda job: (job.run.tasks, job.run.seed) not in ((("ink",), 4), (("left",), 3)))
    row = summarize(load(tmp_path)).rows["single task"]
    assert np.isfinite(row.delta_m).sum() == 3
    assert np.nanmean(row.delta_m) == pytest.approx(0.0, abs=1e-12)
    assert np.nanmean(row.progress[:, -1]) == pytest.approx(0.0, abs=1e-12)


def test_note_of_a_treatment_that_lacks_a_metric_is_the_reason(tmp_path: Path) -> None:
    for seed in range(3):
        for place, method in enumerate(METHODS):
            single(tmp_path / f"{place}-{seed}", Run("drawn", method=method, tasks=("a", "b", "c"), seed=seed), place)
        single(tmp_path / f"some{seed}", Run("drawn", method="MGDA()", tasks=("b", "c"), seed=seed), 2)
    summary = summarize(load(tmp_path))
    comparison = summary.rows["MGDA(), tasks b and c"].comparison
    assert comparison is not None
    assert comparison.note == "no Δm: no value of a accuracy"
    assert "MGDA(), tasks b and c: no Δm: no value of a accuracy" in overview(summary).notes


def test_comparison_counts_seeds_without_a_result_and_without_the_reference() -> None:
    nan = math.nan
    differences = {"a": [nan, nan, -1.0, -1.1, -0.9, nan]}
    found = compare(differences, results={"a": [True, True, True, True, True, False]})["a"]
    assert found.seeds == 3
    assert found.verdict is Verdict.BETTER
    assert found.note == "1 of 6 seeds have no result; 2 of 6 have a result, but none of the reference"
    assert compare(differences)["a"].note == "3 of 6 seeds have no result"
