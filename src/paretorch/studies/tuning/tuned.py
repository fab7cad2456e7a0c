"""What a tuning found, as it lies on disk: every trial, what was chosen, and what it cost. Reports read this.

``STUDY/tuning.json`` is written when the last trial has ended; :mod:`paretorch.studies.tuning.tuning` makes it.
"""

from __future__ import annotations

import dataclasses
import enum
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from paretorch.storage.json_files import to_json
from paretorch.training.run import Plain, Run


class Outcome(enum.Enum):
    """How a trial ended."""

    FINISHED = "finished"
    DIVERGED = "diverged"  # its parameters or its validation metrics were no numbers any more
    FAILED = "failed"  # its run raised


@dataclass(frozen=True)
class Trial:
    """One set of hyperparameters, trained once. Every trial counts, however it ended.

    Args:
        settings: what was tried, by name: ``lr``, and the method's options; empty for the study's own settings.
        run: what was trained; trials of equal settings share a run.
        folder: the run's, below the study's.
        value: the criterion on validation data, lower is better; nan where the trial has none.
        outcome: how it ended.
        seconds: of training and evaluation.
    """

    settings: Mapping[str, Plain]
    run: Run
    folder: str
    value: float
    outcome: Outcome
    seconds: float


@dataclass(frozen=True)
class Search:
    """The trials for one run of a treatment; a joined treatment has a search for each of its runs.

    Args:
        label: the treatment.
        workload: its title; see :func:`~paretorch.studies.study.workload_title`.
        tasks: trained; empty for all.
        trials: in the order in which they were made; the first has the study's own settings.
        chosen: place of the trial with the lowest value; None where none has one: the study's own settings stand.
    """

    label: str
    workload: str
    tasks: tuple[str, ...]
    trials: tuple[Trial, ...]
    chosen: int | None

    @property
    def settings(self) -> Mapping[str, Plain]:
        """What was chosen; empty for the study's own settings."""
        return {} if self.chosen is None else self.trials[self.chosen].settings


@dataclass(frozen=True)
class TuningCost:
    """What the search for a treatment's hyperparameters took.

    Args:
        trials: asked for, over all its searches.
        runs: trained: fewer than trials where settings were drawn twice.
        without_value: trials that diverged or failed.
        seconds: training and evaluation of all its runs.
    """

    trials: int
    runs: int
    without_value: int
    seconds: float


@dataclass(frozen=True)
class Tuning:
    """All searches of a study.

    Args:
        trials: N, for each search.
        seed: of the trials' runs: no seed of the study, so that no final run was selected upon.
        searches: in the order of the treatments.
    """

    trials: int
    seed: int
    searches: tuple[Search, ...]

    def of(self, label: str, workload: str | None = None) -> tuple[Search, ...]:
        """The searches for a treatment, on one workload or on all."""
        return tuple(s for s in self.searches if s.label == label and workload in (None, s.workload))

    def cost(self, label: str, workload: str | None = None) -> TuningCost:
        """What tuning a treatment took, on one workload or on all."""
        trials = [trial for search in self.of(label, workload) for trial in search.trials]
        seconds = {trial.run.key: trial.seconds for trial in trials}
        without = sum(math.isnan(trial.value) for trial in trials)
        return TuningCost(len(trials), len(seconds), without, sum(seconds.values()))

    def to_json(self) -> dict[str, Any]:
        """The tuning as a JSON object; nan becomes a string."""
        searches = [
            {
                **_fields(search),
                "trials": [_fields(t) | {"run": t.run.to_json(), "outcome": t.outcome.value} for t in search.trials],
            }
            for search in self.searches
        ]
        plain: dict[str, Any] = to_json(_fields(self) | {"searches": searches})
        return plain

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Tuning:
        """The tuning that :meth:`to_json` wrote."""
        return cls(values["trials"], values["seed"], tuple(_search(search) for search in values["searches"]))


def _search(values: Mapping[str, Any]) -> Search:
    trials = tuple(
        Trial(
            **{
                **trial,
                "run": Run.from_json(trial["run"]),
                "value": float(trial["value"]),
                "outcome": Outcome(trial["outcome"]),
            }
        )
        for trial in values["trials"]
    )
    return Search(**{**values, "tasks": tuple(values["tasks"]), "trials": trials})


def _fields(value: Any) -> dict[str, Any]:
    return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
