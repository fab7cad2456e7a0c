"""The record of a step as named numbers, and as a table."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

USUAL = {"head": 1.0}  # values that are not reported


def per_task(tasks: Sequence[str], columns: Mapping[str, Sequence[float]]) -> dict[str, float]:
    """``KIND/TASK`` for every (all,) column; without nan, which is unknown, and without usual values."""
    return {
        f"{kind}/{task}": value
        for kind, column in columns.items()
        for task, value in zip(tasks, column, strict=True)
        if not math.isnan(value) and value != USUAL.get(kind)
    }


def compared(
    tasks: Sequence[str], present: Sequence[bool], norms: Sequence[float], cosines: Sequence[Sequence[float]]
) -> dict[str, float]:
    """``norm/TASK``, and ``cosine/TASK/OTHER`` for each pair of present tasks in declared order."""
    numbers = per_task(tasks, {"norm": norms})
    places = [place for place, is_present in enumerate(present) if is_present]
    for count, one in enumerate(places):
        for other in places[count + 1 :]:
            if not math.isnan(value := cosines[one][other]):
                numbers[f"cosine/{tasks[one]}/{tasks[other]}"] = value
    return numbers


def table(
    tasks: Sequence[str],
    present: Sequence[bool] | None,
    numbers: Mapping[str, float],
    norms: Sequence[float] | None = None,
) -> str:
    """One line for each task, one column for each kind of number that a task has.

    Args:
        tasks: (all,) names.
        present: (all,) whether each was present; None: all were.
        numbers: by the names of :func:`per_task` and :func:`compared`.
        norms: (all,) of a step whose gradients were compared: nan is a value of theirs, and not unknown; None: in ``numbers``.
    """
    columns: dict[str, Sequence[float | None]]
    columns = {kind: [numbers.get(f"{kind}/{task}") for task in tasks] for kind in ("weight", "head", "norm", "loss")}
    columns["norm"] = columns["norm"] if norms is None else norms
    columns["lowest cosine"] = [_lowest(task, tasks, numbers) for task in tasks]
    shown = {kind: column for kind, column in columns.items() if any(value is not None for value in column)}
    lines = [["task", *shown]]
    for place, task in enumerate(tasks):
        name = task if present is None or present[place] else f"{task} (absent)"
        lines.append([name, *("" if (value := column[place]) is None else f"{value:.4g}" for column in shown.values())])
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    rows = [
        [line[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True))]
        for line in lines
    ]
    return "\n".join(f"  {'  '.join(row)}".rstrip() for row in rows)


def _lowest(task: str, tasks: Sequence[str], numbers: Mapping[str, float]) -> float | None:
    """The lowest cosine between this task's gradient and another's."""
    pairs = [numbers.get(f"cosine/{one}/{two}") for other in tasks for one, two in ((task, other), (other, task))]
    return min((value for value in pairs if value is not None), default=None)
