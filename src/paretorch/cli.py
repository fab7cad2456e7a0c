"""The command line: parse, call one function, print."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from paretorch.workloads.extras import extra

with extra("studies"):
    import typer
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

if TYPE_CHECKING:
    from paretorch.training.result import Result

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
  [bold]paretorch list methods[/bold]                    also: optimizers, workloads, studies

Every command has --help, with an example."""


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
    out: Annotated[Path | None, typer.Option(help="The run's folder; runs/WORKLOAD-KEY by default.")] = None,
) -> None:
    """Train one model; the same command resumes a run that was stopped."""
    with boundary():
        from paretorch.training.loop import train as train_run
        from paretorch.training.names import parse
        from paretorch.training.spec import Run

        what, how = parse(workload), parse(optimizer)
        door = {"every": every, "scale": scale, "heads": heads}
        run = Run(
            workload=what.name,
            options=_named(what.positional, what.named, workload),
            tasks=tuple(name.strip() for name in tasks.split(",") if name.strip()),
            method=method,
            surface=surface.value,
            door={name: value for name, value in door.items() if value is not None},
            optimizer=how.name,
            optimizer_options=_named(how.positional, how.named, optimizer),
            epochs=epochs,
            batch_size=batch_size,
            seed=seed,
            device=device,
            precision=precision.value,
            deterministic=deterministic,
        )
        folder = out or Path("runs") / f"{Path(what.name).stem}-{run.key}"
        result = train_run(run, folder)
        _show_result(result, folder)


def _named(positional: tuple[Any, ...], named: Any, text: str) -> dict[str, Any]:
    from paretorch.training.names import Call

    if positional:
        raise ValueError(f"{text!r}: options are given by name, as in 'SGD(lr=0.1)', got {positional[0]!r} without one")
    for name, value in named.items():
        if isinstance(value, Call):
            raise ValueError(f"{text!r}, option {name!r}: expected plain values, got {value.name}(...)")
    return dict(named)


def _show_result(result: Result, folder: Path) -> None:
    table = Table(title="after the last epoch")
    for column in ("task", "metric", "validation", "test"):
        table.add_column(column, justify="left" if column in ("task", "metric") else "right")
    for task in result.tasks:
        rows = {"loss": (result.validation.losses.get(task), result.test.losses.get(task))}
        for name, higher in result.higher_is_better[task].items():
            unit = f", {result.units[task][name]}" if result.units[task][name] else ""
            values = result.validation.metrics[task][name], result.test.metrics[task][name]
            rows[f"{name}{unit} ({'higher' if higher else 'lower'} is better)"] = values
        for name, (validation, test) in rows.items():
            table.add_row(escape(task), escape(name), _number(validation), _number(test))
    console = Console()
    console.print(table)
    console.print(
        f"{result.seconds_per_epoch:.3g} seconds per epoch (median). The record is in {folder}", highlight=False
    )


def _number(value: float | None) -> str:
    return "no labels" if value is None else f"{value:.4g}"


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
) -> None:
    """Compare ways of training fairly: paired seeds, intervals, a verdict."""
    with boundary():
        import paretorch

        paretorch.run_study(name, scale=scale, seeds=seeds, out=out, jobs=jobs, resume=resume, tune=tune)


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
    what: Annotated[str, typer.Argument(metavar="methods|optimizers|workloads|studies", help="What to list.")],
) -> None:
    """List the methods, optimizers, workloads or studies that there are."""
    with boundary():
        from paretorch.training.names import pick

        lists = {"methods": _methods, "optimizers": _optimizers, "workloads": _workloads, "studies": _studies}
        table = Table(box=None, show_header=False, pad_edge=False)
        for name, about in pick("list", what, lists)():
            table.add_row(f"[bold]{escape(name)}[/bold]", escape(about))
        Console().print(table, highlight=False)


def _methods() -> list[tuple[str, str]]:
    from paretorch.training.parts import methods

    return [(_constructor(name, method), _first_line(method.__doc__)) for name, method in sorted(methods().items())]


def _constructor(name: str, method: type) -> str:
    """As one would write it, with the defaults."""
    import inspect

    parameters = inspect.signature(method).parameters.values()
    written = (p.name if p.default is p.empty else f"{p.name}={p.default!r}" for p in parameters)
    return f"{name}({', '.join(written)})"


def _optimizers() -> list[tuple[str, str]]:
    from paretorch.training.parts import optimizers

    def about(name: str, optimizer: type) -> str:
        ours = optimizer.__module__.startswith("paretorch.")
        return _first_line(optimizer.__doc__) if ours else f"torch.optim.{name}"

    return [(name, about(name, optimizer)) for name, optimizer in sorted(optimizers().items())]


def _workloads() -> list[tuple[str, str]]:
    from paretorch.training.sources import workload_class, workload_names

    return [(name, workload_class(name).title) for name in workload_names()]


def _studies() -> list[tuple[str, str]]:
    import importlib

    from paretorch.studies import catalog
    from paretorch.studies.study import names

    modules = {name: importlib.import_module(f"{catalog.__name__}.{name.replace('-', '_')}") for name in names()}
    return [(name, _first_line(module.__doc__)) for name, module in modules.items()]


def _first_line(documentation: str | None) -> str:
    return (documentation or "").strip().partition("\n")[0]


@contextmanager
def boundary() -> Iterator[None]:
    """Turns what a user can cure into one message and exit code 2, and Ctrl-C into exit code 130.

    Other errors, ours or of a user's own code, keep their traceback.
    """
    try:
        yield
    except KeyboardInterrupt:
        Console(stderr=True).print("Stopped. The same command goes on from the last epoch.", highlight=False)
        raise typer.Exit(130) from None
    except (ValueError, FloatingPointError, ModuleNotFoundError, OSError) as error:
        if not (isinstance(error, OSError) or _said_by_us(error)):
            raise
        Console(stderr=True).print(
            f"[bold red]Error:[/bold red] {escape(_message(error))}", highlight=False, soft_wrap=True
        )
        raise typer.Exit(2) from None


def _said_by_us(error: BaseException) -> bool:
    """Whether this package raised it, knowing what to say, and not the code that it called."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return trace is not None and str(trace.tb_frame.f_globals.get("__name__", "")).startswith("paretorch.")


def _message(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror and error.filename is None:
        return error.strerror
    return str(error)


def main() -> None:
    """The ``paretorch`` command."""
    try:
        app()
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
