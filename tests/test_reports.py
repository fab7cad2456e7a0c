"""Reports on synthetic results with known truth: selection, comparisons, findings, tables and files."""

from __future__ import annotations

import dataclasses
import html
import io
import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

import studies_synthetic as synthetic
from paretorch.reports.analysis.formatting import mean_interval, metric_interval, number
from paretorch.reports.analysis.summary import Summary, summarize
from paretorch.reports.compare import run_study
from paretorch.reports.figures import paper
from paretorch.reports.figures.curves import learning_curves
from paretorch.reports.findings.findings import findings
from paretorch.reports.reading.load import load
from paretorch.reports.report import report
from paretorch.reports.tables.overview import by_metric, costs, dynamics, means, overview
from paretorch.reports.tables.tables import Table
from paretorch.studies.folder import StudyFolder
from paretorch.studies.statistics.paired import Comparison, Interval, Verdict

GOLDEN = Path(__file__).parent / "test_reports_golden"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> StudyFolder:
    return synthetic.finished(tmp_path_factory.mktemp("study") / "five", seeds=5)


@pytest.fixture(scope="module")
def summary(folder: StudyFolder) -> Summary:
    return summarize(load(folder.path))


def golden(name: str, text: str) -> None:
    """Compares with the stored file; delete it and run twice to store what is there now."""
    path = GOLDEN / name
    if not path.exists():
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        pytest.fail(f"{name} was not there and has been written: read it, then run again")
    assert text == path.read_text()


def test_grid_selects_best_member_on_validation_data_and_counts_cost_of_all_members(summary: Summary) -> None:
    tuned = summary.rows["tuned"].results
    assert tuned.chosen is not None
    assert tuned.chosen.method == "Static(2)"
    assert tuned.runs == 15
    assert tuned.seconds.tolist() == [3 * synthetic.EPOCHS * 2.5] * 5
    run = dataclasses.replace(tuned.chosen, seed=4)
    scores = synthetic.scores(run, synthetic.EPOCHS, "test")
    assert tuned.test[4].tolist() == [scores["left"]["accuracy"], scores["ink"]["error"]]


def test_grid_selection_does_not_depend_on_test_data(folder: StudyFolder, tmp_path: Path) -> None:
    other = synthetic.finished(tmp_path / "study", seeds=5)
    for job in other.jobs():
        outcome = synthetic.result(job.run)
        if job.run.method == "Static(1)":  # perfect on the test set, as bad as ever on validation data
            metrics = {"left": {"accuracy": 1.0}, "ink": {"error": 0.1}}
            synthetic.write(
                dataclasses.replace(outcome, test=dataclasses.replace(outcome.test, metrics=metrics)), job.folder
            )
    chosen = load(other.path).treatments["tuned"].chosen
    assert chosen == load(folder.path).treatments["tuned"].chosen


def test_single_task_runs_are_joined_to_one_treatment(summary: Summary) -> None:
    single = summary.rows["single task"].results
    assert [metric.title for metric in summary.results.metrics] == ["left accuracy", "ink error"]
    assert single.test.shape == (5, 2)
    assert single.curves.shape == (5, synthetic.EPOCHS, 2)
    assert np.isfinite(single.curves).all()
    assert single.seconds_per_epoch.tolist() == [4.0] * 5, "a network for each task: their epochs add up"
    assert summary.rows["single task"].delta_m.mean() == pytest.approx(0.0, abs=1e-12)


def test_summary_detects_known_differences_and_no_others(summary: Summary) -> None:
    found = {label: row.comparison and row.comparison.verdict.value for label, row in summary.rows.items()}
    assert found == {
        "single task": "not distinguishable",
        "tuned": None,
        "good": "better",
        "bad": "worse",
        "same": "not distinguishable",
    }
    for label, effect in (("good", -10.0), ("bad", 20.0), ("same", 0.0)):
        comparison = summary.rows[label].comparison
        assert comparison is not None
        assert comparison.interval is not None
        assert comparison.interval.low - 0.5 < effect < comparison.interval.high + 0.5
    assert [row.rank for row in summary.rows.values()][2:4] == [1.0, 5.0]
    assert [c.verdict for c in summary.rows["good"].metrics] == [Verdict.BETTER, Verdict.BETTER]


@pytest.mark.parametrize("table", [overview, means, by_metric, dynamics, costs], ids=lambda table: str(table.__name__))
def test_tables_equal_stored_files(summary: Summary, table: Callable[[Summary], Table]) -> None:
    golden(f"{table.__name__}.md", table(summary).markdown())
    golden(f"{table.__name__}.tex", table(summary).latex())


@pytest.mark.parametrize("width", [60, 80, 120])
def test_table_shows_all_cells_in_terminal_of_any_width(summary: Summary, width: int) -> None:
    text = io.StringIO()
    table = overview(summary)
    Console(file=text, width=width).print(table.terminal(width))
    assert max(len(line.rstrip()) for line in text.getvalue().splitlines()) <= width
    for cell in ("distinguishable", "[+19.39, +20.59]", "reference", "accuracy"):
        assert cell in text.getvalue()
    assert "…" not in text.getvalue()


def test_table_escapes_cells() -> None:
    table = Table("t", ("a|b", "50 %"), (("x_1", "-3 & [4]"),))
    assert "a\\|b" in table.markdown()
    assert r"50 \%" in table.latex()
    assert r"x\_1 & $-$3 \& [4] \\" in table.latex()
    text = io.StringIO()
    Console(file=text, width=60).print(table.terminal(60))
    assert "[4]" in text.getvalue(), "taken for markup"


@pytest.mark.parametrize(
    ("name", "markdown", "latex"),
    [
        ("R^2 ~ {k}", r"R^2 \~ {k}", r"R\textasciicircum{}2 \textasciitilde{} \{k\}"),
        ("a\\b|c", r"a\\b\|c", r"a\textbackslash{}b|c"),
        ("a\\|b", r"a\\\|b", r"a\textbackslash{}|b"),
        ("a<b>", r"a&lt;b>", r"a\textless{}b\textgreater{}"),
        ("100 % #1 $x$", r"100 % #1 \$x\$", r"100 \% \#1 \$x\$"),
        ("two\r\nlines", "two lines", "two lines"),
        ("[x] `c`", r"[x] \`c\`", "{[}x] `c`"),
        ("[x](y) &amp; &", r"[x\](y) &amp;amp; &", r"{[}x](y) \&amp; \&"),
        ("*_b_*", r"\*\_b\_\*", r"{*}\_b\_*"),
    ],
)
def test_table_escapes_names_in_markdown_and_latex(name: str, markdown: str, latex: str) -> None:
    table = Table(name, (name, "1"), ((name, "2"),), notes=(name,))
    assert (
        table.markdown() == f"**{markdown}**\n\n| {markdown} | 1 |\n| :-- | --: |\n| {markdown} | 2 |\n\n- {markdown}\n"
    )
    title, _, _, header, _, row, *_ = table.latex().split("\n")
    assert title == f"% {' '.join(name.splitlines())}"
    assert (header, row) == (rf"{latex} & 1 \\", rf"{latex} & 2 \\")


def test_findings_equal_known_sentences(summary: Summary) -> None:
    found = {finding.name: finding.sentence for finding in findings(summary)}
    assert found["verdict"] == (
        "Better than tuned: good (5 seeds). Of the others: 2 not distinguishable from it, 1 worse."
    )
    assert found["best overall"] == "good: Δm -9.71 % [-12.43, -6.98]; ahead of every other"
    assert found["best left accuracy"] == "good: 0.8698 [0.8461, 0.8935]; ahead of every other"
    assert found["best ink error"].startswith("good: 1.819 [1.7")
    assert " levels; " in found["best ink error"]
    assert found["fastest convergence"].startswith("good: epoch ")
    assert found["cheapest"] == "tuned: 2.00 [2.00, 2.00] seconds per epoch; tied with 4 others"
    assert all(len(name) + len(sentence) <= 110 for name, sentence in found.items()), "a line each"
    assert found["chosen for tuned"] == "Static(2); finding it took 15 runs and 150 s."
    assert findings(summary)[0].sentence == found["verdict"]


def test_report_of_two_seeds_has_no_interval_and_no_verdict(tmp_path: Path) -> None:
    summary = summarize(load(synthetic.finished(tmp_path / "study", seeds=2).path))
    assert findings(summary)[0].sentence.startswith(
        "No verdict: 2 seeds are too few to separate differences from chance"
    )
    assert "withheld: it needs at least 3 seeds" in overview(summary).markdown()
    assert "-10.03 [-]" in overview(summary).markdown()
    verdicts = [row[1] for row in overview(summary).rows]
    assert verdicts == ["withheld", "reference", "withheld", "withheld", "withheld"]
    assert "intervals are withheld, they need at least 3 seeds" in overview(summary).markdown()
    found = {finding.name: finding.sentence for finding in findings(summary)}
    assert found["best overall"].endswith("; untested, 2 seeds")


def test_report_lists_missing_runs_and_compares_common_seeds(tmp_path: Path) -> None:
    summary = summarize(load(synthetic.finished(tmp_path / "study", seeds=5, leave={"good": 4, "bad": 1}).path))
    good, bad = summary.rows["good"].comparison, summary.rows["bad"].comparison
    assert good is not None
    assert bad is not None
    assert (good.seeds, good.note) == (4, "1 of 5 seeds have no result")
    assert good.verdict is Verdict.BETTER
    assert bad.verdict is Verdict.WITHHELD
    found = {finding.name: finding.sentence for finding in findings(summary)}
    assert found["missing of bad"].startswith("4 runs have no result: bad-seed1-")
    assert "good: 1 of 5 seeds have no result" in overview(summary).markdown()
    assert "1 without a verdict" in findings(summary)[0].sentence
    assert "| bad | withheld |" in overview(summary).markdown()


def test_load_refuses_study_without_finished_baseline(tmp_path: Path) -> None:
    folder = synthetic.finished(tmp_path / "study", seeds=3, leave={"single task": 0})
    with pytest.raises(ValueError, match=r"no seed of the baseline 'single task' is finished.*resume"):
        load(folder.path)


def test_load_refuses_runs_with_different_metric_directions(tmp_path: Path) -> None:
    folder = synthetic.finished(tmp_path / "study", seeds=3)
    job = folder.jobs()[-1]
    outcome = synthetic.result(job.run)
    other = {"left": {"accuracy": False}, "ink": {"error": False}}
    synthetic.write(dataclasses.replace(outcome, higher_is_better=other), job.folder)
    with pytest.raises(ValueError, match="runs disagree on direction or unit of 'left accuracy': not one workload"):
        load(folder.path)


def test_diverged_run_counts_as_missing(tmp_path: Path) -> None:
    folder = synthetic.finished(tmp_path / "study", seeds=5)
    for job in folder.jobs():
        if job.label == "same" and job.run.seed == 0:
            outcome = synthetic.result(job.run)
            metrics = {"left": {"accuracy": 0.1}, "ink": {"error": float("nan")}}
            synthetic.write(
                dataclasses.replace(outcome, test=dataclasses.replace(outcome.test, metrics=metrics)), job.folder
            )
    comparison = summarize(load(folder.path)).rows["same"].comparison
    assert comparison is not None
    assert (comparison.seeds, comparison.note) == (4, "1 of 5 seeds have no result")


def test_learning_curves_have_labels_and_differ_without_colour(summary: Summary) -> None:
    figure = paper.draw(learning_curves(summary)[0], summary)
    assert [axis.get_xlabel() for axis in figure.axes] == ["epoch"] * 3
    assert [axis.get_ylabel() for axis in figure.axes] == [
        "left accuracy, higher is better",
        "ink error (levels), lower is better",
        "Δm on validation data (%), lower is better",
    ]
    lines = figure.axes[0].get_lines()
    assert [line.get_label() for line in lines] == list(summary.rows)
    styles = {(line.get_linestyle(), line.get_marker()) for line in lines}
    assert len(styles) == len(lines)
    assert len(figure.axes[0].collections) == len(lines), "a band for each"
    good = summary.rows["good"].results.curves[:, :, 0]
    assert np.asarray(lines[2].get_ydata()) == pytest.approx(good.mean(axis=0))


def test_learning_curves_of_two_seeds_have_no_bands_and_a_note(tmp_path: Path) -> None:
    summary = summarize(load(synthetic.finished(tmp_path / "study", seeds=2).path))
    figure = paper.draw(learning_curves(summary)[0], summary)
    assert not figure.axes[0].collections
    assert "no intervals: fewer than 3 seeds" in figure.get_suptitle()


def test_figure_is_saved_in_known_formats_alone(folder: StudyFolder, tmp_path: Path) -> None:
    summary = summarize(load(folder.path))
    figure = paper.draw(learning_curves(summary)[0], summary)
    saved = paper.save(figure, tmp_path, "curves", ("svg", "pdf", "png"))
    heads = [path.read_bytes()[:5] for path in saved]
    assert heads == [b"<?xml", b"%PDF-", b"\x89PNG\r"]
    with pytest.raises(ValueError, match="svg, pdf or png, got 'gif'"):
        paper.save(figure, tmp_path, "curves", ("gif",))


def test_report_written_twice_has_equal_bytes(folder: StudyFolder) -> None:
    found = report(folder.path, formats=("svg", "pdf"))
    assert found.files[:2] == (folder.path / "report.html", folder.path / "report.md")
    assert {path.suffix for path in found.files} == {".html", ".md", ".svg", ".pdf", ".tex", ".csv"}
    assert {path.stem for path in found.files if path.suffix == ".pdf"} == {"learning_curves", "trade_off", "cost"}
    assert all(path.is_file() for path in found.files)
    text = found.files[1].read_text()
    for part in (
        found.verdict,
        found.table.markdown(),
        "![learning curves](report/learning_curves.svg)",
        "seeds 0, 1, 2",
    ):
        assert part in text
    before = [path.read_bytes() for path in found.files]
    assert [path.read_bytes() for path in report(folder.path, formats=("svg", "pdf")).files] == before


def test_run_study_trains_users_study_and_writes_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(synthetic.__file__).parent), prepend=os.pathsep)

    def run(out: str) -> dict[str, str]:
        run_study(synthetic.__file__, "smoke", 3, tmp_path / out, jobs=2, train="studies_synthetic:train")
        return {str(path.relative_to(tmp_path / out)): path.read_text() for path in (tmp_path / out).rglob("*.json")}

    first = run("one")
    printed = capsys.readouterr().out
    assert "24 runs; 2 at a time" in printed
    assert "Better than tuned: good (3 seeds)." in printed
    assert f"The page: {tmp_path / 'one' / 'report.html'}" in printed
    assert run("two") == first
    assert run("one") == first
    assert "24 runs, 24 of them finished before" in capsys.readouterr().out


def test_page_contains_command_with_file_and_options(tmp_path: Path) -> None:
    file = tmp_path / "my study.py"
    lines = (
        "import studies_synthetic",
        "def study(scale, root='', fast=False):",
        "    return studies_synthetic.study()",
    )
    file.write_text("\n".join(lines))
    synthetic.finished(tmp_path / "out", seeds=3)
    options = {"root": "a b", "fast": True}
    found = run_study(file, "smoke", 3, tmp_path / "out", progress=False, options=options)
    expected = f"paretorch study '{file}' --root 'a b' --fast --scale smoke --seeds 3"
    assert expected in html.unescape(found.page.read_text())


def test_run_study_without_progress_prints_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(synthetic.__file__).parent), prepend=os.pathsep)
    synthetic.finished(tmp_path, seeds=3)
    found = run_study(synthetic.__file__, "smoke", 3, tmp_path, progress=False)
    assert capsys.readouterr().out == ""
    assert found.verdict.startswith("Better than tuned: good (3 seeds).")
    assert json.loads((tmp_path / "study.json").read_text())["seeds"] == [0, 1, 2]


def test_numbers_have_expected_format() -> None:
    assert [number(v, 3) for v in (0.0, 1234.5, 0.00123456, float("inf"))] == ["0", "1234", "0.00123", "inf"]
    interval = Interval(-0.0312, 0.0046, 0.95, "t")
    comparison = Comparison(5, -0.0133, interval, 0.1, 0.1, 0.1, Verdict.BETTER)
    assert metric_interval(comparison, higher_is_better=False) == "-0.013 [-0.031, +0.005] *"
    assert metric_interval(comparison, higher_is_better=True) == "+0.013 [-0.005, +0.031] *"
    alike = dataclasses.replace(
        comparison, difference=0.0, interval=Interval(0.0, 0.0, 0.95, "t"), verdict=Verdict.WORSE
    )
    assert metric_interval(alike, higher_is_better=False) == "+0.000 [+0.000, +0.000] †"


def test_equal_results_of_all_seeds_have_three_places() -> None:
    equal = 0.965116279069767  # a mean over seeds of such a number differs from it by rounding
    assert mean_interval([equal, equal + 1e-16, equal, equal, equal]) == "0.965 [0.965, 0.965]"
