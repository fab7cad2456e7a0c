"""A study whose runs of a treatment are trained together: its results, its failures, and the note on its page."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from paretorch.reports.compare import run_study
from paretorch.reports.reading.load import load
from paretorch.storage.json_files import read_json
from paretorch.studies.folder import open_folder
from paretorch.studies.job import Job, grouped
from paretorch.studies.runner import train_study
from paretorch.studies.study import Study, Treatment, single_task
from paretorch.training.record.result import Result
from paretorch.training.record.together import TOGETHER
from paretorch.training.run import Run
from studies_progress import RecordedProgress
from training_runs import TINY

BASE = Run(TINY, {"dropout": 0.0}, epochs=2, batch_size=12)
TREATMENTS = (
    single_task("single", BASE, ("sign", "size")),
    Treatment("sum", (BASE,)),
    Treatment("MGDA", (replace(BASE, method="MGDA()"),)),
    Treatment("on parameters", (replace(BASE, method="MGDA()", surface="parameters"),)),
)
STUDY = Study("joint", "Which?", TREATMENTS, "sum", "single")


def trained(path: Path, study: Study, together: bool, seeds: int = 3) -> tuple[RecordedProgress, list[Job], list[str]]:
    progress = RecordedProgress()
    folder = open_folder(path, study, "smoke", seeds, resume=True)
    failures = train_study(folder, progress, workers=2, together=together)
    return progress, folder.jobs(), [failure.job.title for failure in failures]


def test_study_together_has_the_results_of_separate_runs_and_a_note(tmp_path: Path) -> None:
    progress, jobs, failed = trained(tmp_path / "together", STUDY, together=True)
    _, separate, _ = trained(tmp_path / "separate", STUDY, together=False)
    assert failed == []
    assert len(progress.ended) == len(jobs) == 15
    for job, other in zip(jobs, separate, strict=True):
        one, two = Result.load(job.folder), Result.load(other.folder)
        assert one.test.losses == pytest.approx(two.test.losses, rel=2e-3)
        assert one.facts.get(TOGETHER) == (None if job.label == "on parameters" else [0, 1, 2])
    notes = load(tmp_path / "together").plan.notes
    assert [note for note in notes if note.startswith("12 of 15 runs were trained together")]
    assert not [note for note in load(tmp_path / "separate").plan.notes if "together" in note]


def test_study_together_records_the_failure_of_one_seed(tmp_path: Path) -> None:
    # with this seed and rate, and no other, the parameters become nan
    wild = replace(BASE, optimizer="SGD", optimizer_options={"lr": 1e30})
    study = replace(STUDY, treatments=(*TREATMENTS[:2], Treatment("wild", (wild,))))
    progress, jobs, failed = trained(tmp_path, study, together=True)
    assert sorted(failed) == [f"wild, seed {seed}" for seed in range(3)]
    assert len(progress.ended) == len(jobs) == 12
    for job in jobs:
        assert job.finished == (job.label != "wild")
        if not job.finished:
            assert "NonFiniteParametersError" in read_json(job.folder / "failed.json")["error"]


def test_jobs_are_grouped_by_everything_but_the_seed(tmp_path: Path) -> None:
    folder = open_folder(tmp_path, STUDY, "smoke", 3, resume=True)
    groups = grouped([*folder.jobs(), *(Job("sum", BASE, tmp_path / f"trial-{n}", trial=n) for n in (1, 2))])
    assert [(group.label, len(group.members)) for group in groups] == [
        ("single", 3), ("single", 3), ("sum", 3), ("MGDA", 3), ("on parameters", 3), ("sum", 1), ("sum", 1),
    ]  # fmt: skip
    assert [job.run.seed for job in groups[0].members] == [0, 1, 2]


def test_study_together_refuses_what_it_cannot_train(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="leave `together` out"):
        run_study("quickstart", "smoke", 1, tmp_path, progress=False, track="tensorboard", together=True)
