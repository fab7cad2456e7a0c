"""The whole way: run a study, report it, print what was found."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from paretorch.extras import extra
from paretorch.reports.report import Report, report
from paretorch.studies.folder import open_folder
from paretorch.studies.lookup import find_study
from paretorch.studies.progress import ConsoleProgress
from paretorch.studies.runner import TRAIN, train_study
from paretorch.studies.treatment_checks import check_treatments
from paretorch.training.names.workloads import find_workload

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
) -> Report:
    """Trains every treatment on every seed, compares them, and writes and prints the report.

    Args:
        name_or_file: a shipped study, or a file with a function ``study(scale)``.
        scale: ``"smoke"`` (seconds), ``"small"`` (minutes on two cores) or ``"paper"``.
        seeds: how many; fewer than 3 give no intervals.
        out: the study's folder; ``runs/NAME-SCALE`` by default.
        jobs: runs at a time; by default as many as the cores carry.
        resume: go on where the folder stands: finished runs are kept, unfinished and failed ones continued.
        progress: print progress and the report.
        train: what trains a run, as ``module:function``.
        tune: trials in which the settings of every treatment are searched, on validation data, before it is trained on the
            seeds; 0: the study's own settings. See ``paretorch.studies.tuner``.
        options: of the study, by name: ``{"optimizers": "sgd, adam"}`` for ``optimizers``. Each set of them has a folder of its
            own, which ``out`` names.

    Returns:
        Table, findings and files.

    Raises:
        ValueError: no such study or scale, a treatment that cannot run, or the folder holds another study.
        FileNotFoundError: data that a workload reads are not there.
        KeyboardInterrupt: on Ctrl-C; the same call goes on.
    """
    study = find_study(name_or_file, scale, options)
    path = Path(out) if out is not None else Path("runs") / f"{study.name}-{scale}"
    if train == TRAIN and not (path / "study.json").exists():  # other trainers may have workloads of their own
        for run in {title: t.on(title)[0] for t in study.treatments for title in t.workloads}.values():
            find_workload(run.workload, run.options).require()
    if train == TRAIN and not any(path.glob("*/result.json")):
        check_treatments(study)
    folder = open_folder(path, study, scale, seeds, resume, tune, command=_command(name_or_file, options or {}))
    watch = ConsoleProgress(Console(quiet=not progress))
    train_study(folder, watch, workers=jobs, train=train)
    found = report(path)
    if progress:
        found.show()
    return found


def _command(name_or_file: str | Path, options: Mapping[str, Any]) -> str:
    """A study and its options as one types them."""
    words = [str(name_or_file)]
    for name, value in options.items():
        words += [f"--{name.replace('_', '-')}", *([] if value is True else [str(value)])]
    return shlex.join(words)
