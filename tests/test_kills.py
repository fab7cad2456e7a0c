"""Trainings that are killed at random instants and continued give the result of an uninterrupted one, bit for bit."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import time
from collections.abc import Iterator
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

import pytest
import torch

from paretorch.core.contract import Need
from paretorch.training.fronts.algorithms import algorithms
from paretorch.training.line_search import searches
from paretorch.training.loop import train
from paretorch.training.names.methods import methods
from paretorch.training.names.optimizers import optimizers
from paretorch.training.record.result import Result
from paretorch.training.run import Run
from training_runs import TINY

SIGNALS = (signal.SIGKILL, signal.SIGTERM)
ARGUMENTS = {
    "LogLosses": "MGDA()",
    "Momentum": "CAGrad()",
    "CRMOGM": "CAGrad()",
    "Static": "weights={'sign': 2.0, 'size': 1.0}",
}
LEFT_OUT = {"Muon", "NSGA2"}  # for matrices alone; for points, and an evolution starts again
COMMON: dict[str, Any] = {"epochs": 6, "batch_size": 20, "options": {"samples": 120}}


def _runs() -> Iterator[tuple[str, Run]]:
    """Every optimizer, line search, method and front algorithm on the small workload."""
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


RUNS = dict(sorted(_runs(), key=lambda item: item[0]))  # in one order in all processes of a parallel test run
QUICK = ("optimizer-MTAdamV2", "search-FastBacktracking", "method-NashMTL", "front-MT2O")  # with a state that is large


def _train(run: Run, folder: Path) -> None:
    torch.set_num_threads(1)
    train(run, folder, progress=None)


@pytest.fixture(scope="module")
def context() -> ForkServerContext:
    """A server that has torch loaded and no thread yet forks the processes that are killed."""
    found = multiprocessing.get_context("forkserver")
    found.set_forkserver_preload(["paretorch.training.loop", "paretorch.training.fronts.run"])
    return found


def numbers(result: Result) -> dict[str, Any]:
    """The result without times and memory."""
    values = result.to_json()
    del values["seconds_per_epoch"], values["peak_memory"]
    for epoch in values["history"]:
        del epoch["seconds"]
    return values


def killed_and_continued(
    context: ForkServerContext, run: Run, folder: Path, whole: float, kills: int, seed: int
) -> int:
    """Kills a training at random instants, at most ``kills`` times, until it is finished; returns the number of kills."""
    draws, killed = random.Random(seed), 0
    while not (folder / "result.json").exists():
        process = context.Process(target=_train, args=(run, folder))
        process.start()
        if killed < kills:
            time.sleep(draws.uniform(0, 0.8 * whole))
            if process.is_alive():
                assert process.pid is not None
                os.kill(process.pid, draws.choice(SIGNALS))
        process.join()
        killed += process.exitcode != 0
        assert process.exitcode in (0, *(-number for number in SIGNALS))
    return killed


def check_kills(context: ForkServerContext, run: Run, tmp_path: Path, kills: int, seed: int) -> int:
    began = time.perf_counter()
    uninterrupted = numbers(train(run, tmp_path / "uninterrupted", progress=None))
    whole = time.perf_counter() - began
    folder = tmp_path / "killed"
    count = killed_and_continued(context, run, folder, whole, kills, seed)
    assert numbers(Result.load(folder)) == uninterrupted
    assert numbers(train(run, folder, progress=None)) == uninterrupted, "a finished training is not repeated"
    return count


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", QUICK)
def test_killed_training_equals_uninterrupted_training(name: str, context: ForkServerContext, tmp_path: Path) -> None:
    check_kills(context, RUNS[name], tmp_path, kills=3, seed=1)


@pytest.mark.long
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", RUNS)
def test_killed_training_of_every_kind_equals_uninterrupted_training(
    name: str, context: ForkServerContext, tmp_path: Path
) -> None:
    check_kills(context, RUNS[name], tmp_path, kills=4, seed=2)
