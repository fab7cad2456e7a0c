"""The command ``paretorch study``: the example of its help, and the study of a workload."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

import reports_many as many
from command_line import call
from paretorch.cli.study import EXAMPLE
from paretorch.studies.folder import StudyFolder
from paretorch.studies.lookup import find_study
from paretorch.studies.runner import Failure
from training_runs import TINY

ROOT = Path(__file__).parents[1]


def example_file() -> str:
    """The Python of the example."""
    return EXAMPLE[EXAMPLE.index("from paretorch") : EXAMPLE.index("\nparetorch study")]


def test_study_help_contains_the_whole_example() -> None:
    assert re.sub(r"\s+", " ", EXAMPLE).strip() in call("study", "--help")[1]


def test_study_of_the_documentation_is_that_of_the_help() -> None:
    assert example_file().strip() in (ROOT / "docs" / "studies.md").read_text()


def test_study_example_is_a_study_at_both_scales(tmp_path: Path) -> None:
    path = tmp_path / "my_study.py"
    path.write_text(example_file())
    for scale in ("smoke", "small"):
        assert find_study(path, scale).reference == "sum"


@pytest.mark.long
def test_study_example_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("my_study.py").write_text(example_file())
    code, printed = call("study", "my_study.py", "--scale", "smoke", "--seeds", "3", "--jobs", "1")
    assert code == 0, printed
    assert "IMTL-G" in Path("runs/mine-smoke/report.md").read_text()


@pytest.mark.long
def test_study_of_a_workload_file_runs_and_resumes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    command = ["study", f"{TINY}(width=3)", "--methods", "sum, IMTLG()", "--reference", "IMTLG", "--epochs", "1"]
    code, printed = call(*command, "--batch-size", "10", "--seeds", "1", "--jobs", "1", "--out", "mine")
    assert code == 0, printed
    assert json.loads(Path("mine/study.json").read_text())["study"]["reference"] == "IMTLG"
    assert len(list(Path("mine").glob("*/result.json"))) == 2
    assert "none is left to train" in call(*command, "--batch-size", "10", "--seeds", "1", "--out", "mine")[1]


@pytest.mark.parametrize("failed", [0, 1, 2])
def test_study_exit_code_counts_failed_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failed: int) -> None:
    def train_study(folder: StudyFolder, *_: object, **__: object) -> list[Failure]:
        jobs = folder.jobs()
        for job in jobs[: len(jobs) - failed]:
            job.folder.mkdir(parents=True)
            many.result(job.run, ("sign", "size"), 0).save(job.folder)
        return [Failure(job, "ValueError: no data") for job in jobs[len(jobs) - failed :]]

    monkeypatch.setattr("paretorch.reports.compare.train_study", train_study)
    command = ["study", f"{TINY}(width=3)", "--methods", "sum, IMTLG()", "--epochs", "1", "--seeds", "3"]
    code, printed = call(*command, "--out", str(tmp_path / "study"))
    assert code == (1 if failed else 0), printed
    assert (tmp_path / "study" / "report.html").exists()
    if failed:
        assert f"{failed} run{'s' * (failed > 1)} failed (" in printed
        assert f"failed.json of its folder in {tmp_path / 'study'}" in printed
