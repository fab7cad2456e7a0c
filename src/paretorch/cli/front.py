"""The commands ``paretorch front`` and ``paretorch pick``: a set of models along a trade-off, and one of them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from paretorch.cli import options
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
        str | None, typer.Option(help="'auto' (default) measures; 'loop', 'vmap', 'vmap encoder', 'vmap heads'.")
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
    with readable_errors():
        from paretorch.cli.front_tables import show_front
        from paretorch.reports.page.front import write_front_page
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
                preferences=None if preferences is None else [numbers(row) for row in preferences.split()],
                margin=margin,
                reference=None if reference is None else numbers(reference),
                starts=starts,
                execution=execution,
            ),
        )
        folder = out or Path("runs") / f"front-{Path(run.workload).stem}-{run.key}"
        result = train_front(run, folder)
        show_front(result, folder, write_front_page(folder), Console())


def pick(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The folder of a front.")],
    preference: Annotated[
        str | None,
        typer.Argument(
            metavar="WEIGHTS", help="A weight for each task, with a sum of one: 0.7,0.3", show_default=False
        ),
    ] = None,
    model: Annotated[int | None, typer.Option(help="Number of the model, instead of weights.")] = None,
    export: Annotated[
        Path | None,
        typer.Option(help="File to write: FILE.onnx for a runtime, FILE.safetensors for the weights alone."),
    ] = None,
    fixed_batch: Annotated[int | None, typer.Option(help="Batch size of the ONNX model; any by default.")] = None,
    workload: Annotated[
        str | None,
        typer.Option(
            metavar="WORKLOAD|FILE.py",
            help="The workload of a front that was saved from Python, or of a file that you have not named yet.",
        ),
    ] = None,
) -> None:
    """Print which model of a front is best for a preference, and export it."""
    with readable_errors():
        from paretorch.cli.front_tables import show_pick
        from paretorch.pareto.files.export import export as write
        from paretorch.training.fronts.run import example_inputs, load_front, workload_of

        if (preference is None) == (model is None):
            raise ValueError("give either the weights of the tasks, as in 0.7,0.3, or --model and a number")
        loaded = load_front(folder, workload)
        member = loaded.choose(numbers(preference)) if preference is not None else model
        assert member is not None
        loaded.model(member)  # raises for an unknown number
        if export is not None:
            example = None
            if export.suffix == ".onnx":
                example = example_inputs(workload_of(folder, workload), fixed_batch or 2)
            write(loaded, member, export, example=example, fixed_batch=fixed_batch is not None)
        show_pick(loaded, member, folder, export, Console())


def numbers(text: str) -> list[float]:
    """Numbers that are separated by commas.

    Raises:
        ValueError: a part of the text is not a number.

    Example:
        >>> numbers("0.7,0.3")
        [0.7, 0.3]
    """
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise ValueError(f"cannot read {text!r}: expected numbers with commas between, as in 0.7,0.3") from None
