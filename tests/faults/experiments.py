"""Trainings of every kind, studies, tunings, searches of weights and packings, and the numbers in their folders."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from faults.processes import PROGRESS
from faults.worker_training import FAULTS
from paretorch.core.contract import Need
from paretorch.studies.folder import locked, open_folder
from paretorch.studies.job import Job
from paretorch.studies.runner import train_study
from paretorch.studies.study import Study, Treatment, single_task
from paretorch.studies.weights_folder import WeightsOptions, find_weights_in
from paretorch.training.fronts.algorithms import algorithms
from paretorch.training.line_search import searches
from paretorch.training.loop import train
from paretorch.training.names.methods import methods
from paretorch.training.names.optimizers import optimizers
from paretorch.training.record.result import Result
from paretorch.training.record.run_identity import verified_result
from paretorch.training.run import Run
from paretorch.workloads.imagenet_coco import ImagenetCoco
from paretorch.workloads.packs import writing as pack_writing
from studies_progress import RecordedProgress
from training_runs import TINY

ARGUMENTS = {
    "LogLosses": "MGDA()",
    "Momentum": "CAGrad()",
    "CRMOGM": "CAGrad()",
    "Static": "weights={'sign': 2.0, 'size': 1.0}",
}
LEFT_OUT = {"Muon", "NSGA2"}  # for matrices alone; for points, and an evolution starts again
COMMON: dict[str, Any] = {"epochs": 6, "batch_size": 20, "options": {"samples": 120}}
OPTIONS: dict[str, dict[str, Any]] = {
    "best": {"keep": "best"},
    "schedule": {"schedule": "cosine", "warmup": 0.2, "clip": 1.0},
    "bfloat16": {"precision": "bfloat16"},
    "streams": {"surface": "parameters", "options": {"samples": 120, "own_inputs": True, "missing": True}},
    "single": {"tasks": ("sign",)},
}


@dataclass(frozen=True)
class Experiment:
    """What a process does in a folder.

    Args:
        start: begins or continues it in a folder.
        numbers: what is equal however often it was interrupted, from the folder of a finished one.
    """

    start: Callable[[Path], None]
    numbers: Callable[[Path], Any]


class RunsFailedError(Exception):
    """Runs of a study failed."""


def _runs() -> Iterator[tuple[str, Run]]:
    """Every optimizer, line search, method and front algorithm, and the options with a state, on the small workload."""
    for name in optimizers().keys() - LEFT_OUT:
        yield f"optimizer-{name}", Run(TINY, method="Equal()", optimizer=name, optimizer_options={"lr": 1e-3}, **COMMON)
    for name in searches():
        yield f"search-{name}", Run(TINY, optimizer=name, optimizer_options={}, method="MGDA()", **COMMON)
    for name, method in methods().items():
        if method.batches > 1:
            continue
        text = f"{name}({ARGUMENTS.get(name, '')})"
        surface = "features" if method.features else "parameters"
        yield f"method-{name}", Run(TINY, method=text, surface=surface, optimizer="Adam", **COMMON)
        if method.needs & (Need.GRAMIAN | Need.JACOBIAN) and surface == "features":
            yield f"method-{name}-parameters", Run(TINY, method=text, surface="parameters", optimizer="Adam", **COMMON)
    for name in algorithms().keys() - LEFT_OUT:
        yield f"front-{name}", Run(TINY, front=f"{name}()", optimizer="Adam", **COMMON)
    for name, options in OPTIONS.items():
        yield f"option-{name}", Run(**{"workload": TINY, "method": "Equal()", "optimizer": "Adam", **COMMON, **options})


RUNS = dict(sorted(_runs(), key=lambda item: item[0]))  # in one order in all processes of a parallel test run
BASE = Run(TINY, epochs=4, batch_size=20)
STUDY = Study(
    "killed",
    "Which?",
    (
        single_task("single", BASE, ("sign", "size")),
        Treatment("static", (replace(BASE, method="Static({'sign': 1.0, 'size': 1.0})"),)),
        Treatment("GradDrop", (replace(BASE, method="GradDrop()"),)),
    ),
    reference="static",
    baseline="single",
)


def _train(run: Run, folder: Path) -> None:
    train(run, folder, progress=None)


class _CountedProgress(RecordedProgress):
    """Each call is an operation at which the process may fail.

    Args:
        folder: of the study.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = str(folder)

    def advance(self, job: Job, epochs: int, seconds: float) -> None:
        sys.audit(PROGRESS, self.folder)

    def finish(self, job: Job, error: str | None, seconds: float = 0.0) -> None:
        sys.audit(PROGRESS, self.folder)


def _train_study(tune: int, workers: int, faults: Path, folder: Path) -> None:
    tests = str(Path(__file__).parents[1])
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [tests, os.environ.get("PYTHONPATH")]))
    os.environ[FAULTS] = str(faults)
    with locked(folder):
        opened = open_folder(folder, STUDY, "smoke", 1, resume=True, tune=tune)
        failures = train_study(opened, _CountedProgress(folder), workers=workers, train="faults.worker_training:train")
    if failures:
        raise RunsFailedError("; ".join(failure.error for failure in failures))


def _train_alone(folder: Path) -> None:
    """Trains the runs of the study one after the other, in one process."""
    for job in open_folder(folder, STUDY, "smoke", 1, resume=True).jobs():
        train(job.run, job.folder, progress=None)


def _pack(root: Path, folder: Path) -> None:
    pack_writing.CHUNK = 2
    small: dict[str, Any] = {"size": 32, "classes": 3, "train": 24, "validation": 9, "test": 6, "workers": 0}
    ImagenetCoco(**{"root": str(root), **small}).packed(folder)


def plain_numbers(result: Result) -> dict[str, Any]:
    """A result without times and memory."""
    values = result.to_json()
    del values["seconds_per_epoch"], values["peak_memory"]
    for epoch in values["history"]:
        del epoch["seconds"]
    return values


def _run_numbers(folder: Path) -> Any:
    """The result, and the bytes of all tensors: models, states of optimizers and methods, random numbers."""
    tensors = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*.safetensors")}
    assert tensors
    return plain_numbers(verified_result(folder)), tensors


def _study_numbers(folder: Path) -> Any:
    found: dict[str, Any] = {
        str(path.parent.relative_to(folder)): _run_numbers(path.parent) for path in folder.rglob("result.json")
    }
    if (folder / "tuning.json").exists():
        tuning = json.loads((folder / "tuning.json").read_text())
        for trial in (trial for search in tuning["tuning"]["searches"] for trial in search["trials"]):
            del trial["seconds"]
        found["tuning"] = {"tuning": tuning["tuning"], "study": tuning["study"]}
    assert not list(folder.rglob("failed.json"))
    return found


def _pack_numbers(folder: Path) -> Any:
    paths = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != ".lock"]
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def _find_weights(run: Run, how: WeightsOptions, folder: Path) -> None:
    find_weights_in(folder, run, how)


def _weights_numbers(folder: Path) -> Any:
    assert not (folder / "checkpoint").exists()
    return (folder / "weights.json").read_bytes()


def weights_experiment(method: str, members: int | None, **options: Any) -> Experiment:
    """A search of static weights.

    Args:
        method: of the balanced run.
        members: of the population; None: there is none.
        **options: of the run.
    """
    run = Run(**{"workload": TINY, "method": method, "optimizer": "Adam", **COMMON, "surface": "parameters", **options})
    how = WeightsOptions(share=1.0, members=members, rounds=3)
    return Experiment(partial(_find_weights, run, how), _weights_numbers)


def run_experiment(run: Run) -> Experiment:
    """The training of a run or a front."""
    return Experiment(partial(_train, run), _run_numbers)


def study_experiment(faults: Path, tune: int = 0, workers: int = 1) -> Experiment:
    """A study.

    Args:
        faults: the folder of :mod:`faults.worker_training`; made if necessary.
        tune: trials for each run of a treatment.
        workers: processes.
    """
    faults.mkdir(parents=True, exist_ok=True)
    return Experiment(partial(_train_study, tune, workers, faults), _study_numbers)


RUNS_ALONE = Experiment(_train_alone, _study_numbers)  # has the numbers of the study, and no workers


def pack_experiment(root: Path) -> Experiment:
    """The packing of small versions of ImageNet and COCO in ``root``."""
    return Experiment(partial(_pack, root), _pack_numbers)
