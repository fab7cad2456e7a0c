"""What a front and a model of it look like on a console."""

from __future__ import annotations

import math
import shlex
from pathlib import Path

from paretorch.extras import extra
from paretorch.pareto.front import Front
from paretorch.reports.page.front import loading
from paretorch.training.record.result import Result

with extra("studies"):
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table


def show_front(result: Result, folder: Path, page: Path, console: Console) -> None:
    """Prints the models, the hypervolume, where the page is, and how to pick.

    Args:
        result: of the run.
        folder: of the run.
        page: that was written.
        console: where to.
    """
    said = result.facts["front"]
    table = Table(title=f"{len(said['losses'])} models, losses on validation data")
    for column in ("model", *(f"weight of {task}" for task in result.tasks), *result.tasks):
        table.add_column(escape(column), justify="right")
    for member, (weights, losses) in enumerate(zip(said["preferences"], said["losses"], strict=True)):
        shown = [f"{loss:.4g}" if math.isfinite(loss) else "diverged" for loss in losses]
        table.add_row(str(member), *(f"{weight:.3g}" for weight in weights), *shown)
    console.print(table)
    volumes = {"validation": result.validation, "test": result.test}
    told = ", ".join(
        f"{name} {scores.metrics['front']['hypervolume']:.4g}" for name, scores in volumes.items() if scores.metrics
    )
    reference = ", ".join(f"{task} {value:.4g}" for task, value in zip(result.tasks, said["reference"], strict=True))
    _say(console, f"Hypervolume: {told}; measured from {reference}.")
    for name, scores in volumes.items():
        if scores.metrics and not scores.metrics["front"]["hypervolume"] > 0:
            _say(
                console,
                f"Of {name} data the hypervolume says nothing: no model lies below that point in every task. Train longer, or "
                "give a point above the losses with --reference.",
            )
    _say(console, f"The page: {page}")
    _say(
        console,
        f"One of them: paretorch pick {shlex.quote(str(folder))} {_even(len(result.tasks))} --export model.onnx",
    )


def show_pick(front: Front, member: int, folder: Path, exported: Path | None, console: Console) -> None:
    """Prints which model it is, what it does for each task, and how to load it.

    Args:
        front: whose model.
        member: its place.
        folder: of the front.
        exported: the file that was written; None where none was.
        console: where to.
    """
    table = Table(title=f"model {member} of {len(front)}, on validation data")
    names = list(dict.fromkeys(name for by in front.metrics[member].values() for name in by))
    for column in ("task", "preference", "loss", *names):
        table.add_column(escape(column), justify="left" if column == "task" else "right")
    for place, task in enumerate(front.tasks):
        metrics = front.metrics[member].get(task, {})
        shown = [f"{metrics[name]:.4g}" if name in metrics else "" for name in names]
        preference, loss = float(front.preferences[member, place]), float(front.losses[member, place])
        table.add_row(escape(task), f"{preference:.3g}", f"{loss:.4g}", *shown)
    console.print(table)
    _say(console, f"Its weights: {folder / f'model-{member:03d}.safetensors'}")
    if exported is not None:
        _say(console, f"Exported: {exported}")
    _say(console, f"In Python:\n\n{loading(folder, member)}")


def _even(tasks: int) -> str:
    """Weights that are about equal and sum to one, in hundredths.

    Example:
        >>> _even(3)
        '0.33,0.33,0.34'
    """
    share = 100 // tasks
    return ",".join(f"{value / 100:.2f}" for value in [*[share] * (tasks - 1), 100 - share * (tasks - 1)])


def _say(console: Console, text: str) -> None:
    console.print(text, markup=False, highlight=False, soft_wrap=True)
