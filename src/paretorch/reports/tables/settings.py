"""Settings of every treatment: those that differ, and those that are equal."""

from __future__ import annotations

import json
from typing import Any

from paretorch.reports.reading.load import StudyResults, TreatmentResults
from paretorch.reports.tables.tables import Table

MOST_LETTERS = 120  # of a value in a table
NO_FRONT = ("method", "surface", "door")  # settings that a front does not have


def different_settings(results: StudyResults) -> Table:
    """One row for each treatment with the settings that differ; of a grid, those of the chosen run."""
    values = {label: _settings(treatment) for label, treatment in results.treatments.items()}
    names = [name for name in _names(results) if len({found.get(name, "") for found in values.values()}) > 1]
    rows = tuple((label, *(_short(found.get(name, "")) for name in names)) for label, found in values.items())
    left = tuple(range(1, len(names) + 1))
    return Table("Different settings", ("treatment", *names), rows if names else (), left=left)


def equal_settings(results: StudyResults) -> tuple[tuple[str, str], ...]:
    """Names and values that are equal in all treatments."""
    values = [_settings(treatment) for treatment in results.treatments.values()]
    shared = [name for name in _names(results) if len({found.get(name, "") for found in values}) == 1]
    seeds = ", ".join(map(str, results.plan.seeds))
    return (("seeds", seeds), *((name, values[0].get(name, "")) for name in shared))


def _names(results: StudyResults) -> list[str]:
    return list(dict.fromkeys(name for t in results.treatments.values() for name in _settings(t)))


def _settings(treatment: TreatmentResults) -> dict[str, str]:
    """By name, as text; different values of joined runs are listed."""
    runs = [
        {
            name: value
            for name, value in run.to_json().items()
            if name != "seed" and not (run.front and name in NO_FRONT)
        }
        for run in treatment.settings
    ]
    if treatment.chosen is not None:
        chosen = treatment.chosen.to_json()
        runs = [{name: chosen[name] for name in runs[0]}]
    joined = {name: list(dict.fromkeys(_text(run[name]) for run in runs)) for name in runs[0]}
    return {name.replace("_", " "): " / ".join(texts) for name, texts in joined.items()}


def _text(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name}={_text(below)}" for name, below in value.items()) or "none"
    if isinstance(value, list):
        return ", ".join(map(_text, value)) or "all"
    return value if isinstance(value, str) else json.dumps(value)


def _short(text: str) -> str:
    return text if len(text) <= MOST_LETTERS else f"{text[: MOST_LETTERS - 1]}…"
