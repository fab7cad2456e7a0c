"""Training of runs on several ranks of this machine. Imported by the spawned processes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from paretorch.training import Run, train
from paretorch.training.record.result import Result

FILE = str(Path(__file__).parent / "ranks_workload.py")


def run_of(changes: Mapping[str, Any]) -> Run:
    """A run of the workload for ranks: three epochs of batches of five samples, of which two ranks have two and three."""
    return Run(**{"workload": FILE, "epochs": 3, "batch_size": 5, "seed": 4, "method": "MGDA()", **changes})


def numbers(result: Result) -> torch.Tensor:
    """All losses, weights and scores of a result."""
    values: list[float] = []
    for epoch in result.history:
        values += [epoch.samples, *epoch.losses.values(), *epoch.weights.values()]
    for scores in (*(epoch.validation for epoch in result.history), result.validation, result.test):
        values += [scores.losses[task] for task in result.tasks]
        values += [value for task in result.tasks for value in scores.metrics[task].values()]
    return torch.tensor(values, dtype=torch.float64)


def trained(rank: int, folder: str, cases: Mapping[str, Mapping[str, Any]]) -> dict[str, torch.Tensor]:
    """The numbers of each case; all ranks together train it in one folder."""
    del rank
    found = {}
    for name, changes in cases.items():
        found[name] = numbers(train(run_of(changes), Path(folder) / name, progress=None))
    return found


def raised(rank: int, folder: str, cases: Mapping[str, Mapping[str, Any]]) -> dict[str, list[str]]:
    """The error of each case on this rank, by its type and message."""
    del rank
    found = {}
    for name, changes in cases.items():
        try:
            train(run_of(changes), Path(folder) / name, progress=None)
        except Exception as error:
            found[name] = [type(error).__name__, str(error)]
    return found
