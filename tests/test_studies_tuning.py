"""Tuning: equal numbers of trials, validation data only, results independent of jobs and interruptions, known optima found."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import studies_tuned as synthetic
from interrupts import restore_interrupts
from paretorch.balance import Static
from paretorch.reports.analysis.summary import summarize
from paretorch.reports.compare import run_study
from paretorch.reports.figures.trade_offs import trials
from paretorch.reports.reading.load import load
from paretorch.storage.seals import SEAL, sealed
from paretorch.studies.folder import StudyFolder, open_folder, read_folder
from paretorch.studies.lookup import find_study
from paretorch.studies.runner import train_study
from paretorch.studies.study import Combine, Expected, Study, Treatment, best_of_grid, merged
from paretorch.studies.study import best_of_trials as alternatives
from paretorch.studies.trial_plan import Sampled
from paretorch.studies.tuner import SEED, Tuner
from paretorch.studies.tuning.trials import SearchResult, TrialOutcome, TuningCost, TuningResult
from paretorch.studies.weight_search import whole_runs
from paretorch.training.names.methods import find_method
from paretorch.training.record.result import Result, Scores
from paretorch.training.run import Run
from studies_progress import RecordedProgress

HERE = Path(__file__).parent
FAKE_TRAIN = "studies_tuned:train"
TRIALS = 8


pytestmark = pytest.mark.usefixtures("tests_on_worker_path")


def tune(
    path: Path, study: Study | None = None, seeds: int = 3, workers: int = 1, trials: int = TRIALS
) -> RecordedProgress:
    progress = RecordedProgress()
    folder = open_folder(path, study or synthetic.study(), "smoke", seeds, resume=True, tune=trials)
    train_study(folder, progress, workers=workers, train=FAKE_TRAIN)
    return progress


def files(path: Path) -> dict[str, str]:
    """The content of all results. The seconds of the substitute are constant, so nothing is excluded."""
    names = ("result.json", "tuning.json", "failed.json")
    found = {str(file.relative_to(path)): file.read_text() for file in path.rglob("*.json") if file.name in names}
    for name in [name for name in found if name.endswith("failed.json")]:
        found[name] = json.loads(found[name])["error"]
    return {name: text.replace(str(path), "") for name, text in found.items()}


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory) -> StudyFolder:
    path = tmp_path_factory.mktemp("tuned") / "study"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(HERE), prepend=os.pathsep)
        tune(path)
    return read_folder(path)


def searches(folder: StudyFolder) -> tuple[SearchResult, ...]:
    assert folder.tuning is not None
    return folder.tuning.searches


def test_tuning_gives_every_run_of_a_treatment_the_same_number_of_trials(
    tuned: StudyFolder,
) -> None:
    assert [(s.label, s.tasks, len(s.trials)) for s in searches(tuned)] == [
        ("single task", ("left",), TRIALS),
        ("single task", ("right",), TRIALS),
        ("static", (), TRIALS),
        ("Equal", (), TRIALS),
        ("CAGrad", (), TRIALS),
        ("DWA", (), TRIALS),
    ]


def test_tuning_trials_use_neither_the_test_set_nor_the_studys_seeds(tuned: StudyFolder) -> None:
    trials = [trial for search in searches(tuned) for trial in search.trials]
    assert {trial.run.seed for trial in trials} == {SEED}
    read = [Result.load(tuned.path / trial.folder) for trial in trials if trial.outcome is TrialOutcome.FINISHED]
    assert all(result.test == Scores({}, {}) for result in read)
    final = [Result.load(job.folder) for job in tuned.jobs()]
    assert {result.run.seed for result in final} == {0, 1, 2}
    assert all(result.test.metrics for result in final)
    everything = {path.parent for path in tuned.path.rglob("result.json")}
    assert everything == {job.folder for job in tuned.jobs()} | {tuned.path / trial.folder for trial in trials} - {
        tuned.path / trial.folder for trial in trials if trial.outcome is not TrialOutcome.FINISHED
    }


def test_tuning_trains_the_seeds_with_the_best_trial_on_validation_data(tuned: StudyFolder) -> None:
    assert tuned.untuned == synthetic.study()
    for treatment in tuned.study.treatments:
        for run, search in zip(treatment.runs, [s for s in searches(tuned) if s.label == treatment.label], strict=True):
            assert search.chosen is not None
            best = search.trials[search.chosen]
            assert best.value == min(trial.value for trial in search.trials if not math.isnan(trial.value))
            assert dataclasses.replace(best.run, seed=run.seed, test=True) == run
    grid = tuned.study.treatments[1]
    assert (grid.label, grid.combine, len(grid.runs)) == ("static", Combine.ONE, 1)
    assert "weights={" in grid.runs[0].method


def test_tuning_starts_with_own_settings_and_proposes_equal_ones_in_equal_spaces(
    tmp_path: Path,
) -> None:
    tune(tmp_path, synthetic.study(methods=("Equal()", "IMTLG()")), seeds=1, trials=7)
    left, right, static, equal, imtl = searches(read_folder(tmp_path))
    for search in (left, right, static, equal, imtl):
        assert search.trials[0].settings == {}
        assert search.trials[0].run.optimizer_options == {"lr": 1e-3}
    offered = [[trial.settings for trial in search.trials] for search in (equal, imtl, left, right)]
    assert offered[0][:5] == offered[1][:5] == offered[2][:5] == offered[3][:5]
    rates = [[trial.settings["optimizer.lr"] for trial in search.trials[1:3]] for search in (static, equal)]
    assert rates[0][0] == rates[1][0], "the learning rate is drawn first in every search space"


def test_tuning_finds_known_optima(tmp_path: Path) -> None:
    tune(tmp_path, seeds=1, workers=2, trials=30)
    for search in searches(read_folder(tmp_path)):
        best = synthetic.error(search.trials[search.chosen or 0].run)
        own = synthetic.error(search.trials[0].run)
        assert best < 0.45 * own, search.label
        assert search.chosen != 0


@pytest.mark.parametrize("seeds", [1, 3])
def test_tuning_is_independent_of_the_number_of_jobs(tuned: StudyFolder, tmp_path: Path, seeds: int) -> None:
    tune(tmp_path / "study", seeds=seeds, workers=2)
    one, two = files(tuned.path), files(tmp_path / "study")
    assert len(two) > 5 * TRIALS
    assert all(one[name] == text for name, text in two.items())
    assert seeds < 3 or one == two


INTERRUPTED = """
import sys
from pathlib import Path
sys.path.insert(0, {here!r})
from test_studies_tuning import tune
tune(Path({path!r}), workers=2)
"""


@pytest.mark.parametrize(
    ("how", "when"),
    [
        (signal.SIGKILL, 10),
        pytest.param(signal.SIGINT, 3, marks=pytest.mark.long),
        pytest.param(signal.SIGINT, 30, marks=pytest.mark.long),
        pytest.param(signal.SIGKILL, 45, marks=pytest.mark.long),
        pytest.param(signal.SIGKILL, 60, marks=pytest.mark.long),
    ],
)
def test_tuning_resumed_after_an_interruption_equals_an_uninterrupted_one(
    tuned: StudyFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: signal.Signals, when: int
) -> None:
    path = tmp_path / "study"
    script = INTERRUPTED.format(here=str(HERE), path=str(path))
    environment = os.environ | {"TUNED_SLEEP": "0.05"}
    process = subprocess.Popen(
        [sys.executable, "-c", script], env=environment, stderr=subprocess.DEVNULL, preexec_fn=restore_interrupts
    )
    deadline = time.monotonic() + 120
    while len(list(path.rglob("result.json"))) < when and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(how)
    process.wait()
    assert process.returncode != 0, "it was not interrupted"
    _wait_for_workers(path, deadline)
    assert len(list(path.rglob("result.json"))) < len(list(tuned.path.rglob("result.json")))
    tune(path)
    assert files(path) == files(tuned.path)


def _wait_for_workers(path: Path, deadline: float) -> None:
    """Waits until the workers of a killed runner have ended."""
    for file in path.rglob("started.txt"):
        for pid in file.read_text().split():
            place = Path(f"/proc/{pid}/stat")
            while place.exists() and time.monotonic() < deadline:
                time.sleep(0.01)


def test_tuning_does_not_repeat_finished_runs_and_is_kept_with_more_seeds(tmp_path: Path) -> None:
    first = tune(tmp_path, seeds=1)
    assert first.started[1] == 6 * TRIALS + 6
    assert (first.started[0], first.started[0] + first.placeholders[0]) == (2, first.started[1]), (
        "the baseline's searches come first"
    )
    assert first.placeholders == sorted(first.placeholders, reverse=True)
    assert first.placeholders[-1] == 0
    before = (tmp_path / "tuning.json").read_bytes()
    assert tune(tmp_path, seeds=1).ended == []
    more = tune(tmp_path, seeds=2)
    assert len(more.ended) == 6
    assert all(title.endswith("seed 1") for title in more.ended)
    assert (tmp_path / "tuning.json").read_bytes() == before


def test_tuning_counts_failed_trials_and_does_not_choose_them(tuned: StudyFolder) -> None:
    (search,) = [s for s in searches(tuned) if s.label == "DWA"]
    failed = [trial for trial in search.trials if trial.outcome is TrialOutcome.FAILED]
    assert failed
    assert all(math.isnan(trial.value) for trial in failed)
    assert {float(str(t.settings["method.temperature"])) > 4 for t in failed} == {True}
    assert tuned.tuning is not None
    cost = tuned.tuning.cost("DWA")
    seconds = (TRIALS - len(failed)) * synthetic.EPOCHS * 2.5
    assert cost == TuningCost(TRIALS, TRIALS, len(failed), seconds, TRIALS * synthetic.EPOCHS)
    assert tuned.tuning.cost("single task").trials == 2 * TRIALS
    assert tuned.tuning.cost("single task", "scenes") == TuningCost(0, 0, 0, 0)


def test_tuning_stops_and_counts_a_diverged_trial_once(tmp_path: Path) -> None:
    def sgd(run: Run) -> Run:
        return dataclasses.replace(run, optimizer="SGD")

    study = synthetic.study(methods=("Equal()",))
    treatments = tuple(dataclasses.replace(t, runs=tuple(map(sgd, t.runs))) for t in study.treatments)
    study = dataclasses.replace(study, treatments=treatments)
    tune(tmp_path, study, seeds=1)
    found = searches(read_folder(tmp_path))
    stopped = [trial for search in found for trial in search.trials if trial.outcome is TrialOutcome.DIVERGED]
    assert stopped
    for trial in stopped:
        assert float(str(trial.settings["optimizer.lr"])) > 0.01
        record = json.loads((tmp_path / trial.folder / "failed.json").read_text())
        assert "after epoch-1 the model's 'head.weight' contains nan" in record["error"]
        assert trial.seconds == 2.5, "the epoch that it took"
        assert len((tmp_path / trial.folder / "started.txt").read_text().split()) == 1
    (tmp_path / "tuning.json").unlink()
    assert tune(tmp_path, study, seeds=1).ended == []
    assert repr(searches(read_folder(tmp_path))) == repr(found)
    # a run of the study itself with the same parameters is not stopped: it has a result
    assert all(json.loads((job.folder / "result.json").read_text()) for job in read_folder(tmp_path).jobs())


def test_tuning_result_survives_json(tuned: StudyFolder) -> None:
    tuning = tuned.tuning
    assert tuning is not None
    back = TuningResult.from_json(json.loads(json.dumps(tuning.to_json(), allow_nan=False)))
    assert repr(back) == repr(tuning)


def test_tuning_ignores_metrics_that_are_zero_or_nan_for_the_baseline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = synthetic.study(methods=("Equal()",))
    tune(tmp_path / "without", small, seeds=1, trials=3)
    monkeypatch.setenv("TUNED_UNCOUNTED", "1")
    tune(tmp_path / "with", small, seeds=1, trials=3)
    without, uncounted = (read_folder(tmp_path / name) for name in ("without", "with"))
    assert [s.settings for s in searches(uncounted)] == [s.settings for s in searches(without)]
    assert all(job.finished for job in uncounted.jobs())


def test_tuning_searches_on_every_workload_separately(tmp_path: Path) -> None:
    def inky(run: Run) -> Run:
        return dataclasses.replace(run, options={"canvas": 12})

    one = synthetic.study(methods=("Equal()",))
    other = dataclasses.replace(
        one, treatments=tuple(dataclasses.replace(t, runs=tuple(map(inky, t.runs))) for t in one.treatments)
    )
    tune(tmp_path, merged("both", "Which?", [one, other]), seeds=1, trials=3)
    folder = read_folder(tmp_path)
    assert [(s.label, s.workload, s.tasks) for s in searches(folder)] == [
        (label, workload, tasks)
        for label, members in (("single task", (("left",), ("right",))), ("static", ((),)), ("Equal", ((),)))
        for workload in ("digits", "digits(canvas=12)")
        for tasks in members
    ]
    assert folder.study.workloads == ("digits", "digits(canvas=12)")
    assert [t.combine for t in folder.study.treatments] == [Combine.JOIN, Combine.ONE, Combine.ONE]
    assert all(job.finished for job in folder.jobs())
    assert len(folder.jobs()) == 8


def test_tuning_adds_static_weights_to_a_study_that_compares_methods(tmp_path: Path) -> None:
    treatments = tuple(t for t in synthetic.study().treatments if t.label != "static")
    without = dataclasses.replace(synthetic.study(), treatments=treatments, reference="Equal")
    folder = open_folder(tmp_path / "a", without, "smoke", 1, resume=True, tune=3)
    assert folder.study.treatments[:-1] == without.treatments
    added = folder.study.treatments[-1]
    assert (added.label, added.runs[0].method) == ("static weights, tuned", "Static({'left': 1.0, 'right': 1.0})")
    assert open_folder(tmp_path / "b", without, "smoke", 1, resume=True).study == without, (
        "without tuning nothing is added"
    )
    alone = dataclasses.replace(without, treatments=without.treatments[:2])
    assert open_folder(tmp_path / "c", alone, "smoke", 1, resume=True, tune=3).study == alone, "no methods are compared"
    taken = dataclasses.replace(without.treatments[-1], label="static weights, tuned")
    with pytest.raises(ValueError, match="has no Static method on some workload: give it another label"):
        open_folder(
            tmp_path / "d",
            dataclasses.replace(without, treatments=(*without.treatments[:2], taken)),
            "smoke",
            1,
            True,
            3,
        )


GRID = [Run("digits", method="Equal()"), Run("digits", method="CAGrad()")]
HOT = (
    *synthetic.study().treatments[:-1],
    Treatment("DWA", (Run("digits", method="DWA(temperature=5.0)", epochs=3),)),
)


def mixed(treatment: Treatment) -> Study:
    study = synthetic.study()
    return dataclasses.replace(study, treatments=(*study.treatments, treatment))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (
            lambda path: Tuner(open_folder(path, mixed(best_of_grid("grid", GRID)), "smoke", 1, True, 2)),
            "'grid': with tuning, the runs of a grid differ only in options",
        ),
        (
            lambda path: open_folder(path, synthetic.study(), "smoke", 1, True, -1),
            "tune is a number of trials, .* got -1",
        ),
        (
            lambda path: (
                open_folder(path, synthetic.study(), "smoke", 1, True, 2),
                open_folder(path, synthetic.study(), "smoke", 1, True, 3),
            ),
            "expected 'tuned' at scale 'smoke' with 3 trials as it is defined now, found 'tuned' at 'smoke' with 2 trials",
        ),
        (
            lambda path: (
                open_folder(path, synthetic.study(), "smoke", 1, True, 2),
                open_folder(path, synthetic.study(), "smoke", 1, True),
            ),
            "found 'tuned' at 'smoke' with 2 trials",
        ),
        (
            lambda path: tune(path, dataclasses.replace(synthetic.study(), baseline="DWA", treatments=HOT), trials=1),
            r"no trial of the baseline 'DWA' on digits has a result on validation data.*failed\.json",
        ),
    ],
)
def test_tuning_refuses_runs_that_cannot_be_tuned(
    tmp_path: Path, wrong: Callable[[Path], object], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        wrong(tmp_path)


def test_tuning_gives_static_weights_of_the_baselines_as_many_trials_as_the_methods(tmp_path: Path) -> None:
    study = find_study("digits", "smoke", {"methods": "sum, CAGrad()", "baselines": True})
    tuner = Tuner(open_folder(tmp_path, study, "smoke", 3, resume=True, tune=2))
    assert [(search.label, search.number) for search in tuner.searches] == [
        ("sum", 2),
        ("CAGrad", 2),
        ("single task", 2),
        ("single task", 2),
        ("static weights, tuned", 2),
    ]
    weights = tuner.searches[-1]
    assert weights.propose().method == "Static({'left': 1.0, 'right': 1.0})"
    weights.add_outcome("first", 0.0, TrialOutcome.FINISHED, 0.0)
    drawn = find_method(weights.propose().method)
    assert isinstance(drawn, Static)
    assert drawn.weights is not None
    assert sum(drawn.weights.values()) == pytest.approx(2.0)
    assert drawn.weights["left"] != drawn.weights["right"]


def test_refused_tuning_leaves_the_folder_free_for_the_corrected_study(tmp_path: Path) -> None:
    wrong = mixed(best_of_grid("grid", GRID))
    with pytest.raises(ValueError, match="'grid': with tuning"):
        open_folder(tmp_path / "study", wrong, "smoke", 1, resume=True, tune=2)
    assert not (tmp_path / "study").exists()
    corrected = open_folder(tmp_path / "study", synthetic.study(), "smoke", 1, resume=True, tune=2)
    assert corrected.study == synthetic.study()


def test_refused_tuning_of_a_study_file_writes_nothing(tmp_path: Path) -> None:
    file = tmp_path / "grids.py"
    file.write_text(
        "from paretorch.studies.study import Study, Treatment, best_of_grid\n"
        "from paretorch.training import Run\n"
        "def study(scale):\n"
        "    runs = [Run('digits'), Run('digits', method='CAGrad()')]\n"
        "    return Study('grids', '?', (Treatment('sum', (runs[0],)), best_of_grid('grid', runs)), 'sum', 'sum')\n"
    )
    with pytest.raises(ValueError, match="'grid': with tuning"):
        run_study(file, "smoke", out=tmp_path / "out", tune=2, progress=False)
    assert not (tmp_path / "out").exists()


def test_tuning_file_of_a_newer_version_is_refused(tuned: StudyFolder, tmp_path: Path) -> None:
    for name in ("study.json", "tuning.json"):
        (tmp_path / name).write_bytes((tuned.path / name).read_bytes())
    content = json.loads((tmp_path / "tuning.json").read_text()) | {"format": "paretorch study 99"}
    (tmp_path / "tuning.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"tuning\.json has the format 'paretorch study 99'.*upgrade paretorch"):
        read_folder(tmp_path)


RATES = (1e-3, 3e-3, 1e-2)


def listed_study() -> Study:
    """Three learning rates for single tasks and CAGrad, two settings at two rates for static weights, and a plain run."""
    base = Run("digits", epochs=synthetic.EPOCHS, optimizer_options={"lr": RATES[0]})

    def rates(run: Run, values: tuple[float, ...] = RATES) -> list[Run]:
        return [dataclasses.replace(run, optimizer_options={"lr": rate}) for rate in values]

    single = [run for task in synthetic.TASKS for run in rates(dataclasses.replace(base, tasks=(task,)))]
    static = [
        run
        for weights in ({"left": 1.0, "right": 1.0}, {"left": 1.5, "right": 0.5})
        for run in rates(dataclasses.replace(base, method=f"Static(weights={weights})"), RATES[1:])
    ]
    return Study(
        name="listed",
        question="Which, with three rates each?",
        treatments=(
            alternatives("single task", single),
            alternatives("CAGrad", rates(dataclasses.replace(base, method="CAGrad()"))),
            alternatives("static", static),
            Treatment("as it is", (dataclasses.replace(base, method="IMTLG()"),)),
        ),
        reference="static",
        baseline="single task",
    )


def test_listed_alternatives_are_tried_once_each_and_the_best_is_trained_on_all_seeds(tmp_path: Path) -> None:
    progress = tune(tmp_path / "study", listed_study(), seeds=3, trials=0)
    folder = read_folder(tmp_path / "study")
    assert folder.tuning is not None
    assert [(s.label, s.tasks, len(s.trials)) for s in folder.tuning.searches] == [
        ("single task", ("left",), 3),
        ("single task", ("right",), 3),
        ("CAGrad", (), 3),
        ("static", (), 4),
    ]
    chosen_runs = {t.label: t.runs for t in folder.study.treatments}
    assert [run.optimizer_options["lr"] for run in chosen_runs["single task"]] == [3e-3, 3e-3]
    assert chosen_runs["CAGrad"][0].optimizer_options == {"lr": synthetic.BEST_RATE["CAGrad"]}
    assert chosen_runs["CAGrad"][0].method == "CAGrad()"
    assert chosen_runs["static"][0].method == f"Static(weights={synthetic.BEST_WEIGHTS})"
    assert chosen_runs["static"][0].optimizer_options == {"lr": 1e-2}
    assert chosen_runs["as it is"][0].optimizer_options == {"lr": RATES[0]}
    assert all(trial.run.seed == SEED and not trial.run.test for s in folder.tuning.searches for trial in s.trials)
    final = 3 * (2 + 1 + 1 + 1)
    assert progress.started[1] == 13 + final
    results = [Result.load(job.folder) for job in folder.jobs()]
    assert len(results) == final
    assert {result.run.seed for result in results} == {0, 1, 2}


def test_report_shows_every_finished_trial_on_validation_data(tuned: StudyFolder) -> None:
    summary = summarize(load(tuned.path))
    found = {label: row.results.trials for label, row in summary.rows.items()}
    for search in searches(tuned):
        finished = [trial for trial in search.trials if trial.outcome is TrialOutcome.FINISHED]
        metrics = [Result.load(tuned.path / trial.folder).validation.metrics for trial in finished]
        if search.label == "single task":  # the chosen trial of each task, as one mark
            assert search.chosen is not None
            metrics = [Result.load(tuned.path / search.trials[search.chosen].folder).validation.metrics]
        for k, metric in enumerate(summary.results.metrics):
            if metric.task in (search.tasks or synthetic.TASKS):
                expected = [each[metric.task][metric.name] for each in metrics]
                assert found[search.label][:, k].tolist() == expected
    assert len(found["single task"]) == 1
    (figure,) = trials(summary)
    drawn = [marks.values[0] for marks in figure.panels[0].marks]
    assert [0 if each is None else len(each) for each in drawn] == [len(each) for each in found.values()]


def test_sampled_plan_has_the_trials_of_a_tuned_study(tuned: StudyFolder, tmp_path: Path) -> None:
    plain = synthetic.study()
    planned = dataclasses.replace(
        plain,
        treatments=tuple(
            Treatment(t.label, t.runs[:1] if t.label == "static" else t.runs, Combine.TUNE, plan=Sampled(TRIALS))
            for t in plain.treatments
        ),
    )
    assert [t.plan for t in Study.from_json(json.loads(json.dumps(planned.to_json()))).treatments] == [Sampled(8)] * 5
    assert [whole_runs(t, "digits") for t in planned.treatments] == [2 * TRIALS, *[TRIALS] * 4]
    tune(tmp_path / "study", planned, trials=0)
    found = [
        (s.label, s.tasks, [(t.settings, t.value) for t in s.trials]) for s in searches(read_folder(tmp_path / "study"))
    ]
    expected = [(s.label, s.tasks, [(t.settings, t.value) for t in s.trials]) for s in searches(tuned)]
    assert repr(found) == repr(expected)  # failed trials are nan
    with pytest.raises(ValueError, match="at least 1 trial, got 0"):
        Sampled(0)


@pytest.mark.long
def test_study_with_listed_alternatives_resumes_with_equal_results(tmp_path: Path) -> None:
    tune(tmp_path / "whole", listed_study(), seeds=2, trials=0, workers=2)
    tune(tmp_path / "parts", listed_study(), seeds=2, trials=0)
    for name in ("tuning.json", "trial"):
        for path in (tmp_path / "parts").rglob("*.json"):
            if path.name == name or (name == "trial" and path.parent.name.startswith("cagrad")):
                path.unlink()
    tune(tmp_path / "parts", listed_study(), seeds=2, trials=0)
    assert files(tmp_path / "parts") == files(tmp_path / "whole")


def test_listed_alternatives_that_differ_in_more_than_hyperparameters_are_refused(tmp_path: Path) -> None:
    study = listed_study()
    base = study.treatments[1].runs[0]
    mixed_runs = alternatives("CAGrad", [base, dataclasses.replace(base, batch_size=17)])
    wrong = dataclasses.replace(study, treatments=(study.treatments[0], mixed_runs, *study.treatments[2:]))
    with pytest.raises(
        ValueError, match="'CAGrad' on digits: alternatives differ in the learning rate and in declared"
    ):
        Tuner(open_folder(tmp_path, wrong, "smoke", 1, True, 0))


def test_study_with_listed_alternatives_needs_a_tuned_baseline() -> None:
    study = listed_study()
    with pytest.raises(ValueError, match="relative to the baseline 'as it is', so it is tuned too"):
        dataclasses.replace(study, baseline="as it is")


def test_tuned_study_keeps_the_expected_ranges(tmp_path: Path) -> None:
    ranges = (Expected("Equal", "left", "accuracy", 0.1, 0.2),)
    tune(tmp_path, dataclasses.replace(synthetic.study(methods=("Equal()",)), expected=ranges), seeds=1, trials=1)
    path = tmp_path / "tuning.json"
    content = json.loads(path.read_text())
    assert content["study"]["expected"] == [dataclasses.asdict(ranges[0])]
    assert read_folder(tmp_path).study.expected == ranges
    del content["study"]["expected"]  # as earlier versions wrote it
    path.write_text(json.dumps(sealed({name: value for name, value in content.items() if name != SEAL})))
    assert read_folder(tmp_path).study.expected == ranges
