"""Numbers of every epoch of a treatment's runs, as arrays. Shapes: ``S`` seeds, ``E`` epochs."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any

import numpy as np

from paretorch.core.arrays import Array
from paretorch.training.record.result import Epoch, Result, Scores, total_seconds


def validation_scores(group: Sequence[Result], epoch: int) -> list[Scores]:
    """Scores on validation data after an epoch, counted from 0, of runs that are joined to one result."""
    return [result.history[epoch].validation for result in group if epoch < len(result.history)]


def _same_names(records: Sequence[Mapping[Any, float]]) -> Iterator[tuple[int, list[Mapping[Any, float]]]]:
    """Consecutive epochs with the same names in the same order, and the index of the first."""
    first = 0
    for _, group in groupby(records, key=list):
        numbers = list(group)
        yield first, numbers
        first += len(numbers)


def by_epoch(
    found: Sequence[Sequence[Result]],
    epochs: int,
    names: Sequence[Hashable],
    read: Callable[[Epoch], Mapping[Any, float]],
) -> Array:
    """(S, E, names) a number of every epoch for each name; nan if it is missing."""
    values = np.full((len(found), epochs, len(names)), math.nan)
    column = {name: i for i, name in enumerate(names)}
    for s, group in enumerate(found):
        for result in group:
            records = [read(epoch) for epoch in result.history[:epochs]]
            for e, numbers in _same_names(records):
                columns = [column[name] for name in numbers[0]]
                values[s, e : e + len(numbers), columns] = np.array([list(each.values()) for each in numbers]).T
    return values


def cosines(epoch: Epoch) -> dict[frozenset[str], float]:
    """Mean cosines of an epoch by pair of tasks."""
    tasks = list(epoch.cosines)
    return {
        frozenset((task, later)): value
        for i, task in enumerate(tasks)
        for later, value in zip(tasks[i + 1 :], epoch.cosines[task], strict=True)
    }


def epoch_seconds(found: Sequence[Sequence[Result]], epochs: int) -> Array:
    """(S, E) training seconds of every epoch; the sum of joined runs, nan if one of them is missing."""
    values = np.full((len(found), epochs), math.nan)
    for s, group in enumerate(found):
        each = [[epoch.seconds["training"] for epoch in result.history[:epochs]] for result in group]
        if each and all(len(seconds) == epochs for seconds in each):
            values[s] = np.sum(each, axis=0)
    return values


def seconds(result: Result) -> float:
    """Training and evaluation of a run."""
    return sum(total_seconds(epoch.seconds) for epoch in result.history)


def memory(result: Result) -> float:
    """Peak memory of a run in bytes; nan if the system does not report it."""
    return math.nan if result.peak_memory["bytes"] is None else float(result.peak_memory["bytes"])
