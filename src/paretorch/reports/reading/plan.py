"""Finds finished runs under any folders and says what is to be compared with what: one plan for each workload."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from paretorch.reports.reading.standalone_runs import study_of
from paretorch.studies.folder import StudyFolder, read_folder, read_json
from paretorch.studies.study import Study, Treatment, workload_title
from paretorch.studies.tuning.tuned import Tuning
from paretorch.training.record.result import Result
from paretorch.training.record.run_identity import read_run
from paretorch.training.run import Run


@dataclass(frozen=True)
class Source:
    """Where results come from.

    Args:
        path: the folder of a study, or of a single run.
        command: what made it, as it would be typed.
        versions: of Python and the packages, by name.
        machine: what it ran on, by name.
        commit: of this package; empty where it is not known.
    """

    path: Path
    command: str
    versions: Mapping[str, str] = field(default_factory=dict)
    machine: Mapping[str, Any] = field(default_factory=dict)
    commit: str = ""


@dataclass(frozen=True)
class Plan:
    """What is compared on one workload.

    Args:
        study: treatments, reference and baseline; all runs are on this workload.
        workload: as one would write it: ``digits(ink=True)``.
        seeds: numbers of all seeds, of which a treatment may lack some.
        places: folder of every planned run, by the run's key.
        sources: where the runs come from.
        tunings: what searches for hyperparameters took and found.
        notes: what a reader must know about how the plan came about, one sentence each.
    """

    study: Study
    workload: str
    seeds: tuple[int, ...]
    places: Mapping[str, Path]
    sources: tuple[Source, ...]
    tunings: tuple[Tuning, ...] = ()
    notes: tuple[str, ...] = ()


def gather(paths: Sequence[str | Path], reference: str | None = None) -> tuple[Plan, ...]:
    """What lies in these folders: studies, single runs, or folders of either, at any depth.

    Several studies of one workload become one plan; what is on unlike workloads is kept apart, for numbers of different
    problems do not belong in one table.

    Args:
        paths: at least one folder.
        reference: label of the treatment to which all others are compared, instead of the study's own.

    Raises:
        ValueError: a path without finished runs or that is not there, or a reference that is no treatment.
    """
    studies: list[tuple[Study, StudyFolder]] = []
    runs: dict[Path, Run] = {}
    for path in dict.fromkeys(Path(os.path.normpath(path)) for path in paths):
        found = list(_found(path))
        if not found:
            raise ValueError(
                f"{path} holds no finished run: expected the folder of a study (with study.json), of a finished run (with "
                "result.json), or one that holds such folders; `paretorch study` and `paretorch train` write them"
            )
        for place in found:
            if (place / "study.json").exists():
                folder = read_folder(place)
                if folder.path not in [other.path for _, other in studies]:
                    studies.append((folder.study, folder))
            else:
                started = read_run(place)
                runs[place] = Result.load(place).run if started is None else Run.from_json(started["run"])
    plans = [plan for study, folder in studies for plan in _of_study(study, folder)]
    plans += _of_runs(runs)
    groups: dict[str, list[Plan]] = {}
    for plan in plans:
        groups.setdefault(plan.workload, []).append(plan)
    return tuple(_noted(_referred(_merged(group), reference)) for group in groups.values())


def _found(path: Path) -> Iterator[Path]:
    if not path.is_dir():
        raise ValueError(f"{path} is not a folder: expected that of a study or of a run")
    for place, folders, files in os.walk(path):
        if "study.json" in files or "result.json" in files:
            folders.clear()
            yield Path(place)
        folders.sort()


def _of_study(study: Study, folder: StudyFolder) -> Iterator[Plan]:
    """The study's plan, or one for each of its workloads."""
    jobs = folder.jobs()
    finished = next((job.folder for job in jobs if job.finished), None)
    if finished is None:
        raise ValueError(
            f"{folder.path}: no run of this study is finished, so there is nothing to report. The command that started "
            "it goes on where it stopped"
        )
    source = _study_source(folder, finished)
    folders = {job.run.key: job.folder for job in jobs}
    tunings = () if folder.tuning is None else (folder.tuning,)
    for title in study.workloads:
        here = study.on(title)
        places = {run.key: folders[run.key] for _, run in here.planned(folder.seeds)}
        yield Plan(here, title, folder.seeds, places, (source,), tunings)


def _study_source(folder: StudyFolder, finished: Path) -> Source:
    facts = read_json(folder.path / "study.json")
    tune = f" --tune {folder.tune}" if folder.tune else ""
    typed = facts.get("typed") or folder.study.name
    command = f"paretorch study {typed} --scale {folder.scale} --seeds {len(folder.seeds)}{tune}"
    commit = str((read_run(finished) or {}).get("commit") or "")
    return Source(folder.path, command, facts["versions"], facts["machine"], commit)


def _of_runs(runs: Mapping[Path, Run]) -> Iterator[Plan]:
    """Single runs, a plan for each workload."""
    groups: dict[str, dict[Path, Run]] = {}
    for place, run in runs.items():
        groups.setdefault(workload_title(run), {})[place] = run
    for title, group in groups.items():
        study, notes = study_of(title, list(group.values()))
        started = {place: read_run(place) or {} for place in group}
        sources = tuple(
            Source(
                place,
                json.dumps(run.to_json()),
                started[place].get("versions", {}),
                started[place].get("machine", {}),
                str(started[place].get("commit") or ""),
            )
            for place, run in group.items()
        )
        places = {run.key: place for place, run in group.items()}
        yield Plan(study, title, tuple(sorted({run.seed for run in group.values()})), places, sources, notes=notes)


def _merged(plans: Sequence[Plan]) -> Plan:
    """One plan of all treatments; those that are equal become one."""
    if len(plans) == 1:
        return plans[0]
    first = plans[0].study
    treatments: dict[str, Treatment] = {}
    for plan in plans:
        for treatment in plan.study.treatments:
            label = treatment.label
            if label in treatments and treatments[label].seeded(0) != treatment.seeded(0):
                label = _free(f"{label} ({plan.study.name})", treatments)
            elif any(_same(treatment, other) for other in treatments.values()):
                continue
            treatments.setdefault(label, replace(treatment, label=label))
    places: dict[str, Path] = {}
    for plan in plans:
        for key, place in plan.places.items():
            if key not in places or not (places[key] / "result.json").exists():
                places[key] = place
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
        places=places,
        sources=tuple(source for plan in plans for source in plan.sources),
        tunings=tuple(tuning for plan in plans for tuning in plan.tunings),
        notes=(
            f"Results of {len(plans)} sets of runs are compared; reference and baseline are those of {first.name!r}.",
            *(note for plan in plans for note in plan.notes),
        ),
    )


def _same(one: Treatment, other: Treatment) -> bool:
    return one.combine is other.combine and one.seeded(0) == other.seeded(0)


def _free(label: str, taken: Mapping[str, Treatment]) -> str:
    """The label, numbered if there is one of its name."""
    labels = [label, *(f"{label} {number}" for number in range(2, len(taken) + 2))]
    return next(name for name in labels if name not in taken)


def _referred(plan: Plan, reference: str | None) -> Plan:
    labels = [treatment.label for treatment in plan.study.treatments]
    if reference is None:
        return plan
    if reference not in labels:
        raise ValueError(f"the reference is one of the treatments {labels}, got {reference!r}")
    return replace(plan, study=replace(plan.study, reference=reference))


def _noted(plan: Plan) -> Plan:
    """With a note where the file of a user's workload changed between the runs: they may be of two problems."""
    if not any(run.workload.endswith(".py") for treatment in plan.study.treatments for run in treatment.runs):
        return plan
    started = {place: read_run(place) for place in plan.places.values() if (place / "result.json").exists()}
    versions: dict[str, list[str]] = {}
    for place, facts in started.items():
        if facts is not None and facts.get("source"):
            versions.setdefault(str(facts["source"])[:8], []).append(place.name)
    if len(versions) < 2:
        return plan
    parts = "; ".join(f"{len(names)} of version {digest}, such as {names[0]}" for digest, names in versions.items())
    note = (
        f"The file of the workload changed between these runs ({parts}): where what it computes has changed, they are not "
        "comparable."
    )
    return replace(plan, notes=(*plan.notes, note))
