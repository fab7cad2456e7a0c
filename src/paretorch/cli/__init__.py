"""The command line: parse, call one function, print."""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

from paretorch.cli.boundary import boundary
from paretorch.cli.front import front, pick
from paretorch.cli.image_data import data
from paretorch.cli.options import named_options
from paretorch.extras import extra

with extra("studies"):
    import typer
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

app = typer.Typer(
    name="paretorch",
    help="Train one PyTorch model on many losses: balance them, and compare fairly.",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)

START = """\
Train one PyTorch model on many losses.

  [bold]paretorch study quickstart[/bold]                which way of training is better
  [bold]paretorch train digits --method 'MGDA()'[/bold]  one run, on real digits
  [bold]paretorch front digits --models 8[/bold]         models along the trade-off, and a page to pick one
  [bold]paretorch interactive[/bold]                     a menu: model, data, batch size, optimizer, epochs
  [bold]paretorch list methods[/bold]                    also: optimizers, workloads, studies

Every command has --help, with an example."""


OPTIONS = "Options of a study that takes them"


class Surface(StrEnum):
    """Where gradients are compared."""

    features = "features"
    parameters = "parameters"


class Precision(StrEnum):
    """What the forward is computed in."""

    float32 = "float32"
    bfloat16 = "bfloat16"


@app.callback(invoke_without_command=True)
def start(context: typer.Context) -> None:
    """Train one PyTorch model on many losses: balance them, and compare fairly."""
    if context.invoked_subcommand is None:
        Console().print(START, highlight=False)


@app.command(epilog="Example: [bold]paretorch train 'digits(ink=True)' --method 'CAGrad(c=0.4)' --epochs 10[/bold]")
def train(
    workload: Annotated[
        str,
        typer.Argument(
            metavar="WORKLOAD|FILE.py",
            help="A shipped workload, an importable module or a Python file; with options: 'digits(ink=True)'.",
        ),
    ],
    method: Annotated[str, typer.Option(help="The balancing method, as its constructor.")] = "Equal()",
    surface: Annotated[Surface, typer.Option(help="Where gradients are compared.")] = Surface.features,
    tasks: Annotated[str, typer.Option(help="Tasks to train, with commas between; all by default.")] = "",
    every: Annotated[int | None, typer.Option(help="Reuse the weights for EVERY - 1 steps.")] = None,
    scale: Annotated[str | None, typer.Option(help="'calibrated' (default) or 'paper'.")] = None,
    heads: Annotated[str | None, typer.Option(help="'own' (default) or 'weighted'; on features.")] = None,
    optimizer: Annotated[
        str,
        typer.Option(help="An optimizer as its constructor, without the parameters; see `paretorch list optimizers`."),
    ] = "Adam(lr=0.001)",
    epochs: Annotated[int, typer.Option(help="Passes over the training data.")] = 10,
    batch_size: Annotated[int, typer.Option(help="Samples per step.")] = 256,
    seed: Annotated[int, typer.Option(help="Decides initial weights and data order.")] = 0,
    device: Annotated[str, typer.Option(help="'cpu', 'cuda', 'cuda:1' or 'mps'.")] = "cpu",
    precision: Annotated[Precision, typer.Option(help="bfloat16 is autocast.")] = Precision.float32,
    deterministic: Annotated[
        bool, typer.Option("--deterministic", help="Ask torch for deterministic kernels.")
    ] = False,
    clip: Annotated[float | None, typer.Option(help="Shorten longer gradients to this length.")] = None,
    schedule: Annotated[
        str, typer.Option(help="Of the learning rate: constant, cosine, 'step(0.5, 100)'.")
    ] = "constant",
    warmup: Annotated[float, typer.Option(help="Share of the steps over which the learning rate rises.")] = 0.0,
    out: Annotated[Path | None, typer.Option(help="The run's folder; runs/WORKLOAD-KEY by default.")] = None,
) -> None:
    """Train one model; the same command resumes a run that was stopped."""
    with boundary():
        from paretorch.training.loop import train as train_run
        from paretorch.training.monitoring.result_table import show
        from paretorch.training.names.constructors import parse
        from paretorch.training.run import Run

        what, how = parse(workload), parse(optimizer)
        door = {"every": every, "scale": scale, "heads": heads}
        run = Run(
            workload=what.name,
            options=named_options(what.positional, what.named, workload),
            tasks=tuple(name.strip() for name in tasks.split(",") if name.strip()),
            method=method,
            surface=surface.value,
            door={name: value for name, value in door.items() if value is not None},
            optimizer=how.name,
            optimizer_options=named_options(how.positional, how.named, optimizer),
            epochs=epochs,
            batch_size=batch_size,
            seed=seed,
            device=device,
            precision=precision.value,
            deterministic=deterministic,
            clip=clip,
            schedule=schedule,
            warmup=warmup,
        )
        folder = out or Path("runs") / f"{Path(what.name).stem}-{run.key}"
        result = train_run(run, folder)
        show(result, folder)


@app.command(epilog="Example: [bold]paretorch interactive --data scenes --optimizer adamw --epochs 3 --yes[/bold]")
def interactive(
    model: Annotated[str | None, typer.Option(help="The image encoder, by number or name.")] = None,
    data: Annotated[str | None, typer.Option(help="scenes or imagenet_coco.")] = None,
    batch_size: Annotated[str | None, typer.Option(metavar="INTEGER", help="Images of each task in a step.")] = None,
    optimizer: Annotated[
        str | None, typer.Option(help="1 to 8, or a name; with options that differ: 'adamw(lr=0.01)'.")
    ] = None,
    epochs: Annotated[str | None, typer.Option(metavar="INTEGER", help="Passes over the training data.")] = None,
    images: Annotated[int | None, typer.Option(help="Of each task to train on; not asked.")] = None,
    root: Annotated[str, typer.Option(help="The folder in which data are looked for.")] = "data",
    seed: Annotated[int, typer.Option(help="Decides initial weights and data order.")] = 0,
    device: Annotated[str, typer.Option(help="'cpu', 'cuda' or 'mps'; 'auto' takes a GPU if there is one.")] = "auto",
    out: Annotated[Path | None, typer.Option(help="The run's folder; runs/interactive-KEY by default.")] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Ask nothing: defaults for all that is not given.")] = False,
) -> None:
    """Ask for model, data, batch size, optimizer and epochs; train; show the result, the plot and the JSON."""
    with boundary():
        from paretorch.cli.interactive import Flags, asked, trained

        flags = Flags(model, data, batch_size, optimizer, epochs, images, root, seed, device, out, yes)
        try:
            run = asked(flags, Console())
        except EOFError:
            Console(stderr=True).print("\nThe input ended before the last question: nothing was started.")
            raise typer.Exit(1) from None
        except KeyboardInterrupt:
            Console(stderr=True).print("\nStopped before the last question: nothing was started.")
            raise typer.Exit(130) from None
        trained(run, flags, Console())


@app.command(epilog="Example: [bold]paretorch study quickstart --scale small --seeds 5[/bold]")
def study(
    name: Annotated[
        str, typer.Argument(metavar="NAME|FILE.py", help="A shipped study, or a Python file that has one.")
    ],
    scale: Annotated[str, typer.Option(help="'smoke' (seconds), 'small' (minutes) or 'paper'.")] = "small",
    seeds: Annotated[int, typer.Option(help="Runs of each treatment, with paired seeds.")] = 5,
    out: Annotated[Path | None, typer.Option(help="The study's folder; runs/NAME-SCALE by default.")] = None,
    jobs: Annotated[int | None, typer.Option(help="Runs at a time; one per core by default.")] = None,
    resume: Annotated[bool, typer.Option(help="Go on with a folder that holds this study.")] = True,
    tune: Annotated[
        int, typer.Option(help="Trials in which each treatment's settings are searched, on validation data; 0: none.")
    ] = 0,
    optimizers: Annotated[
        str | None, typer.Option(help="Numbers 1 to 8 or names: '1,3,adamw(lr=0.01)'.", rich_help_panel=OPTIONS)
    ] = None,
    methods: Annotated[
        str | None, typer.Option(help="Balancing methods: 'sum, MGDA()'.", rich_help_panel=OPTIONS)
    ] = None,
    baselines: Annotated[
        bool | None,
        typer.Option("--baselines", help="Add single tasks and tuned static weights.", rich_help_panel=OPTIONS),
    ] = None,
    classes: Annotated[
        int | None, typer.Option(help="Of ImageNet: 100 or 1000, a protocol each.", rich_help_panel=OPTIONS)
    ] = None,
    loss_weights: Annotated[
        str | None, typer.Option(help="A number for each task: '1,0.5'.", rich_help_panel=OPTIONS)
    ] = None,
    root: Annotated[str | None, typer.Option(help="Where the data lie.", rich_help_panel=OPTIONS)] = None,
    encoder: Annotated[str | None, typer.Option(help="The image encoder.", rich_help_panel=OPTIONS)] = None,
    encoder_weights: Annotated[
        str | None, typer.Option(help="'torchvision' or FILE: its first weights.", rich_help_panel=OPTIONS)
    ] = None,
    device: Annotated[str | None, typer.Option(help="Of all runs: 'cuda'.", rich_help_panel=OPTIONS)] = None,
) -> None:
    """Compare ways of training fairly: paired seeds, intervals, a verdict."""
    with boundary():
        import paretorch

        given = {
            "optimizers": optimizers,
            "methods": methods,
            "baselines": baselines,
            "classes": classes,
            "loss_weights": loss_weights,
            "root": root,
            "encoder": encoder,
            "encoder_weights": encoder_weights,
            "device": device,
        }
        options = {option: value for option, value in given.items() if value is not None}
        paretorch.run_study(
            name, scale=scale, seeds=seeds, out=out, jobs=jobs, resume=resume, tune=tune, options=options
        )


class Format(StrEnum):
    """What figures are written as."""

    svg = "svg"
    pdf = "pdf"
    png = "png"


@app.command(epilog="Example: [bold]paretorch report runs/quickstart-small --figures pdf[/bold]")
def report(
    folders: Annotated[
        list[Path],
        typer.Argument(metavar="DIR...", help="Studies, single runs, or folders that hold such, at any depth."),
    ],
    figures: Annotated[Format, typer.Option(help="Format of the figures beside the page.")] = Format.svg,
    reference: Annotated[
        str | None, typer.Option(help="The treatment to which all others are compared; the study's own by default.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Where to write; DIR by default, report-of-runs where there are several.")
    ] = None,
) -> None:
    """Write the page, tables and figures of finished runs; workloads have a table each."""
    with boundary():
        from paretorch.reports.report import report as write_report

        write_report(*folders, out=out, formats=(figures.value,), reference=reference).show()


@app.command("list", epilog="Example: [bold]paretorch list methods[/bold]")
def list_names(
    what: Annotated[
        str, typer.Argument(metavar="methods|optimizers|algorithms|workloads|studies", help="What to list.")
    ],
) -> None:
    """List the methods, optimizers, algorithms of fronts, workloads or studies that there are."""
    with boundary():
        from paretorch.studies.listing import LISTS
        from paretorch.training.names.constructors import pick

        table = Table(box=None, show_header=False, pad_edge=False)
        for name, about in pick("list", what, LISTS)():
            table.add_row(f"[bold]{escape(name)}[/bold]", escape(about))
        Console().print(table, highlight=False)


app.command(epilog="Example: [bold]paretorch front digits --algorithm mt2o --models 8 --epochs 20[/bold]")(front)
app.command(epilog="Example: [bold]paretorch pick runs/front 0.7,0.3 --export model.onnx[/bold]")(pick)
app.add_typer(data, name="data", no_args_is_help=True)


def main() -> None:
    """The ``paretorch`` command."""
    try:
        app()
    except KeyboardInterrupt:
        sys.exit(130)
