"""Results of a plan's runs, as arrays by treatment.

Shapes: ``S`` seeds, ``K`` metrics, ``E`` epochs, ``T`` tasks, ``P`` pairs of tasks. Values of runs that
failed or are not finished are nan.
"""

from __future__ import annotations

import gc
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import combinations
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

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
class Choice:
    """The selection of one of the runs of a grid.

    Args:
        run: the best run on validation data, with the first seed.
        seeds: number of seeds on which the candidates are compared: those that all of them have; 0 if they share none, and each
            is judged by its own seeds.
        candidates: number of candidates that have a result.
        runs: finished runs that the comparison took.
        seconds: of these runs, training and evaluation.
    """

    run: Run
    seeds: int
    candidates: int
    runs: int
    seconds: float


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
        choice: of a grid, its best run and how it was selected.
        missing: runs without a result.
        searches: statistics of line searches; None without them.
        fronts: the sets of models; None for single models.
        grid: of a grid, the results of each of its runs, in their order.
        trials: (N, K) metrics on validation data of the finished trials of a search, with all epochs; of joined runs the chosen
            trials as one row.
        without_loss: indices of the tasks of which no run of the report has a loss on test data; none if no task has.
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
    choice: Choice | None = None
    missing: tuple[Missing, ...] = ()
    searches: Searches | None = None
    fronts: Fronts | None = None
    grid: tuple[TreatmentResults, ...] = ()
    trials: Array = field(default_factory=lambda: np.zeros((0, 0)))
    without_loss: tuple[int, ...] = ()

    @property
    def seeds(self) -> int:
        """Number of seeds with a value of every metric that the treatment has on any seed."""
        finite = np.isfinite(self.test)
        return int(finite[:, finite.any(axis=0)].all(axis=1).sum()) if finite.any() else 0

    @property
    def chosen(self) -> Run | None:
        """Of a grid, the best run on validation data, with the first seed."""
        return None if self.choice is None else self.choice.run

    @property
    def combined_test_losses(self) -> Array:
        """(S,) the plain sum over the tasks with a loss in any run of the report; nan if one of them is missing.

        Of a front, that of its model with the lowest sum.
        """
        sums = np.asarray(np.delete(self.test_losses, self.without_loss, axis=1).sum(axis=1))
        return sums if self.fronts is None else np.where(np.isfinite(sums), self.fronts.combined, math.nan)


@dataclass(frozen=True)
class StudyResults:
    """A plan with the results of its treatments, by label in the study's order."""

    plan: Plan
    metrics: tuple[TaskMetric, ...]
    tasks: tuple[str, ...]
    treatments: dict[str, TreatmentResults]
    memory_measures: tuple[str, ...] = ()

    @property
    def tested(self) -> list[int]:
        """Indices of the metrics of which some treatment has a value on test data."""
        finite = [np.isfinite(treatment.test).any(axis=0) for treatment in self.treatments.values()]
        return [int(k) for k in np.flatnonzero(np.any(finite, axis=0))]

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
    return [is_valid_baseline(mean) for mean in _baseline_means(base)]


def quality(metrics: Array, base: Array, directions: Sequence[bool]) -> Array:
    """(...) Delta m of (..., K) metrics against the mean of (S, K), over the metrics of which one can be taken.

    The mean is over the seeds on which the baseline has all these metrics, so that its own Delta m is 0 on average.
    """
    means = _baseline_means(base)
    use = np.array(list(map(is_valid_baseline, means)), dtype=bool)
    if not use.any():
        return np.full(metrics.shape[:-1], math.nan)
    return delta_m(metrics[..., use], means[use], list(np.array(directions)[use]))


def _baseline_means(base: Array) -> Array:
    """(K,) means of (S, K), each over the seeds that are complete in all metrics whose mean is finite and not zero."""
    finite = np.isfinite(base)
    use = np.asarray(finite.any(axis=0))
    while True:
        complete = finite[:, use].all(axis=1)
        rows = base[complete] if complete.any() else base
        means = np.array([seed_mean(rows[:, k]) if use[k] else math.nan for k in range(base.shape[1])])
        valid = np.array(list(map(is_valid_baseline, means)), dtype=bool)
        if (valid == use).all():
            return means
        use = valid


def _read(plan: Plan) -> StudyResults:
    runs = {run.key: run for _, run in plan.study.planned(plan.seeds)}
    places = {key: plan.folders[key] for key in runs if key in plan.folders}
    results = {
        key: verified_result(place, runs[key]) for key, place in places.items() if (place / "result.json").exists()
    }
    tasks = tuple(
        dict.fromkeys(task for r in sorted(results.values(), key=lambda r: -len(r.tasks)) for task in r.tasks)
    )
    metrics = _metrics(plan, results, tasks)
    known = tuple(metric for metric in metrics if _has_value(metric, results))
    read = _Reader(plan, results, known or metrics, tasks)
    baseline = next(t for t in plan.study.treatments if t.label == plan.study.baseline)
    if baseline.combine is Combine.CHOOSE:
        raise ValueError(
            f"the baseline {baseline.label!r} is a grid: its member would be chosen relative to itself; name another baseline"
        )
    base = read.treatment(baseline, baseline.runs).validation
    _check_baseline(base, plan)
    treatments = {t.label: read.chosen(t, base) for t in plan.study.treatments}
    losses = np.concatenate([t.test_losses for t in treatments.values()])
    known_losses = np.isfinite(losses).any(axis=0)
    absent = tuple(int(k) for k in np.flatnonzero(~known_losses)) if known_losses.any() else ()
    if absent:
        treatments = {
            label: replace(
                t, without_loss=absent, grid=tuple(replace(member, without_loss=absent) for member in t.grid)
            )
            for label, t in treatments.items()
        }
    facts = [result.facts for result in results.values()]
    note = pairing_note(facts)
    paired = (f"{note[0].upper()}{note[1:]}.",) if note else ()
    together = filter(None, (together_note(facts),))
    measures = tuple(dict.fromkeys(str(result.peak_memory["measures"]) for result in results.values()))
    found = StudyResults(plan, read.metrics, tasks, treatments, measures)
    notes = (*plan.notes, *paired, *together, *_without_values(found, [m for m in metrics if m not in read.metrics]))
    return replace(found, plan=replace(plan, notes=notes))


def _has_value(metric: TaskMetric, results: Mapping[str, Result]) -> bool:
    """Whether some run has a finite value of the metric, on validation or test data."""
    return any(
        math.isfinite(scores.metrics.get(metric.task, {}).get(metric.name, math.nan))
        for result in results.values()
        for scores in (result.test, result.validation, *(epoch.validation for epoch in result.history))
    )


def _without_values(results: StudyResults, left_out: Sequence[TaskMetric]) -> Iterator[str]:
    """Notes on metrics that no run has."""
    if left_out:
        yield f"No run has a finite value of {', '.join(metric.title for metric in left_out)}: left out."
    tested = results.tested
    untested = [metric.title for k, metric in enumerate(results.metrics) if k not in tested]
    if untested:
        yield f"No run has a finite value of {', '.join(untested)} on test data: left out of all numbers on test data."


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


def _metrics(plan: Plan, results: dict[str, Result], tasks: Sequence[str]) -> tuple[TaskMetric, ...]:
    """All metrics, in the order of the tasks."""
    found: dict[tuple[str, str], TaskMetric] = {}
    for key, result in results.items():
        for task, directions in result.higher_is_better.items():
            for name, higher in directions.items():
                metric = TaskMetric(task, name, higher, result.units[task][name])
                if found.setdefault((task, name), metric) != metric:
                    raise ValueError(
                        f"{plan.folders[key]}: runs disagree on direction or unit of {metric.title!r}: not one workload"
                    )
    order = {task: place for place, task in enumerate(tasks)}
    return tuple(sorted(found.values(), key=lambda metric: order.get(metric.task, len(order))))  # last: of a front


def select_member(
    members: Sequence[TreatmentResults], base: Array, directions: Sequence[bool], seeds: Sequence[int]
) -> TreatmentResults:
    """The results of the member of a grid that is best on validation data, with those of the whole grid.

    Args:
        members: N, each the results of one run.
        base: (S, K) the baseline's metrics on validation data.
        directions: (K,) whether higher is better.
        seeds: (S,) of the report.
    """
    scores = np.array([quality(member.validation, base, directions) for member in members])
    ended = [[each for each in member.missing if not each.error] for member in members]
    trained = np.array([~np.isin(seeds, [each.run.seed for each in runs]) for runs in ended])
    finished = [~np.isin(seeds, [each.run.seed for each in member.missing]) for member in members]
    best, used, compared = _best_member(scores, trained)
    return replace(
        members[best],
        seconds=np.sum([member.seconds for member in members], axis=0),
        runs=sum(member.runs for member in members),
        choice=Choice(
            run=members[best].settings[0],
            seeds=int(compared.sum()),
            candidates=int(np.isfinite(scores).any(axis=1).sum()),
            runs=int(sum(has_result[used].sum() for has_result in finished)),
            seconds=float(sum(member.seconds[used].sum() for member in members)),
        ),
        missing=tuple(run for member in members for run in member.missing),
        grid=tuple(members),
    )


def _best_member(scores: Array, trained: NDArray[np.bool_]) -> tuple[int, NDArray[np.bool_], NDArray[np.bool_]]:
    """The member of a grid with the lowest mean score, among those that failed least.

    Only seeds on which all members with a score were trained count: a member may share its runs with another treatment, and then
    have more seeds than the others. Without such a seed each member is judged by its own, and most seeds are first.

    Args:
        scores: (N, S) Delta m on validation data; nan without a result.
        trained: (N, S) whether a run has a result or failed.

    Returns:
        The index of the member; (S,) the seeds that count; (S,) those of them on which means are compared.
    """
    known = np.isfinite(scores)
    members = np.flatnonzero(known.any(axis=1))
    used = np.asarray(trained[members].all(axis=0))
    if not len(members) or not used.any():
        used = np.ones_like(used)
    failed = (trained & ~known)[:, used].sum(axis=1)
    least = members[failed[members] == failed[members].min(initial=scores.shape[1])]
    compared = np.logical_and(used, known[least].all(axis=0)) if len(least) else np.zeros_like(used)
    rows = scores[:, compared if compared.any() else used]
    best = min(least, key=lambda i: (-np.isfinite(rows[i]).sum(), seed_mean(rows[i])), default=0)
    return int(best), used, compared


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
        return select_member(members, base, [metric.higher_is_better for metric in self.metrics], self.plan.seeds)

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
