"""A tuned study with real training: results are independent of jobs and interruptions."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from paretorch.storage.seals import SEAL
from paretorch.studies.folder import open_folder, read_folder
from paretorch.studies.job import Job
from paretorch.studies.progress import ConsoleProgress
from paretorch.studies.runner import train_study
from paretorch.studies.study import Study, Treatment, single_task
from paretorch.training.record.result import Result
from paretorch.training.run import Run
from training_runs import TINY

BASE = Run(TINY, epochs=2, batch_size=8)
STUDY = Study(
    "real",
    "Which?",
    (
        single_task("single", BASE, ("sign", "size")),
        Treatment("static", (replace(BASE, method="Static({'sign': 1.0, 'size': 1.0})"),)),
        Treatment("GradDrop", (replace(BASE, method="GradDrop()"),)),
    ),
    reference="static",
    baseline="single",
)


class InterruptedProgress(ConsoleProgress):
    """Raises KeyboardInterrupt when a number of runs have ended."""

    def __init__(self, after: int) -> None:
        super().__init__()
        self.after = after

    def finish(self, job: Job, error: str | None, seconds: float = 0.0) -> None:
        super().finish(job, error, seconds)
        if self.ended == self.after:
            raise KeyboardInterrupt


def results_without_times(path: Path) -> dict[str, Any]:
    """All results without seconds and memory, and without the digest, which covers the seconds."""
    results: dict[str, Any] = {}
    for file in path.rglob("result.json"):
        values = Result.load(file.parent).to_json()
        for name in ("seconds_per_epoch", "peak_memory", "facts"):
            del values[name]
        for epoch in values["history"]:
            del epoch["seconds"]
        results[str(file.parent.relative_to(path))] = values
    tuning = json.loads((path / "tuning.json").read_text())
    del tuning[SEAL]
    for trial in (trial for search in tuning["tuning"]["searches"] for trial in search["trials"]):
        del trial["seconds"]
    return results | {"tuning": tuning}


@pytest.mark.long
def test_tuned_training_is_independent_of_jobs_and_interruptions(tmp_path: Path) -> None:
    def train(name: str, workers: int, after: int = 0) -> None:
        folder = open_folder(tmp_path / name, STUDY, "smoke", 2, resume=True, tune=3)
        assert train_study(folder, InterruptedProgress(after) if after else ConsoleProgress(), workers=workers) == []

    train("one", 1)
    train("two", 2)
    for after in (4, 9, 2):
        with pytest.raises(KeyboardInterrupt):
            train("cut", 2, after)
    train("cut", 1)
    assert (
        results_without_times(tmp_path / "one")
        == results_without_times(tmp_path / "two")
        == results_without_times(tmp_path / "cut")
    )
    folder = read_folder(tmp_path / "one")
    assert len(results_without_times(tmp_path / "one")) == 1 + 4 * 3 + 2 * 4
    assert all(job.finished for job in folder.jobs())
