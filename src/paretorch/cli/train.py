"""The commands ``paretorch train`` and ``paretorch interactive``: one run."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

from paretorch.cli import options
from paretorch.cli.console import print_line
from paretorch.cli.errors import readable_errors
from paretorch.cli.ranks import process_group
from paretorch.extras import extra

with extra("studies"):
    import typer
    from rich.console import Console


class Surface(StrEnum):
    """Tensors on which gradients are compared."""

    features = "features"
    parameters = "parameters"


class Keep(StrEnum):
    """Weights whose scores are reported, and that are exported."""

    last = "last"
    best = "best"


class Precision(StrEnum):
    """Data type of the forward pass."""

    float32 = "float32"
    bfloat16 = "bfloat16"


def train(
    workload: options.Workload,
    method: Annotated[str, typer.Option(help="The balancing method as a constructor.")] = "Equal()",
    surface: Annotated[Surface, typer.Option(help="Tensors on which gradients are compared.")] = Surface.features,
    tasks: Annotated[str, typer.Option(help=f"Tasks to train, {options.TASK_NAMES}")] = "",
    every: Annotated[
        int | None, typer.Option(help="Compute weights every EVERY steps, and reuse them between.")
    ] = None,
    scale: Annotated[str | None, typer.Option(help="'calibrated' (default) or 'paper'.")] = None,
    heads: Annotated[str | None, typer.Option(help="'own' (default) or 'weighted'; on features.")] = None,
    optimizer: options.Optimizer = "Adam(lr=0.001)",
    lr: options.LearningRate = None,
    epochs: Annotated[
        int,
        typer.Option(
            help="Passes over the training data; more than before continue a run with a constant rate or steps."
        ),
    ] = 10,
    batch_size: options.BatchSize = 256,
    seed: options.Seed = 0,
    device: Annotated[
        str, typer.Option(help="'cpu', 'cuda', 'cuda:1' or 'mps'; 'auto': cuda, else mps, else cpu.")
    ] = "auto",
    precision: Annotated[Precision, typer.Option(help="bfloat16 is autocast.")] = Precision.float32,
    deterministic: options.Deterministic = False,
    clip: Annotated[float | None, typer.Option(help="Largest norm of the gradient; longer ones are scaled.")] = None,
    schedule: options.Schedule = "constant",
    warmup: options.Warmup = 0.0,
    keep: Annotated[
        Keep, typer.Option(help="The weights to report and export: of the last epoch, or the best on validation data.")
    ] = Keep.last,
    stationarity: Annotated[
        int, typer.Option(help="Training samples for the Pareto stationarity residual of the trained model; 0: none.")
    ] = 0,
    track: options.Track = "",
    out: Annotated[Path | None, typer.Option(help="The run's folder; runs/WORKLOAD-KEY by default.")] = None,
) -> None:
    """Train one model; the same command resumes an interrupted run, and more --epochs continue it."""
    with readable_errors(), process_group():
        from paretorch.cli.run_folder import finished_note, is_finished, place_run
        from paretorch.training.distributed.ranks import Ranks
        from paretorch.training.loop import train as train_run
        from paretorch.training.monitoring.result_table import show
        from paretorch.training.run import Run
        from paretorch.training.tracking.contract import Tracking

        tracking = Tracking.named(track)
        run = Run(
            **options.workload_and_optimizer(workload, optimizer, lr),
            tasks=options.task_names(tasks),
            method=method,
            surface=surface.value,
            door=options.given(every=every, scale=scale, heads=heads),
            epochs=epochs,
            batch_size=batch_size,
            seed=seed,
            device=device,
            precision=precision.value,
            deterministic=deterministic,
            clip=clip,
            schedule=schedule,
            warmup=warmup,
            keep=keep.value,
            stationarity=stationarity,
        )
        ranks = Ranks.current()
        placed = ranks.on_first(lambda: place_run(run, out))
        console = Console(emoji=False, quiet=not ranks.is_first)
        for note in placed.notes:
            print_line(console, note)
        finished = ranks.on_first(lambda: is_finished(placed.run, placed.folder))
        result = train_run(placed.run, placed.folder, tracking=tracking)
        if ranks.is_first:
            show(result, placed.folder)
        if finished:
            print_line(console, finished_note(placed.run, placed.folder))


def interactive(
    model: Annotated[str | None, typer.Option(help="The image encoder, by number or name.")] = None,
    data: Annotated[str | None, typer.Option(help="scenes or imagenet_coco.")] = None,
    batch_size: Annotated[str | None, typer.Option(metavar="INTEGER", help="Images of each task per step.")] = None,
    optimizer: Annotated[
        str | None, typer.Option(help="1 to 8, or a name; with options that differ: 'adamw(lr=0.01)'.")
    ] = None,
    method: Annotated[
        str | None, typer.Option(help="The balancing method: 1 to 5, 'sum', or a constructor: 'CAGrad(c=0.4)'.")
    ] = None,
    epochs: Annotated[str | None, typer.Option(metavar="INTEGER", help="Passes over the training data.")] = None,
    images: Annotated[int | None, typer.Option(help="Training images of each task; there is no question.")] = None,
    root: Annotated[str, typer.Option(help="The folder of the image data.")] = "data",
    seed: options.Seed = 0,
    device: Annotated[str, typer.Option(help="'cpu', 'cuda' or 'mps'; 'auto' uses a GPU if there is one.")] = "auto",
    out: Annotated[Path | None, typer.Option(help="The run's folder; runs/interactive-KEY by default.")] = None,
    yes: Annotated[bool, typer.Option("--yes", help="No questions: the default of every option not given.")] = False,
) -> None:
    """Ask for model, data, batch size, optimizer, balancing method and epochs; train; show the result, the plot and the JSON."""
    with readable_errors():
        from paretorch.cli.interactive.menu import Answers, choose_run, train_and_show

        answers = Answers(model, data, batch_size, optimizer, method, epochs, images, root, seed, device, out, yes)
        try:
            run = choose_run(answers, Console(emoji=False))
        except EOFError:
            Console(emoji=False, stderr=True).print("\nThe input ended before the last question: nothing was started.")
            raise typer.Exit(1) from None
        except KeyboardInterrupt:
            Console(emoji=False, stderr=True).print("\nStopped before the last question: nothing was started.")
            raise typer.Exit(130) from None
        train_and_show(run, answers, Console(emoji=False))
