"""What line searches did, read from the records of their runs.

Shapes: ``S`` seeds, ``E`` epochs, ``n`` verified steps.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from paretorch.training.record.result import Epoch, Result

Array = NDArray[np.float64]
MOST_CHECKED = 150  # verified steps of a run that are read


@dataclass(frozen=True)
class Lowered:
    """A bound that was lowered.

    Args:
        seed: of the run.
        epoch: when, in epochs since the start; 1.5 is half through the second.
        reason: in words.
    """

    seed: int
    epoch: float
    reason: str


@dataclass(frozen=True)
class Checked:
    """A task's loss on one batch: before a step, as the accepted trial saw it, and by a true forward after the step."""

    task: str
    before: float
    predicted: float
    actual: float


@dataclass(frozen=True)
class Searches:
    """The searches of a treatment.

    Args:
        step: (S, E) geometric mean of the accepted steps of an epoch.
        bound: (S, E) the largest step that was allowed in the end.
        trials: (S, E) mean per step.
        outcomes: steps in all, by how they ended.
        first: accepted at the first trial, in all.
        fallbacks: along the common descent direction instead of the wanted one, in all.
        verified: by a true forward, in all.
        raised: of these, after which some task's loss on its batch was higher than before.
        lowered: every lowering of the bound.
        checked: verified steps that stand in the record, thinned.
        refused: why a step moved nothing, the first of each seed.
    """

    step: Array
    bound: Array
    trials: Array
    outcomes: Mapping[str, int]
    first: int
    fallbacks: int
    verified: int
    raised: int
    lowered: tuple[Lowered, ...]
    checked: tuple[Checked, ...]
    refused: tuple[str, ...]

    @property
    def steps(self) -> int:
        """In all."""
        return sum(self.outcomes.values())

    @property
    def accepted(self) -> float:
        """Share of the steps that moved the parameters, in 0..1."""
        return self.outcomes.get("accepted", 0) / self.steps


def searches(found: Sequence[Sequence[Result]], epochs: int, places: Mapping[str, Path]) -> Searches | None:
    """The searches of runs that together are one result on every seed; None where nothing was searched.

    Args:
        found: S groups of runs.
        epochs: E.
        places: folder of every run, by its key.
    """
    runs = [result for group in found for result in group if any(epoch.search for epoch in result.history)]
    if not runs:
        return None
    said = [epoch.search for result in runs for epoch in result.history if epoch.search]

    def total(name: str) -> int:
        return sum(int(each[name]) for each in said)

    outcomes: Counter[str] = Counter()
    for each in said:
        outcomes.update(each["outcomes"])
    refused = (next((e.search["refused"] for e in run.history if "refused" in e.search), "") for run in runs)
    return Searches(
        step=np.exp(_means(found, epochs, "step", math.log)),
        bound=np.exp(_means(found, epochs, "bound", math.log)),
        trials=_means(found, epochs, "trials", float),
        outcomes=dict(outcomes),
        first=total("first"),
        fallbacks=total("fallbacks"),
        verified=total("verified"),
        raised=total("raised"),
        lowered=tuple(lowered for result in runs for lowered in _lowered(result)),
        checked=tuple(checked for result in runs for checked in _checked(result, places)),
        refused=tuple(dict.fromkeys(reason for reason in refused if reason)),
    )


def _means(found: Sequence[Sequence[Result]], epochs: int, name: str, change: Any) -> Array:
    """(S, E) means over the runs of a group; nan where there is none."""
    values = np.full((len(found), epochs), math.nan)
    for s, group in enumerate(found):
        histories = [result.history[:epochs] for result in group]
        for e in range(max(map(len, histories), default=0)):
            numbers = [history[e].search.get(name, math.nan) for history in histories if e < len(history)]
            there = [change(number) for number in numbers if number > 0]
            if there:
                values[s, e] = math.fsum(there) / len(there)
    return values


def _lowered(result: Result) -> list[Lowered]:
    return [
        Lowered(result.run.seed, epoch.epoch - 1 + said["step"] / _steps(epoch), said["reason"])
        for epoch in result.history
        for said in epoch.search.get("lowered", ())
    ]


def _steps(epoch: Epoch) -> int:
    return sum(epoch.search["outcomes"].values())


def _checked(result: Result, places: Mapping[str, Path]) -> list[Checked]:
    """From the lines about single steps, of which few were verified: the others are not parsed."""
    path = places[result.run.key] / "events.jsonl"
    if not any(epoch.search.get("verified") for epoch in result.history) or not path.exists():
        return []
    lines = [line for line in path.read_bytes().splitlines() if b'"event": "step"' in line and b'"actual"' in line]
    keep = np.unique(np.linspace(0, len(lines) - 1, min(len(lines), MOST_CHECKED)).round().astype(int))
    found = []
    for place in keep:
        event = json.loads(lines[place])
        search = event["search"]
        for task, actual in search["actual"].items():
            numbers = [event["losses"][task], search["predicted"][task], actual]
            if all(isinstance(number, int | float) for number in numbers):
                found.append(Checked(task, *map(float, numbers)))
    return found
