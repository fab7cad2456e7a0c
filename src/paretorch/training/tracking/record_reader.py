"""The events of a run's folder as numbers by name, from where the last reading ended."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from paretorch.storage.damage import naming_damaged
from paretorch.storage.json_files import from_json, parse_json, read_json

NAMES = ("event", "epoch", "step", "run")  # of an event's own values, which are no numbers to log


@dataclass(frozen=True)
class Position:
    """How much of a run was read: the last step and the last epoch; -1 and 0 before the first."""

    step: int = -1
    epoch: int = 0


@dataclass
class RecordReader:
    """Reads the lines that were added to ``events.jsonl`` since the last call.

    Args:
        folder: of the run.
    """

    folder: Path
    _offset: int = field(default=0, init=False)

    def new_events(self) -> list[dict[str, Any]]:
        """The events in complete new lines."""
        try:
            with (self.folder / "events.jsonl").open("rb") as file:
                file.seek(self._offset)
                content = file.read()
        except FileNotFoundError:
            return []
        complete = content[: content.rfind(b"\n") + 1]
        self._offset += len(complete)
        return [from_json(parse_json(line)) for line in complete.splitlines()]


def numbers_of(values: Mapping[str, Any]) -> dict[str, float]:
    """The numbers in nested values, by the names that lead to them. Lists and texts are left out.

    Example:
        >>> numbers_of({"losses": {"left": 0.5}, "status": "solved", "seconds": {"training": 2}})
        {'losses/left': 0.5, 'seconds/training': 2.0}
    """
    return {
        name: float(value)
        for name, value in plain_values(values)
        if isinstance(value, int | float) and not isinstance(value, bool)
    }


def plain_values(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The values in nested mappings with the names that lead to them.

    Example:
        >>> dict(plain_values({"lr": 0.1, "options": {"width": 3}}))
        {'lr': 0.1, 'options/width': 3}
    """
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from plain_values(value, f"{prefix}{name}/")
        else:
            yield f"{prefix}{name}", value


def event_numbers(event: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of a step or an epoch."""
    return numbers_of({name: value for name, value in event.items() if name not in NAMES})


def scores_on_test_data(folder: Path) -> dict[str, float] | None:
    """The test scores of a finished run; None if it is not finished."""
    try:
        with naming_damaged(folder / "result.json", "Remove it to finish the run again"):
            numbers = numbers_of(from_json(read_json(folder / "result.json"))["test"])
    except FileNotFoundError:
        return None
    return {f"test/{name}": value for name, value in numbers.items() if not math.isnan(value)}
