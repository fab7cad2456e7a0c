"""A table of a result for the terminal."""

from __future__ import annotations

from pathlib import Path

from paretorch.extras import extra
from paretorch.training.record.kept_epoch import KEPT
from paretorch.training.record.pairing import pairing_note
from paretorch.training.record.result import Result, Scores

with extra("studies"):
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table


def show(result: Result, folder: Path) -> None:
    """Prints the scores of the last epoch, or of the best one if it is kept, the model's size, the time, and the folder."""
    kept = result.facts.get(KEPT)
    table = Table(
        title="after the last epoch" if kept is None else f"after epoch {kept} of {result.run.epochs}, the best"
    )
    for column in ("task", "metric", "validation", "test"):
        table.add_column(column, justify="left" if column in ("task", "metric") else "right")
    for task in result.tasks:
        rows = {"loss": (result.validation.losses.get(task), result.test.losses.get(task))}
        for name, higher in result.higher_is_better.get(task, {}).items():
            unit = f", {result.units[task][name]}" if result.units[task][name] else ""
            values = _metric(result.validation, task, name), _metric(result.test, task, name)
            rows[f"{name}{unit} ({'higher' if higher else 'lower'} is better)"] = values
        for name, (validation, test) in rows.items():
            table.add_row(escape(task), escape(name), _number(validation), _number(test))
    console = Console(emoji=False)
    console.print(table)
    counts = {part: count for part, count in result.parameters.items() if part != "total"}
    parts = ", ".join(f"{part} {count:,}" for part, count in counts.items())
    console.print(f"{result.parameters['total']:,} parameters: {parts}.", highlight=False, soft_wrap=True, markup=False)
    if note := pairing_note([result.facts]):
        console.print(f"{note[0].upper()}{note[1:]}.", highlight=False, soft_wrap=True, markup=False)
    console.print(
        f"{result.seconds_per_epoch:.3g} seconds per epoch (median). The record is in {folder}", highlight=False
    )


def _metric(scores: Scores, task: str, name: str) -> float | None:
    """The value; None if the split has no label of the task, where a metric is nan."""
    return scores.metrics[task][name] if task in scores.losses else None


def _number(value: float | None) -> str:
    return "no labels" if value is None else f"{value:.4g}"
