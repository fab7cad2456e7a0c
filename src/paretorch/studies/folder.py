"""The folder of a study: ``study.json`` beside one folder per run.

::

    STUDY/study.json         the study: treatments with their runs, seeds, scale; format, versions, machine
    STUDY/RUN/               one training run (paretorch/training/record); result.json marks it as finished
    STUDY/RUN/failed.json    error and traceback of the last attempt, if it failed
    STUDY/tuning/RUN/        a trial of a tuned study
    STUDY/tuning.json        all trials, the chosen settings and the study with them (paretorch/studies/tuning/trials.py);
                             written after the last trial
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import zip_longest
from pathlib import Path
from typing import Any

import torch

from paretorch.storage import atomic
from paretorch.storage.damage import naming_damaged
from paretorch.storage.json_files import read_json, write_json
from paretorch.storage.locks import HeldLock, acquire_lock
from paretorch.storage.regular_files import TooLargeError
from paretorch.storage.seals import check_seal, sealed
from paretorch.storage.value_types import typed
from paretorch.studies.job import Job
from paretorch.studies.study import Study
from paretorch.studies.trial_plan import check_trials
from paretorch.studies.tuning.hyperparameters import check_searches, with_static_weights
from paretorch.studies.tuning.trials import TuningResult
from paretorch.training.record import machine
from paretorch.training.run import Run

FORMAT = 3  # raised when older versions of the package can no longer read the files
UNSEALED = 2  # up to this one, the files have no digest
MARK = "paretorch study "
MOST_SEEDS = 10_000  # for which reports take seconds
LONGEST = 200  # characters of a label in the name of a folder, which has 255 at most
ORIGIN = ("versions", "machine")  # objects that reports show
UNTUNED = "untuned"  # the key of the study before it was tuned, in tuning.json; earlier versions did not write it
RESTORE = "Restore it, or delete the folder and run again"


@dataclass(frozen=True)
class StudyFolder:
    """A study with its seeds, its scale and its folder.

    Args:
        path: the folder.
        study: the study to train on every seed; for a tuned study, with the chosen settings.
        scale: scale for which the study was made.
        seeds: seeds of the runs.
        tune: trials for each run of a treatment; 0: the study's own settings are used.
        tuning: the trials, after the last of them has ended.
        untuned: the study before it was tuned; None where it was not tuned.
    """

    path: Path
    study: Study
    scale: str
    seeds: tuple[int, ...]
    tune: int = 0
    tuning: TuningResult | None = None
    untuned: Study | None = None

    @property
    def has_trials(self) -> bool:
        """Whether trials decide some settings of the study."""
        return self.tune > 0 or self.study.is_tuned

    def _run_folder(self, label: str, run: Run) -> Path:
        """The folder of a run, with a readable and unique name. Equal runs of two treatments share one folder."""
        return self.path / f"{_slug(label)}-seed{run.seed}-{run.key}"

    def trial_folder(self, label: str, run: Run) -> Path:
        """The folder of a trial. Equal trials of two treatments have two folders, since their searches are independent."""
        return self.path / "tuning" / f"{_slug(label)}-{run.key}"

    def jobs(self) -> list[Job]:
        """All distinct runs, seed by seed."""
        planned = self.study.planned(self.seeds)
        return [Job(treatment.label, run, self._run_folder(treatment.label, run)) for treatment, run in planned]


def locked(path: Path) -> HeldLock:
    """A context in which no other process trains the study in a folder, which is made if necessary.

    Raises:
        BlockingIOError: another process trains it.
    """
    path.mkdir(parents=True, exist_ok=True)
    return acquire_lock(
        path / ".lock", f"another process trains the study in {path}: wait for it, or choose another folder"
    )


def open_folder(
    path: Path, study: Study, scale: str, seeds: int, resume: bool, tune: int = 0, command: str = ""
) -> StudyFolder:
    """Creates the folder of a study, or continues with an existing one.

    Args:
        path: the folder of the study.
        study: the study.
        scale: scale for which it was made.
        seeds: number of seeds S; the seeds are 0 .. S - 1.
        resume: continue if the folder already contains this study.
        tune: trials for each run of a treatment. If positive, tuned static weights are added to a study that compares
            methods without them.
        command: name or file of the study and its options, as on the command line; the study's name by default.

    Raises:
        ValueError: the folder contains another study or one of a newer version, or it contains this study and ``resume``
            is False; no seed, or above 10,000; a negative number of trials, or a grid that cannot be tuned.
    """
    _check_seeds(seeds)
    if tune < 0:
        raise ValueError(f"tune is a number of trials, at least 1, or 0 to use the study's own settings; got {tune}")
    check_trials(tune)
    study = with_static_weights(study) if tune else study
    check_searches(study, tune)
    folder = StudyFolder(path, study, scale, tuple(range(seeds)), tune)
    if (path / "study.json").exists():
        if not resume:
            raise ValueError(f"{path} already contains a study: resume it, or choose another folder")
        existing = read_folder(path)
        untuned = existing.untuned or existing.study
        if (untuned, existing.scale, existing.tune) != (study, scale, tune):
            raise ValueError(
                f"{path} contains another study: expected {study.name!r} at scale {scale!r}{_with_trials(tune)} as it is "
                f"defined now, found {untuned.name!r} at {existing.scale!r}{_with_trials(existing.tune)}"
                f"{_difference(untuned, study)}; choose another folder"
            )
        folder = replace(existing, path=path, seeds=folder.seeds)
    atomic.make_folder(path)
    content = {
        "format": f"{MARK}{FORMAT}",
        "typed": command or study.name,
        "scale": scale,
        "seeds": list(folder.seeds),
        "tune": tune,
        "study": study.to_json(),
        "versions": machine.versions(),
        "machine": machine.machine(torch.device("cpu")) | {"threads": study.threads},
    }
    write_json(path / "study.json", sealed(content), allow_nan=True)  # a run may have an infinite clip
    return folder


def _check_seeds(seeds: int) -> None:
    if not 1 <= seeds <= MOST_SEEDS:
        raise ValueError(f"a study has 1 to {MOST_SEEDS:,} seeds (3 for intervals), got {seeds:,}")


def save_tuning(folder: StudyFolder, tuning: TuningResult, study: Study) -> StudyFolder:
    """Writes ``tuning.json`` and returns the folder with ``study``, the study with the chosen settings."""
    content = {
        "format": f"{MARK}{FORMAT}",
        "tuning": tuning.to_json(),
        "study": study.to_json(),
        UNTUNED: folder.study.to_json(),
    }
    write_json(folder.path / "tuning.json", sealed(content), allow_nan=True)
    return replace(folder, study=study, tuning=tuning, untuned=folder.study)


def read_folder(path: Path) -> StudyFolder:
    """Reads the study in a folder.

    Raises:
        ValueError: no study in the folder, a damaged file, or a file of a newer version.
    """
    content = read_study_file(path / "study.json")
    with naming_damaged(path / "study.json", RESTORE):
        study, tune = Study.from_json(content["study"]), typed(content.get("tune", 0), int, "tune")
        scale, seeds = typed(content["scale"], str, "scale"), typed(content["seeds"], tuple[int, ...], "seeds")
        _check_seeds(len(seeds))
        typed({name: content.get(name) for name in ORIGIN}, Mapping[str, Mapping[str, Any] | None])
        typed(content.get("typed"), str | None, "typed")
        folder = StudyFolder(path, study, scale, seeds, tune)
    if not (path / "tuning.json").exists():
        return folder
    content = read_study_file(path / "tuning.json")
    with naming_damaged(path / "tuning.json", RESTORE):
        tuning, tuned = TuningResult.from_json(content["tuning"]), Study.from_json(content["study"])
        if UNTUNED in content and Study.from_json(content[UNTUNED]) != study:
            raise ValueError(f"it is of another study than {path / 'study.json'}")
        _check_tuned(study, tuned)
    tuned = replace(tuned, expected=study.expected)  # earlier versions did not write it
    return replace(folder, study=tuned, tuning=tuning, untuned=study)


def _check_tuned(untuned: Study, tuned: Study) -> None:
    """Checks that the tuned study has the labels and workloads of the untuned one: tuning changes settings only.

    Raises:
        ValueError: it has others.
    """
    for found, expected in zip_longest(
        ((t.label, t.workloads) for t in tuned.treatments), ((t.label, t.workloads) for t in untuned.treatments)
    ):
        if found != expected:
            raise ValueError(f"expected the treatment and workloads {expected}, got {found}")


def read_study_file(path: Path) -> dict[str, Any]:
    """Reads a JSON file of a study and checks its format.

    Raises:
        ValueError: no such file, or it is damaged, not of a study, or of a newer version.
    """
    try:
        content = read_json(path, allow_nan=True)
    except FileNotFoundError as error:
        raise ValueError(f"{path.parent} has no {path.name}: expected a folder that paretorch wrote") from error
    except TooLargeError:
        raise
    except ValueError as error:
        raise ValueError(f"{path} is not a complete JSON file ({error}): delete it and run again with resume") from None
    written = content.get("format") if isinstance(content, dict) else None
    if not isinstance(written, str) or not re.fullmatch(MARK + "[0-9]+", written):
        raise ValueError(
            f"{path} is not a study of paretorch: expected the format {MARK + str(FORMAT)!r}, got {written!r}"
        )
    if int(written.removeprefix(MARK)) > FORMAT:
        raise ValueError(f"{path} has the format {written!r}, this version reads up to {FORMAT}: upgrade paretorch")
    try:
        check_seal(content, required=int(written.removeprefix(MARK)) > UNSEALED)
    except ValueError as error:
        raise ValueError(
            f"{path} is damaged: {error}. Restore it; or delete it and repeat the command with --resume, which keeps the "
            "finished runs"
        ) from None
    return dict(content)


def _slug(label: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", label.lower()).strip("-")[:LONGEST]


def _with_trials(tune: int) -> str:
    return f" with {tune} trials" if tune else ""


def _difference(old: Study, new: Study) -> str:
    """The fields in which two studies of one name differ."""
    if old.name != new.name:
        return ""
    before, after = old.to_json(), new.to_json()
    return f" with other {', '.join(key for key in after if before.get(key) != after[key])}"
