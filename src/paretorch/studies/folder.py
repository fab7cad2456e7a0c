"""A study on disk: ``study.json`` beside one folder for each run.

::

    STUDY/study.json         what was asked: treatments with their runs, seeds, scale; format, versions, machine
    STUDY/RUN/               one training run (paretorch/training/record/run_record.py); result.json in it means "finished"
    STUDY/RUN/failed.json    its last attempt raised: the error and the traceback
    STUDY/tuning/RUN/        a trial of a tuned study
    STUDY/tuning.json        every trial, what was chosen and the study that has it (paretorch/studies/tuned.py); written
                             when the last trial has ended
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import zip_longest
from pathlib import Path
from typing import Any

import torch

from paretorch.storage import atomic
from paretorch.storage.regular_files import read_regular
from paretorch.studies.study import Study
from paretorch.studies.tuning.hyperparameters import with_static_weights
from paretorch.studies.tuning.tuned import Tuning
from paretorch.training.record import machine
from paretorch.training.record.result import total_seconds
from paretorch.training.record.run_identity import check_run
from paretorch.training.record.run_record import finished_result
from paretorch.training.run import Run

FORMAT = 2  # raised when older versions of the package can no longer read what is written
MARK = "paretorch study "


@dataclass(frozen=True)
class Job:
    """A run to train, the treatment it belongs to, and its folder; of a tuning's trial, its place among them, from 1."""

    label: str
    run: Run
    folder: Path
    trial: int | None = None

    @property
    def finished(self) -> bool:
        """Whether there is a result."""
        return (self.folder / "result.json").exists()

    def check(self) -> None:
        """That its result, where there is one, is whole, of this run, and of the workload as it is now.

        Raises:
            ValueError: it is not; the message says what to do.
        """
        finished_result(self.folder, self.run)

    @property
    def seconds(self) -> float:
        """That its epochs took, evaluation included, as its result has it; 0 where that does not say."""
        result = json.loads(read_regular(self.folder / "result.json"))
        return sum(total_seconds(epoch["seconds"]) for epoch in result.get("history", ()))

    @property
    def diverged(self) -> bool:
        """Whether it is a trial that was stopped because its parameters were no numbers any more."""
        path = self.folder / "failed.json"
        if self.trial is None or not path.exists():
            return False
        found = json.loads(read_regular(path))
        check_run(path, found["run"], self.run)
        return bool(found.get("diverged"))

    @property
    def title(self) -> str:
        """How progress names it."""
        tasks = f" ({', '.join(self.run.tasks)})" if self.run.tasks else ""
        return f"{self.label}{tasks}, " + (f"seed {self.run.seed}" if self.trial is None else f"trial {self.trial}")


@dataclass(frozen=True)
class StudyFolder:
    """A study, its seeds and scale, and where it lies.

    Args:
        path: its folder.
        study: what is trained with every seed: where the study is tuned, with what was chosen.
        scale: that it was made for.
        seeds: of its runs.
        tune: trials for each run of a treatment; 0: the study's own settings are used.
        tuning: the trials, once the last of them has ended.
        asked: the study before it was tuned; None where it is not.
    """

    path: Path
    study: Study
    scale: str
    seeds: tuple[int, ...]
    tune: int = 0
    tuning: Tuning | None = None
    asked: Study | None = None

    def place(self, run: Run) -> Path:
        """The folder of a run: readable, and unique through the run's key. Equal runs of two treatments share one."""
        return self._place(next(t.label for t in self.study.treatments if run in t.seeded(run.seed)), run)

    def _place(self, label: str, run: Run) -> Path:
        return self.path / f"{_slug(label)}-seed{run.seed}-{run.key}"

    def trial_place(self, label: str, run: Run) -> Path:
        """The folder of a trial. Equal trials of two treatments share none, as their searches do not see each other."""
        return self.path / "tuning" / f"{_slug(label)}-{run.key}"

    def jobs(self) -> list[Job]:
        """Every run once, seed by seed."""
        planned = self.study.planned(self.seeds)
        return [Job(treatment.label, run, self._place(treatment.label, run)) for treatment, run in planned]


def open_folder(
    path: Path, study: Study, scale: str, seeds: int, resume: bool, tune: int = 0, typed: str = ""
) -> StudyFolder:
    """Makes the folder, or takes up the one that is there.

    Args:
        path: the study's folder.
        study: what is to run.
        scale: the scale it was made for.
        seeds: how many; seed numbers are 0 .. seeds - 1.
        resume: go on with a folder that holds this study already.
        tune: trials for each run of a treatment; with them, tuned static weights join a study that compares methods.
        typed: the study's name or file and its options, as one types them; the name by default.

    Raises:
        ValueError: the folder holds another study, or was written by a newer version, or holds this one and ``resume``
            is off; fewer than one seed, or trials below 0.
    """
    if seeds < 1:
        raise ValueError(f"a study needs at least 1 seed (3 for intervals), got {seeds}")
    if tune < 0:
        raise ValueError(f"tune is a number of trials, at least 1, or 0 to use the study's own settings; got {tune}")
    study = with_static_weights(study) if tune else study
    folder = StudyFolder(path, study, scale, tuple(range(seeds)), tune)
    if (path / "study.json").exists():
        if not resume:
            raise ValueError(f"{path} holds a study already: resume it, or choose another folder")
        there = read_folder(path)
        asked = there.asked or there.study
        if (asked, there.scale, there.tune) != (study, scale, tune):
            raise ValueError(
                f"{path} holds another study: expected {study.name!r} at scale {scale!r}{_trials(tune)} as it is defined now, "
                f"found {asked.name!r} at {there.scale!r}{_trials(there.tune)}{_difference(asked, study)}; choose another folder"
            )
        folder = replace(there, path=path, seeds=folder.seeds)
    path.mkdir(parents=True, exist_ok=True)
    facts = {"typed": typed or study.name, "scale": scale, "seeds": list(folder.seeds), "tune": tune}
    on = machine.machine(torch.device("cpu")) | {"threads": study.threads}
    write_json(
        path / "study.json",
        {
            "format": f"{MARK}{FORMAT}",
            **facts,
            "study": study.to_json(),
            "versions": machine.versions(),
            "machine": on,
        },
    )
    return folder


def keep_tuning(folder: StudyFolder, tuning: Tuning, study: Study) -> StudyFolder:
    """Writes ``tuning.json``; returns the folder with ``study``, which has what was chosen, in place of what was asked."""
    content = {"format": f"{MARK}{FORMAT}", "tuning": tuning.to_json(), "study": study.to_json()}
    write_json(folder.path / "tuning.json", content)
    return replace(folder, study=study, tuning=tuning, asked=folder.study)


def read_folder(path: Path) -> StudyFolder:
    """The study that lies at ``path``.

    Raises:
        ValueError: no study there, a file that is not whole, or one of a newer version.
    """
    content = read_json(path / "study.json")
    with _whole(path / "study.json"):
        study, tune = Study.from_json(content["study"]), content.get("tune", 0)
        folder = StudyFolder(path, study, content["scale"], tuple(content["seeds"]), tune)
    if not (path / "tuning.json").exists():
        return folder
    found = read_json(path / "tuning.json")
    with _whole(path / "tuning.json"):
        tuning, settled = Tuning.from_json(found["tuning"]), Study.from_json(found["study"])
        _check_settled(study, settled)
    return replace(folder, study=settled, tuning=tuning, asked=study)


def _check_settled(asked: Study, settled: Study) -> None:
    """Tuning chooses settings only: labels and workloads are those that were asked for, and no file may name others.

    Raises:
        ValueError: they are not.
    """
    for there, here in zip_longest(settled.treatments, asked.treatments):
        if there is None or here is None or (there.label, there.workloads) != (here.label, here.workloads):
            found, expected = (each and (each.label, each.workloads) for each in (there, here))
            raise ValueError(f"expected the treatment and workloads {expected}, got {found}")


@contextmanager
def _whole(path: Path) -> Iterator[None]:
    """Within it a file's content is taken apart: what is not there, or of another kind, is damage."""
    try:
        yield
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise ValueError(
            f"{path} is not what paretorch wrote ({type(error).__name__}: {error}): put it back, or delete the folder and run "
            "again"
        ) from error


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object of this package's, checked for its format."""
    try:
        content = json.loads(read_regular(path).decode("utf-8"))
    except FileNotFoundError as error:
        raise ValueError(f"{path.parent} has no {path.name}: expected a folder that paretorch wrote") from error
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"{path} is not a whole JSON file ({error}): delete it and run again with resume") from error
    written = content.get("format") if isinstance(content, dict) else None
    if not isinstance(written, str) or not re.fullmatch(MARK + "[0-9]+", written):
        raise ValueError(
            f"{path} is not a study of paretorch: expected the format {MARK + str(FORMAT)!r}, got {written!r}"
        )
    if int(written.removeprefix(MARK)) > FORMAT:
        raise ValueError(f"{path} has the format {written!r}, this version reads up to {FORMAT}: upgrade paretorch")
    return dict(content)


def write_json(path: Path, content: Any) -> None:
    """Writes a JSON file as a whole or not at all."""
    atomic.write(path, json.dumps(content, indent=1).encode())


def _slug(label: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", label.lower()).strip("-")


def _trials(tune: int) -> str:
    return f" with {tune} trials" if tune else ""


def _difference(there: Study, study: Study) -> str:
    if there.name != study.name:
        return ""
    old, new = there.to_json(), study.to_json()
    return f" with other {', '.join(key for key in new if old[key] != new[key])}"
