"""What a study and a workload cannot do is said before anything is trained."""

from __future__ import annotations

from pathlib import Path

import pytest
from torch import nn

from paretorch.reports.compare import run_study
from paretorch.studies import catalog, sources
from paretorch.studies.study import Study, Treatment
from paretorch.studies.treatments import check_treatments
from paretorch.training.run import Run
from paretorch.workloads import MultiTaskModel
from paretorch.workloads.base import check_head_names
from test_cli import call

STUDY = """\
from paretorch.studies.study import Study, Treatment
from paretorch.training.spec import Run

def study(scale):
    base = dict(workload="synthetic", options={"samples": 64}, epochs=1)
    runs = {"sum": Run(**base), "dual": Run(**base, method="DBMTL()")}
    return Study("mine", "Which?", tuple(Treatment(k, (v,)) for k, v in runs.items()), "sum", "sum")
"""


def test_a_treatment_that_cannot_run_is_named_before_the_first_run(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(STUDY)
    code, printed = call("study", str(tmp_path / "mine.py"), "--seeds", "1", "--out", str(tmp_path / "study"))
    assert code == 2
    assert "treatments that cannot run, so none was started" in printed
    assert "'dual': DBMTL(beta=0.9, sigma=0.0) cannot be used on features: use paretorch.Balancer" in printed
    assert not (tmp_path / "study").exists()


@pytest.mark.parametrize(
    ("run", "message"),
    [
        (Run("synthetic", method="DBMTL()"), "cannot be used on features"),
        (Run("synthetic", method="MoDo()"), "cannot be used on features"),
        (Run("synthetic", method="MGDA(", surface="parameters"), "cannot read"),
        (Run("synthetic", method="NoSuch()"), "unknown method"),
        (Run("synthetic", door={"heads": "weighted"}, method="GradDrop()"), "has no weights to give to the heads"),
        (Run("synthetic", optimizer="MTAdam", door={"every": 2}), "takes each task's gradient by itself"),
        (Run("synthetic", optimizer="MTAdam", method="MGDA()"), "balances by itself"),
        (
            Run("synthetic", optimizer="FastBacktracking", optimizer_options={}, schedule="cosine"),
            "finds its step by itself",
        ),
        (Run("synthetic", optimizer="FastBacktracking", optimizer_options={"lr": 1.0}), "unknown option"),
        (Run("synthetic", tasks=("no such",)), "unknown task"),
        (Run("synthetic", front="MT2O()", front_options={"models": 1}), "at least 2 models"),
        (Run("synthetic", front="MT2O()", method="MGDA()"), "has no effect on a front"),
        (Run("synthetic", front="MT2O()", optimizer="MTAdam"), "decides by the losses of one model"),
        (Run("synthetic", device="cuda:77"), "is not available"),
    ],
    ids=lambda value: "" if isinstance(value, Run) else value,
)
def test_names_and_options_that_exclude_each_other(run: Run, message: str) -> None:
    good = Treatment("good", (Run("synthetic", method="UPGrad()"),))
    with pytest.raises(ValueError, match=f"'bad': .*{message}"):
        check_treatments(Study("any", "?", (good, Treatment("bad", (run,))), "good", "good"))


@pytest.mark.parametrize("name", ["quickstart", "line-search", "fronts"])
def test_the_shipped_studies_can_run(name: str) -> None:
    assert catalog.__name__
    check_treatments(sources.find(name, "smoke"))


def test_what_can_run_is_run(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(STUDY.replace("DBMTL()", "MGDA()"))
    found = run_study(tmp_path / "mine.py", "smoke", 1, tmp_path / "study", jobs=1, progress=False)
    assert [t.runs for t in found.summary.results.treatments.values()] == [1, 1]


@pytest.mark.parametrize("task", ["type", "keys", "a.b", "", "training", "float", "forward", "_modules", "a."])
def test_names_that_no_head_can_have_are_refused_in_a_sentence(tmp_path: Path, task: str) -> None:
    with pytest.raises(ValueError, match=r"no task can be called .*Rename it, for example to '(.+)';") as found:
        MultiTaskModel(nn.Linear(1, 1), {task: nn.Linear(1, 1), "other": nn.Linear(1, 1)})
    better = str(found.value).partition("for example to '")[2].partition("'")[0]
    assert set(MultiTaskModel(nn.Linear(1, 1), {better: nn.Linear(1, 1)}).heads) == {better}
    with pytest.raises(KeyError):
        nn.ModuleDict({task: nn.Linear(1, 1)})
    (tmp_path / "mine.py").write_text(
        "from paretorch.workloads.synthetic import Synthetic\n"
        "from torch import nn\n"
        "class Mine(Synthetic):\n"
        f"    tasks = property(lambda self: ({task!r}, 'other'))\n"
        f"    def model(self): return nn.ModuleDict({{{task!r}: nn.Linear(1, 1)}})\n"
    )
    for command in (["train"], ["front", "--models", "2"]):
        code, printed = call(*command, str(tmp_path / "mine.py"), "--out", str(tmp_path / "run"))
        assert code == 2, printed
        assert f"no task can be called {task!r}" in printed


def test_a_column_of_such_a_name_is_refused_with_the_cure(tmp_path: Path) -> None:
    rows = "".join(f"{n},{n % 3},{n * 2}\n" for n in range(60))
    (tmp_path / "t.csv").write_text("x,type,size\n" + rows)
    workload = f"tabular(path='{tmp_path / 't.csv'}', targets=('type', 'size'))"
    code, printed = call("train", workload, "--out", str(tmp_path / "run"), "--epochs", "1")
    assert code == 2, printed
    assert "'type' cannot name a task (twice, with a dot, or torch's own): rename it" in printed


@pytest.mark.parametrize("task", ["left", "a b", "a-b", "Größe", "a/b", "1", "Type", "type_"])
def test_every_other_name_is_taken(task: str) -> None:
    check_head_names([task])
    assert set(nn.ModuleDict({task: nn.Linear(1, 1)})) == {task}
