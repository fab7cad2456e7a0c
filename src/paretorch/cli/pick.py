"""The command ``paretorch pick``: one model of a front."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from paretorch.cli.errors import readable_errors
from paretorch.cli.options import numbers
from paretorch.extras import extra

with extra("studies"):
    import typer
    from rich.console import Console


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
