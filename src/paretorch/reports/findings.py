"""Key findings: sentences computed from a study's numbers, each with its definition. Nothing here is typed by hand."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from paretorch.reports.numbers import number, points, signed_interval
from paretorch.reports.summary import Row, Summary
from paretorch.studies.quality import seed_mean, seed_spread
from paretorch.studies.statistics import FEWEST_SEEDS, Verdict


@dataclass(frozen=True)
class Finding:
    """One finding: what it is about, the sentence, and how its number is defined."""

    name: str
    sentence: str
    definition: str


def findings(summary: Summary) -> tuple[Finding, ...]:
    """All findings that the results allow, the verdict first."""
    makers = (_verdict, _best, _best_by_metric, _steadiest, _cheapest, _tuned, _missing)
    return tuple(finding for make in makers for finding in make(summary))


def verdict(summary: Summary) -> str:
    """The study's answer in plain words: who is better, worse and not distinguishable from the reference."""
    return findings(summary)[0].sentence


def _verdict(summary: Summary) -> Iterator[Finding]:
    reference, seeds = summary.results.folder.study.reference, len(summary.results.folder.seeds)
    groups: dict[Verdict, list[str]] = {kind: [] for kind in Verdict}
    for label, row in summary.rows.items():
        if row.comparison is not None:
            groups[row.comparison.verdict].append(_with_numbers(label, row, seeds))
    if seeds < FEWEST_SEEDS:
        differences = "; ".join(groups[Verdict.WITHHELD])
        start = (
            f"No verdict with {seeds} {'seed' if seeds == 1 else 'seeds'}: intervals and tests need {FEWEST_SEEDS}. "
        )
        sentence = f"{start}Differences to {reference}: {differences}."
    else:
        heads = (f"Better than {reference}", "Worse", "Not distinguishable", "No verdict")
        named = zip(heads, groups.values(), strict=True)
        parts = [f"{head}: {'; '.join(labels) or 'none'}." for head, labels in named if labels or head == heads[0]]
        sentence = f"With {seeds} seeds. {' '.join(parts)}"
    yield Finding(
        "verdict",
        sentence,
        "paired difference of Δm in percentage points with its 95 % interval, negative is better; better or worse "
        "where the paired t test says so at 5 % after Holm's correction for all treatments",
    )


def _best(summary: Summary) -> Iterator[Finding]:
    label = _lowest(summary, lambda row: seed_mean(row.delta_m))
    if label is None:
        return
    row, reference = summary.rows[label], summary.results.folder.study.reference
    yield Finding(
        "best overall", f"{label}: Δm {points(seed_mean(row.delta_m))} %{_against(row, reference)}.", "lowest mean Δm"
    )


def _against(row: Row, reference: str) -> str:
    if row.comparison is None:
        return ", which is the reference"
    return f", {_points(row)} to {reference}: {row.comparison.words}"


def _best_by_metric(summary: Summary) -> Iterator[Finding]:
    for k, metric in enumerate(summary.results.metrics):
        sign = -1.0 if metric.higher_is_better else 1.0
        label = _lowest(summary, lambda row, k=k, sign=sign: sign * seed_mean(row.results.test[:, k]))  # type: ignore[misc]
        if label is None:
            continue
        unit = f" {metric.unit}" if metric.unit else ""
        value = number(seed_mean(summary.rows[label].results.test[:, k]))
        more = "highest" if metric.higher_is_better else "lowest"
        yield Finding(f"best {metric.title}", f"{label}: {value}{unit}.", f"{more} mean on test data")


def _steadiest(summary: Summary) -> Iterator[Finding]:
    label = _lowest(summary, lambda row: seed_spread(row.delta_m))
    if label is not None:
        value = seed_spread(summary.rows[label].delta_m)
        yield Finding(
            "most alike over seeds", f"{label}: {value:.2f} points.", "smallest standard deviation of Δm over seeds"
        )


def _cheapest(summary: Summary) -> Iterator[Finding]:
    label = _lowest(summary, lambda row: seed_mean(row.results.seconds_per_epoch))
    if label is not None:
        value = number(seed_mean(summary.rows[label].results.seconds_per_epoch), 3)
        yield Finding(
            "cheapest step",
            f"{label}: {value} seconds per epoch.",
            "lowest median training seconds of an epoch, mean over seeds, as measured beside the study's other runs",
        )


def _tuned(summary: Summary) -> Iterator[Finding]:
    for label, row in summary.rows.items():
        if row.results.chosen is not None:
            total = float(np.sum(row.results.seconds))
            yield Finding(
                f"chosen for {label}",
                f"{row.results.chosen.method}; finding it took {row.results.runs} runs and {total:.0f} s.",
                "lowest mean Δm on validation data; seconds of training and evaluation of all its runs",
            )


def _missing(summary: Summary) -> Iterator[Finding]:
    for label, row in summary.rows.items():
        if row.results.missing:
            places = ", ".join(path.name for path in row.results.missing)
            yield Finding(
                f"missing of {label}",
                f"{len(row.results.missing)} runs have no result: {places}.",
                "runs that failed (failed.json in their folder says why) or are not finished",
            )


def _with_numbers(label: str, row: Row, planned: int) -> str:
    assert row.comparison is not None
    note = f", {row.comparison.note}" if row.comparison.seeds < planned else ""
    return f"{label} ({_points(row)}{note})"


def _points(row: Row) -> str:
    assert row.comparison is not None
    return "no difference known" if math.isnan(row.comparison.difference) else signed_interval(row.comparison)


def _lowest(summary: Summary, score: Callable[[Row], float]) -> str | None:
    scores = {label: score(row) for label, row in summary.rows.items()}
    known = {label: value for label, value in scores.items() if not math.isnan(value)}
    return min(known, key=lambda label: known[label]) if known else None
