"""A study on disk: ``study.json`` beside one folder for each run.

::

    STUDY/study.json     what was asked: treatments with their runs, seeds, scale; format, versions, machine
    STUDY/RUN/           one training run (paretorch/training/record.py); result.json in it means "finished"
    STUDY/RUN/failed.json    its last attempt raised: the error and the traceback
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from paretorch.studies.study import Study
from paretorch.training import machine
from paretorch.training.spec import Run
from paretorch.workloads.data import atomic

FORMAT = 1  # raised when older versions of the package can no longer read what is written
MARK = "paretorch study "


@dataclass(frozen=True)
class Job:
    """A run to train, the treatment it belongs to, and its folder."""

    label: str
    run: Run
    folder: Path

    @property
    def finished(self) -> bool:
        """Whether there is a result."""
        return (self.folder / "result.json").exists()

    @property
    def title(self) -> str:
        """How progress names it."""
        tasks = f" ({', '.join(self.run.tasks)})" if self.run.tasks else ""
        return f"{self.label}{tasks}, seed {self.run.seed}"


@dataclass(frozen=True)
class StudyFolder:
    """A study, its seeds and scale, and where it lies."""

    path: Path
    study: Study
    scale: str
    seeds: tuple[int, ...]

    def place(self, run: Run) -> Path:
        """The folder of a run: readable, and unique through the run's key. Equal runs of two treatments share one."""
        label = next(t.label for t in self.study.treatments if run in t.seeded(run.seed))
        return self.path / f"{_slug(label)}-seed{run.seed}-{run.key}"

    def jobs(self) -> list[Job]:
        """Every run once, seed by seed."""
        return [Job(treatment.label, run, self.place(run)) for treatment, run in self.study.planned(self.seeds)]


def open_folder(path: Path, study: Study, scale: str, seeds: int, resume: bool) -> StudyFolder:
    """Makes the folder, or takes up the one that is there.

    Args:
        path: the study's folder.
        study: what is to run.
        scale: the scale it was made for.
        seeds: how many; seed numbers are 0 .. seeds - 1.
        resume: go on with a folder that holds this study already.

    Raises:
        ValueError: the folder holds another study, or was written by a newer version, or holds this one and ``resume``
            is off; fewer than one seed.
    """
    if seeds < 1:
        raise ValueError(f"a study needs at least 1 seed (3 for intervals), got {seeds}")
    folder = StudyFolder(path, study, scale, tuple(range(seeds)))
    if (path / "study.json").exists():
        if not resume:
            raise ValueError(f"{path} holds a study already: resume it, or choose another folder")
        there = read_folder(path)
        if (there.study, there.scale) != (study, scale):
            raise ValueError(
                f"{path} holds another study: expected {study.name!r} at scale {scale!r} as it is defined now, found "
                f"{there.study.name!r} at {there.scale!r}{_difference(there.study, study)}; choose another folder"
            )
    path.mkdir(parents=True, exist_ok=True)
    content = {"format": f"{MARK}{FORMAT}", "scale": scale, "seeds": list(folder.seeds), "study": study.to_json()}
    on = machine.machine(torch.device("cpu")) | {"threads": study.threads}
    write_json(path / "study.json", content | {"versions": machine.versions(), "machine": on})
    return folder


def read_folder(path: Path) -> StudyFolder:
    """The study that lies at ``path``.

    Raises:
        ValueError: no study there, a file that is not whole, or one of a newer version.
    """
    content = read_json(path / "study.json")
    return StudyFolder(path, Study.from_json(content["study"]), content["scale"], tuple(content["seeds"]))


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object of this package's, checked for its format."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ValueError(f"{path.parent} has no {path.name}: expected a folder that paretorch wrote") from error
    except json.JSONDecodeError as error:
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


def _difference(there: Study, study: Study) -> str:
    if there.name != study.name:
        return ""
    old, new = there.to_json(), study.to_json()
    return f" with other {', '.join(key for key in new if old[key] != new[key])}"
