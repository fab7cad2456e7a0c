"""What runs say epoch by epoch, as arrays. Shapes: ``S`` seeds, ``E`` epochs."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any

import numpy as np
from numpy.typing import NDArray

from paretorch.training.record.result import Epoch, Result, Scores, total_seconds

Array = NDArray[np.float64]


def after(group: Sequence[Result], epoch: int) -> list[Scores]:
    """What runs that together are one result came to on validation data after an epoch, counted from 0."""
    return [result.history[epoch].validation for result in group if epoch < len(result.history)]


def _alike(said: Sequence[Mapping[Any, float]]) -> Iterator[tuple[int, list[Mapping[Any, float]]]]:
    """Neighbouring epochs that speak of the same names in the same order, and the place of the first."""
    first = 0
    for _, group in groupby(said, key=list):
        numbers = list(group)
        yield first, numbers
        first += len(numbers)


def by_epoch(
    found: Sequence[Sequence[Result]],
    epochs: int,
    names: Sequence[Hashable],
    read: Callable[[Epoch], Mapping[Any, float]],
) -> Array:
    """(S, E, names) what an epoch says about each name."""
    values = np.full((len(found), epochs, len(names)), math.nan)
    place = {name: i for i, name in enumerate(names)}
    for s, group in enumerate(found):
        for result in group:
            said = [read(epoch) for epoch in result.history[:epochs]]
            for e, numbers in _alike(said):
                columns = [place[name] for name in numbers[0]]
                values[s, e : e + len(numbers), columns] = np.array([list(each.values()) for each in numbers]).T
    return values


def cosines(epoch: Epoch) -> dict[frozenset[str], float]:
    """Mean cosines of an epoch by pair of tasks."""
    tasks = list(epoch.cosines)
    return {
        frozenset((task, later)): value
        for place, task in enumerate(tasks)
        for later, value in zip(tasks[place + 1 :], epoch.cosines[task], strict=True)
    }


def epoch_seconds(found: Sequence[Sequence[Result]], epochs: int) -> Array:
    """(S, E) training seconds of every epoch; joined runs add up, and nan stands where one of them lacks."""
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
    """Peak memory of a run in bytes; nan where the system does not say."""
    return math.nan if result.peak_memory["bytes"] is None else float(result.peak_memory["bytes"])
