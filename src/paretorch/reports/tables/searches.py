"""Tables of line searches: outcomes, time relative to fixed steps, and reductions of the bound."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from paretorch.reports.analysis.formatting import mean_interval, number
from paretorch.reports.analysis.summary import Summary
from paretorch.reports.reading.load import TreatmentResults
from paretorch.reports.reading.searches import Searches
from paretorch.reports.tables.tables import Table
from paretorch.studies.statistics.quality import seed_mean
from paretorch.training.run import Run

FIXED = {
    "a": "a fixed step along the sum of the tasks' gradients",
    "b": "a fixed step along the balanced gradient of the parameters, one encoder backward for each task",
    "c": "a fixed step along the balanced gradient of the features, one encoder backward",
}
# Filatov & Merkulov's times relative to (b): MNIST, CIFAR-10, Cityscapes
THESIS = {
    "b": ("1", "1", "1"),
    "c": (".95", ".14", "-"),
    "classical": ("1.37", "1.18", "-"),
    "fast": ("1.05", ".15", "1.28"),
}
MOST_LOWERED = 60  # rows of the table of reasons


def search_table(summary: Summary) -> Table:
    """Outcomes of line searches; no rows without them."""
    header = (
        "treatment",
        "accepted",
        "trials per step",
        "at the first trial",
        "step, first epoch",
        "step, last epoch",
        "fallbacks",
        "increased a loss",
        "bound reduced",
    )
    rows = tuple((label, *_cells(found)) for label, found in _searched(summary).items())
    refused = [f"{label}: {reason}" for label, found in _searched(summary).items() for reason in found.refused[:1]]
    notes = (
        "accepted: share of steps that changed the parameters; at the first trial: of these, those limited by the bound.",
        "step: geometric mean of an epoch's accepted steps, and over seeds. With the direction of an optimizer, it is a "
        "factor of that optimizer's step at rate 1.",
        "fallbacks: steps along the common descent direction, as the method's direction would have increased a task's loss.",
        "increased a loss: of the steps verified by a forward pass on the same batch, those that increased a task's loss.",
        *refused,
    )
    return Table("Outcomes of the line searches", header, rows, notes)


def _cells(found: Searches) -> tuple[str, ...]:
    accepted = found.outcomes.get("accepted", 0)
    return (
        _share(accepted, found.steps),
        number(seed_mean(found.trials.mean(axis=1)), 3),
        _share(found.first, accepted),
        number(_geometric(found.step[:, 0]), 3),
        number(_geometric(found.step[:, -1]), 3),
        str(found.fallbacks),
        f"{found.raised} of {found.verified}" if found.verified else "not verified",
        str(len(found.lowered)),
    )


def _share(part: int, whole: int) -> str:
    return f"{100 * part / whole:.1f} %" if whole else "-"


def _geometric(values: np.ndarray) -> float:
    values = values[np.isfinite(values)]
    return math.exp(float(np.log(values).mean())) if len(values) else math.nan


def time_table(summary: Summary) -> Table:
    """Ratios of an epoch's seconds to those of fixed steps, with the thesis's; no rows without a search and a baseline."""
    kinds = {label: kind(treatment.settings[0]) for label, treatment in summary.results.treatments.items()}
    baselines: dict[str, TreatmentResults] = {}
    for label, treatment in summary.results.treatments.items():
        if kinds[label] in FIXED:
            baselines.setdefault(kinds[label], treatment)
    searched = _searched(summary)
    if not searched or not baselines:
        return Table("Time against fixed steps", (), ())
    shown = [label for label in summary.rows if label in searched or label in {t.label for t in baselines.values()}]
    rows = tuple(
        (
            label,
            *(_ratio(summary, summary.results.treatments[label], base) for base in baselines.values()),
            *THESIS.get(kinds[label], ("-", "-", "-")),
        )
        for label in shown
    )
    header = (
        "treatment",
        *(f"time over ({name})" for name in baselines),
        "thesis, MNIST",
        "thesis, CIFAR-10",
        "thesis, Cityscapes",
    )
    notes = (
        *(f"({name}) {FIXED[name]}: {treatment.label}." for name, treatment in baselines.items()),
        "time: ratios of seconds per epoch of training, paired by seed, means with intervals. Runs that are trained "
        "simultaneously slow each other down.",
        "thesis: times relative to (b) as printed by Filatov & Merkulov (2021), on their networks and machine; - if they "
        "print none. Their fast search is displacement='gradient'.",
    )
    return Table("Time against fixed steps", header, rows, notes)


def kind(run: Run) -> str:
    """The baseline, or the line search of the thesis, that a run corresponds to; empty if none.

    Example:
        >>> kind(Run("digits", method="MGDA()", optimizer="SGD")), kind(Run("digits", optimizer="Backtracking"))
        ('c', 'classical')
    """
    if run.optimizer == "Backtracking" and "direction" not in run.optimizer_options:
        return "classical"
    if run.optimizer == "FastBacktracking":
        return "fast" if run.optimizer_options.get("displacement") == "gradient" else ""
    if run.optimizer != "SGD" or len(run.tasks) == 1:
        return ""
    if run.method == "Equal()":
        return "a"
    return "b" if run.surface == "parameters" else "c"


def _ratio(summary: Summary, treatment: TreatmentResults, base: TreatmentResults) -> str:
    if treatment is base:
        return "1"
    return mean_interval(treatment.seconds_per_epoch / base.seconds_per_epoch, summary.level)


def lowered_table(summary: Summary) -> Table:
    """Reductions of a bound with their reasons, limited in number."""
    rows = [
        (label, str(lowered.seed), f"{lowered.epoch:.2f}", lowered.reason)
        for label, found in _searched(summary).items()
        for lowered in found.lowered
    ]
    notes = (
        *((f"the first {MOST_LOWERED} of {len(rows)}",) if len(rows) > MOST_LOWERED else ()),
        "epoch: number of epochs before the reduction.",
    )
    header = ("treatment", "seed", "epoch", "reason")
    return Table("Reductions of the bound", header, tuple(rows[:MOST_LOWERED]), notes, left=(3,))


def _searched(summary: Summary) -> Mapping[str, Searches]:
    found = {label: row.results.searches for label, row in summary.rows.items()}
    return {label: searches for label, searches in found.items() if searches is not None}
