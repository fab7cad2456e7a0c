"""The result of a finished run: the content of ``result.json``."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from paretorch.loop.evaluation import Scores
from paretorch.storage.json_files import from_json, parse_json, to_json, write_json
from paretorch.storage.regular_files import open_regular, read_regular
from paretorch.training.run import Run

__all__ = ["FORMAT", "Epoch", "Result", "Scores", "total_seconds"]

FORMAT = 2  # increased when older versions of the package can no longer read the file
NOT_FINITE = (b'"nan"', b'"inf"', b'"-inf"')  # such numbers in the file


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
        values = from_json(values)
        return cls(**{**values, "validation": Scores(**values["validation"])})


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
        """The inverse of :meth:`to_json`."""
        return cls._from_values({name: value if name == "run" else from_json(value) for name, value in values.items()})

    @classmethod
    def _from_values(cls, values: Mapping[str, Any]) -> Result:
        """The result of values in which numbers that are not finite are numbers."""
        read = {name: value for name, value in values.items() if name not in ("format", "checksum")}
        history = tuple(Epoch(**{**epoch, "validation": Scores(**epoch["validation"])}) for epoch in values["history"])
        return cls(
            **{
                **read,
                "run": Run.from_json(values["run"]),
                "tasks": tuple(values["tasks"]),
                "history": history,
                "validation": Scores(**values["validation"]),
                "test": Scores(**values["test"]),
            }
        )

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
        # most results have finite numbers only, and converting thousands of numbers takes longer than reading them
        return cls.from_json(values) if any(number in text for number in NOT_FINITE) else cls._from_values(values)


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
    raise ValueError(
        f"{changed} differs from what the run wrote: its checksum differs, so it was edited, truncated or removed. Restore "
        f"the file, or remove the folder {path.parent} and run again"
    )


def _content(values: Mapping[str, Any]) -> str:
    """The SHA-256 of a result's values, independent of the file's indentation."""
    text = json.dumps({name: value for name, value in values.items() if name != "checksum"}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _events(folder: Path) -> str | None:
    """The SHA-256 of the events; None if there are none."""
    try:
        with open_regular(folder / "events.jsonl") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError:
        return None
