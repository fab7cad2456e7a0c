"""Checks of treatments before the first run."""

from __future__ import annotations

from pathlib import Path

import pytest

from command_line import call
from paretorch.reports.compare import run_study
from paretorch.studies.lookup import find_study
from paretorch.studies.study import Study, Treatment
from paretorch.studies.treatment_checks import check_treatments
from paretorch.training.run import Run

STUDY = """\
from paretorch.studies.study import Study, Treatment
from paretorch.training import Run

def study(scale):
    base = dict(workload="synthetic", options={"samples": 64}, epochs=1)
    runs = {"sum": Run(**base), "dual": Run(**base, method="DBMTL()")}
    return Study("mine", "Which?", tuple(Treatment(k, (v,)) for k, v in runs.items()), "sum", "sum")
"""


def test_study_command_names_a_treatment_that_cannot_run_before_the_first_run(tmp_path: Path) -> None:
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
        *(
            (
                Run("synthetic", method=method, surface=surface),
                r"takes 3 batches per step, and a run has one: .*Balancer",
            )
            for method in ("MoDo()", "SDMGrad(batches=3)")
            for surface in ("features", "parameters")
        ),
        (Run("synthetic", method="MoDo()", optimizer="Preconditioned"), "takes 3 batches per step"),
        (Run("synthetic", optimizer_options={"differentiable": True}), "Adam does not accept .*in-place operation"),
        (Run("synthetic", optimizer_options={"lr": float("inf")}), "Adam takes finite numbers, got lr=inf"),
        (Run("synthetic", method="MGDA(", surface="parameters"), "cannot read"),
        (Run("synthetic", method="NoSuch()"), "unknown method"),
        (Run("synthetic", door={"heads": "weighted"}, method="GradDrop()"), "has no weights to give to the heads"),
        (
            Run("synthetic", optimizer="MTAdam", door={"every": 2}),
            "uses each task's gradient without a Fork or Balancer",
        ),
        (Run("synthetic", optimizer="MTAdam", method="MGDA()"), "balances by itself"),
        (
            Run("synthetic", optimizer="FastBacktracking", optimizer_options={}, schedule="cosine"),
            "chooses its step size itself",
        ),
        (Run("synthetic", optimizer="FastBacktracking", optimizer_options={"lr": 1.0}), "unknown option"),
        *(
            (
                Run("synthetic", optimizer=name, optimizer_options={}, surface="parameters"),
                f"{name} combines the tasks by itself.*surface='parameters' has no effect",
            )
            for name in ("MTAdam", "MTAdamV2", "AdaTask", "Preconditioned", "Backtracking", "FastBacktracking")
        ),
        (Run("synthetic", tasks=("no such",)), "unknown task"),
        (Run("synthetic", front="MT2O()", front_options={"models": 1}), "at least 2 models"),
        (Run("synthetic", front="MT2O()", method="MGDA()"), "has no effect on a front"),
        (Run("synthetic", front="MT2O()", optimizer="MTAdam"), "uses the losses of a single model"),
        (Run("synthetic", device="cuda:77"), "is not available"),
    ],
    ids=lambda value: "" if isinstance(value, Run) else value,
)
def test_check_treatments_refuses_names_and_options_that_exclude_each_other(run: Run, message: str) -> None:
    good = Treatment("good", (Run("synthetic", method="UPGrad()"),))
    with pytest.raises(ValueError, match=f"'bad': .*{message}"):
        check_treatments(Study("any", "?", (good, Treatment("bad", (run,))), "good", "good"))


def test_surface_is_kept_where_it_selects_the_compared_gradients() -> None:
    runs = [
        Run("synthetic", surface="parameters"),
        Run("synthetic", surface="parameters", method="DBMTL()", optimizer="SGD"),
        Run("synthetic", method="UPGrad()", optimizer="Preconditioned"),
        Run("synthetic", method="DBMTL()", optimizer="FastBacktracking", optimizer_options={}),
    ]
    treatments = tuple(Treatment(str(place), (run,)) for place, run in enumerate(runs))
    check_treatments(Study("any", "?", treatments, "0", "0"))


@pytest.mark.parametrize(("optimizer", "surface"), [("FastBacktracking()", "features"), ("SGD(lr=0.1)", "parameters")])
def test_study_of_a_workload_names_a_surface_only_where_it_has_an_effect(optimizer: str, surface: str) -> None:
    study = find_study("digits", "smoke", {"methods": "sum, DBMTL()", "optimizer": optimizer})
    check_treatments(study)
    assert [treatment.runs[0].surface for treatment in study.treatments] == ["features", surface]


def test_surface_of_the_protocol_is_accepted_with_every_optimizer() -> None:
    check_treatments(find_study("optimizers", "paper"))


def test_run_study_trains_valid_treatments(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(STUDY.replace("DBMTL()", "MGDA()"))
    found = run_study(tmp_path / "mine.py", "smoke", 1, tmp_path / "study", jobs=1, progress=False)
    assert [t.runs for t in found.summary.results.treatments.values()] == [1, 1]
