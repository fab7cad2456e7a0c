"""Tables of a diagnosis as text cells, and all of it as plain text."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import combinations
from typing import NamedTuple

from paretorch.diagnosis.numbers import short
from paretorch.diagnosis.results import Cosines, Diagnosis, Measurement

MOST_PAIRS = 12
FEW_PAIRS = 3  # up to which every pair has a column of layers


class TextTable(NamedTuple):
    """Text cells; the first column names the rows, and columns in ``left`` contain words."""

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()
    left: tuple[int, ...] = ()


def text_tables(found: Diagnosis) -> tuple[TextTable, ...]:
    """Tasks, pairs of tasks, layers, trial steps, and the features' weights."""
    tables = [_tasks(found), _pairs(found), _layers(found), _steps(found)]
    if found.trained.predictions:
        tables.append(_predictions(found))
    return tuple(tables)


def summary_lines(found: Diagnosis) -> list[str]:
    """What was measured, in a few sentences."""
    size = "" if found.batch_size is None else f" of {found.batch_size} sample{'s' * (found.batch_size > 1)}"
    ratio = short(found.initial.ratio)
    if found.trained.steps:
        ratio += f" at the start and {short(found.trained.ratio)} after {found.trained.steps} steps"
    return [
        f"{len(found.tasks)} tasks, {found.shared:,} shared parameters, {found.batches} batches{size}.",
        f"Largest gradient norm over the smallest: {ratio}.",
    ]


def recommendation_lines(found: Diagnosis) -> list[tuple[str, str | None]]:
    """Problems, the rows of advice and the verdict: lines of text, each with a style for the terminal or None."""
    lines: list[tuple[str, str | None]] = [(f"Problem: {_sentence(problem)}", "bold red") for problem in found.problems]
    for advice in found.advice[1:]:
        lines += [(f"{_sentence(advice.condition)[:-1]}: {advice.recommendation}.", None)]
        lines += [(f"  Why: {advice.reason}.", "dim"), (f"  Cost: {advice.cost}.", "dim")]
    verdict = found.advice[0]
    lines += [*[("", None)] * bool(lines), (_sentence(found.verdict), "bold")]
    return [*lines, (f"  Why: {verdict.reason}.", "dim"), (f"  Cost: {verdict.cost}.", "dim")]


def as_text(found: Diagnosis) -> str:
    """The diagnosis as plain text."""
    tables = [line for table in text_tables(found) for line in (*_lines(table), "")]
    lines = [*found.notes, "", *summary_lines(found), "", *(line for line, _ in recommendation_lines(found))]
    return "\n".join([*tables, *lines])


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:].rstrip('.')}."


def _tasks(found: Diagnosis) -> TextTable:
    start, after = found.initial, found.trained
    trained = after.steps > 0
    header = ["task", "loss", *(["loss after warm-up"] * trained), "gradient norm", *(["norm after warm-up"] * trained)]
    features = after.feature_norms is not None
    header += [*(["norm on features"] * features), "noise scale", "weight for equal norms"]
    rows = []
    for place, task in enumerate(found.tasks):
        cells = [task, *(short(each.losses[place]) for each in ((start, after) if trained else (start,)))]
        cells += [short(each.norms[place]) for each in ((start, after) if trained else (start,))]
        if after.feature_norms is not None:
            cells.append(short(after.feature_norms[place]))
        rows.append((*cells, _noise(found, after, place), short(found.weights[task])))
    unit = "batches" if found.batch_size is None else "samples"
    notes = (
        f"Noise scale in {unit}: the batch size at which noise and expected gradient are equally large; '>': a lower bound.",
        "Gradient norms are on the shared parameters, geometric means over batches.",
    )
    return TextTable("Tasks", tuple(header), tuple(rows), notes)


def _noise(found: Diagnosis, measured: Measurement, place: int) -> str:
    factor = 1 if found.batch_size is None else found.batch_size
    value = measured.noise[place]
    if math.isfinite(value):
        return short(value * factor)
    return f"> {short(measured.noise_least[place] * factor)}" if measured.norms[place] > 0 else "-"


def _pairs(found: Diagnosis) -> TextTable:
    after, tasks = found.trained, found.tasks
    pairs = sorted(combinations(range(len(tasks)), 2), key=lambda pair: _order(float(after.cosines.mean[pair])))
    rows = []
    for pair in pairs[:MOST_PAIRS]:
        cells = [f"{tasks[pair[0]]}, {tasks[pair[1]]}", _interval(after.cosines, pair)]
        if after.feature_cosines is not None:
            cells.append(_interval(after.feature_cosines, pair))
        if after.steps:
            cells.append(_interval(found.initial.cosines, pair))
        rows.append((*cells, _signed(after.expected_cosines[pair])))
    header = ["pair", "on parameters", *(["on features"] * (after.feature_cosines is not None))]
    header += ["on parameters, at the start"] * bool(after.steps)
    notes = ["Without noise: between the expected gradients; a dash where the batches do not resolve them."]
    if len(pairs) > MOST_PAIRS:
        notes.append(f"The lowest {MOST_PAIRS} of {len(pairs)} pairs.")
    return TextTable("Cosines between gradients", (*header, "without noise"), tuple(rows), tuple(notes))


def _layers(found: Diagnosis) -> TextTable:
    after, tasks = found.trained, found.tasks
    pairs = list(combinations(range(len(tasks)), 2))
    rows: list[tuple[str, ...]] = []
    if len(pairs) <= FEW_PAIRS:
        header = ("layer", *(f"{tasks[one]}, {tasks[other]}" for one, other in pairs))
        rows += [(name, *(_interval(cosines, pair) for pair in pairs)) for name, cosines in after.layers.items()]
        return TextTable("Cosines by layer", header, tuple(rows))
    for name, cosines in after.layers.items():
        lowest = min(pairs, key=lambda pair: _order(float(cosines.mean[pair])))
        rows.append((name, _interval(cosines, lowest), f"{tasks[lowest[0]]}, {tasks[lowest[1]]}"))
    return TextTable("Lowest cosine by layer", ("layer", "lowest cosine", "pair"), tuple(rows), left=(2,))


def _steps(found: Diagnosis) -> TextTable:
    trials = found.trials
    header = (
        "task",
        "sum",
        "scaled sum",
        "scaled sum, optimizer's step",
        "sum, next batch",
        "own gradient, next batch",
    )
    columns = (trials.sum.same, trials.scaled.same, trials.training.same, trials.sum.other, trials.own)
    rows = [(task, *(_share(column[place]) for column in columns)) for place, task in enumerate(found.tasks)]
    anyone = (trials.sum.any_task, trials.scaled.any_task, trials.training.any_task)
    rows.append(("any task", *map(_share, anyone), "", ""))
    notes = (
        f"Of {trials.steps} steps of each kind, on the batch of the step unless named otherwise; every step is undone.",
        "A step along a task's own gradient increases its loss on the next batch by noise alone: compare the last two columns.",
    )
    return TextTable("Share of trial steps that increased the loss", header, tuple(rows), notes)


def _predictions(found: Diagnosis) -> TextTable:
    rows = [
        (name, short(each.difference), _signed(each.correlation), _signed(each.cosine))
        for name, each in found.trained.predictions.items()
    ]
    header = ("method", "mean difference of weights", "correlation", "cosine of the updates")
    note = (
        "Weights are scaled to a mean of one; a difference of 0 and a cosine of 1 mean that a Fork equals a Balancer."
    )
    return TextTable("Weights on features against weights on parameters", header, tuple(rows), (note,))


def _lines(table: TextTable) -> Iterator[str]:
    widths = [max(len(row[place]) for row in (table.header, *table.rows)) for place in range(len(table.header))]
    yield table.title
    for row in (table.header, *table.rows):
        left = (0, *table.left)
        cells = [
            cell.ljust(width) if place in left else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        yield "  " + "  ".join(cells).rstrip()
    yield from (f"  {note}" for note in table.notes)


def _order(cosine: float) -> float:
    return cosine if math.isfinite(cosine) else math.inf


def _interval(cosines: Cosines, pair: tuple[int, int]) -> str:
    mean, low, high = (float(each[pair]) for each in (cosines.mean, cosines.low, cosines.high))
    if not math.isfinite(mean):
        return "-"
    return f"{mean:+.2f} [{low:+.2f}, {high:+.2f}]" if math.isfinite(low) else f"{mean:+.2f}"


def _signed(value: float) -> str:
    return f"{value:+.2f}" if math.isfinite(value) else "-"


def _share(value: float) -> str:
    return f"{100 * value:.0f} %" if math.isfinite(value) else "-"
