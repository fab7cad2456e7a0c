"""Reads a study's folder: the results of its runs as arrays by treatment. Files only, never a model.

Shapes: ``S`` seeds, ``K`` metrics, ``E`` epochs. What is missing, because a run failed or is not finished, is nan.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from paretorch.studies.folder import StudyFolder, read_folder
from paretorch.studies.quality import delta_m, seed_mean
from paretorch.studies.study import Combine, Treatment
from paretorch.training.result import Result, Scores
from paretorch.training.spec import Run

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Metric:
    """One number about one task, its direction and unit (empty for shares and scores)."""

    task: str
    name: str
    higher_is_better: bool
    unit: str

    @property
    def title(self) -> str:
        """How tables and axes name it."""
        return f"{self.task} {self.name}"


@dataclass(frozen=True)
class TreatmentResults:
    """What a treatment came to.

    Args:
        label: its name.
        validation: (S, K) with the last weights.
        test: (S, K) with the last weights.
        curves: (S, E, K) on validation data after every epoch.
        seconds_per_epoch: (S,) of training; joined runs add up.
        seconds: (S,) training and evaluation of all its runs, those that were not chosen included.
        peak_memory: (S,) bytes; the largest of joined runs.
        runs: finished runs, those that were not chosen included.
        chosen: of a grid, the run that counts, with the first seed.
        missing: folders of runs without a result.
    """

    label: str
    validation: Array
    test: Array
    curves: Array
    seconds_per_epoch: Array
    seconds: Array
    peak_memory: Array
    runs: int
    chosen: Run | None = None
    missing: tuple[Path, ...] = ()


@dataclass(frozen=True)
class StudyResults:
    """A study with the results of its treatments, by label in the study's order."""

    folder: StudyFolder
    metrics: tuple[Metric, ...]
    treatments: dict[str, TreatmentResults]

    @property
    def directions(self) -> list[bool]:
        """(K,) whether higher is better."""
        return [metric.higher_is_better for metric in self.metrics]


def load(path: str | Path) -> StudyResults:
    """The results that lie in a study's folder, finished or not.

    Raises:
        ValueError: no study there, one of a newer version, a damaged result, runs with unlike metrics, or a baseline
            without any result, to which nothing can be compared.
    """
    folder = read_folder(Path(path))
    results = {job.run.key: Result.load(job.folder) for job in folder.jobs() if job.finished}
    metrics = _metrics(folder, results)
    read = _Reader(folder, results, metrics)
    baseline = next(t for t in folder.study.treatments if t.label == folder.study.baseline)
    if baseline.combine is Combine.CHOOSE:
        raise ValueError(
            f"the baseline {baseline.label!r} is a grid, of which one is chosen against the baseline itself"
        )
    base = np.nanmean(_some(read.treatment(baseline, baseline.runs).validation, folder), axis=0)
    return StudyResults(folder, metrics, {t.label: read.chosen(t, base) for t in folder.study.treatments})


def _some(values: Array, folder: StudyFolder) -> Array:
    """Fails where no seed of the baseline has all metrics."""
    if not np.isfinite(values).all(axis=1).any():
        raise ValueError(
            f"{folder.path}: no seed of the baseline {folder.study.baseline!r} is finished, so nothing can be "
            "compared; run the study again with resume"
        )
    return values


def _metrics(folder: StudyFolder, results: dict[str, Result]) -> tuple[Metric, ...]:
    found: dict[tuple[str, str], Metric] = {}
    for result in results.values():
        for task, directions in result.higher_is_better.items():
            for name, higher in directions.items():
                metric = Metric(task, name, higher, result.units[task][name])
                if found.setdefault((task, name), metric) != metric:
                    raise ValueError(
                        f"{folder.path}: runs disagree on direction or unit of {metric.title!r}: not one workload"
                    )
    order = {
        task: place for result in results.values() for place, task in enumerate(result.tasks) if len(result.tasks) > 1
    }
    return tuple(sorted(found.values(), key=lambda metric: order.get(metric.task, len(order))))


@dataclass(frozen=True)
class _Reader:
    folder: StudyFolder
    results: dict[str, Result]
    metrics: tuple[Metric, ...]

    def chosen(self, treatment: Treatment, base: Array) -> TreatmentResults:
        """The treatment's results; of a grid, those of the member that is best on validation data."""
        if treatment.combine is not Combine.CHOOSE:
            return self.treatment(treatment, treatment.runs)
        members = [self.treatment(treatment, (run,)) for run in treatment.runs]
        scores = [delta_m(member.validation, base, [m.higher_is_better for m in self.metrics]) for member in members]
        # most seeds first: a member that fails on some seeds is not chosen for the seeds on which it does not
        best = min(range(len(members)), key=lambda i: (-np.isfinite(scores[i]).sum(), seed_mean(scores[i])))
        return replace(
            members[best],
            seconds=np.sum([member.seconds for member in members], axis=0),
            runs=sum(member.runs for member in members),
            chosen=treatment.runs[best],
            missing=tuple(path for member in members for path in member.missing),
        )

    def treatment(self, treatment: Treatment, runs: Sequence[Run]) -> TreatmentResults:
        """The results of runs that together are one result on every seed."""
        seeds = [[replace(run, seed=seed) for run in runs] for seed in self.folder.seeds]
        found = [[self.results[run.key] for run in group if run.key in self.results] for group in seeds]
        epochs = max(run.epochs for run in runs)
        return TreatmentResults(
            label=treatment.label,
            validation=np.array([self.row([result.validation for result in group]) for group in found]),
            test=np.array([self.row([result.test for result in group]) for group in found]),
            curves=np.array([[self.row(self.after(group, e)) for e in range(epochs)] for group in found]),
            seconds_per_epoch=np.array(
                [sum(r.seconds_per_epoch for r in group) if group else math.nan for group in found]
            ),
            seconds=np.array([sum(_seconds(result) for result in group) for group in found]),
            peak_memory=np.array([max(map(_bytes, g), default=math.nan) for g in found]),
            runs=sum(len(group) for group in found),
            missing=tuple(self.folder.place(run) for group in seeds for run in group if run.key not in self.results),
        )

    def after(self, group: Sequence[Result], epoch: int) -> list[Scores]:
        return [result.history[epoch].validation for result in group if epoch < len(result.history)]

    def row(self, scores: Sequence[Scores]) -> list[float]:
        """(K,) the metrics, each from the scores that have it."""
        values = {(task, name): value for s in scores for task, by in s.metrics.items() for name, value in by.items()}
        return [values.get((metric.task, metric.name), math.nan) for metric in self.metrics]


def _seconds(result: Result) -> float:
    return sum(sum(epoch.seconds.values()) for epoch in result.history)


def _bytes(result: Result) -> float:
    return math.nan if result.peak_memory["bytes"] is None else float(result.peak_memory["bytes"])
