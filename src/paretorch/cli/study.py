"""The command ``paretorch study``: a comparison of ways of training."""

from __future__ import annotations

from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Annotated, Any

from paretorch.cli.console import print_line
from paretorch.cli.errors import readable_errors
from paretorch.cli.options import Track, given
from paretorch.extras import extra

with extra("studies"):
    import typer
    from rich.console import Console
    from typer.core import TyperCommand

OPTIONS = "Options of the studies that have them"
study_option = partial(typer.Option, rich_help_panel=OPTIONS)
ray_option = partial(typer.Option, rich_help_panel="Options of --launch ray")
workload_option = partial(typer.Option, rich_help_panel="Options of the study of a workload")


class Launch(StrEnum):
    """Where the runs are trained."""

    local = "local"
    ray = "ray"


EXAMPLE = """\
A study of your own is a Python file, here my_study.py:

from paretorch.studies.study import Study, Treatment, single_task
from paretorch.training import Run


def study(scale):
    small = {"train": 512, "validation": 256, "test": 256} if scale == "smoke" else {}
    epochs = 1 if scale == "smoke" else 10

    def run(method):
        return Run("digits", {"ink": True, **small}, method=method, epochs=epochs)

    return Study(
        name="mine",
        question="Does a balancing method improve on the sum of the losses?",
        treatments=(
            single_task("single task", run("Equal()"), ("left", "right", "ink")),
            Treatment("sum", (run("Equal()"),)),
            Treatment("IMTL-G", (run("IMTLG()"),)),
        ),
        reference="sum",             # all others are compared to it, seed by seed
        baseline="single task",      # Delta m is relative to it
    )

paretorch study my_study.py --scale smoke --seeds 3    seconds: does it run?
paretorch study my_study.py                            the study; the same command resumes it

Run() may name a workload file: Run("my_workload.py"), a path relative to my_study.py.

Without a file, for methods on one workload:

paretorch study 'digits(ink=True)' --methods 'sum, IMTLG(), CAGrad(c=0.2)' --reference sum --epochs 10
"""


class StudyCommand(TyperCommand):
    """The command with a whole study file after its help."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Prints the help and the example."""
        super().format_help(ctx, formatter)
        print_line(Console(emoji=False), EXAMPLE)


def study(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME|FILE.py|WORKLOAD",
            help="A shipped study, a Python file that defines one, or a workload on which --methods are compared.",
        ),
    ],
    scale: Annotated[str, typer.Option(help="'smoke' (seconds), 'small' (minutes) or 'paper'.")] = "small",
    seeds: Annotated[int, typer.Option(help="Runs of each treatment, with paired seeds.")] = 5,
    out: Annotated[Path | None, typer.Option(help="The study's folder; runs/NAME-SCALE by default.")] = None,
    jobs: Annotated[int | None, typer.Option(help="Runs at a time; one per core by default.")] = None,
    resume: Annotated[bool, typer.Option(help="Continue if the folder already contains this study.")] = True,
    tune: Annotated[
        int, typer.Option(help="Trials of the search for each treatment's settings, on validation data; 0: none.")
    ] = 0,
    track: Track = "",
    together: Annotated[
        bool,
        typer.Option(
            "--together",
            help="Train runs that differ in the seed alone together, where faster; results are equal to rounding.",
        ),
    ] = False,
    launch: Annotated[
        Launch, typer.Option(help="Train in processes of this machine, or as tasks of a Ray cluster.")
    ] = Launch.local,
    reference: Annotated[
        str | None, typer.Option(help="The treatment to which all others are compared; the study's own by default.")
    ] = None,
    address: Annotated[
        str | None,
        ray_option(help="Head node, HOST:PORT, or 'auto'; by default RAY_ADDRESS, else a cluster on this machine."),
    ] = None,
    cpus_per_run: Annotated[
        float | None, ray_option(help="CPU cores that Ray reserves; the threads of a run by default.")
    ] = None,
    gpus_per_run: Annotated[
        float | None,
        ray_option(help="GPUs that Ray reserves for a run on 'cuda'; 0.5: two runs share one; 1 by default."),
    ] = None,
    storage: Annotated[
        str | None, ray_option(help="URL for runs, 's3://BUCKET/FOLDER', where nodes do not share the study's folder.")
    ] = None,
    optimizers: Annotated[str | None, study_option(help="Numbers 1 to 8 or names: '1,3,adamw(lr=0.01)'.")] = None,
    methods: Annotated[
        str | None, study_option(help="Balancing methods: 'sum, IMTLG(), CAGrad(c=0.2)'; of every workload.")
    ] = None,
    baselines: Annotated[
        bool | None,
        study_option("--baselines", help="Add single tasks and tuned static weights."),
    ] = None,
    classes: Annotated[int | None, study_option(help="Classes of ImageNet: 100 or 1000, a protocol each.")] = None,
    loss_weights: Annotated[str | None, study_option(help="A number for each task: '1,0.5'.")] = None,
    root: Annotated[str | None, study_option(help="The folder of the data.")] = None,
    encoder: Annotated[str | None, study_option(help="The image encoder.")] = None,
    encoder_weights: Annotated[str | None, study_option(help="Its initial weights: 'torchvision' or FILE.")] = None,
    device: Annotated[str | None, study_option(help="Device of all runs: 'cuda'.")] = None,
    epochs: Annotated[int | None, workload_option(help="Passes over the training data; 10 by default.")] = None,
    batch_size: Annotated[int | None, workload_option(help="Samples per step; 256 by default.")] = None,
    optimizer: Annotated[str | None, workload_option(help="'Adam(lr=0.001)' by default.")] = None,
    lr: Annotated[float | None, workload_option(help="Learning rate, in place of that of --optimizer.")] = None,
    surface: Annotated[str | None, workload_option(help="'features' (default) or 'parameters'.")] = None,
    schedule: Annotated[str | None, workload_option(help="constant, cosine, 'step(0.5, 100)'.")] = None,
    searches: Annotated[
        str | None, workload_option(help="Searches of static weights: 'random, population, grid'; none by default.")
    ] = None,
    trials: Annotated[
        int | None, workload_option(help="Whole runs that each of --searches may cost; 8 by default.")
    ] = None,
) -> None:
    """Compare ways of training fairly: paired seeds, intervals, a verdict. Exit code 1: some runs failed."""
    with readable_errors():
        import paretorch
        from paretorch.reports.compare import failure_note
        from paretorch.studies.launching.ray_cluster import RayCluster
        from paretorch.studies.lookup import next_steps

        cluster = given(address=address, cpus=cpus_per_run, gpus=gpus_per_run, storage=storage)
        if cluster and launch is Launch.local:
            raise ValueError(
                "--address, --cpus-per-run, --gpus-per-run and --storage are options of --launch ray: add it, or leave them out"
            )
        options = given(
            optimizers=optimizers,
            methods=methods,
            reference=reference,
            baselines=baselines,
            classes=classes,
            loss_weights=loss_weights,
            root=root,
            encoder=encoder,
            encoder_weights=encoder_weights,
            device=device,
            epochs=epochs,
            batch_size=batch_size,
            optimizer=optimizer,
            lr=lr,
            surface=surface,
            schedule=schedule,
            searches=searches,
            trials=trials,
        )
        found = paretorch.run_study(
            name,
            scale=scale,
            seeds=seeds,
            out=out,
            jobs=jobs,
            resume=resume,
            tune=tune,
            options=options,
            launch=RayCluster(**cluster) if launch is Launch.ray else "local",
            track=track,
            together=together,
        )
        if after := next_steps(name):
            print_line(Console(emoji=False), f"\n{after}")
        if found.failures:
            print_line(Console(emoji=False, stderr=True), failure_note(found.failures, found.page.parent))
            raise typer.Exit(1)
