"""A front that a run left, read back with its models."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from paretorch.pareto import Front, FrontAlgorithm
from paretorch.training.fronts.algorithms import find_algorithm
from paretorch.training.names.constructors import parse
from paretorch.training.names.workloads import find_workload, recorded_workload
from paretorch.training.record.claims import foreign, read_run
from paretorch.workloads.base import Workload

RUN = "run"  # the front's fact that is the digest of its run


def load_front(folder: str | Path, workload: str | None = None) -> Front:
    """The front of a run, with its models.

    Args:
        folder: of the run, as ``paretorch front`` and studies write it.
        workload: what it was trained on, as the command line names it. A Python file is executed where it is named here, or
            where ``run.json`` names it and its content is that of a file that was named before.

    Raises:
        FileNotFoundError: there is no front.
        ValueError: it was saved from Python, or trained on a file that was not named before, and no workload is given; or a file
            is damaged or of another run.
    """
    folder = Path(folder)
    made = workload_of(folder, workload)
    if not (folder / "front.json").exists():
        raise FileNotFoundError(f"{folder} holds no finished front: the command that began it finishes it")
    started = read_run(folder)
    if started is None or not started["run"].get("front"):
        with torch.random.fork_rng():
            return Front.load(folder, made.model())
    front = Front.load(folder, template_of(made, find_algorithm(started["run"]["front"])))
    if started.get("digest") not in (None, front.facts.get(RUN)):
        raise foreign(folder / "front.json")
    return front


def workload_of(folder: Path, given: str | None = None) -> Workload:
    """What a front was trained on: as ``given`` names it, or as its run says.

    Options that are not given are those of the run, where that names a workload of the same name.

    Raises:
        FileNotFoundError: there is no front.
        ValueError: its run says nothing, as of a front that was saved from Python, or names code that the user has not.
    """
    started = read_run(folder)
    run = {} if started is None else started["run"]
    if given is not None:
        call = parse(given)
        same = run.get("front") and Path(call.name).name == Path(run["workload"]).name
        return find_workload(call.name, call.named or (run["options"] if same else {}))
    if started is None and (folder / "front.json").exists():
        raise ValueError(
            f"{folder} has a front but no run.json, which says how its models are made: it was saved from Python. "
            "Read it there, with Front.load(folder, template), or name its workload"
        )
    if not run.get("front"):
        has = "nothing" if started is None else f"a run of one model, by {run['method']}"
        raise FileNotFoundError(f"{folder} holds no front but {has}: expected a folder that `paretorch front` wrote")
    return recorded_workload(run["workload"], run["options"], folder / "run.json")


def template_of(workload: Workload, algorithm: FrontAlgorithm) -> nn.Module:
    """A module of the architecture that an algorithm's members have; draws no random number of the caller's."""
    with torch.random.fork_rng():
        model = workload.model()
        if algorithm.conditional:
            return algorithm.conditional_model([model] * len(workload.tasks), example_inputs(workload)).template
    return model


def example_inputs(workload: Workload, size: int = 2) -> Any:
    """Inputs of the encoder: the first ``size`` samples of the first validation stream."""
    return next(iter(workload.data().validation[0].batches(size, order=None))).inputs
