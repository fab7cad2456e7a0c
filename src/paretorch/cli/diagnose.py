"""The command ``paretorch diagnose``: what the gradients of a workload's tasks are like, and what follows from it."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from paretorch.cli import options
from paretorch.cli.console import print_line
from paretorch.cli.errors import readable_errors
from paretorch.extras import extra

if TYPE_CHECKING:
    from paretorch.diagnosis.results import Diagnosis

with extra("studies"):
    import typer
    from rich.console import Console


def diagnose(
    workload: options.Workload,
    tasks: Annotated[str, typer.Option(help=f"Tasks to diagnose, {options.TASK_NAMES}")] = "",
    batches: Annotated[int, typer.Option(help="Batches that are measured.")] = 24,
    warmup: Annotated[int, typer.Option(help="Steps of training before the second measurement; 0: none.")] = 100,
    seconds: Annotated[
        float | None,
        typer.Option(help="Longest time of that training; a shorter one has other numbers. No limit by default."),
    ] = None,
    optimizer: options.Optimizer = "Adam(lr=0.001)",
    batch_size: options.BatchSize = 64,
    seed: options.Seed = 0,
    device: options.Device = "cpu",
    out: Annotated[
        Path | None, typer.Option(help="Folder for diagnosis.html and diagnosis.json; none is written without it.")
    ] = None,
) -> None:
    """Measure the tasks' gradients: scales, conflicts, noise; and recommend how to train. Nothing is trained for good."""
    with readable_errors("Nothing was written."):
        from paretorch.core.option_checks import check_whole
        from paretorch.diagnosis.intervals import FEWEST
        from paretorch.diagnosis.workload import diagnose_workload
        from paretorch.training.run import Run

        run = Run(
            **options.workload_and_optimizer(workload, optimizer),
            tasks=options.task_names(tasks),
            batch_size=batch_size,
            seed=seed,
            device=device,
        )
        if out is not None:
            from paretorch.reports.page.diagnosis import check_target

            check_target(out)  # before minutes of measurements
        check_whole("--batches", batches, least=FEWEST)
        check_whole("--warmup", warmup, least=0)
        limit = math.inf if seconds is None else seconds
        found = diagnose_workload(run, measured=batches, warmup=warmup, seconds=limit)
        console = Console(emoji=False)
        show(found, console)
        if out is not None:
            from paretorch.reports.page.diagnosis import write_diagnosis

            print_line(console, f"The page: {write_diagnosis(found, out, workload)}")


def show(found: Diagnosis, console: Console) -> None:
    """Prints tables, problems and recommendations; the most important comes last, where the terminal stops.

    Args:
        found: the diagnosis.
        console: console to print to.
    """
    from paretorch.diagnosis.tables import recommendation_lines, summary_lines
    from paretorch.reports.page.diagnosis import tables_of

    for table in tables_of(found):
        console.print(table.terminal(console.width))
        console.print()
    for note in (*found.notes, "", *summary_lines(found), ""):
        console.print(note, markup=False, highlight=False)
    for line, style in recommendation_lines(found):
        console.print(line, style=style, markup=False, highlight=False)
