"""What a finished run says: the content of ``result.json``."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from paretorch.storage import atomic
from paretorch.storage.regular_files import open_regular, read_regular
from paretorch.training.run import Run

FORMAT = 2  # raised when older versions of the package can no longer read what is written
NOT_FINITE = (b'"nan"', b'"inf"', b'"-inf"')  # how such numbers are written


@dataclass(frozen=True)
class Scores:
    """Numbers about a whole split.

    Args:
        losses: mean loss over the labelled samples, by task.
        metrics: value by task and metric.
    """

    losses: Mapping[str, float]
    metrics: Mapping[str, Mapping[str, float]]


@dataclass(frozen=True)
class Epoch:
    """Numbers about one epoch.

    Args:
        epoch: counted from 1: epochs done.
        losses: mean training loss by task over the steps in which it was present.
        validation: after the epoch's last step.
        weights: mean of the method's weights by task over the steps in which it was present; empty where the method has
            none (a combined gradient, a single task).
        statuses: how many steps ended how, by :class:`~paretorch.core.contract.Status`; ``"plain"`` without a method.
        samples: samples seen, all streams together.
        seconds: ``training`` and ``evaluation``, wall-clock; ``loading``: the part of ``training`` that waited for data.
        cosines: by task, the mean cosines between its gradient and those of the tasks after it, in their order, over the
            steps in which both were present; empty where the method does not look at gradients.
        search: what a line search came to, see :meth:`.search_totals.SearchTotals.read`; empty without one.
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
        """The epoch that :func:`to_json` wrote."""
        values = _finite_or_not(values)
        return cls(**{**values, "validation": Scores(**values["validation"])})


def spent(seconds: Mapping[str, float]) -> float:
    """An epoch's seconds in all, of which others that are recorded are parts."""
    return seconds["training"] + seconds["evaluation"]


@dataclass(frozen=True)
class Result:
    """A finished run.

    Args:
        run: what was asked for.
        tasks: the tasks that were trained.
        history: one entry per epoch.
        validation: with the last weights.
        test: with the last weights; the test set is read once, after training. Empty where the run leaves it alone.
        higher_is_better: direction by task and metric.
        units: unit by task and metric; empty for shares and scores.
        seconds_per_epoch: median of the epochs' training seconds, wall-clock.
        peak_memory: ``bytes``, and ``measures``, which says of what.
        parameters: trained numbers in the ``encoder``, in the head of each task, and in ``total``.
        facts: plain values about the data; repeats of the shorter streams among them.
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
        """The result that :meth:`to_json` wrote."""
        return cls._of({name: value if name == "run" else _finite_or_not(value) for name, value in values.items()})

    @classmethod
    def _of(cls, values: Mapping[str, Any]) -> Result:
        """The result of values whose numbers are numbers."""
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
        """Writes ``result.json``, with a checksum over itself and the events that lie beside it."""
        values = self.to_json()
        checksum = {"content": _content(values), "events": _events(Path(folder))}
        text = json.dumps(values | {"checksum": checksum}, indent=1, allow_nan=False)
        atomic.write(Path(folder) / "result.json", text.encode())

    @classmethod
    def load(cls, folder: str | Path) -> Result:
        """The result of the finished run in ``folder``.

        Raises:
            FileNotFoundError: the run is not finished.
            ValueError: the file is not a result, or it or the events are not what the run wrote.
        """
        path = Path(folder) / "result.json"
        if not path.exists():
            raise FileNotFoundError(
                f"{path} is not there: the run in {folder} is not finished. The same command resumes it"
            )
        try:
            text = read_regular(path)
            values = json.loads(text)
        except (ValueError, RecursionError):
            raise ValueError(
                f"{path} is damaged: it cannot be read as JSON. Remove it to finish the run again"
            ) from None
        if not isinstance(values, dict) or values.get("format") != FORMAT:
            raise ValueError(
                f"{path} is not a result of format {FORMAT}: another version of paretorch wrote it. Read it with that version "
                "or a newer one, or train into another folder"
            )
        _check(path, values)
        # most results have finite numbers only, and looking at each of thousands takes longer than reading them
        return cls.from_json(values) if any(word in text for word in NOT_FINITE) else cls._of(values)


def _check(path: Path, values: Mapping[str, Any]) -> None:
    """Fails where a finished run's files have been changed since."""
    there = values.get("checksum")
    now = {"content": _content(values), "events": _events(path.parent)}
    if there == now:
        return
    changed = (
        path.parent / "events.jsonl" if isinstance(there, dict) and there.get("content") == now["content"] else path
    )
    raise ValueError(
        f"{changed} is not what the run wrote: its checksum differs, so it was edited, cut or removed. Put the file back, "
        f"or remove the folder {path.parent} and run again"
    )


def _content(values: Mapping[str, Any]) -> str:
    """The SHA-256 of a result's values, however the file is indented."""
    text = json.dumps({name: value for name, value in values.items() if name != "checksum"}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _events(folder: Path) -> str | None:
    """The SHA-256 of the events; None where there are none."""
    try:
        with open_regular(folder / "events.jsonl") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError:
        return None


def to_json(value: Any) -> Any:
    """Dataclasses, mappings and sequences of plain values as strict JSON."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): to_json(below) for key, below in value.items()}
    if isinstance(value, list | tuple):
        return [to_json(below) for below in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value


def _finite_or_not(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite_or_not(below) for key, below in value.items()}
    if isinstance(value, list):
        return [_finite_or_not(below) for below in value]
    return float(value) if isinstance(value, str) and value in ("nan", "inf", "-inf") else value
