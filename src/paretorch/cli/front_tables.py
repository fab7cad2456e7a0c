"""Tables of a front and of one of its models on a console."""

from __future__ import annotations

import math
import shlex
from pathlib import Path

from paretorch.cli.console import print_line
from paretorch.extras import extra
from paretorch.pareto.front import Front
from paretorch.reports.page.front import loading
from paretorch.training.record.result import Result

with extra("studies"):
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table


def show_front(result: Result, folder: Path, page: Path, console: Console) -> None:
    """Prints the models, the hypervolume, the path of the page, and a command that picks a model.

    Args:
        result: result of the front's run.
        folder: folder of the run.
        page: the page of the front.
        console: console to print to.
    """
    facts = result.facts["front"]
    table = Table(title=f"{len(facts['losses'])} models, losses on validation data")
    for column in ("model", *(f"weight of {task}" for task in result.tasks), *result.tasks):
        table.add_column(escape(column), justify="right")
    for member, (weights, losses) in enumerate(zip(facts["preferences"], facts["losses"], strict=True)):
        cells = [f"{loss:.4g}" if math.isfinite(loss) else "diverged" for loss in losses]
        table.add_row(str(member), *(f"{weight:.3g}" for weight in weights), *cells)
    console.print(table)
    splits = {"validation": result.validation, "test": result.test}
    volumes = {name: scores.metrics["front"]["hypervolume"] for name, scores in splits.items() if scores.metrics}
    reference = ", ".join(f"{task} {value:.4g}" for task, value in zip(result.tasks, facts["reference"], strict=True))
    values = ", ".join(f"{name} {volume:.4g}" for name, volume in volumes.items())
    print_line(console, f"Hypervolume: {values}; the reference point is {reference}.")
    for name, volume in volumes.items():
        if not volume > 0:
            print_line(
                console,
                f"The hypervolume on {name} data is zero because no model is below the reference point in every task. Train "
                "longer, or give a point above the losses with --reference.",
            )
    print_line(console, f"The page: {page}")
    print_line(
        console,
        f"One of them: paretorch pick {shlex.quote(str(folder))} {_equal_weights(len(result.tasks))} --export model.onnx",
    )


def show_pick(front: Front, member: int, folder: Path, exported: Path | None, console: Console) -> None:
    """Prints the metrics of a model, the path of its weights, and the code that loads it.

    Args:
        front: the front.
        member: index of the model.
        folder: folder of the front.
        exported: the exported file, if any.
        console: console to print to.
    """
    table = Table(title=f"model {member} of {len(front)}, on validation data")
    names = list(dict.fromkeys(name for by in front.metrics[member].values() for name in by))
    for column in ("task", "preference", "loss", *names):
        table.add_column(escape(column), justify="left" if column == "task" else "right")
    for index, task in enumerate(front.tasks):
        metrics = front.metrics[member].get(task, {})
        cells = [f"{metrics[name]:.4g}" if name in metrics else "" for name in names]
        preference, loss = float(front.preferences[member, index]), float(front.losses[member, index])
        table.add_row(escape(task), f"{preference:.3g}", f"{loss:.4g}", *cells)
    console.print(table)
    print_line(console, f"Its weights: {folder / f'model-{member:03d}.safetensors'}")
    if exported is not None:
        print_line(console, f"Exported: {exported}")
    print_line(console, f"In Python:\n\n{loading(folder, member)}")


def _equal_weights(tasks: int) -> str:
    """Almost equal weights in hundredths, with a sum of one.

    Example:
        >>> _equal_weights(3)
        '0.33,0.33,0.34'
    """
    share = 100 // tasks
    return ",".join(f"{value / 100:.2f}" for value in [*[share] * (tasks - 1), 100 - share * (tasks - 1)])
