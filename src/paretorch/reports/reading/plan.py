"""Plans of a report: the finished runs below any folders, as treatments to compare, for each workload."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from paretorch.reports.reading.standalone_runs import study_of_runs
from paretorch.studies.folder import StudyFolder, read_folder, read_study_file
from paretorch.studies.study import Study, Treatment, workload_title
from paretorch.studies.tuning.trials import TuningResult
from paretorch.training.record.result import Result
from paretorch.training.record.run_identity import read_run
from paretorch.training.run import Run


@dataclass(frozen=True)
class Source:
    """Origin of results.

    Args:
        path: the folder of a study, or of a single run.
        command: that wrote it.
        versions: of Python and the packages, by name.
        machine: properties of the machine, by name.
        commit: of this package; empty if unknown.
    """

    path: Path
    command: str
    versions: Mapping[str, str] = field(default_factory=dict)
    machine: Mapping[str, Any] = field(default_factory=dict)
    commit: str = ""


@dataclass(frozen=True)
class Plan:
    """Treatments to compare on one workload.

    Args:
        study: treatments, reference and baseline; all runs are on this workload.
        workload: its title, such as ``digits(ink=True)``.
        seeds: all seeds; a treatment may lack a subset of them.
        folders: folder of every planned run, by the run's key.
        sources: origins of the runs.
        tunings: searches for hyperparameters, with cost and result.
        notes: on the origin of the plan, one sentence each.
        trials: folder of every trial of a search, by the run's key.
    """

    study: Study
    workload: str
    seeds: tuple[int, ...]
    folders: Mapping[str, Path]
    sources: tuple[Source, ...]
    tunings: tuple[TuningResult, ...] = ()
    notes: tuple[str, ...] = ()
    trials: Mapping[str, Path] = field(default_factory=dict)


def plan_all(paths: Sequence[str | Path], reference: str | None = None) -> tuple[Plan, ...]:
    """A plan for each workload of the studies and single runs below these folders, at any depth.

    Several studies of one workload become one plan. Each workload has its own, as numbers of different problems do not belong in
    one table.

    Args:
        paths: at least one folder.
        reference: label of the treatment to which all others are compared, instead of the study's own.

    Raises:
        ValueError: a path that does not exist or has no finished run, or a reference that is not a treatment.
    """
    studies: list[StudyFolder] = []
    runs: dict[Path, Run] = {}
    for path in dict.fromkeys(Path(os.path.normpath(path)) for path in paths):
        found = list(_run_folders(path))
        if not found:
            raise ValueError(
                f"{path} contains no finished run: expected the folder of a study (with study.json), of a finished run (with "
                "result.json), or one that contains such folders; `paretorch study` and `paretorch train` write them"
            )
        for folder in found:
            if (folder / "study.json").exists():
                study = read_folder(folder)
                if study.path not in [other.path for other in studies]:
                    studies.append(study)
            else:
                started = read_run(folder)
                runs[folder] = Result.load(folder).run if started is None else Run.from_json(started["run"])
    plans = [plan for study in studies for plan in _study_plans(study)]
    plans += _standalone_plans(runs)
    groups: dict[str, list[Plan]] = {}
    for plan in plans:
        groups.setdefault(plan.workload, []).append(plan)
    return tuple(_with_version_note(_with_reference(_merged(group), reference)) for group in groups.values())


def _run_folders(path: Path) -> Iterator[Path]:
    if not path.is_dir():
        raise ValueError(f"{path} is not a folder: expected that of a study or of a run")
    try:
        for folder, below, files in os.walk(path):
            if "study.json" in files or "result.json" in files:
                below.clear()
                yield Path(folder)
            below.sort()
    except RecursionError:  # os.walk calls itself for each level
        raise ValueError(f"{path} has too many folders within each other: name the folders of the runs") from None


def _study_plans(folder: StudyFolder) -> Iterator[Plan]:
    """A plan for each workload of the study."""
    jobs = folder.jobs()
    finished = next((job.folder for job in jobs if job.finished), None)
    if finished is None:
        raise ValueError(
            f"{folder.path}: no run of this study is finished, so there is nothing to report. The command that started "
            "it resumes it"
        )
    source = _study_source(folder, finished)
    folders = {job.run.key: job.folder for job in jobs}
    tunings = () if folder.tuning is None else (folder.tuning,)
    trials = {
        trial.run.key: folder.path / trial.folder for each in tunings for s in each.searches for trial in s.trials
    }
    for title in folder.study.workloads:
        study = folder.study.on(title)
        planned = {run.key: folders[run.key] for _, run in study.planned(folder.seeds)}
        yield Plan(study, title, folder.seeds, planned, (source,), tunings, trials=trials)


def _study_source(folder: StudyFolder, finished: Path) -> Source:
    facts = read_study_file(folder.path / "study.json")
    tune = f" --tune {folder.tune}" if folder.tune else ""
    typed = facts.get("typed") or folder.study.name
    command = f"paretorch study {typed} --scale {folder.scale} --seeds {len(folder.seeds)}{tune}"
    commit = str((read_run(finished) or {}).get("commit") or "")
    return Source(folder.path, command, facts.get("versions") or {}, facts.get("machine") or {}, commit)


def _standalone_plans(runs: Mapping[Path, Run]) -> Iterator[Plan]:
    """A plan for each workload of the single runs."""
    groups: dict[str, dict[Path, Run]] = {}
    for folder, run in runs.items():
        groups.setdefault(workload_title(run), {})[folder] = run
    for title, group in groups.items():
        study, notes = study_of_runs(title, list(group.values()))
        started = {folder: read_run(folder) or {} for folder in group}
        sources = tuple(
            Source(
                folder,
                json.dumps(run.to_json()),
                started[folder].get("versions") or {},
                started[folder].get("machine") or {},
                str(started[folder].get("commit") or ""),
            )
            for folder, run in group.items()
        )
        folders = {run.key: folder for folder, run in group.items()}
        yield Plan(study, title, tuple(sorted({run.seed for run in group.values()})), folders, sources, notes=notes)


def _merged(plans: Sequence[Plan]) -> Plan:
    """One plan of all treatments, without duplicates."""
    if len(plans) == 1:
        return plans[0]
    first = plans[0].study
    treatments: dict[str, Treatment] = {}
    for plan in plans:
        for treatment in plan.study.treatments:
            label = treatment.label
            if label in treatments and treatments[label].seeded(0) != treatment.seeded(0):
                label = _unused_label(f"{label} ({plan.study.name})", treatments)
            elif any(_equal(treatment, other) for other in treatments.values()):
                continue
            treatments.setdefault(label, replace(treatment, label=label))
    folders: dict[str, Path] = {}
    for plan in plans:
        for key, folder in plan.folders.items():
            if key not in folders or not (folders[key] / "result.json").exists():
                folders[key] = folder
    names = list(dict.fromkeys(plan.study.name for plan in plans))
    study = replace(
        first,
        name=" + ".join(names),
        question=f"Which way of training {plans[0].workload} gives the best network?",
        treatments=tuple(treatments.values()),
    )
    return Plan(
        study=study,
        workload=plans[0].workload,
        seeds=tuple(sorted({seed for plan in plans for seed in plan.seeds})),
        folders=folders,
        sources=tuple(source for plan in plans for source in plan.sources),
        tunings=tuple(tuning for plan in plans for tuning in plan.tunings),
        notes=(
            f"Results of {len(plans)} sets of runs are compared; reference and baseline are those of {first.name!r}.",
            *(note for plan in plans for note in plan.notes),
        ),
        trials={key: folder for plan in plans for key, folder in plan.trials.items()},
    )


def _equal(one: Treatment, other: Treatment) -> bool:
    return one.combine is other.combine and one.seeded(0) == other.seeded(0)


def _unused_label(label: str, taken: Mapping[str, Treatment]) -> str:
    """The label, with a number if it is taken."""
    labels = [label, *(f"{label} {number}" for number in range(2, len(taken) + 2))]
    return next(name for name in labels if name not in taken)


def _with_reference(plan: Plan, reference: str | None) -> Plan:
    labels = [treatment.label for treatment in plan.study.treatments]
    if reference is None:
        return plan
    if reference not in labels:
        raise ValueError(f"the reference is one of the treatments {labels}, got {reference!r}")
    return replace(plan, study=replace(plan.study, reference=reference))


def _with_version_note(plan: Plan) -> Plan:
    """The plan, with a note if the file of a user's workload changed between the runs, which may then be of two problems."""
    if not any(run.workload.endswith(".py") for treatment in plan.study.treatments for run in treatment.runs):
        return plan
    started = {folder: read_run(folder) for folder in plan.folders.values() if (folder / "result.json").exists()}
    versions: dict[str, list[str]] = {}
    for folder, facts in started.items():
        if facts is not None and facts.get("source"):
            versions.setdefault(str(facts["source"])[:8], []).append(folder.name)
    if len(versions) < 2:
        return plan
    parts = "; ".join(f"{len(names)} of version {digest}, such as {names[0]}" for digest, names in versions.items())
    note = (
        f"The file of the workload changed between these runs ({parts}): they are comparable only if the change "
        "does not affect the problem."
    )
    return replace(plan, notes=(*plan.notes, note))
