"""The record of a tuning: all trials, the chosen one, and the cost.

:class:`TuningResult` is the content of ``STUDY/tuning.json``, which :mod:`paretorch.studies.tuner` writes and reports read.
"""

from __future__ import annotations

import dataclasses
import enum
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from paretorch.storage.json_files import from_json, name_from_json, to_json
from paretorch.storage.value_types import typed
from paretorch.training.run import Plain, Run, decoded_run


class TrialOutcome(enum.Enum):
    """How a trial ended."""

    FINISHED = "finished"
    DIVERGED = "diverged"  # its parameters or its validation metrics became nan
    FAILED = "failed"  # its run raised


@dataclass(frozen=True)
class Trial:
    """One set of hyperparameters, trained once. Every trial counts, however it ended.

    Args:
        settings: the hyperparameters by name, such as ``optimizer.lr``; empty for the study's own settings.
        run: the run with these hyperparameters; trials with equal settings share a run.
        folder: folder of the run, relative to that of the study.
        value: the criterion on validation data, lower is better; nan if the trial has none.
        outcome: how it ended.
        seconds: seconds of training and evaluation.
    """

    settings: Mapping[str, Plain]
    run: Run
    folder: str
    value: float
    outcome: TrialOutcome
    seconds: float


@dataclass(frozen=True)
class SearchResult:
    """The trials for one run of a treatment. A joined treatment has one search for each of its runs.

    Args:
        label: the treatment.
        workload: title of the workload; see :func:`~paretorch.studies.study.workload_title`.
        tasks: trained tasks; empty for all.
        trials: the trials in order; the first has the study's own settings.
        chosen: index of the trial with the lowest value, of those with all epochs; None if none of them has a value: the study's
            own settings are kept.
    """

    label: str
    workload: str
    tasks: tuple[str, ...]
    trials: tuple[Trial, ...]
    chosen: int | None

    @property
    def settings(self) -> Mapping[str, Plain]:
        """The chosen hyperparameters; empty for the study's own settings."""
        return {} if self.chosen is None else self.trials[self.chosen].settings


@dataclass(frozen=True)
class TuningCost:
    """The cost of the searches for a treatment.

    Args:
        trials: number of trials, over all searches.
        runs: number of trained runs; smaller than ``trials`` if equal settings were drawn twice.
        without_value: number of trials that diverged or failed.
        seconds: seconds of training and evaluation of all runs.
        epochs: of all runs, as planned; a trial that diverged counts in full.
    """

    trials: int
    runs: int
    without_value: int
    seconds: float
    epochs: int = 0


@dataclass(frozen=True)
class TuningResult:
    """All searches of a study.

    Args:
        trials: trials per search.
        seed: seed of the trials' runs, which is no seed of the study, so that no run of the study takes part in the choice.
        searches: the searches, in the order of the treatments.
    """

    trials: int
    seed: int
    searches: tuple[SearchResult, ...]

    def of(self, label: str, workload: str | None = None) -> tuple[SearchResult, ...]:
        """The searches for a treatment, on one workload or on all."""
        return tuple(s for s in self.searches if s.label == label and workload in (None, s.workload))

    def cost(self, label: str, workload: str | None = None) -> TuningCost:
        """The cost of the searches for a treatment, on one workload or on all."""
        trials = [trial for search in self.of(label, workload) for trial in search.trials]
        seconds = {trial.run.key: trial.seconds for trial in trials}
        without = sum(math.isnan(trial.value) for trial in trials)
        epochs = {trial.run.key: trial.run.epochs for trial in trials}
        return TuningCost(len(trials), len(seconds), without, sum(seconds.values()), sum(epochs.values()))

    def to_json(self) -> dict[str, Any]:
        """The result as a JSON object, with nan as a string."""
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
    def from_json(cls, values: Mapping[str, Any]) -> TuningResult:
        """The result that :meth:`to_json` wrote.

        Raises:
            ValueError: a value is missing or has another type; the message names it.
        """
        searches = [_decoded_search(search) for search in typed(values["searches"], tuple[Mapping[str, Any], ...])]
        result: TuningResult = typed({**values, "searches": searches}, cls)
        for place, search in enumerate(result.searches):
            if search.chosen is not None and not 0 <= search.chosen < len(search.trials):
                raise ValueError(f"searches[{place}].chosen is {search.chosen}, of {len(search.trials)} trials")
        return result


def _decoded_search(values: Mapping[str, Any]) -> dict[str, Any]:
    trials = [
        {**from_json(trial), "run": decoded_run(trial["run"])}
        for trial in typed(values["trials"], tuple[Mapping[str, Any], ...])
    ]
    names = {"label": name_from_json(values["label"]), "tasks": [name_from_json(task) for task in values["tasks"]]}
    return {**values, **names, "trials": trials}


def _fields(value: Any) -> dict[str, Any]:
    return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
