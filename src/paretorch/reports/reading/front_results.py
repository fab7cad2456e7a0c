"""What runs that trained fronts came to, as arrays. Shapes: ``S`` seeds, ``E`` epochs, ``N`` models, ``T`` tasks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from paretorch.pareto.dominance import non_dominated
from paretorch.pareto.hypervolume import hypervolume
from paretorch.training.record.result import Result

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Fronts:
    """The fronts of a treatment.

    Args:
        tasks: (T,) names.
        reference: (T,) from which hypervolumes are measured.
        largest: the hypervolume that no set exceeds; nan where that is not known.
        hypervolume: (S, E) on validation data after every epoch.
        gradients: (S, E) gradient evaluations until then, all models together.
        points: of each seed the (N, T) losses on test data, or on validation data where there are none; empty without a run.
        opened: (S,) share of models and steps whose gate let something through; nan without gates.
        alone: whether there is one model for each task, trained for that task alone.
    """

    tasks: tuple[str, ...]
    reference: tuple[float, ...]
    largest: float
    hypervolume: Array
    gradients: Array
    points: tuple[Array, ...]
    opened: Array
    alone: bool

    @property
    def efficient(self) -> Array:
        """(S,) how many models no other of the set dominates."""
        return np.array([_efficient(points) if len(points) else math.nan for points in self.points])

    @property
    def ideal(self) -> Array:
        """(S,) the hypervolume of a model that would have every task's least loss: what no mixture of them exceeds."""
        return np.array([self._box(points) for points in self.points])

    def _box(self, points: Array) -> float:
        finite = points[np.isfinite(points).all(axis=1)] if len(points) else points
        if not len(finite):
            return math.nan
        return hypervolume(torch.from_numpy(finite.min(axis=0, keepdims=True)), torch.tensor(self.reference).double())


def fronts(found: Sequence[Sequence[Result]], epochs: int) -> Fronts | None:
    """Of the runs of each seed; None where none of them trained a front.

    Args:
        found: of each seed, its runs: one, or none that is finished.
        epochs: E.
    """
    runs = [group[0] if len(group) == 1 and group[0].run.front else None for group in found]
    first = next((run for run in runs if run is not None), None)
    if first is None:
        return None
    said = first.facts["front"]
    volumes, gradients = (np.full((len(runs), epochs), math.nan) for _ in range(2))
    opened = np.full(len(runs), math.nan)
    points = []
    for seed, run in enumerate(runs):
        points.append(np.empty((0, len(first.tasks))) if run is None else _points(run))
        if run is None:
            continue
        count = min(epochs, len(run.history))
        volumes[seed, :count] = [e.validation.metrics["front"]["hypervolume"] for e in run.history[:count]]
        gradients[seed, :count] = run.facts["front"]["gradients"][:count]
        share = run.facts["front"]["took something over"]
        opened[seed] = math.nan if share is None else share
    identity = np.eye(len(first.tasks)).tolist()
    return Fronts(
        tasks=first.tasks,
        reference=tuple(said["reference"]),
        largest=math.nan if said["largest hypervolume"] is None else said["largest hypervolume"],
        hypervolume=volumes,
        gradients=gradients,
        points=tuple(points),
        opened=opened,
        alone=np.array_equal(said["preferences"], identity),
    )


def reached(values: Array, cost: Array, target: float) -> Array:
    """(S,) the cost at which values first reach a target, between two epochs in proportion; nan where they never do.

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


def _points(run: Result) -> Array:
    said = run.facts["front"]
    return np.array(said["losses"] if said["test losses"] is None else said["test losses"], dtype=np.float64)


def _efficient(points: Array) -> float:
    return float(non_dominated(torch.from_numpy(points)).sum())
