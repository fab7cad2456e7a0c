"""Reading of the front that a run has written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from paretorch.pareto import Front, FrontAlgorithm
from paretorch.training.fronts.algorithms import find_algorithm
from paretorch.training.names.workloads import named_workload, recorded_workload
from paretorch.training.record.run_identity import foreign_file_error, read_run
from paretorch.workloads.base import Workload
from paretorch.workloads.streams import one_pass

RUN = "run"  # the fact of a front that is the digest of its run


def load_front(folder: str | Path, workload: str | None = None) -> Front:
    """The front of a run, with its models.

    Args:
        folder: of the run, as ``paretorch front`` and studies write it.
        workload: its workload, as the command line names it. A Python file is executed if it is named here, or if
            ``run.json`` names it and the user has named a file of the same content before.

    Raises:
        FileNotFoundError: there is no front.
        ValueError: it was saved from Python, or trained on a file that the user has not named, and no workload is given; or a
            file is damaged or belongs to another run.
    """
    folder = Path(folder)
    found = workload_of(folder, workload)
    if not (folder / "front.json").exists():
        raise FileNotFoundError(f"{folder} contains no finished front: the command that started it resumes it")
    started = read_run(folder)
    if started is None or not started["run"].get("front"):
        with torch.random.fork_rng():
            return Front.load(folder, found.model())
    front = Front.load(folder, template_of(found, find_algorithm(started["run"]["front"])))
    if started.get("digest") not in (None, front.facts.get(RUN)):
        raise foreign_file_error(folder / "front.json")
    return front


def workload_of(folder: Path, given: str | None = None) -> Workload:
    """The workload of a front: the one that ``given`` names, or that of its run.

    Options that are not given are those of the run, if its workload has the same name.

    Raises:
        FileNotFoundError: there is no front.
        ValueError: there is no run, as for a front that was saved from Python, or it names code that the user has not named.
    """
    started = read_run(folder)
    run = {} if started is None else started["run"]
    if given is not None:
        return named_workload(given, run if run.get("front") else None)
    if started is None and (folder / "front.json").exists():
        raise ValueError(
            f"{folder} has a front but no run.json, which names the workload of its models: it was saved from Python. "
            "Read it from Python, with Front.load(folder, template), or name its workload"
        )
    if not run.get("front"):
        content = "nothing" if started is None else f"a run of one model, by {run['method']}"
        raise FileNotFoundError(
            f"{folder} contains no front but {content}: expected a folder that `paretorch front` wrote"
        )
    return recorded_workload(run["workload"], run["options"], folder / "run.json")


def template_of(workload: Workload, algorithm: FrontAlgorithm) -> nn.Module:
    """A module with the architecture of an algorithm's members; the caller's random generators are not used."""
    with torch.random.fork_rng():
        model = workload.model()
        if algorithm.conditional:
            return algorithm.conditional_model([model] * len(workload.tasks), example_inputs(workload)).template
    return model


def example_inputs(workload: Workload, size: int = 2) -> Any:
    """Inputs of the encoder: the first ``size`` samples of the first validation stream."""
    return next(one_pass(workload.data().validation[0], size, order=None)).inputs
