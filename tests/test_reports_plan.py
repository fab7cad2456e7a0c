"""Plans of a report: studies, standalone runs, several workloads, and refused folders."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

import reports_many as many
from command_line import call
from paretorch.reports.analysis.leaders import leader
from paretorch.reports.figures.paper import draw_ranks
from paretorch.reports.reading.load import load, load_all
from paretorch.reports.report import report
from paretorch.reports.tables.tuning import tuning_table
from paretorch.studies.statistics.paired import t_bounds
from paretorch.studies.statistics.ranking import rank_over_workloads
from paretorch.studies.tuning.trials import SearchResult, Trial, TrialOutcome, TuningResult
from paretorch.training.run import Run

TASKS = ["a", "b"]


def single(path: Path, run: Run, place: int = 0) -> None:
    """A finished run that belongs to no study."""
    path.mkdir(parents=True)
    tasks = list(run.tasks) or TASKS
    many.result(run, tasks, place).save(path)


def test_standalone_runs_become_treatments_by_different_settings(tmp_path: Path) -> None:
    for seed in range(3):
        for place, method in enumerate(("Equal()", "MGDA()")):
            single(tmp_path / f"{method}{seed}", Run("drawn", method=method, seed=seed), place)
        options = {"lr": 0.01}
        single(tmp_path / f"lr{seed}", Run("drawn", method="MGDA()", optimizer_options=options, seed=seed), 2)
        for task in TASKS:
            single(tmp_path / "alone" / f"{task}{seed}", Run("drawn", tasks=(task,), seed=seed))
    results = load(tmp_path)
    assert set(results.treatments) == {"single task", "Equal(), lr 0.001", "MGDA(), lr 0.001", "MGDA(), lr 0.01"}
    study = results.plan.study
    assert (study.reference, study.baseline) == ("Equal(), lr 0.001", "single task")
    assert {treatment.seeds for treatment in results.treatments.values()} == {3}
    assert load_all([tmp_path], reference="MGDA(), lr 0.01")[0].plan.study.reference == "MGDA(), lr 0.01"


def test_page_reports_seeds_missing_in_a_treatment(tmp_path: Path) -> None:
    for seed in range(4):
        single(tmp_path / f"sum{seed}", Run("drawn", seed=seed))
        if seed < 3:
            single(tmp_path / f"mgda{seed}", Run("drawn", method="MGDA()", seed=seed), 1)
    found = report(tmp_path)
    comparison = found.summary.rows["MGDA()"].comparison
    assert comparison is not None
    assert comparison.seeds == 3
    text = found.page.read_text()
    assert "Fewer than 4 seeds have a result for: MGDA() (3)" in text
    assert "No single-task baseline was trained: Δm is relative to" in text


def test_studies_of_one_workload_are_merged(tmp_path: Path) -> None:
    many.finished(tmp_path / "one", many.study(["sum", "MGDA"], name="first"), TASKS, 3)
    other = many.study(["sum", "else", "MGDA"], name="second")
    many.finished(tmp_path / "two", other, TASKS, 4)
    (results,) = load_all([tmp_path / "one", tmp_path / "two"])
    # "sum" is the same run in both; MGDA is not, so the second is labelled with the study's name
    assert list(results.treatments) == ["sum", "MGDA", "MGDA (second)"] or list(results.treatments) == [
        "sum",
        "MGDA",
        "else",
        "MGDA (second)",
    ]
    assert results.treatments["sum"].seeds == 4
    assert results.plan.study.name == "first + second"
    assert "2 sets of runs" in results.plan.notes[0]


def test_bars_of_the_rank_diagram_do_not_have_the_order_of_a_set() -> None:
    """The file would have other bytes in another process."""
    ranking = rank_over_workloads(np.random.default_rng(0).standard_normal((4, 12)))
    (axis,) = draw_ranks([f"method {number}" for number in range(12)], ranking).axes
    lines = [np.asarray(line.get_xdata()).tolist() for line in axis.lines if line.get_linewidth() == 2]
    bars = [ends for ends in lines if len(ends) > 3]
    assert bars
    assert bars == [sorted(bar) for bar in bars]


def test_workloads_have_separate_tables_and_common_ranks(tmp_path: Path) -> None:
    study = many.study(["sum", "MGDA", "FAMO", "CAGrad"], workloads=("digits", "scenes", "faces", "toy"))
    many.finished(tmp_path / "s", study, TASKS, 3)
    found = report(tmp_path / "s")
    assert [summary.results.plan.workload for summary in found.summaries] == ["digits", "scenes", "faces", "toy"]
    assert found.across is not None
    assert found.across.ranking is not None
    assert found.across.ranking.ranks.argmin() == 0
    assert "separate tables, as numbers of different problems are not comparable" in found.page.read_text()
    assert {"ranks.svg", "across.tex"} <= {path.name for path in found.files}
    with pytest.raises(ValueError, match=r"runs of 4 workloads .* each with its own table: use load_all"):
        load(tmp_path / "s")


def test_two_workloads_are_too_few_for_friedman_test(tmp_path: Path) -> None:
    many.finished(tmp_path / "s", many.study(["sum", "MGDA", "FAMO"], workloads=("digits", "scenes")), TASKS, 3)
    found = report(tmp_path / "s")
    assert found.across is not None
    assert found.across.ranking is None
    assert "needs at least 3 workloads" in found.across.sentence


def test_tuning_table_has_cost(tmp_path: Path) -> None:
    folder = many.finished(tmp_path / "s", many.study(["sum", "MGDA"]), TASKS, 3)
    run = folder.jobs()[0].run
    trial = Trial({"lr": 0.01}, run, "tuning/x", 1.0, TrialOutcome.FINISHED, 12.0)
    lost = dataclasses.replace(
        trial, value=float("nan"), outcome=TrialOutcome.DIVERGED, run=dataclasses.replace(run, seed=9)
    )
    tuning = TuningResult(2, 7, (SearchResult("MGDA", "drawn", (), (trial, lost), 0),))
    results = load(tmp_path / "s")
    summary = dataclasses.replace(
        report(tmp_path / "s").summary,
        results=dataclasses.replace(results, plan=dataclasses.replace(results.plan, tunings=(tuning,))),
    )
    table = tuning_table(summary)
    assert table.header[4:6] == ("epochs", "seconds")
    assert table.rows == (("MGDA", "2", "2", "1", str(2 * run.epochs), "24", "lr=0.01"),)


def test_report_refuses_edited_result_with_file_name(tmp_path: Path) -> None:
    folder = many.finished(tmp_path / "s", many.study(["sum", "MGDA"]), TASKS, 3)
    path = folder.jobs()[1].folder / "result.json"
    values = json.loads(path.read_text())
    values["test"]["metrics"]["a"]["accuracy"] = 1.0
    path.write_text(json.dumps(values))
    code, output = call("report", str(tmp_path / "s"))
    assert code == 2
    assert str(path) in output
    assert "Traceback" not in output
    assert not (tmp_path / "s" / "report.html").exists()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        ("nothing", "is not a folder"),
        ("empty", "contains no finished run"),
        ("unfinished", "no run of this study is finished"),
    ],
)
def test_folder_without_finished_run_gives_one_message(tmp_path: Path, make: str, message: str) -> None:
    path = tmp_path / "x"
    if make == "empty":
        path.mkdir()
    if make == "unfinished":
        many.finished(path, many.study(["sum"]), TASKS, 3, failed=["sum"])
    code, output = call("report", str(path))
    assert code == 2
    assert message in output


def test_command_prints_verdict_and_path_of_page(tmp_path: Path) -> None:
    many.finished(tmp_path / "s", many.study(["sum", "MGDA"]), TASKS, 5)
    arguments = [
        "report",
        str(tmp_path / "s"),
        "--figures",
        "pdf",
        "--out",
        str(tmp_path / "out"),
        "--reference",
        "MGDA",
    ]
    code, output = call(*arguments)
    assert code == 0
    assert "Better than MGDA: sum" in output or "No treatment was found better than MGDA" in output
    assert f"The page: {tmp_path / 'out' / 'report.html'}" in output
    assert (tmp_path / "out" / "report" / "cosines.pdf").read_bytes().startswith(b"%PDF")
    code, output = call("report", str(tmp_path / "s"), "--reference", "MDGA")
    assert code == 2
    assert "the reference is one of the treatments" in output


def test_leader_of_equal_treatments_is_rarely_distinguished() -> None:
    import numpy as np

    draw = np.random.default_rng(0)
    alarms = 0
    for _ in range(500):
        found = leader({str(i): row for i, row in enumerate(draw.normal(size=(8, 5)))})
        assert found is not None
        alarms += len(found.tied) < found.tested
    assert alarms / 500 <= 0.06
    found = leader({"a": [0.0, 0.1, 0.05, 0.02, 0.0], "b": [9.0, 9.1, 9.2, 8.9, 9.0], "c": [float("nan")] * 5})
    assert found is not None
    assert (found.label, found.tied, found.tested) == ("a", (), 1)


def test_plan_notes_two_versions_of_users_file(tmp_path: Path) -> None:
    places = {method: tmp_path / method for method in ("Equal()", "MGDA()", "FAMO()")}
    for place, (method, path) in enumerate(places.items()):
        run = Run("mine.py", method=method)
        single(path, run, place)
        facts = {"format": 1, "run": run.to_json(), "key": run.key, "source": "abcdef0123" if place else "9876543210"}
        (path / "run.json").write_text(json.dumps(facts))
    (note,) = [note for note in load(tmp_path).plan.notes if "changed between" in note]
    assert "1 of version 98765432, such as Equal()" in note
    assert "2 of version abcdef01" in note
    assert not [note for note in load_all([places["MGDA()"], places["FAMO()"]])[0].plan.notes if "changed" in note]


def test_markdown_report_escapes_names(tmp_path: Path) -> None:
    odd = many.study(["a_b_c *x*", "<b>`d`", "e|f"], name="own_study_1")
    many.finished(tmp_path / "study", odd, ("left_1", "right_1"), seeds=3)
    text = (report(tmp_path / "study").files[1]).read_text()
    assert text.startswith("# own\\_study\\_1\n")
    plain = [line for line in text.splitlines() if "`: " not in line and not line.startswith("!")]
    for written, raw in (("a\\_b\\_c \\*x\\*", "a_b_c"), ("&lt;b>\\`d\\`", "<b>")):
        assert any(written in line for line in plain)
        assert not any(raw in line for line in plain)


def test_treatment_with_one_of_eight_seeds_does_not_lead() -> None:
    nan = float("nan")
    steady = [0.0, -4.75, 1.0, 0.5, 0.2, 0.1, 0.3, 0.4]
    rows = {"steady": steady, "worse": [value + 1 for value in steady], "lucky": [nan, -4.64, *[nan] * 6]}
    found = leader(rows)
    assert found is not None
    assert found.label == "steady"
    three = leader(
        {**rows, "three": [nan, -4.7, 1.2, *[nan] * 4, 0.5]}
    )  # lower in the mean, higher on each of its seeds
    assert three is not None
    assert three.label == "steady"


def test_mean_difference_over_workloads_is_paired_by_seed(tmp_path: Path) -> None:
    study = many.study(["sum", "MGDA", "FAMO"], workloads=("digits", "scenes", "faces"))
    many.finished(tmp_path / "s", study, TASKS, 4)
    found = report(tmp_path / "s")
    assert found.across is not None
    assert found.across.table is not None
    reference = study.reference
    rows = {row[0]: row for row in found.across.table.rows}
    assert rows[reference][1:3] == ("reference", "")
    for label in {"sum", "MGDA", "FAMO"} - {reference}:
        by_seed = np.mean([each.rows[label].delta_m - each.rows[reference].delta_m for each in found.summaries], axis=0)
        low, high = t_bounds(by_seed, 1 - 0.05 / (len(rows) - 1))
        assert rows[label][2] == f"{by_seed.mean():+.2f} [{low:+.2f}, {high:+.2f}]"
        assert rows[label][1] == ("worse" if low > 0 else "better" if high < 0 else "not distinguishable")
