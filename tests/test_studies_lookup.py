"""Studies by name and by file."""

from __future__ import annotations

import textwrap
from pathlib import Path

import pytest

import studies_synthetic as synthetic
from paretorch.studies.lookup import find_study, study_names
from paretorch.training.names.workloads import workload_names
from training_runs import TINY


def test_find_study_suggests_the_nearest_name() -> None:
    assert "quickstart" in study_names()
    with pytest.raises(ValueError, match=r"unknown study 'quikstart': did you mean 'quickstart'\?.*ends in \.py"):
        find_study("quikstart", "small")
    with pytest.raises(ValueError, match="scales of quickstart are 'smoke', 'small', got 'huge'"):
        find_study("quickstart", "huge")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"has a function study\(scale\) that returns a Study; it has none"),
        ("def study(scale): raise KeyError('lr')", "raised KeyError: 'lr'"),
        ("def study(scale): return [1]", "returns a paretorch Study, got list"),
        ("import no_such_module", "importing it raised ModuleNotFoundError: No module named 'no_such_module'"),
    ],
)
def test_find_study_refuses_a_file_without_a_study(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "mine.py"
    file.write_text(text)
    with pytest.raises(ValueError, match=rf"mine\.py.*{message}"):
        find_study(file, "small")
    with pytest.raises(ValueError, match="no study file at"):
        find_study(tmp_path / "missing.py", "small")


def test_find_study_of_a_workload_compares_methods_on_it(tmp_path: Path) -> None:
    workload = tmp_path / "mine.py"
    workload.write_text(Path(TINY).read_text())
    options = {"methods": "sum, IMTLG(), FAMO(rate=0.1)", "reference": "IMTLG()", "epochs": 4, "lr": 0.01}
    for name, title in (
        ("digits", "digits"),
        (f"{workload}(width=3)", f"{workload}(width=3)"),
        (workload, str(workload)),
    ):
        study = find_study(name, "small", options)
        assert study.workloads == (title,)
        assert [treatment.label for treatment in study.treatments] == ["sum", "IMTLG", "FAMO(rate=0.1)"]
        assert (study.reference, study.baseline) == ("IMTLG", "IMTLG")
        runs = [run for treatment in study.treatments for run in treatment.runs]
        assert [run.method for run in runs] == ["Equal()", "IMTLG()", "FAMO(rate=0.1)"]
        assert {(run.epochs, run.optimizer_options["lr"]) for run in runs} == {(4, 0.01)}


def test_find_study_of_a_workload_with_baselines_adds_single_tasks_and_static_weights() -> None:
    study = find_study("digits", "smoke", {"methods": "sum, MGDA()", "baselines": True})
    labels = ["sum", "MGDA", "single task", "static weights, tuned"]
    assert [treatment.label for treatment in study.treatments] == labels
    assert study.baseline == "single task"
    assert [run.tasks for run in study.treatments[2].runs] == [("left",), ("right",)]
    assert len(study.treatments[3].runs) == 5


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("digits", {"methods": "MGDA()"}, "compares methods, at least two: name them, as in --methods"),
        ("digits", {"methods": "sum, MDGA()"}, "did you mean 'MGDA'"),
        ("digits", {"methods": "sum, MGDA()", "reference": "FAMO"}, "the reference is one of .* got 'FAMO'"),
        (
            "digits",
            {"methods": "sum, MGDA()", "classes": 3},
            "unknown option of the study of the workload digits 'classes'",
        ),
        ("digit(ink=True)", {"methods": "sum, MGDA()"}, "unknown workload 'digit': did you mean 'digits'"),
        ("quickstart", {"reference": "adding"}, "the reference is one of .* got 'adding'"),
        ("quickstart", {"epochs": 3}, "unknown option of the study quickstart 'epochs'"),
    ],
)
def test_find_study_refuses_options_without_meaning(name: str, options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        find_study(name, "small", options)


def test_find_study_accepts_another_reference_for_every_study() -> None:
    assert find_study("quickstart", "smoke", {"reference": "plain sum"}).reference == "plain sum"


def test_names_of_studies_and_workloads_are_different() -> None:
    assert not set(study_names()) & set(workload_names())


def test_paths_in_a_study_file_are_relative_to_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "project"
    (folder / "data").mkdir(parents=True)
    (folder / "mine.py").write_text(Path(TINY).read_text())
    (tmp_path / "other.py").write_text(Path(TINY).read_text())
    text = """
        from paretorch.studies.study import Study, Treatment
        from paretorch.training import Run

        def study(scale):
            runs = Run("mine.py"), Run("other.py"), Run("nyuv2", {"root": "data"}), Run("nyuv2", {"root": "elsewhere"})
            return Study("s", "?", (Treatment("sum", runs),), "sum", "sum")
    """
    (folder / "study.py").write_text(textwrap.dedent(text))
    monkeypatch.chdir(tmp_path)
    (treatment,) = find_study("project/study.py", "small").treatments
    assert [run.workload for run in treatment.runs[:2]] == ["project/mine.py", "other.py"]
    assert [run.options["root"] for run in treatment.runs[2:]] == ["project/data", "elsewhere"]
    monkeypatch.chdir(folder)
    (treatment,) = find_study("study.py", "small").treatments
    assert treatment.runs[0].workload == "mine.py"


def test_find_study_returns_the_study_of_a_file() -> None:
    assert find_study(Path(synthetic.__file__), "small") == synthetic.study("small")


def test_study_of_a_workload_without_methods_compares_the_recommended_one_with_sum_and_tuned_weights() -> None:
    study = find_study("digits(ink=True)", "smoke")
    assert [treatment.label for treatment in study.treatments] == [
        "sum",
        "IMTLG",
        "single task",
        "static weights, tuned",
    ]
    assert (study.reference, study.baseline) == ("static weights, tuned", "single task")
    assert (study.plain_sum, study.recommended) == ("sum", "IMTLG")
