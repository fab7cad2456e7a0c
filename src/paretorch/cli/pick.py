"""The commands ``paretorch pick`` and ``paretorch export``: one model of a front or of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from paretorch.cli.console import print_line
from paretorch.cli.errors import readable_errors
from paretorch.cli.options import numbers
from paretorch.extras import extra

with extra("studies"):
    import typer
    from rich.console import Console


FixedBatch = Annotated[int | None, typer.Option(help="Batch size of the ONNX model; any by default.")]
Workload = Annotated[
    str | None,
    typer.Option(
        metavar="WORKLOAD|FILE.py",
        help="The workload of a front that was saved from Python, or of a file that you have not named yet.",
    ),
]


def export(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The folder of a finished run of one model.")],
    file: Annotated[
        Path,
        typer.Argument(metavar="FILE", help="FILE.onnx for a runtime, FILE.safetensors for the state dict alone."),
    ],
    fixed_batch: FixedBatch = None,
    workload: Workload = None,
) -> None:
    """Export the model of a run to one file, and print the lines that load it."""
    with readable_errors():
        _show_single_run(folder, file, workload, fixed_batch)


def pick(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The folder of a front, or of a run of one model.")],
    preference: Annotated[
        str | None,
        typer.Argument(
            metavar="WEIGHTS", help="Of a front: a weight for each task, with a sum of one: 0.7,0.3", show_default=False
        ),
    ] = None,
    model: Annotated[int | None, typer.Option(help="Number of the model, instead of weights.")] = None,
    export: Annotated[
        Path | None,
        typer.Option(help="File to write: FILE.onnx for a runtime, FILE.safetensors for the weights alone."),
    ] = None,
    fixed_batch: FixedBatch = None,
    workload: Workload = None,
) -> None:
    """Print which model of a front is best for a preference, or the model of a run; how to load it; and export it."""
    with readable_errors():
        if _is_single_run(folder):
            if preference is not None or model is not None:
                raise ValueError(
                    f"{folder} contains a run of one model, so there is nothing to choose: leave out the weights and --model"
                )
            _show_single_run(folder, export, workload, fixed_batch)
            return
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
        show_pick(loaded, member, folder, export, Console(emoji=False))


def _is_single_run(folder: Path) -> bool:
    from paretorch.training.record.run_identity import read_run

    started = read_run(folder)
    return started is not None and not started["run"].get("front")


def _show_single_run(folder: Path, exported: Path | None, workload: str | None, fixed_batch: int | None) -> None:
    """Prints the scores of a run and the code that loads its model; exports the model if a file is given."""
    from paretorch.training.finished_model import export_run, load_model
    from paretorch.training.monitoring.result_table import show
    from paretorch.training.record.result import Result

    if exported is None:
        load_model(folder, workload)  # raises where the lines below would
    else:
        export_run(folder, exported, workload, fixed_batch)
    result = Result.load(folder)
    show(result, folder)
    console = Console(emoji=False)
    if exported is not None:
        print_line(console, f"Exported: {exported}")
    print_line(console, f"In Python:\n\n{_loading(exported or folder, result.tasks, workload)}")


def _loading(path: Path, tasks: tuple[str, ...], workload: str | None) -> str:
    """The three lines of Python that load a model and apply it to ``inputs``."""
    if path.suffix == ".onnx":
        return (
            "import onnxruntime\n"
            f"session = onnxruntime.InferenceSession({str(path)!r})\n"
            f'outputs = session.run(None, {{"inputs": inputs.numpy()}})  # in the order {", ".join(tasks)}'
        )
    given = "" if workload is None else f", workload={workload!r}"
    return (
        "from paretorch.training import load_model\n"
        f"model = load_model({str(path)!r}{given})  # an nn.Module in eval mode\n"
        "outputs = model(inputs)  # by task"
    )
