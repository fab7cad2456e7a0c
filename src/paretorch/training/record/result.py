"""The result of a finished run: the content of ``result.json``."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from paretorch.loop.evaluation import Scores
from paretorch.storage.damage import naming_damaged
from paretorch.storage.json_files import from_json, name_from_json, parse_json, to_json, write_json
from paretorch.storage.regular_files import file_digest, read_regular
from paretorch.storage.seals import json_digest
from paretorch.storage.value_types import typed
from paretorch.training.run import Run, decoded_run

__all__ = ["FORMAT", "STATIONARITY", "Epoch", "Result", "Scores", "total_seconds"]

STATIONARITY = "Pareto stationarity residual"  # the name of a fact, on training data
FORMAT = 2  # increased when older versions of the package can no longer read the file
FRONT: Mapping[str, Any] = {  # values that reports read from the facts about a front
    "algorithm": str,
    "execution": str,
    "preferences": Sequence[Sequence[float]],
    "reference": Sequence[float],
    "gradients": Sequence[float],
    "losses": Sequence[Sequence[float]],
    "test losses": Sequence[Sequence[float]] | None,
    "diverged": Sequence[int],
    "metrics": Sequence[Mapping[str, Mapping[str, float]]],
    "test metrics": Sequence[Mapping[str, Mapping[str, float]]],
    "took something over": float | None,
    "largest hypervolume": float | None,
}
SEARCH: Mapping[str, Any] = {  # values that reports read from the totals of a line search, where they are present
    **dict.fromkeys(("step", "bound", "trials", "first", "fallbacks", "verified", "raised"), float),
    "outcomes": Mapping[str, int],
    "predicted": Mapping[str, float],
    "actual": Mapping[str, float],
    "refused": str,
}
NOT_FINITE = (b'nan"', b'inf"')  # the ends of such numbers in the file, and of texts that resemble them


@dataclass(frozen=True)
class Epoch:
    """Numbers of one epoch.

    Args:
        epoch: number of epochs done, from 1.
        losses: mean training loss by task, over the steps in which the task was present.
        validation: scores after the epoch's last step.
        weights: mean weight of the method by task, over the steps in which the task was present; empty if the method has no
            weights (a combined gradient, a single task).
        statuses: number of steps by :class:`~paretorch.core.contract.Status`; ``"plain"`` without a method.
        samples: of all streams together.
        seconds: ``training`` and ``evaluation``, wall-clock; ``loading``, the part of ``training`` spent waiting for data.
        cosines: by task, the mean cosines between its gradient and those of the following tasks, over the steps in which both
            were present; empty if the method does not use gradients.
        search: totals of a line search, see ``search_totals.SearchTotals.read``; empty without one.
    """

    epoch: int
    losses: Mapping[str, float]
    validation: Scores
    weights: Mapping[str, float]
    statuses: Mapping[str, int]
    samples: int
    seconds: Mapping[str, float]
    cosines: Mapping[str, Sequence[float]] = field(default_factory=dict)
    search: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Epoch:
        """The epoch that :func:`~paretorch.storage.json_files.to_json` converted."""
        epoch: Epoch = typed(from_json(values), cls)
        return epoch


@dataclass(frozen=True)
class PeakMemory:
    """The peak memory of a run.

    Args:
        bytes: the number; None if the system does not report it.
        measures: what it is the memory of.
    """

    bytes: float | None
    measures: str


@dataclass(frozen=True)
class LoweredBound:
    """After which step of an epoch, from 1, the bound of a line search was lowered, and why."""

    step: int
    reason: str


def total_seconds(seconds: Mapping[str, float]) -> float:
    """All seconds of an epoch; other recorded times are parts of these."""
    return seconds["training"] + seconds["evaluation"]


@dataclass(frozen=True)
class Result:
    """A finished run.

    Args:
        run: what was trained.
        tasks: (T,) names of the trained tasks.
        history: one entry per epoch.
        validation: scores with the last weights, or with those of the best epoch if the run keeps them.
        test: scores with the same weights; the test set is evaluated once, after training. Empty if the run does not test.
        higher_is_better: direction by task and metric.
        units: unit by task and metric; empty for ratios and scores.
        seconds_per_epoch: median of the epochs' training seconds, wall-clock.
        peak_memory: ``bytes``, and ``measures``, what they are the memory of.
        parameters: number of trained parameters in the ``encoder``, in the head of each task, and in ``total``.
        facts: plain values about the data, such as the repeats of shorter streams, and the number of the best epoch if its
            weights are kept.
    """

    run: Run
    tasks: tuple[str, ...]
    history: tuple[Epoch, ...]
    validation: Scores
    test: Scores
    higher_is_better: Mapping[str, Mapping[str, bool]]
    units: Mapping[str, Mapping[str, str]]
    seconds_per_epoch: float
    peak_memory: Mapping[str, Any]
    parameters: Mapping[str, int]
    facts: Mapping[str, Any]

    def to_json(self) -> dict[str, Any]:
        """The result as strict JSON: numbers that are not finite become the strings nan, inf and -inf."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return {"format": FORMAT, **to_json(values | {"run": self.run.to_json()})}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Result:
        """The inverse of :meth:`to_json`.

        Raises:
            ValueError: a value is missing or has another type; the message names it.
        """
        names = {"run": decoded_run(values["run"]), "tasks": [name_from_json(task) for task in values["tasks"]]}
        return cls._from_values({name: from_json(value) for name, value in values.items() if name not in names} | names)

    @classmethod
    def _from_values(cls, values: Mapping[str, Any]) -> Result:
        """The result of values in which numbers that are not finite are numbers."""
        result: Result = typed(
            {name: value for name, value in values.items() if name not in ("format", "checksum")}, cls
        )
        _check_consistent(result)
        return result

    def save(self, folder: str | Path) -> None:
        """Writes ``result.json``, with a checksum of its content and of ``events.jsonl``."""
        values = self.to_json()
        checksum = {"content": _content(values), "events": _events(Path(folder))}
        write_json(Path(folder) / "result.json", values | {"checksum": checksum})

    @classmethod
    def load(cls, folder: str | Path) -> Result:
        """The result of the finished run in ``folder``.

        Raises:
            FileNotFoundError: the run is not finished.
            ValueError: the file is no result, or it or the events differ from what the run wrote.
        """
        path = Path(folder) / "result.json"
        if not path.exists():
            raise FileNotFoundError(
                f"{path} does not exist: the run in {folder} is not finished. The same command resumes it"
            )
        try:
            text = read_regular(path)
            values = parse_json(text)
        except ValueError:
            raise ValueError(
                f"{path} is damaged: it cannot be read as JSON. Remove it to finish the run again"
            ) from None
        if not isinstance(values, dict) or values.get("format") != FORMAT:
            raise ValueError(
                f"{path} is not a result of format {FORMAT}: another version of paretorch wrote it. Read it with that version "
                "or a newer one, or train into another folder"
            )
        _check(path, values)
        with naming_damaged(path, "Remove it to finish the run again"):
            # most results have finite numbers only, and converting thousands of numbers takes longer than reading them
            return cls.from_json(values) if any(number in text for number in NOT_FINITE) else cls._from_values(values)


def _check_consistent(result: Result) -> None:
    """Checks that the parts of a result fit each other, as reports rely on.

    Raises:
        ValueError: a number is missing, or about an unknown task; the message names it.
    """
    if [epoch.epoch for epoch in result.history] != list(range(1, len(result.history) + 1)):
        raise ValueError(f"its epochs are not numbered 1 to {len(result.history)}")
    for task, directions in result.higher_is_better.items():
        if missing := set(directions) - set(result.units.get(task, ())):
            raise ValueError(f"units[{task!r}] has no {sorted(missing)[0]!r}")
    typed(result.peak_memory, PeakMemory, "peak_memory")
    if "total" not in result.parameters:
        raise ValueError("parameters has no 'total'")
    for split, scores in (("validation", result.validation), ("test", result.test)):
        for task in scores.losses.keys() & result.higher_is_better.keys():
            if missing := result.higher_is_better[task].keys() - scores.metrics.get(task, {}).keys():
                raise ValueError(f"{split}.metrics[{task!r}] has no {sorted(missing)[0]!r}")
    for epoch in result.history:
        where = f"history[{epoch.epoch - 1}]"
        if missing := {"training", "evaluation"} - epoch.seconds.keys():
            raise ValueError(f"{where}.seconds has no {sorted(missing)[0]!r}")
        if unknown := (epoch.losses.keys() | epoch.weights.keys() | epoch.cosines.keys()) - set(result.tasks):
            raise ValueError(f"{where} has numbers of the task {sorted(unknown)[0]!r}, which was not trained")
        if [len(numbers) for numbers in epoch.cosines.values()] != list(reversed(range(len(epoch.cosines)))):
            raise ValueError(f"{where}.cosines has not one number for each pair of tasks")
        for name in SEARCH.keys() & epoch.search.keys():
            typed(epoch.search[name], SEARCH[name], f"{where}.search[{name!r}]")
        for lowered in typed(
            epoch.search.get("lowered", ()), tuple[Mapping[str, Any], ...], f"{where}.search['lowered']"
        ):
            typed({name: lowered.get(name) for name in ("step", "reason")}, LoweredBound, f"{where}.search['lowered']")
    if STATIONARITY in result.facts:
        typed(result.facts[STATIONARITY], float, f"facts[{STATIONARITY!r}]")
    if result.run.front:
        _check_front(result)


def _check_front(result: Result) -> None:
    """Checks the facts about a front, and its hypervolumes."""
    facts, tasks = typed(result.facts.get("front"), Mapping[str, Any], "facts['front']"), len(result.tasks)
    for name, expected in FRONT.items():
        if name not in facts:
            raise ValueError(f"facts['front'] has no {name!r}")
        typed(facts[name], expected, f"facts['front'][{name!r}]")
    tested = facts["losses"] if facts["test losses"] is None else facts["test losses"]
    rows = [facts["reference"], *facts["preferences"], *facts["losses"], *tested]
    if any(len(row) != tasks for row in rows):
        raise ValueError(f"facts['front'] has points of another number than {tasks} tasks")
    models = len(facts["losses"])
    numbers = {len(tested), len(facts["preferences"]), len(facts["test metrics"] or tested)}
    if numbers != {models} or models < 1:
        raise ValueError("facts['front'] has preferences, losses and metrics of different numbers of models")
    if len(facts["gradients"]) < len(result.history):
        raise ValueError("facts['front'] has gradients of fewer epochs than the history")
    splits = {f"history[{epoch.epoch - 1}].validation": epoch.validation for epoch in result.history}
    for split, scores in {**splits, "validation": result.validation, "test": result.test}.items():
        if (scores.metrics or split != "test") and "hypervolume" not in scores.metrics.get("front", ()):
            raise ValueError(f"{split} has no hypervolume of the front")


def _check(path: Path, values: Mapping[str, Any]) -> None:
    """Checks that the files of a finished run are unchanged."""
    recorded = values.get("checksum")
    now = {"content": _content(values), "events": _events(path.parent)}
    if recorded == now:
        return
    changed = (
        path.parent / "events.jsonl"
        if isinstance(recorded, dict) and recorded.get("content") == now["content"]
        else path
    )
    if changed != path and now["events"] is None:
        raise missing_file_error(changed)
    raise ValueError(
        f"{changed} differs from what the run wrote: its checksum differs, so it was edited or truncated. Restore "
        f"the file, or remove the folder {path.parent} and run again"
    )


def missing_file_error(path: Path) -> ValueError:
    """The error for a file that every run has in its folder, and that is not there."""
    return ValueError(
        f"{path} is missing: it was moved or removed after the run had written it. Restore the file, or remove the folder "
        f"{path.parent} and run again"
    )


def _content(values: Mapping[str, Any]) -> str:
    """The SHA-256 of a result's values, independent of the file's indentation."""
    return json_digest({name: value for name, value in values.items() if name != "checksum"})


def _events(folder: Path) -> str | None:
    """The SHA-256 of the events; None if there are none."""
    try:
        return file_digest(folder / "events.jsonl")
    except FileNotFoundError:
        return None
