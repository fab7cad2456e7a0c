"""Standalone runs as the treatments of a study: runs that differ in the seed alone are one treatment."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from paretorch.studies.study import Combine, Study, Treatment
from paretorch.training.run import Run

SELF_EXPLANATORY = ("optimizer", "surface")  # values that need no name
NO_TREATMENT = (  # listed by name, or in the first place of a label
    "seed", "workload", "options", "tasks", "method", "front", "optimizer_options", "door", "front_options",
)  # fmt: skip
SINGLE = "single task"


def study_of_runs(workload: str, runs: Sequence[Run]) -> tuple[Study, tuple[str, ...]]:
    """A study whose treatments are those of the runs, and notes on its construction.

    Networks of one task each are joined to the single-task baseline if together they train all tasks of any other run.
    Without them, Delta m is relative to the reference: the plain sum of losses if it was trained, else the first treatment.

    Args:
        workload: all runs are on it.
        runs: at least one.

    Example:
        >>> study, _ = study_of_runs("digits", [Run("digits", method="MGDA()", seed=seed) for seed in (0, 1)] + [Run("digits")])
        >>> [treatment.label for treatment in study.treatments], study.reference
        (['MGDA()', 'Equal()'], 'Equal()')
    """
    seedless_runs: dict[str, Run] = {}
    for run in runs:
        seedless = replace(run, seed=0)
        seedless_runs.setdefault(seedless.key, seedless)
    single = [run for run in seedless_runs.values() if len(run.tasks) == 1]
    others = [run for run in seedless_runs.values() if len(run.tasks) != 1]
    treatments = _single_tasks(single)
    treatments += [Treatment(label, (run,)) for label, run in zip(_labels(others), others, strict=True)]
    labels = [treatment.label for treatment in treatments]
    sums = [
        t.label
        for t in treatments
        if t.runs[0].method == "Equal()" and not t.runs[0].front and len(t.runs[0].tasks) != 1
    ]
    reference = (sums or labels)[0]
    joined = [t.label for t in treatments if t.combine is Combine.JOIN or len(t.runs[0].tasks) == 1]
    baseline = joined[0] if len(joined) == 1 and len(labels) > 1 else reference
    notes = [f"Single runs, compared with {reference!r}; `--reference` names another."]
    if baseline == reference and len(labels) > 1:
        notes.append(f"No single-task baseline was trained: Δm is relative to {reference!r}.")
    question = f"Which way of training {workload} gives the best network?"
    return Study("runs", question, tuple(treatments), reference, baseline), tuple(notes)


def _single_tasks(single: Sequence[Run]) -> list[Treatment]:
    """Networks of one task each: joined if there is one for each task with equal settings, else separate treatments."""
    tasks = [run.tasks[0] for run in single]
    settings = {replace(run, tasks=()).key for run in single}
    if len(single) > 1 and len(set(tasks)) == len(tasks) and len(settings) == 1:
        return [Treatment(SINGLE, tuple(single), Combine.JOIN)]
    labels = _labels(single)
    return [
        Treatment(f"{run.tasks[0]} alone" + (f", {label}" if tasks.count(run.tasks[0]) > 1 else ""), (run,))
        for run, label in zip(single, labels, strict=True)
    ]


def _labels(runs: Sequence[Run]) -> list[str]:
    """The method of each run, or the algorithm of its front, and its other settings that differ between the runs."""
    flat = [_settings(run) for run in runs]
    names = dict.fromkeys(name for values in flat for name in values)
    differing = [name for name in names if len({json.dumps(values.get(name)) for values in flat}) > 1]
    return [
        ", ".join([run.front or run.method, *_named(values, differing)]) for run, values in zip(runs, flat, strict=True)
    ]


def _named(values: Mapping[str, Any], names: Iterable[str]) -> list[str]:
    return [
        str(values[name]) if name in SELF_EXPLANATORY else f"{name} {values[name]}" for name in names if name in values
    ]


def _settings(run: Run) -> dict[str, Any]:
    """The settings that distinguish treatments, by name, with those of the optimizer, of the interface and of a front."""
    values = {name: value for name, value in run.to_json().items() if name not in NO_TREATMENT}
    tasks = {"tasks": " and ".join(run.tasks)} if run.tasks else {}
    return {**values, **run.optimizer_options, **run.door, **run.front_options, **tasks}
