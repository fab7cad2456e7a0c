"""Results of runs that trained fronts, as arrays. Shapes: ``S`` seeds, ``E`` epochs, ``N`` models, ``T`` tasks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from paretorch.core.arrays import Array
from paretorch.pareto.dominance import non_dominated
from paretorch.pareto.hypervolume import hypervolume
from paretorch.training.record.result import Result


@dataclass(frozen=True)
class Fronts:
    """The fronts of a treatment.

    Args:
        tasks: (T,) names.
        reference: (T,) from which hypervolumes are measured.
        references: (S, T) the reference points of the runs; nan without a run. They differ between seeds if each is from an
            untrained model.
        largest: upper bound of the hypervolume of any set; nan if unknown.
        hypervolume: (S, E) on validation data after every epoch.
        gradients: (S, E) gradient evaluations until then, all models together.
        points: of each seed the (N, T) losses on test data, or on validation data without a test set; empty without a run.
        validation_points: of each seed the (N, T) losses on validation data after the last epoch; empty without a run.
        tested: whether ``points`` are losses on test data.
        transfer_share: (S,) share of models and steps that accepted a transfer; nan without transfer.
        single_task: whether there is one model for each task, trained for that task alone.
    """

    tasks: tuple[str, ...]
    reference: tuple[float, ...]
    references: Array
    largest: float
    hypervolume: Array
    gradients: Array
    points: tuple[Array, ...]
    validation_points: tuple[Array, ...]
    tested: bool
    transfer_share: Array
    single_task: bool

    @property
    def non_dominated(self) -> Array:
        """(S,) number of models that no other model of the set dominates."""
        return np.array([_count_non_dominated(points) if len(points) else math.nan for points in self.points])

    @property
    def final(self) -> Array:
        """(S,) the hypervolume of the points; nan without a run."""
        return np.array([volume(points, self.reference) for points in self.points])

    @property
    def combined(self) -> Array:
        """(S,) the lowest sum over tasks of the points of one model; nan without a finite point."""
        sums = [points[np.isfinite(points).all(axis=1)].sum(axis=1) for points in self.points]
        return np.array([values.min() if len(values) else math.nan for values in sums])

    @property
    def ideal(self) -> Array:
        """(S,) the hypervolume of the ideal point, which has every task's lowest loss of any model."""
        finite = [points[np.isfinite(points).all(axis=1)] for points in self.points]
        lowest = [points.min(axis=0, keepdims=True) if len(points) else points for points in finite]
        return np.array([volume(points, self.reference) for points in lowest])


def fronts(found: Sequence[Sequence[Result]], epochs: int) -> Fronts | None:
    """The fronts of the runs of each seed; None if none of them trained a front.

    Args:
        found: for each seed its finished runs: one or none.
        epochs: E.
    """
    runs = [group[0] if len(group) == 1 and group[0].run.front else None for group in found]
    first = next((run for run in runs if run is not None), None)
    if first is None:
        return None
    facts = first.facts["front"]
    volumes, gradients = (np.full((len(runs), epochs), math.nan) for _ in range(2))
    transfer_share = np.full(len(runs), math.nan)
    references = np.full((len(runs), len(first.tasks)), math.nan)
    for seed, run in enumerate(runs):
        if run is None:
            continue
        references[seed] = run.facts["front"]["reference"]
        count = min(epochs, len(run.history))
        volumes[seed, :count] = [e.validation.metrics["front"]["hypervolume"] for e in run.history[:count]]
        gradients[seed, :count] = run.facts["front"]["gradients"][:count]
        share = run.facts["front"]["took something over"]
        transfer_share[seed] = math.nan if share is None else share
    identity = np.eye(len(first.tasks)).tolist()
    return Fronts(
        tasks=first.tasks,
        reference=tuple(facts["reference"]),
        references=references,
        largest=math.nan if facts["largest hypervolume"] is None else facts["largest hypervolume"],
        hypervolume=volumes,
        gradients=gradients,
        points=tuple(_points(run, "test losses", len(first.tasks)) for run in runs),
        validation_points=tuple(_points(run, "losses", len(first.tasks)) for run in runs),
        tested=facts["test losses"] is not None,
        transfer_share=transfer_share,
        single_task=np.array_equal(facts["preferences"], identity),
    )


def reached(values: Array, cost: Array, target: float) -> Array:
    """(S,) the cost at which values first reach a target, linearly interpolated between two epochs; nan if they never do.

    Args:
        values: (S, E) after every epoch.
        cost: (S, E) until then.
        target: to be reached.

    Example:
        >>> reached(np.array([[0.0, 1.0], [0.0, 0.2]]), np.array([[10.0, 20.0], [10.0, 20.0]]), 0.5)
        array([15., nan])
    """
    result = np.full(len(values), math.nan)
    for seed, (each, spent) in enumerate(zip(values, cost, strict=True)):
        there = np.flatnonzero(each >= target)
        if not len(there):
            continue
        at = int(there[0])
        result[seed] = spent[at]
        if at and math.isfinite(each[at - 1]):
            share = (target - each[at - 1]) / (each[at] - each[at - 1])
            result[seed] = spent[at - 1] + share * (spent[at] - spent[at - 1])
    return result


def volume(points: Array, reference: Sequence[float]) -> float:
    """The hypervolume of the finite ones of (N, T) points; nan without points."""
    if not len(points):
        return math.nan
    finite = points[np.isfinite(points).all(axis=1)]
    return hypervolume(torch.from_numpy(finite), torch.tensor(reference, dtype=torch.float64))


def _points(run: Result | None, split: str, tasks: int) -> Array:
    """(N, T) losses on that split, or on validation data without it; empty without a run."""
    if run is None:
        return np.empty((0, tasks))
    facts = run.facts["front"]
    return np.array(facts["losses"] if facts[split] is None else facts[split], dtype=np.float64)


def _count_non_dominated(points: Array) -> float:
    return float(non_dominated(torch.from_numpy(points)).sum())
