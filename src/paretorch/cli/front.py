"""The command ``paretorch front``: a set of models along a trade-off."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from paretorch.cli import options
from paretorch.cli.console import print_line
from paretorch.cli.errors import readable_errors
from paretorch.extras import extra

with extra("studies"):
    import typer
    from rich.console import Console


def front(
    workload: options.Workload,
    algorithm: Annotated[
        str,
        typer.Option(
            help="The algorithm as a constructor: mt2o, epo, 'MT2O(transfer=None)'; see `paretorch list algorithms`."
        ),
    ] = "mt2o",
    models: Annotated[
        int | None, typer.Option(help="Number of models, with evenly spaced preferences; 10 by default.")
    ] = None,
    preferences: Annotated[
        str | None, typer.Option(help="The preference of each model: '0.9,0.1 0.5,0.5 0.1,0.9'.")
    ] = None,
    margin: Annotated[
        float | None,
        typer.Option(help="Share of an evenly spaced preference that is distributed over all tasks; 0.1 by default."),
    ] = None,
    reference: Annotated[
        str | None,
        typer.Option(
            help="Reference point of the hypervolume, a value per task; an untrained model's losses by default."
        ),
    ] = None,
    starts: Annotated[str | None, typer.Option(help="Initial weights: 'common' (default) or 'independent'.")] = None,
    execution: Annotated[
        str | None, typer.Option(help="'auto' (default), 'measured', 'loop', 'vmap', 'vmap encoder', 'vmap heads'.")
    ] = None,
    optimizer: options.Optimizer = "Adam(lr=0.001)",
    epochs: options.Epochs = 10,
    batch_size: options.BatchSize = 256,
    seed: options.Seed = 0,
    device: options.Device = "cpu",
    deterministic: options.Deterministic = False,
    schedule: options.Schedule = "constant",
    warmup: options.Warmup = 0.0,
    out: Annotated[Path | None, typer.Option(help="The front's folder; runs/front-WORKLOAD-KEY by default.")] = None,
) -> None:
    """Train a set of models along the trade-off between the tasks, and write a page to pick one from."""
    with readable_errors("The same command continues from the last checkpoint."):
        from paretorch.cli.front_tables import show_front
        from paretorch.reports.page.front import write_front_page
        from paretorch.training.fronts.loss_scales import unlike_scales_note
        from paretorch.training.fronts.options import FrontOptions
        from paretorch.training.fronts.run import train_front
        from paretorch.training.run import Run

        run = Run(
            **options.workload_and_optimizer(workload, optimizer),
            epochs=epochs,
            batch_size=batch_size,
            seed=seed,
            device=device,
            deterministic=deterministic,
            schedule=schedule,
            warmup=warmup,
            front=algorithm,
            front_options=options.changed(
                FrontOptions,
                models=models,
                preferences=None if preferences is None else [options.numbers(row) for row in preferences.split()],
                margin=margin,
                reference=None if reference is None else options.numbers(reference),
                starts=starts,
                execution=execution,
            ),
        )
        folder = out or Path("runs") / f"front-{Path(run.workload).stem}-{run.key}"
        if not (folder / "result.json").exists() and (note := unlike_scales_note(run)):
            print_line(Console(emoji=False), f"Note: {note}")
        result = train_front(run, folder)
        show_front(result, folder, write_front_page(folder), Console(emoji=False))
