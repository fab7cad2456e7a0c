"""A substitute for training in the tests of tuning: the result is a formula of the learning rate and the method's options.

Every method has a known optimal learning rate, and known optimal options. ``DWA`` raises at temperatures above 4; with ``SGD``
parameters become nan at learning rates above 0.01.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from paretorch.studies.study import Study, Treatment, best_of_grid, single_task
from paretorch.training.names.constructors import parse
from paretorch.training.record.result import Epoch, Result, Scores
from paretorch.training.run import Run

TASKS = ("left", "right")
EPOCHS = 3
BEST_RATE = {"Equal": 1e-2, "Static": 1e-2, "CAGrad": 3e-3, "DWA": 1e-2, "IMTLG": 1e-2}
BEST_C = 0.3
BEST_WEIGHTS = {"left": 1.5, "right": 0.5}


def study(scale: str = "smoke", methods: tuple[str, ...] = ("Equal()", "CAGrad()", "DWA()")) -> Study:
    """The single tasks, static weights as a grid, and some methods."""
    base = Run("digits", epochs=EPOCHS, optimizer_options={"lr": 1e-3})
    grid = ({"left": 1.0, "right": weight} for weight in (1.0, 0.1))
    return Study(
        name="tuned",
        question="Which, at its best?",
        treatments=(
            single_task("single task", base, TASKS),
            best_of_grid("static", (_with(base, f"Static({weights})") for weights in grid)),
            *(Treatment(parse(method).name, (_with(base, method),)) for method in methods),
        ),
        reference="static",
        baseline="single task",
    )


def _with(run: Run, method: str) -> Run:
    return Run.from_json(run.to_json() | {"method": method})


def error(run: Run) -> float:
    """How far the settings are from the best; 0 at best."""
    call = parse(run.method)
    lr = run.optimizer_options["lr"]
    assert isinstance(lr, float)
    found = abs(math.log10(lr / (BEST_RATE[call.name] if len(run.tasks) != 1 else 3e-3)))
    if call.name == "CAGrad":
        found += abs(call.named.get("c", 0.5) - BEST_C)
    if call.name == "Static":
        weights = {**(call.positional or (call.named.get("weights"),))[0]}
        total = sum(weights.values())
        found += sum(abs(2 * weights[task] / total - BEST_WEIGHTS[task]) for task in TASKS)
    return found


def train(run: Run, folder: Path, *, progress: Callable[[int, int], None]) -> None:
    """Trains a run epoch by epoch, with events and a checkpoint, or resumes it."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "started.txt").open("a") as file:
        file.write(f"{os.getpid()}\n")
    call = parse(run.method)
    if call.name == "DWA" and call.named.get("temperature", 2.0) > 4:
        raise ValueError("too hot")
    history = _so_far(folder)
    progress(len(history), run.epochs)
    for epoch in range(len(history) + 1, run.epochs + 1):
        time.sleep(float(os.environ.get("TUNED_SLEEP", "0")))
        history.append(_epoch(run, epoch))
        (folder / "events.jsonl").write_text("".join(json.dumps(_event(e)) + "\n" for e in history))
        if run.optimizer == "SGD" and float(run.optimizer_options["lr"]) > 0.01:  # type: ignore[arg-type]
            place = folder / "checkpoint" / f"epoch-{epoch}"
            place.mkdir(parents=True, exist_ok=True)
            save_file({"head.weight": torch.tensor([math.nan])}, place / "model.safetensors")
        progress(epoch, run.epochs)
    tasks = run.tasks or TASKS
    test = _scores(run, run.epochs, 1.0) if run.test else Scores({}, {})
    names = ("error", *_uncounted())
    higher, units = (
        {task: dict.fromkeys(names, False) for task in tasks},
        {task: dict.fromkeys(names, "") for task in tasks},
    )
    memory, counts = {"bytes": 1 << 20, "measures": "nothing"}, {"encoder": 1, "total": 2}
    scores = history[-1].validation
    Result(run, tuple(tasks), tuple(history), scores, test, higher, units, 1.0, memory, counts, {}).save(folder)


def _scores(run: Run, epoch: int, shift: float) -> Scores:
    tasks = run.tasks or TASKS
    noise = torch.randn(len(TASKS), generator=torch.Generator().manual_seed(run.seed)).tolist()
    values = {task: 2.0 + shift + error(run) + 0.01 * noise[TASKS.index(task)] + 0.5**epoch for task in tasks}
    return Scores(dict(values), {task: {"error": value, **_uncounted()} for task, value in values.items()})


def _uncounted() -> dict[str, float]:
    """Metrics that are no valid baseline, if a test enables them."""
    return {"none": 0.0, "never": math.nan} if "TUNED_UNCOUNTED" in os.environ else {}


def _epoch(run: Run, epoch: int) -> Epoch:
    tasks = run.tasks or TASKS
    seconds = {"training": 2.0, "evaluation": 0.5}
    return Epoch(epoch, dict.fromkeys(tasks, 1.0), _scores(run, epoch, 0.0), {}, {"solved": 1}, 10, seconds)


def _event(epoch: Epoch) -> dict[str, Any]:
    values = {name: getattr(epoch, name) for name in epoch.__dataclass_fields__}
    validation = {"losses": epoch.validation.losses, "metrics": epoch.validation.metrics}
    return {"event": "epoch"} | values | {"validation": validation}


def _so_far(folder: Path) -> list[Epoch]:
    path = folder / "events.jsonl"
    if not path.exists():
        return []
    events = [json.loads(line) for line in path.read_text().splitlines() if line.endswith("}")]
    return [Epoch.from_json({name: value for name, value in event.items() if name != "event"}) for event in events]
