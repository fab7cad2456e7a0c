"""Studies: treatments over paired seeds, found by name or file, and their folder on disk."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

import studies_synthetic as synthetic
from paretorch.studies.folder import StudyFolder, open_folder, read_folder
from paretorch.studies.lookup import find_study, study_names
from paretorch.studies.progress import ConsoleProgress
from paretorch.studies.runner import train_study
from paretorch.studies.study import Combine, Study, Treatment, across, alone, chosen
from paretorch.training.loop import train
from paretorch.training.run import Run

BASE = Run("digits", epochs=2)


def small(**changes: object) -> Study:
    study = Study(
        "mine", "Which?", (alone("single", BASE, ("left", "right")), Treatment("sum", (BASE,))), "sum", "single"
    )
    return dataclasses.replace(study, **changes)  # type: ignore[arg-type]


SCENES = Run("scenes", epochs=2)
CHOSEN = (chosen("single", [SCENES, dataclasses.replace(SCENES, method="MGDA()")]), Treatment("sum", (SCENES,)))


def on_scenes(**changes: object) -> Study:
    return small(**{"treatments": (alone("single", SCENES, ("a", "b", "c")), Treatment("sum", (SCENES,))), **changes})


def test_a_study_over_workloads_is_its_studies_side_by_side() -> None:
    both = across("both", "Which?", [small(), on_scenes()])
    assert both.workloads == ("digits", "scenes")
    assert [treatment.label for treatment in both.treatments] == ["single", "sum"]
    for title, one in (("digits", small()), ("scenes", on_scenes())):
        assert both.on(title).treatments == one.treatments
    assert len(list(both.planned((0, 1)))) == len(list(small().planned((0, 1)))) + len(
        list(on_scenes().planned((0, 1)))
    )
    assert Study.from_json(json.loads(json.dumps(both.to_json()))) == both
    lone = across("both", "?", [small(), on_scenes(treatments=(Treatment("single", (SCENES,)), CHOSEN[1]))])
    assert [t.combine for t in lone.treatments] == [Combine.JOIN, Combine.ONE]
    assert lone.on("scenes").treatments[0].combine is Combine.ONE


def test_runs_of_a_seed_differ_in_the_treatment_only() -> None:
    runs = [run for treatment in find_study("quickstart", "small").treatments for run in treatment.seeded(3)]
    assert {run.seed for run in runs} == {3}
    shared = ("workload", "options", "optimizer", "optimizer_options", "epochs", "batch_size", "device", "precision")
    for name in shared:
        assert len({str(getattr(run, name)) for run in runs}) == 1, name


def test_quickstart_holds_the_baselines_that_a_claim_needs() -> None:
    study = find_study("quickstart", "small")
    combined = {t.label: (t.combine, len(t.runs)) for t in study.treatments if t.combine is not Combine.ONE}
    assert combined == {"single task": (Combine.JOIN, 3), "static weights, tuned": (Combine.CHOOSE, 5)}
    assert (study.reference, study.baseline) == ("static weights, tuned", "single task")
    assert [t.runs[0].surface for t in study.treatments if t.label == "PCGrad, exact"] == ["parameters"]


def test_planned_goes_seed_by_seed_and_trains_equal_runs_once() -> None:
    twice = small(treatments=(*small().treatments, Treatment("again", (BASE,))))
    planned = [(treatment.label, run.tasks, run.seed) for treatment, run in twice.planned((0, 1))]
    assert planned == [
        (label, tasks, seed)
        for seed in (0, 1)
        for label, tasks in (("single", ("left",)), ("single", ("right",)), ("sum", ()))
    ]


def test_a_study_survives_json() -> None:
    for study in (find_study("quickstart", "small"), synthetic.study()):
        assert Study.from_json(json.loads(json.dumps(study.to_json()))) == study


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (
            lambda: Treatment("a", ()),
            "one run on a workload is combined as 'one', several as 'join' or 'choose'; got 0 as 'one'",
        ),
        (lambda: Treatment("a", (BASE, BASE)), "got 2 as 'one'"),
        (lambda: chosen("a", [BASE]), "got 1 as 'choose'"),
        (
            lambda: Treatment("a", (BASE, BASE), Combine.JOIN),
            "joined runs train disjoint tasks that each of them names",
        ),
        (lambda: alone("a", BASE, ("x", "x")), "joined runs train disjoint tasks"),
        (lambda: small(treatments=(small().treatments[1],) * 2), "labels of treatments are unique"),
        (lambda: small(reference="nobody"), r"the reference is one of \['single', 'sum'\], got 'nobody'"),
        (lambda: small(threads=0), "threads is at least 1, got 0"),
        (
            lambda: small(treatments=(*small().treatments, Treatment("other", (Run("scenes"),)))),
            "'single', to which others are compared, has a run on every workload; it has none on .*scenes",
        ),
        (lambda: Treatment("a", (BASE, Run("scenes"), Run("scenes", method="MGDA()"))), "got 1 and 2 as 'one'"),
        (lambda: across("all", "?", []), "expected studies on different workloads"),
        (lambda: across("all", "?", [small(), small()]), "expected studies on different workloads"),
        (lambda: across("all", "?", [small(), on_scenes(reference="single")]), "with one reference"),
        (
            lambda: across("all", "?", [small(), on_scenes(treatments=CHOSEN)]),
            r"'single' is combined as \['join', 'choose'\]",
        ),
    ],
)
def test_what_is_no_study_is_refused(wrong: object, message: str) -> None:
    assert callable(wrong)
    with pytest.raises(ValueError, match=message):
        wrong()


def test_a_misspelt_name_suggests_the_nearest() -> None:
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
def test_a_users_file_that_is_no_study_is_named(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "mine.py"
    file.write_text(text)
    with pytest.raises(ValueError, match=rf"mine\.py.*{message}"):
        find_study(file, "small")
    with pytest.raises(ValueError, match="no study file at"):
        find_study(tmp_path / "missing.py", "small")


def test_a_users_file_is_a_study() -> None:
    assert find_study(Path(synthetic.__file__), "small") == synthetic.study("small")


def test_a_folder_is_taken_up_with_more_seeds(tmp_path: Path) -> None:
    first = open_folder(tmp_path, small(), "small", 1, resume=True)
    again = open_folder(tmp_path, small(), "small", 3, resume=True)
    assert read_folder(tmp_path) == again == StudyFolder(tmp_path, small(), "small", (0, 1, 2))
    assert [job.folder for job in again.jobs()][:3] == [job.folder for job in first.jobs()]
    assert len({job.folder for job in again.jobs()}) == 9
    assert first.jobs()[0].folder.name.startswith("single-seed0-")
    assert first.jobs()[0].title == "single (left), seed 0"


def test_a_folder_of_another_study_is_refused(tmp_path: Path) -> None:
    open_folder(tmp_path, small(), "small", 3, resume=True)
    with pytest.raises(ValueError, match="already contains a study: resume it, or choose another folder"):
        open_folder(tmp_path, small(), "small", 3, resume=False)
    with pytest.raises(ValueError, match="expected 'other' at scale 'small' as it is defined now, found 'mine'"):
        open_folder(tmp_path, small(name="other"), "small", 3, resume=True)
    with pytest.raises(ValueError, match="found 'mine' at 'small' with other threads"):
        open_folder(tmp_path, small(threads=2), "small", 3, resume=True)
    with pytest.raises(ValueError, match="at least 1 seed"):
        open_folder(tmp_path / "new", small(), "small", 0, resume=True)
    assert not (tmp_path / "new").exists()


def test_a_folder_that_cannot_be_read_says_so(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"has no study\.json"):
        read_folder(tmp_path)
    open_folder(tmp_path, small(), "small", 3, resume=True)
    file = tmp_path / "study.json"
    content = json.loads(file.read_text())
    file.write_text(json.dumps(content | {"format": "paretorch study 99"}))
    with pytest.raises(ValueError, match="'paretorch study 99', this version reads up to 2: upgrade paretorch"):
        read_folder(tmp_path)
    file.write_text(json.dumps(content | {"format": 7}))
    with pytest.raises(ValueError, match="not a study of paretorch: expected the format 'paretorch study 2', got 7"):
        read_folder(tmp_path)
    file.write_text(json.dumps(content)[:-20])
    with pytest.raises(ValueError, match="not a complete JSON file"):
        read_folder(tmp_path)
    for broken, error in (
        ({key: value for key, value in content.items() if key != "study"}, "KeyError"),
        (content | {"study": content["study"] | {"zzz": 1}}, "TypeError"),
    ):
        file.write_text(json.dumps(broken))
        with pytest.raises(ValueError, match=rf"study\.json is damaged \({error}"):
            read_folder(tmp_path)
    file.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match="not a complete JSON file"):
        read_folder(tmp_path)


@pytest.mark.parametrize("change", ["workload", "empty result", "edited result"])
def test_finished_runs_are_looked_at_before_others_join_them(tmp_path: Path, change: str) -> None:
    file = tmp_path / "mine.py"
    file.write_text((Path(__file__).parent / "training_workload.py").read_text())
    run = Run(str(file), {"samples": 24}, batch_size=8)
    study = Study("mine", "Which?", (Treatment("sum", (run,)),), "sum", "sum")
    folder = open_folder(tmp_path / "study", study, "small", 1, resume=True)
    train(run, folder.jobs()[0].folder, progress=None)
    result = folder.jobs()[0].folder / "result.json"
    folder.jobs()[0].check()
    if change == "workload":
        file.write_text(file.read_text().replace("30 *", "31 *"))
        message = r"mine\.py has changed since"
    else:
        result.write_bytes(b"" if change == "empty result" else result.read_bytes().replace(b"0.", b"1.", 1))
        message = r"result\.json"
    with pytest.raises(ValueError, match=message):
        train_study(open_folder(tmp_path / "study", study, "small", 2, resume=True), ConsoleProgress())
