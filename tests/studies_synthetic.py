"""Synthetic results for the tests of reports: a formula of the run's method, task and seed."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from paretorch.studies.folder import StudyFolder, open_folder
from paretorch.studies.study import Study, Treatment, best_of_grid, single_task
from paretorch.training.record.result import Epoch, Result, Scores
from paretorch.training.run import Run

TASKS = ("left", "ink")
EPOCHS = 4
# contribution of a method to Delta m, as a fraction; half of it through each metric
EFFECTS = {
    "Equal()": 0.0,
    "Good()": -0.10,
    "Bad()": 0.20,
    "Same()": 0.0,
    "Static(1)": 0.3,
    "Static(2)": 0.0,
    "Static(3)": 0.1,
}


def study(scale: str = "smoke") -> Study:
    """Five treatments of two tasks."""
    base = Run("synthetic", epochs=EPOCHS, options={"scale": scale})
    methods = {"good": "Good()", "bad": "Bad()", "same": "Same()"}
    return Study(
        name="synthetic",
        question="Is anything better?",
        treatments=(
            single_task("single task", base, TASKS),
            best_of_grid("tuned", (dataclasses.replace(base, method=f"Static({i})") for i in (1, 2, 3))),
            *(Treatment(label, (dataclasses.replace(base, method=method),)) for label, method in methods.items()),
        ),
        reference="tuned",
        baseline="single task",
    )


def scores(run: Run, epoch: int, split: str) -> dict[str, dict[str, float]]:
    """Accuracy about 0.8 and an error about 2, better by epoch, with noise that a seed's runs partly share."""
    shared = np.random.default_rng(run.seed).normal(size=2)
    own = np.random.default_rng([run.seed, len(run.method), ord(run.method[0]), len(split)]).normal(size=2)
    noise = 0.02 * shared + 0.004 * own
    effect = 0.0 if run.tasks else EFFECTS[run.method]
    late = 1 - 0.3 * 0.5**epoch
    accuracy = 0.8 * (1 - effect) * late * (1 + noise[0])
    error = 2.0 * (1 + effect) / late * (1 + noise[1])
    return {"left": {"accuracy": float(accuracy)}, "ink": {"error": float(error)}}


def result(run: Run) -> Result:
    """The result of a run."""
    tasks = run.tasks or TASKS

    def of(epoch: int, split: str) -> Scores:
        metrics = scores(run, epoch, split)
        return Scores(dict.fromkeys(tasks, 1.0 / epoch), {task: metrics[task] for task in tasks})

    history = tuple(
        Epoch(
            e,
            dict.fromkeys(tasks, 1.0),
            of(e, "validation"),
            {},
            {"solved": 1},
            10,
            {"training": 2.0, "evaluation": 0.5},
        )
        for e in range(1, run.epochs + 1)
    )
    higher = {"left": {"accuracy": True}, "ink": {"error": False}}
    units = {"left": {"accuracy": ""}, "ink": {"error": "levels"}}
    return Result(
        run=run,
        tasks=tuple(tasks),
        history=history,
        validation=history[-1].validation,
        test=of(run.epochs, "test"),
        higher_is_better={task: higher[task] for task in tasks},
        units={task: units[task] for task in tasks},
        seconds_per_epoch=2.0,
        peak_memory={"bytes": 1 << 20, "measures": "nothing"},
        parameters={"encoder": 1, "total": 2},
        facts={},
    )


def train(run: Run, folder: Path, *, progress: Callable[[int, int], None]) -> None:
    """Writes the result of a run, as the training function of a worker."""
    folder.mkdir(parents=True, exist_ok=True)
    progress(0, run.epochs)
    progress(run.epochs, run.epochs)
    write(result(run), folder)


def write(outcome: Result, folder: Path) -> None:
    """A finished run's result."""
    folder.mkdir(parents=True, exist_ok=True)
    outcome.save(folder)


def finished(path: Path, seeds: int, leave: Mapping[str, int] | None = None) -> StudyFolder:
    """The study's folder with all its runs finished, but for treatments in ``leave``, from that seed on."""
    folder = open_folder(path, study(), "smoke", seeds, resume=False)
    for job in folder.jobs():
        if job.run.seed < (leave or {}).get(job.label, seeds):
            write(result(job.run), job.folder)
    return folder
