"""The command ``paretorch study``: a comparison of ways of training."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

from paretorch.cli.errors import readable_errors
from paretorch.cli.options import given
from paretorch.extras import extra

with extra("studies"):
    import typer

OPTIONS = "Options of the studies that have them"
study_option = partial(typer.Option, rich_help_panel=OPTIONS)


def study(
    name: Annotated[
        str, typer.Argument(metavar="NAME|FILE.py", help="A shipped study, or a Python file that defines one.")
    ],
    scale: Annotated[str, typer.Option(help="'smoke' (seconds), 'small' (minutes) or 'paper'.")] = "small",
    seeds: Annotated[int, typer.Option(help="Runs of each treatment, with paired seeds.")] = 5,
    out: Annotated[Path | None, typer.Option(help="The study's folder; runs/NAME-SCALE by default.")] = None,
    jobs: Annotated[int | None, typer.Option(help="Runs at a time; one per core by default.")] = None,
    resume: Annotated[bool, typer.Option(help="Continue if the folder already contains this study.")] = True,
    tune: Annotated[
        int, typer.Option(help="Trials of the search for each treatment's settings, on validation data; 0: none.")
    ] = 0,
    optimizers: Annotated[str | None, study_option(help="Numbers 1 to 8 or names: '1,3,adamw(lr=0.01)'.")] = None,
    methods: Annotated[str | None, study_option(help="Balancing methods: 'sum, MGDA()'.")] = None,
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
) -> None:
    """Compare ways of training fairly: paired seeds, intervals, a verdict."""
    with readable_errors():
        import paretorch

        options = given(
            optimizers=optimizers,
            methods=methods,
            baselines=baselines,
            classes=classes,
            loss_weights=loss_weights,
            root=root,
            encoder=encoder,
            encoder_weights=encoder_weights,
            device=device,
        )
        paretorch.run_study(
            name, scale=scale, seeds=seeds, out=out, jobs=jobs, resume=resume, tune=tune, options=options
        )
