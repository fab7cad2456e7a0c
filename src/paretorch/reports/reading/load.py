"""Reads the runs of a plan: their results as arrays by treatment. Files only, never a model.

Shapes: ``S`` seeds, ``K`` metrics, ``E`` epochs, ``T`` tasks, ``P`` pairs of tasks. What is missing, because a run failed
or is not finished, is nan.
"""

from __future__ import annotations

import gc
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from paretorch.reports.reading.epochs import after, by_epoch, cosines, epoch_seconds, memory, seconds
from paretorch.reports.reading.front_results import Fronts, fronts
from paretorch.reports.reading.missing import Missing, missing
from paretorch.reports.reading.plan import Plan, gather
from paretorch.reports.reading.searches import Searches, searches
from paretorch.studies.statistics.quality import countable, delta_m, seed_mean
from paretorch.studies.study import Combine, Treatment
from paretorch.training.record.result import Result, Scores
from paretorch.training.record.run_identity import verified_result
from paretorch.training.run import Run

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
        test_losses: (S, T) mean losses on test data, with the last weights.
        curves: (S, E, K) on validation data after every epoch.
        losses: (S, E, T) mean training loss of every epoch.
        weights: (S, E, T) mean weights of the method; nan where it has none.
        cosines: (S, E, P) mean cosines between two tasks' gradients; nan where the method does not look at gradients.
        epoch_seconds: (S, E) of training; joined runs add up.
        seconds_per_epoch: (S,) of training; joined runs add up.
        seconds: (S,) training and evaluation of all its runs, those that were not chosen included.
        peak_memory: (S,) bytes; the largest of joined runs.
        runs: finished runs, those that were not chosen included.
        settings: what was trained, on the first seed; several runs where they are joined.
        chosen: of a grid, the run that counts, with the first seed.
        missing: runs without a result.
        searches: what line searches did; None where there was none.
        fronts: the sets of models; None where single ones were trained.
        grid: of a grid, what each of its runs came to, in their order.
    """

    label: str
    validation: Array
    test: Array
    test_losses: Array
    curves: Array
    losses: Array
    weights: Array
    cosines: Array
    epoch_seconds: Array
    seconds_per_epoch: Array
    seconds: Array
    peak_memory: Array
    runs: int
    settings: tuple[Run, ...]
    chosen: Run | None = None
    missing: tuple[Missing, ...] = ()
    searches: Searches | None = None
    fronts: Fronts | None = None
    grid: tuple[TreatmentResults, ...] = ()

    @property
    def seeds(self) -> int:
        """Seeds on which every metric is there."""
        return int(np.isfinite(self.test).all(axis=1).sum())


@dataclass(frozen=True)
class StudyResults:
    """A plan with the results of its treatments, by label in the study's order."""

    plan: Plan
    metrics: tuple[Metric, ...]
    tasks: tuple[str, ...]
    treatments: dict[str, TreatmentResults]
    memory_measures: tuple[str, ...] = ()

    @property
    def directions(self) -> list[bool]:
        """(K,) whether higher is better."""
        return [metric.higher_is_better for metric in self.metrics]

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """(P,) the pairs of tasks, in the order of :attr:`TreatmentResults.cosines`."""
        return list(combinations(self.tasks, 2))

    @property
    def counted(self) -> list[bool]:
        """(K,) the metrics that Delta m is a mean of: those of which the baseline's mean is there and is not zero."""
        return counted(self.treatments[self.plan.study.baseline].test)


def load(path: str | Path) -> StudyResults:
    """The results that lie in one folder and are on one workload; see :func:`load_all`.

    Raises:
        ValueError: as :func:`load_all`, or runs of several workloads.
    """
    found = load_all([path])
    if len(found) > 1:
        titles = ", ".join(results.plan.workload for results in found)
        raise ValueError(f"{path} holds runs of {len(found)} workloads ({titles}), a table each: use load_all")
    return found[0]


def load_all(paths: Sequence[str | Path], reference: str | None = None) -> tuple[StudyResults, ...]:
    """The results under these folders, a set for each workload; studies may be unfinished.

    Args:
        paths: of studies, of single runs, or of folders that hold such.
        reference: label of the treatment to which all others are compared, instead of the studies' own.

    Raises:
        ValueError: no finished run there, one of a newer version, a result that is damaged, edited or of another run, runs
            with unlike metrics, or a baseline without any result, to which nothing can be compared.
    """
    with _uncollected():
        return tuple(map(_read, gather(paths, reference)))


def counted(base: Array) -> list[bool]:
    """(K,) whether a relative change can be taken of each metric's mean over the seeds of (S, K)."""
    return [countable(seed_mean(base[:, k])) for k in range(base.shape[1])]


def quality(metrics: Array, base: Array, directions: Sequence[bool]) -> Array:
    """(...) Delta m of (..., K) metrics against the mean of (S, K), over the metrics of which one can be taken."""
    use = np.array(counted(base))
    if not use.any():
        return np.full(metrics.shape[:-1], math.nan)
    means = [seed_mean(base[:, k]) for k in np.flatnonzero(use)]
    return delta_m(metrics[..., use], means, list(np.array(directions)[use]))


def _read(plan: Plan) -> StudyResults:
    runs = {run.key: run for _, run in plan.study.planned(plan.seeds)}
    found = {key: plan.places[key] for key in runs if key in plan.places}
    results = {
        key: verified_result(place, runs[key]) for key, place in found.items() if (place / "result.json").exists()
    }
    tasks = tuple(
        dict.fromkeys(task for r in sorted(results.values(), key=lambda r: -len(r.tasks)) for task in r.tasks)
    )
    read = _Reader(plan, results, _metrics(plan, results), tasks)
    baseline = next(t for t in plan.study.treatments if t.label == plan.study.baseline)
    if baseline.combine is Combine.CHOOSE:
        raise ValueError(
            f"the baseline {baseline.label!r} is a grid, of which one is chosen against the baseline itself"
        )
    base = _some(read.treatment(baseline, baseline.runs).validation, plan)
    treatments = {t.label: read.chosen(t, base) for t in plan.study.treatments}
    measures = tuple(dict.fromkeys(str(result.peak_memory["measures"]) for result in results.values()))
    return StudyResults(plan, read.metrics, tasks, treatments, measures)


@contextmanager
def _uncollected() -> Iterator[None]:
    """Without the garbage collector, which would walk all that was read so far again and again: five times as slow."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _some(values: Array, plan: Plan) -> Array:
    """Fails where no seed of the baseline is finished."""
    if not np.isfinite(values).any(axis=1).any():
        raise ValueError(
            f"{plan.sources[0].path}: no seed of the baseline {plan.study.baseline!r} is finished, so nothing can be "
            "compared; run the study again with resume"
        )
    return values


def _metrics(plan: Plan, results: dict[str, Result]) -> tuple[Metric, ...]:
    found: dict[tuple[str, str], Metric] = {}
    for key, result in results.items():
        for task, directions in result.higher_is_better.items():
            for name, higher in directions.items():
                metric = Metric(task, name, higher, result.units[task][name])
                if found.setdefault((task, name), metric) != metric:
                    raise ValueError(
                        f"{plan.places[key]}: runs disagree on direction or unit of {metric.title!r}: not one workload"
                    )
    order = {
        task: place for result in results.values() for place, task in enumerate(result.tasks) if len(result.tasks) > 1
    }
    return tuple(sorted(found.values(), key=lambda metric: order.get(metric.task, len(order))))


@dataclass(frozen=True)
class _Reader:
    plan: Plan
    results: dict[str, Result]
    metrics: tuple[Metric, ...]
    tasks: tuple[str, ...]

    def chosen(self, treatment: Treatment, base: Array) -> TreatmentResults:
        """The treatment's results; of a grid, those of the member that is best on validation data."""
        if treatment.combine is not Combine.CHOOSE:
            return self.treatment(treatment, treatment.runs)
        members = [self.treatment(treatment, (run,)) for run in treatment.runs]
        scores = [quality(member.validation, base, [m.higher_is_better for m in self.metrics]) for member in members]
        # most seeds first: a member that fails on some seeds is not chosen for the seeds on which it does not
        best = min(range(len(members)), key=lambda i: (-np.isfinite(scores[i]).sum(), seed_mean(scores[i])))
        return replace(
            members[best],
            seconds=np.sum([member.seconds for member in members], axis=0),
            runs=sum(member.runs for member in members),
            chosen=treatment.runs[best],
            missing=tuple(run for member in members for run in member.missing),
            grid=tuple(members),
        )

    def treatment(self, treatment: Treatment, runs: Sequence[Run]) -> TreatmentResults:
        """The results of runs that together are one result on every seed."""
        seeds = [[replace(run, seed=seed) for run in runs] for seed in self.plan.seeds]
        found = [[self.results[run.key] for run in group if run.key in self.results] for group in seeds]
        epochs = max(run.epochs for run in runs)
        pairs = [frozenset(pair) for pair in combinations(self.tasks, 2)]
        scores = self.scores
        return TreatmentResults(
            label=treatment.label,
            validation=np.array([scores([result.validation for result in group]) for group in found]),
            test=np.array([scores([result.test for result in group]) for group in found]),
            test_losses=np.array([self.losses([result.test for result in group]) for group in found]),
            curves=np.array([[scores(after(group, e)) for e in range(epochs)] for group in found]),
            losses=by_epoch(found, epochs, self.tasks, lambda epoch: epoch.losses),
            weights=by_epoch(found, epochs, self.tasks, lambda epoch: epoch.weights),
            cosines=by_epoch(found, epochs, pairs, cosines),
            epoch_seconds=epoch_seconds(found, epochs),
            seconds_per_epoch=np.array(
                [sum(r.seconds_per_epoch for r in group) if group else math.nan for group in found]
            ),
            seconds=np.array([sum(seconds(result) for result in group) for group in found]),
            peak_memory=np.array([max(map(memory, g), default=math.nan) for g in found]),
            runs=sum(len(group) for group in found),
            settings=tuple(runs),
            missing=tuple(
                missing(treatment.label, run, self.plan.places.get(run.key))
                for group in seeds
                for run in group
                if run.key not in self.results
            ),
            searches=searches(found, epochs, self.plan.places),
            fronts=fronts(found, epochs),
        )

    def scores(self, scores: Sequence[Scores]) -> list[float]:
        """(K,) the metrics, each from the scores that have it."""
        values = {(task, name): value for s in scores for task, by in s.metrics.items() for name, value in by.items()}
        return [values.get((metric.task, metric.name), math.nan) for metric in self.metrics]

    def losses(self, scores: Sequence[Scores]) -> list[float]:
        """(T,) the losses, each from the scores that have it."""
        values = {task: value for s in scores for task, value in s.losses.items()}
        return [values.get(task, math.nan) for task in self.tasks]
