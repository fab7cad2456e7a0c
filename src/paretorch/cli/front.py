"""`paretorch front`: a set of models along a trade-off, and a page to pick from it. `paretorch pick`: one of them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from paretorch.cli.boundary import boundary
from paretorch.cli.options import named_options
from paretorch.extras import extra

with extra("studies"):
    import typer
    from rich.console import Console


def front(
    workload: Annotated[
        str,
        typer.Argument(
            metavar="WORKLOAD|FILE.py",
            help="A shipped workload, an importable module or a Python file; with options: 'digits(ink=True)'.",
        ),
    ],
    algorithm: Annotated[
        str,
        typer.Option(
            help="How, as its constructor: mt2o, epo, 'MT2O(transfer=None)'; see `paretorch list algorithms`."
        ),
    ] = "mt2o",
    models: Annotated[int | None, typer.Option(help="How many, with preferences spread evenly; 10 by default.")] = None,
    preferences: Annotated[
        str | None, typer.Option(help="Preferences of one's own, a model for each: '0.9,0.1 0.5,0.5 0.1,0.9'.")
    ] = None,
    margin: Annotated[float, typer.Option(help="Share of an even preference that is spread over all tasks.")] = 0.1,
    reference: Annotated[
        str | None,
        typer.Option(
            help="Where hypervolume is measured from, a value per task; an untrained model's losses by default."
        ),
    ] = None,
    starts: Annotated[str, typer.Option(help="Initial weights: 'common' or 'independent'.")] = "common",
    execution: Annotated[
        str, typer.Option(help="'auto' measures; 'loop', 'vmap', 'vmap encoder', 'vmap heads'.")
    ] = "auto",
    optimizer: Annotated[
        str, typer.Option(help="An optimizer as its constructor, without the parameters.")
    ] = "Adam(lr=0.001)",
    epochs: Annotated[int, typer.Option(help="Passes over the training data.")] = 10,
    batch_size: Annotated[int, typer.Option(help="Samples per step.")] = 256,
    seed: Annotated[int, typer.Option(help="Decides initial weights and data order.")] = 0,
    device: Annotated[str, typer.Option(help="'cpu', 'cuda', 'cuda:1' or 'mps'.")] = "cpu",
    deterministic: Annotated[
        bool, typer.Option("--deterministic", help="Ask torch for deterministic kernels.")
    ] = False,
    schedule: Annotated[str, typer.Option(help="Of the learning rate: 'constant' or 'cosine'.")] = "constant",
    warmup: Annotated[float, typer.Option(help="Share of the steps over which the learning rate rises.")] = 0.0,
    out: Annotated[Path | None, typer.Option(help="The front's folder; runs/front-WORKLOAD-KEY by default.")] = None,
) -> None:
    """Train a set of models along the trade-off between the tasks, and write a page to pick one from."""
    with boundary():
        from paretorch.cli.front_result import show_front
        from paretorch.reports.page.front import write_front_page
        from paretorch.training.fronts.run import train_front
        from paretorch.training.names.constructors import parse
        from paretorch.training.run import Run

        what, how = parse(workload), parse(optimizer)
        given = {
            "models": models,
            "preferences": None if preferences is None else [numbers(row) for row in preferences.split()],
            "margin": None if margin == 0.1 else margin,
            "reference": None if reference is None else numbers(reference),
            "starts": None if starts == "common" else starts,
            "execution": None if execution == "auto" else execution,
        }
        run = Run(
            workload=what.name,
            options=named_options(what.positional, what.named, workload),
            optimizer=how.name,
            optimizer_options=named_options(how.positional, how.named, optimizer),
            epochs=epochs,
            batch_size=batch_size,
            seed=seed,
            device=device,
            deterministic=deterministic,
            schedule=schedule,
            warmup=warmup,
            front=algorithm,
            front_options={name: value for name, value in given.items() if value is not None},  # type: ignore[misc]
        )
        folder = out or Path("runs") / f"front-{Path(what.name).stem}-{run.key}"
        result = train_front(run, folder)
        show_front(result, folder, write_front_page(folder), Console())


def pick(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The folder of a front.")],
    preference: Annotated[
        str | None,
        typer.Argument(
            metavar="WEIGHTS", help="How much each task matters, summing to one: 0.7,0.3", show_default=False
        ),
    ] = None,
    model: Annotated[int | None, typer.Option(help="The model of this number, instead of weights.")] = None,
    export: Annotated[
        Path | None, typer.Option(help="Write it: FILE.onnx for a runtime, FILE.safetensors for the weights alone.")
    ] = None,
    fixed_batch: Annotated[
        int | None, typer.Option(help="The ONNX model takes exactly so many samples, instead of any number.")
    ] = None,
    workload: Annotated[
        str | None,
        typer.Option(
            metavar="WORKLOAD|FILE.py",
            help="What it was trained on, where it was saved from Python, or on a file that you have not named yet.",
        ),
    ] = None,
) -> None:
    """Say which model of a front serves a preference best, and export it."""
    with boundary():
        from paretorch.cli.front_result import show_pick
        from paretorch.pareto.files.export import export as write
        from paretorch.training.fronts.run import example_inputs, load_front, workload_of

        if (preference is None) == (model is None):
            raise ValueError("give either the weights of the tasks, as in 0.7,0.3, or --model and a number")
        found = load_front(folder, workload)
        member = found.choose(numbers(preference)) if preference is not None else model
        assert member is not None
        found.model(member)  # refuses a number that there is not
        if export is not None:
            example = None
            if export.suffix == ".onnx":
                example = example_inputs(workload_of(folder, workload), fixed_batch or 2)
            write(found, member, export, example=example, fixed_batch=fixed_batch is not None)
        show_pick(found, member, folder, export, Console())


def numbers(text: str) -> list[float]:
    """Numbers with commas between.

    Raises:
        ValueError: one cannot be read.

    Example:
        >>> numbers("0.7,0.3")
        [0.7, 0.3]
    """
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise ValueError(f"cannot read {text!r}: expected numbers with commas between, as in 0.7,0.3") from None
