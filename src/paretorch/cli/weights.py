"""The command ``paretorch weights``: static weights of a workload, found by short runs."""

from __future__ import annotations

from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from paretorch.cli import options
from paretorch.cli.console import print_line
from paretorch.cli.errors import readable_errors
from paretorch.extras import extra

with extra("studies"):
    import typer
    from rich.console import Console

if TYPE_CHECKING:
    from paretorch.studies.weights_folder import FoundWeights
    from paretorch.training.run import Run


class Search(StrEnum):
    """How weights are found."""

    run = "run"
    population = "population"


def weights(
    workload: options.Workload,
    search: Annotated[
        Search, typer.Option(help="'run': from the gradient norms of a short run; 'population': that, and a search.")
    ] = Search.run,
    method: Annotated[
        str, typer.Option(help="The balancing method of the short run as a constructor; one that compares gradients.")
    ] = "IMTLG()",
    share: Annotated[
        float | None, typer.Option(help="Share of the epochs that the short run takes; 1/3 by default.")
    ] = None,
    members: Annotated[int | None, typer.Option(help="Size of the population, at least 4; 8 by default.")] = None,
    rounds: Annotated[
        int | None, typer.Option(help="Rounds after which members are replaced; 5 by default, or one for each epoch.")
    ] = None,
    tasks: Annotated[str, typer.Option(help=f"Tasks to weight, {options.TASK_NAMES}")] = "",
    optimizer: options.Optimizer = "Adam(lr=0.001)",
    epochs: Annotated[int, typer.Option(help="Passes over the training data of a whole run.")] = 10,
    batch_size: options.BatchSize = 256,
    seed: options.Seed = 0,
    device: options.Device = "cpu",
    deterministic: options.Deterministic = False,
    clip: Annotated[float | None, typer.Option(help="Largest norm of the gradient; longer ones are scaled.")] = None,
    schedule: Annotated[
        str, typer.Option(help="Schedule of the learning rate: constant, cosine, 'step(0.5, 100)'.")
    ] = "constant",
    warmup: options.Warmup = 0.0,
    out: Annotated[
        Path | None, typer.Option(help="The folder of weights.json; runs/weights-WORKLOAD-KEY by default.")
    ] = None,
) -> None:
    """Find static weights for the losses: plain numbers, from a third of a run or from a population of runs."""
    with readable_errors("The same command continues after the last epoch, or the last member of a population."):
        from paretorch.studies.weights_folder import FILE, WeightsOptions, default_folder, find_weights_in
        from paretorch.training.balanced_run import SHARE
        from paretorch.training.run import Run

        if search is Search.run and (given := options.given(members=members, rounds=rounds)):
            raise ValueError(f"--{next(iter(given))} is an option of --search population")
        run = Run(
            **options.workload_and_optimizer(workload, optimizer),
            tasks=options.task_names(tasks),
            method=method,
            surface="parameters",
            epochs=epochs,
            batch_size=batch_size,
            seed=seed,
            device=device,
            deterministic=deterministic,
            clip=clip,
            schedule=schedule,
            warmup=warmup,
            test=False,
        )
        console = Console(emoji=False)
        how = WeightsOptions(share=SHARE if share is None else share)
        if search is Search.population:
            rounds = min(how.rounds, epochs) if rounds is None else rounds
            how = replace(how, members=8 if members is None else members, rounds=rounds)
        folder = out or default_folder(run, how)
        found = find_weights_in(folder, run, how, lambda line: print_line(console, line))
        _show(console, found, _cost(run, found, how.share), folder / FILE)


def _show(console: Console, found: FoundWeights, cost: str, file: Path) -> None:
    """Prints the weights as the lines that use them, the cost and the file."""
    rounded = {task: float(f"{weight:.4g}") for task, weight in found.weights.items()}
    for line in (
        "",
        "The lines that use the weights, in a loop of your own or in a Fork:",
        f"weights = {rounded}",
        "total = sum(weights[task] * loss for task, loss in losses.items())",
        f"fork = paretorch.Fork(paretorch.Static(weights), tasks={tuple(rounded)})",
        "",
        cost,
        f"The weights are in {file}",
    ):
        print_line(console, line)


def _cost(run: Run, found: FoundWeights, share: float) -> str:
    tasks = len(found.weights)
    text = f"Cost: {share:.2g} runs of {run.epochs} epochs, with {tasks} backward passes in a step"
    return text + (
        "." if found.population is None else f", and {len(found.population.members)} runs in the population."
    )
