"""Run of a study with its report."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from paretorch.extras import extra
from paretorch.reports.report import Report, report
from paretorch.studies.folder import locked, open_folder
from paretorch.studies.launching.contract import Launcher
from paretorch.studies.launching.ray_cluster import RayCluster
from paretorch.studies.lookup import find_study
from paretorch.studies.progress import ConsoleProgress
from paretorch.studies.runner import LOCAL, TRAIN, Failure, train_study
from paretorch.studies.treatment_checks import check_treatments
from paretorch.studies.tuning.hyperparameters import check_searches
from paretorch.training.names.workloads import find_workload
from paretorch.training.tracking.contract import Tracking
from paretorch.training.tracking.tracked_progress import installed

with extra("studies"):
    from rich.console import Console


def run_study(
    name_or_file: str | Path,
    scale: str = "small",
    seeds: int = 5,
    out: str | Path | None = None,
    jobs: int | None = None,
    resume: bool = True,
    progress: bool = True,
    train: str = TRAIN,
    tune: int = 0,
    options: Mapping[str, Any] | None = None,
    launch: str | RayCluster = "local",
    track: str = "",
    together: bool = False,
) -> Report:
    """Trains every treatment on every seed, compares them, and writes and prints the report.

    Args:
        name_or_file: a shipped study, or a file with a function ``study(scale)``.
        scale: ``"smoke"`` (seconds), ``"small"`` (minutes on two cores) or ``"paper"``.
        seeds: number of seeds; fewer than 3 give no intervals.
        out: the study's folder; ``runs/NAME-SCALE`` by default.
        jobs: number of simultaneous runs; by default the number for which there are cores.
        resume: keep the folder's finished runs, and continue unfinished and failed ones.
        progress: print progress and the report.
        train: function that trains a run, as ``module:function``.
        tune: number of trials of the search for each treatment's settings, on validation data, before it is trained on the
            seeds; 0: the study's own settings. See ``paretorch.studies.tuner``.
        options: of the study, by name: ``{"optimizers": "sgd, adam"}`` for ``optimizers``. Each set of options needs its
            own folder ``out``.
        launch: ``"local"``: processes of this machine; ``"ray"``: tasks of a Ray cluster, whose address, resources and storage
            a ``paretorch.studies.launching.ray_cluster.RayCluster`` names.
        track: ``"mlflow"``, ``"tensorboard"``, ``"wandb"``, with commas between: log the runs there as well.
        together: train runs that differ in the seed alone together, where that is possible and faster. Results equal those of
            separate runs to rounding, and the report states how many runs they are.

    Returns:
        The report. Runs that failed are in its ``failures``; the same call trains them again.

    Raises:
        ValueError: no such study, scale, launcher or tracker, a treatment that cannot run, a folder of another study, or a Ray
            cluster that cannot be reached.
        FileNotFoundError: data of a workload are missing.
        BlockingIOError: another process trains the study in this folder.
        KeyboardInterrupt: on Ctrl-C; the same call resumes the study.
    """
    launcher = _launcher(launch)
    if together and (launcher is not LOCAL or track or train != TRAIN):
        raise ValueError(
            "runs are trained together by processes of this machine, by paretorch.train and without trackers: leave `together` "
            "out, or `launch`, `track` and `train`"
        )
    study = find_study(name_or_file, scale, options)
    path = Path(out) if out is not None else Path("runs") / f"{study.name}-{scale}"
    if train == TRAIN and not (path / "study.json").exists():  # other trainers may have their own workloads
        for run in {title: t.on(title)[0] for t in study.treatments for title in t.workloads}.values():
            find_workload(run.workload, run.options).require()
    if train == TRAIN and not any(path.glob("*/result.json")):
        check_treatments(study)
    check_searches(study, tune)
    tracking = installed(Tracking.named(track, folder=str(path.absolute()), group=study.name))
    command = _command_arguments(name_or_file, options or {})
    with locked(path):
        folder = open_folder(path, study, scale, seeds, resume, tune, command=command)
        watch = ConsoleProgress(Console(emoji=False, quiet=not progress))
        failures = train_study(
            folder, watch, workers=jobs, train=train, launcher=launcher, tracking=tracking, together=together
        )
    failures = [
        failure for failure in failures if failure.job.trial is None
    ]  # a failed trial is a result of the search
    try:
        found = replace(report(path), failures=tuple(failures))
    except ValueError as error:
        raise ValueError(f"{error}. {failure_note(failures, path)}" if failures else str(error)) from error
    if progress:
        found.show()
    return found


def failure_note(failures: Sequence[Failure], path: Path) -> str:
    """The number of failed runs, and where their tracebacks are."""
    count, first = len(failures), failures[0]
    return (
        f"{count} run{'s' * (count > 1)} failed ({first.job.title}: {first.error}): the traceback of each is in failed.json of "
        f"its folder in {path}. The same command trains {'them' if count > 1 else 'it'} again"
    )


def _launcher(launch: str | RayCluster) -> Launcher:
    if isinstance(launch, RayCluster):
        return launch
    if launch not in ("local", "ray"):
        raise ValueError(f"a study is launched with 'local', 'ray' or a RayCluster, got {launch!r}")
    return RayCluster() if launch == "ray" else LOCAL


def _command_arguments(name_or_file: str | Path, options: Mapping[str, Any]) -> str:
    """A study and its options as arguments of the command line."""
    arguments = [str(name_or_file)]
    for name, value in options.items():
        arguments += [f"--{name.replace('_', '-')}", *([] if value is True else [str(value)])]
    return shlex.join(arguments)
