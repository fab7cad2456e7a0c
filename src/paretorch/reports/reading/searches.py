"""Statistics of line searches, from the records of their runs.

Shapes: ``S`` seeds, ``E`` epochs, ``n`` verified steps.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from paretorch.core.arrays import Array
from paretorch.storage.damage import naming_damaged
from paretorch.storage.json_files import parse_json
from paretorch.storage.regular_files import read_regular
from paretorch.training.record.result import Epoch, Result

MOST_CHECKED = 150  # verified steps of a run that are read


@dataclass(frozen=True)
class BoundReduction:
    """A reduction of the largest step allowed.

    Args:
        seed: of the run.
        epoch: epochs since the start; 1.5 is in the middle of the second.
        reason: one sentence.
    """

    seed: int
    epoch: float
    reason: str


@dataclass(frozen=True)
class VerifiedLoss:
    """A task's loss on one batch: before a step, predicted by the accepted trial, and actual in a forward pass after the step."""

    task: str
    before: float
    predicted: float
    actual: float


@dataclass(frozen=True)
class Searches:
    """Line-search statistics of a treatment.

    Args:
        step: (S, E) geometric mean of the accepted steps of an epoch.
        bound: (S, E) the largest step allowed at the end of an epoch.
        trials: (S, E) mean per step.
        outcomes: total number of steps, by outcome.
        first: total accepted at the first trial.
        fallbacks: total number of steps along the common descent direction in place of the chosen one.
        verified: total number of steps with a forward pass afterwards.
        raised: of these, those that increased a task's loss on its batch.
        lowered: all reductions of the bound.
        checked: a subset of the losses of verified steps.
        refused: reason for the first rejected step of each seed.
    """

    step: Array
    bound: Array
    trials: Array
    outcomes: Mapping[str, int]
    first: int
    fallbacks: int
    verified: int
    raised: int
    lowered: tuple[BoundReduction, ...]
    checked: tuple[VerifiedLoss, ...]
    refused: tuple[str, ...]

    @property
    def steps(self) -> int:
        """Total number of steps."""
        return sum(self.outcomes.values())

    @property
    def accepted(self) -> float:
        """Share of the steps that changed the parameters, in 0..1."""
        return self.outcomes.get("accepted", 0) / self.steps


def searches(found: Sequence[Sequence[Result]], epochs: int, folders: Mapping[str, Path]) -> Searches | None:
    """The line searches of runs that are joined to one result on every seed; None without line searches.

    Args:
        found: S groups of runs.
        epochs: E.
        folders: folder of every run, by its key.
    """
    runs = [result for group in found for result in group if any(epoch.search for epoch in result.history)]
    if not runs:
        return None
    records = [epoch.search for result in runs for epoch in result.history if epoch.search]

    def total(name: str) -> int:
        return sum(int(each[name]) for each in records)

    outcomes: Counter[str] = Counter()
    for each in records:
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
        checked=tuple(checked for result in runs for checked in _checked(result, folders)),
        refused=tuple(dict.fromkeys(reason for reason in refused if reason)),
    )


def _means(found: Sequence[Sequence[Result]], epochs: int, name: str, change: Any) -> Array:
    """(S, E) means over the runs of a group; nan without any."""
    values = np.full((len(found), epochs), math.nan)
    for s, group in enumerate(found):
        histories = [result.history[:epochs] for result in group]
        for e in range(max(map(len, histories), default=0)):
            numbers = [history[e].search.get(name, math.nan) for history in histories if e < len(history)]
            there = [change(number) for number in numbers if number > 0]
            if there:
                values[s, e] = math.fsum(there) / len(there)
    return values


def _lowered(result: Result) -> list[BoundReduction]:
    return [
        BoundReduction(result.run.seed, epoch.epoch - 1 + record["step"] / _steps(epoch), record["reason"])
        for epoch in result.history
        for record in epoch.search.get("lowered", ())
    ]


def _steps(epoch: Epoch) -> int:
    return sum(epoch.search["outcomes"].values())


def _checked(result: Result, folders: Mapping[str, Path]) -> list[VerifiedLoss]:
    """The losses of verified steps; lines of other steps are not parsed."""
    path = folders[result.run.key] / "events.jsonl"
    if not any(epoch.search.get("verified") for epoch in result.history) or not path.exists():
        return []
    lines = [line for line in read_regular(path).splitlines() if b'"event": "step"' in line and b'"actual"' in line]
    keep = np.unique(np.linspace(0, len(lines) - 1, min(len(lines), MOST_CHECKED)).round().astype(int))
    found = []
    for index in keep:
        with naming_damaged(path, "Restore it, or remove the folder and run again"):
            event = parse_json(lines[index])
            search = event["search"]
            for task, actual in search["actual"].items():
                numbers = [event["losses"][task], search["predicted"][task], actual]
                if all(isinstance(number, int | float) for number in numbers):
                    found.append(VerifiedLoss(task, *map(float, numbers)))
    return found
