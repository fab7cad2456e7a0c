"""Results of a plan's runs, as arrays by treatment.

Shapes: ``S`` seeds, ``K`` metrics, ``E`` epochs, ``T`` tasks, ``P`` pairs of tasks. Values of runs that
failed or are not finished are nan.
"""

from __future__ import annotations

import gc
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import combinations
from pathlib import Path

import numpy as np

from paretorch.core.arrays import Array
from paretorch.metrics.comparison import delta_m, is_valid_baseline
from paretorch.reports.reading.epochs import by_epoch, cosines, epoch_seconds, memory, seconds, validation_scores
from paretorch.reports.reading.front_results import Fronts, fronts
from paretorch.reports.reading.missing import Missing, missing
from paretorch.reports.reading.plan import Plan, plan_all
from paretorch.reports.reading.searches import Searches, searches
from paretorch.studies.statistics.quality import seed_mean
from paretorch.studies.study import Combine, Treatment
from paretorch.training.record.pairing import pairing_note
from paretorch.training.record.result import STATIONARITY, Result, Scores
from paretorch.training.record.run_identity import verified_result
from paretorch.training.record.together import together_note
from paretorch.training.run import Run


@dataclass(frozen=True)
class TaskMetric:
    """One number about one task, its direction and unit (empty for shares and scores)."""

    task: str
    name: str
    higher_is_better: bool
    unit: str

    @property
    def title(self) -> str:
        """Its name in tables and on axes."""
        return f"{self.task} {self.name}"


@dataclass(frozen=True)
class TreatmentResults:
    """Results of a treatment.

    Args:
        label: its name.
        validation: (S, K) with the last weights.
        test: (S, K) with the last weights.
        test_losses: (S, T) mean losses on test data, with the last weights.
        curves: (S, E, K) on validation data after every epoch.
        losses: (S, E, T) mean training loss of every epoch.
        weights: (S, E, T) mean weights of the method; nan if it has none.
        cosines: (S, E, P) mean cosines between two tasks' gradients; nan if the method does not compute them.
        epoch_seconds: (S, E) of training; joined runs add up.
        seconds_per_epoch: (S,) of training; joined runs add up.
        seconds: (S,) training and evaluation of all its runs, with those that were not chosen.
        peak_memory: (S,) bytes; the largest of joined runs.
        residuals: (S,) Pareto stationarity residuals of the models on training data; nan if they were not computed, and for
            joined runs, which are several models.
        runs: finished runs, with those that were not chosen.
        settings: what was trained, on the first seed; several runs if they are joined.
        chosen: of a grid, the best run on validation data, with the first seed.
        missing: runs without a result.
        searches: statistics of line searches; None without them.
        fronts: the sets of models; None for single models.
        grid: of a grid, the results of each of its runs, in their order.
        trials: (N, K) metrics on validation data of the finished trials of a search, with all epochs; of joined runs the chosen
            trials as one row.
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
    residuals: Array
    runs: int
    settings: tuple[Run, ...]
    chosen: Run | None = None
    missing: tuple[Missing, ...] = ()
    searches: Searches | None = None
    fronts: Fronts | None = None
    grid: tuple[TreatmentResults, ...] = ()
    trials: Array = field(default_factory=lambda: np.zeros((0, 0)))

    @property
    def seeds(self) -> int:
        """Number of seeds with a value of every metric."""
        return int(np.isfinite(self.test).all(axis=1).sum())

    @property
    def combined_test_losses(self) -> Array:
        """(S,) the plain sum over tasks; nan if one is missing."""
        return np.asarray(self.test_losses.sum(axis=1))


@dataclass(frozen=True)
class StudyResults:
    """A plan with the results of its treatments, by label in the study's order."""

    plan: Plan
    metrics: tuple[TaskMetric, ...]
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
        """(K,) whether Delta m includes the metric: the baseline's mean is finite and not zero."""
        return counted(self.treatments[self.plan.study.baseline].test)


def load(path: str | Path) -> StudyResults:
    """The results in one folder, of one workload; see :func:`load_all`.

    Raises:
        ValueError: as :func:`load_all`, or runs of several workloads.
    """
    found = load_all([path])
    if len(found) > 1:
        titles = ", ".join(results.plan.workload for results in found)
        raise ValueError(
            f"{path} contains runs of {len(found)} workloads ({titles}), each with its own table: use load_all"
        )
    return found[0]


def load_all(paths: Sequence[str | Path], reference: str | None = None) -> tuple[StudyResults, ...]:
    """The results below these folders, for each workload; studies may be unfinished.

    Args:
        paths: of studies, of single runs, or of folders that contain them.
        reference: label of the treatment to which all others are compared, instead of the studies' own.

    Raises:
        ValueError: no finished run, a run of a newer version, a result that is damaged, edited or of another run, runs with
            different metrics, or a baseline without a result.
    """
    with _garbage_collection_disabled():
        return tuple(map(_read, plan_all(paths, reference)))


def counted(base: Array) -> list[bool]:
    """(K,) whether a relative change can be taken of each metric's mean over the seeds of (S, K)."""
    return [is_valid_baseline(seed_mean(base[:, k])) for k in range(base.shape[1])]


def quality(metrics: Array, base: Array, directions: Sequence[bool]) -> Array:
    """(...) Delta m of (..., K) metrics against the mean of (S, K), over the metrics of which one can be taken."""
    use = np.array(counted(base))
    if not use.any():
        return np.full(metrics.shape[:-1], math.nan)
    means = [seed_mean(base[:, k]) for k in np.flatnonzero(use)]
    return delta_m(metrics[..., use], means, list(np.array(directions)[use]))


def _read(plan: Plan) -> StudyResults:
    runs = {run.key: run for _, run in plan.study.planned(plan.seeds)}
    found = {key: plan.folders[key] for key in runs if key in plan.folders}
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
            f"the baseline {baseline.label!r} is a grid: its member would be chosen relative to itself; name another baseline"
        )
    base = read.treatment(baseline, baseline.runs).validation
    _check_baseline(base, plan)
    treatments = {t.label: read.chosen(t, base) for t in plan.study.treatments}
    facts = [result.facts for result in results.values()]
    note = pairing_note(facts)
    paired = (f"{note[0].upper()}{note[1:]}.",) if note else ()
    together = filter(None, (together_note(facts),))
    plan = replace(plan, notes=(*plan.notes, *paired, *together))
    measures = tuple(dict.fromkeys(str(result.peak_memory["measures"]) for result in results.values()))
    return StudyResults(plan, read.metrics, tasks, treatments, measures)


@contextmanager
def _garbage_collection_disabled() -> Iterator[None]:
    """The garbage collector would traverse all results read so far again and again, and take five times as long."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _check_baseline(values: Array, plan: Plan) -> None:
    if not np.isfinite(values).any(axis=1).any():
        raise ValueError(
            f"{plan.sources[0].path}: no seed of the baseline {plan.study.baseline!r} is finished, so nothing can be "
            "compared; run the study again with resume"
        )


def _metrics(plan: Plan, results: dict[str, Result]) -> tuple[TaskMetric, ...]:
    found: dict[tuple[str, str], TaskMetric] = {}
    for key, result in results.items():
        for task, directions in result.higher_is_better.items():
            for name, higher in directions.items():
                metric = TaskMetric(task, name, higher, result.units[task][name])
                if found.setdefault((task, name), metric) != metric:
                    raise ValueError(
                        f"{plan.folders[key]}: runs disagree on direction or unit of {metric.title!r}: not one workload"
                    )
    order = {
        task: place for result in results.values() for place, task in enumerate(result.tasks) if len(result.tasks) > 1
    }
    return tuple(sorted(found.values(), key=lambda metric: order.get(metric.task, len(order))))


@dataclass(frozen=True)
class _Reader:
    plan: Plan
    results: dict[str, Result]
    metrics: tuple[TaskMetric, ...]
    tasks: tuple[str, ...]

    def chosen(self, treatment: Treatment, base: Array) -> TreatmentResults:
        """The treatment's results; of a grid, those of the member that is best on validation data."""
        if treatment.combine is not Combine.CHOOSE:
            return self.treatment(treatment, treatment.runs)
        members = [self.treatment(treatment, (run,)) for run in treatment.runs]
        scores = [quality(member.validation, base, [m.higher_is_better for m in self.metrics]) for member in members]
        # most seeds first: a member that failed on a subset of the seeds is not chosen for the others
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
            curves=np.array([[scores(validation_scores(group, e)) for e in range(epochs)] for group in found]),
            losses=by_epoch(found, epochs, self.tasks, lambda epoch: epoch.losses),
            weights=by_epoch(found, epochs, self.tasks, lambda epoch: epoch.weights),
            cosines=by_epoch(found, epochs, pairs, cosines),
            epoch_seconds=epoch_seconds(found, epochs),
            seconds_per_epoch=np.array(
                [sum(r.seconds_per_epoch for r in group) if group else math.nan for group in found]
            ),
            seconds=np.array([sum(seconds(result) for result in group) for group in found]),
            peak_memory=np.array([max(map(memory, g), default=math.nan) for g in found]),
            residuals=np.array(
                [
                    group[0].facts.get(STATIONARITY, math.nan) if len(runs) == len(group) == 1 else math.nan
                    for group in found
                ]
            ),
            runs=sum(len(group) for group in found),
            settings=tuple(runs),
            missing=tuple(
                missing(treatment.label, run, self.plan.folders.get(run.key))
                for group in seeds
                for run in group
                if run.key not in self.results
            ),
            searches=searches(found, epochs, self.plan.folders),
            trials=self.trials(treatment),
            fronts=fronts(found, epochs),
        )

    def trials(self, treatment: Treatment) -> Array:
        """(N, K) the metrics of the trials on validation data; see :class:`TreatmentResults`."""
        found = [s for tuning in self.plan.tunings for s in tuning.of(treatment.label, self.plan.workload)]
        whole = max((trial.run.epochs for search in found for trial in search.trials), default=0)
        groups = [[trial] for search in found for trial in search.trials if trial.run.epochs == whole]
        if len(found) > 1:  # joined runs
            groups = [[search.trials[search.chosen] for search in found if search.chosen is not None]]
        read = [[self.trial(trial.run) for trial in group] for group in groups]
        rows = [self.scores([scores for scores in group if scores is not None]) for group in read if any(group)]
        return np.array(rows, dtype=np.float64).reshape(len(rows), len(self.metrics))

    def trial(self, run: Run) -> Scores | None:
        """The scores of a trial on validation data; None where it has no result."""
        folder = self.plan.trials.get(run.key)
        if folder is None or not (folder / "result.json").exists():
            return None
        return verified_result(folder, run).validation

    def scores(self, scores: Sequence[Scores]) -> list[float]:
        """(K,) the metrics, each from the scores that have it."""
        values = {(task, name): value for s in scores for task, by in s.metrics.items() for name, value in by.items()}
        return [values.get((metric.task, metric.name), math.nan) for metric in self.metrics]

    def losses(self, scores: Sequence[Scores]) -> list[float]:
        """(T,) the losses, each from the scores that have it."""
        values = {task: value for s in scores for task, value in s.losses.items()}
        return [values.get(task, math.nan) for task in self.tasks]
