"""The command ``paretorch``: each command parses its options, calls one function, and prints the result.

In: the command line. Out: text on the console, and an exit code: 0; 1 for problems in the data that ``data check`` reads, for an
input that ends before the last question of ``interactive``, and for an error with a traceback; 2 for an error that the user can
correct; 130 after Ctrl-C.
Commands import the rest of the package when they are called, so that ``--help`` does not wait for torch; nothing imports this
package.
"""

from __future__ import annotations

import io
import sys
from typing import Annotated

from paretorch.cli.diagnose import diagnose
from paretorch.cli.front import front
from paretorch.cli.image_data import data
from paretorch.cli.list_names import list_names
from paretorch.cli.pick import export, pick
from paretorch.cli.ranks import check_one_process
from paretorch.cli.report import report
from paretorch.cli.standard_streams import open_closed_streams
from paretorch.cli.study import StudyCommand, study
from paretorch.cli.train import interactive, train
from paretorch.cli.weights import weights
from paretorch.extras import extra

with extra("studies"):
    import typer
    from rich.console import Console

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
  [bold]paretorch diagnose digits[/bold]                 do the tasks conflict, and what follows from it
  [bold]paretorch front digits --models 8[/bold]         models along the trade-off, and a page to pick one
  [bold]paretorch weights digits[/bold]                  static weights for the losses, from a short run
  [bold]paretorch interactive[/bold]                     a menu: model, data, batch size, optimizer, method, epochs
  [bold]paretorch list methods[/bold]                    also: optimizers, workloads, studies

Every command has --help, with an example."""


def _print_version(given: bool) -> None:
    if given:
        import paretorch

        print(f"paretorch {paretorch.__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def start(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """Train one PyTorch model on many losses: balance them, and compare fairly."""
    check_one_process(context.invoked_subcommand)
    if context.invoked_subcommand is None:
        Console(emoji=False).print(START, highlight=False)


for name, command, example in (
    ("train", train, "'digits(ink=True)' --method 'CAGrad(c=0.4)' --epochs 10"),
    ("interactive", interactive, "--data scenes --optimizer adamw --epochs 3 --yes"),
    ("study", study, "quickstart --scale small --seeds 5"),
    ("report", report, "runs/quickstart-small --figures pdf"),
    ("list", list_names, "methods"),
    ("weights", weights, "'digits(ink=True)' --optimizer 'Adam(lr=0.01)' --epochs 15"),
    ("diagnose", diagnose, "'digits(ink=True)' --out runs/diagnosis"),
    ("front", front, "digits --algorithm mt2o --models 8 --epochs 20"),
    ("pick", pick, "runs/front 0.7,0.3 --export model.onnx"),
    ("export", export, "runs/digits-ab12cd34ef56 model.onnx"),
):
    app.command(
        name, cls=StudyCommand if name == "study" else None, epilog=f"Example: [bold]paretorch {name} {example}[/bold]"
    )(command)
app.add_typer(data, name="data", no_args_is_help=True)


def main() -> None:
    """The ``paretorch`` command."""
    open_closed_streams()
    for stream in (sys.stdout, sys.stderr):  # a character that the encoding lacks is no error
        if not isinstance(stream, io.TextIOWrapper):
            continue
        is_utf8 = stream.encoding.lower().replace("-", "") == "utf8"
        if stream.errors == "strict" or (stream.errors == "surrogateescape" and not is_utf8):
            stream.reconfigure(errors="replace")
    try:
        app()
    except KeyboardInterrupt:
        sys.exit(130)
    except OSError as error:  # the output cannot be written
        sys.stderr.write(f"Error: {error}\n")
        sys.exit(2)
