"""Key findings: sentences computed from a study's numbers, each with its definition."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from paretorch.reports.analysis.expected import expected_ranges
from paretorch.reports.analysis.formatting import MOST_NAMED, join_names, number, points, seed_count
from paretorch.reports.analysis.leaders import CommonSeeds, Leader, common_seeds, leader
from paretorch.reports.analysis.summary import Summary
from paretorch.reports.findings.headline import headline
from paretorch.reports.reading.load import Choice, TreatmentResults
from paretorch.studies.statistics.paired import Verdict
from paretorch.studies.statistics.quality import seed_std

TESTED = "tied: not distinguishable by paired t tests at 5 %, Holm-corrected for all pairs of treatments"
MOST_TIED = 2  # names of tied treatments in one line


@dataclass(frozen=True)
class Finding:
    """One finding: its name, the sentence, and the definition of its number."""

    name: str
    sentence: str
    definition: str


def findings(summary: Summary) -> tuple[Finding, ...]:
    """All findings that the results allow, the verdict first."""
    makers = (
        _verdict,
        _best,
        _fastest,
        _best_by_metric,
        _lowest_loss,
        _steadiest,
        _cheapest,
        _expected,
        _tuned,
        _missing,
    )
    return tuple(finding for make in makers for finding in make(summary))


def _verdict(summary: Summary) -> Iterator[Finding]:
    yield Finding(
        "verdict",
        headline(summary),
        "paired difference of Δm in percentage points, negative is better, with simultaneous 95 % intervals; better or worse if "
        "the interval excludes zero",
    )


def _best(summary: Summary) -> Iterator[Finding]:
    found = leader({label: row.delta_m for label, row in summary.rows.items()}, summary.level)
    if found is None:
        return
    found = replace(found, tied=tuple(label for label in found.tied if not _compared(summary, found.label, label)))
    mean = f"Δm {points(found.mean)} %{_ends(found, points)}{_seeds(summary, found.common)}"
    yield Finding(
        "best overall",
        f"{found.label}: {mean}{_tied(found)}",
        f"lowest mean Δm on test data, with the interval of the mean; {TESTED}, but for those with the reference, which are the "
        "verdict's",
    )


def _compared(summary: Summary, leader: str, label: str) -> bool:
    """Whether the verdict has the leader better than the other: that test was planned, and needs no correction for all pairs."""
    reference = summary.results.plan.study.reference
    if reference not in (leader, label):
        return False
    comparison = summary.rows[label if leader == reference else leader].comparison
    return comparison is not None and comparison.verdict is (Verdict.WORSE if leader == reference else Verdict.BETTER)


def _fastest(summary: Summary) -> Iterator[Finding]:
    reached = {label: row.convergence for label, row in summary.rows.items() if row.convergence is not None}
    found = leader({label: c.restricted for label, c in reached.items()}, summary.level)
    if found is None:
        return
    best = reached[found.label]
    if found.common.used.any():
        best = best.on(found.common.used)
    speed = best.description
    if math.isfinite(best.median_seconds):
        speed = f"{speed}, {number(best.median_seconds, 3)} s"
    yield Finding(
        "fastest convergence",
        f"{found.label}: {speed}{_seeds(summary, found.common)}{_tied(found)}",
        f"epochs until Δm on validation data is {points(summary.target)} % or less, the point at which the reference has made "
        f"95 % of its progress, and seconds of training; the mean is {number(found.mean, 3)}{_ends(found, _three)} epochs, in "
        f"which a run that never reaches the point counts with its last epoch; {TESTED}",
    )


def _best_by_metric(summary: Summary) -> Iterator[Finding]:
    for k, metric in enumerate(summary.results.metrics):
        sign = -1.0 if metric.higher_is_better else 1.0
        found = leader({label: sign * row.results.test[:, k] for label, row in summary.rows.items()}, summary.level)
        if found is None:
            continue
        unit = f" {metric.unit}" if metric.unit else ""
        value = number(sign * found.mean)
        more = "highest" if metric.higher_is_better else "lowest"
        yield Finding(
            f"best {metric.title}",
            f"{found.label}: {value}{_ends(found, number, sign)}{unit}{_seeds(summary, found.common)}{_tied(found)}",
            f"{more} mean on test data, with the interval of the mean; {TESTED}",
        )


def _lowest_loss(summary: Summary) -> Iterator[Finding]:
    found = leader({label: row.results.combined_test_losses for label, row in summary.rows.items()}, summary.level)
    if found is not None:
        has_fronts = any(row.results.fronts is not None for row in summary.rows.values())
        model = " (of a front, the model with the lowest sum)" if has_fronts else ""
        yield Finding(
            "lowest combined loss",
            f"{found.label}: {number(found.mean)}{_ends(found, number)}{_seeds(summary, found.common)}{_tied(found)}",
            f"lowest mean of the losses' plain sum on test data{model}, with the interval of the mean; {TESTED}",
        )


def _expected(summary: Summary) -> Iterator[Finding]:
    ranges = list(expected_ranges(summary))
    if ranges:
        outside = [
            f"{found.expected.label} {found.expected.task} {found.expected.metric} ({found.verdict})"
            for found in ranges
            if found.verdict != "inside"
        ]
        others = f"; not: {'; '.join(outside)}." if outside else "."
        yield Finding(
            "expected ranges",
            f"{len(ranges) - len(outside)} of {len(ranges)} inside{others}",
            "means on test data, compared with ranges that were written down before any measurement; the ranges are no results",
        )


def _steadiest(summary: Summary) -> Iterator[Finding]:
    found = leader({label: row.stability.late for label, row in summary.rows.items()}, summary.level)
    if found is not None:
        window = summary.rows[found.label].stability.window
        yield Finding(
            "most stable",
            f"{found.label}: {number(found.mean, 3)}{_ends(found, _three)} points{_seeds(summary, found.common)}{_tied(found)}",
            f"smallest standard deviation of Δm on validation data over the last {window} epochs about their own line, mean "
            f"over seeds; {TESTED}",
        )
    common = common_seeds({label: row.delta_m for label, row in summary.rows.items()})
    if common.used.sum() > 1:
        spread = {label: seed_std(summary.rows[label].delta_m[common.used]) for label in common.labels}
        label = min(spread, key=lambda label: spread[label])
        yield Finding(
            "most alike over seeds",
            f"{label}: {spread[label]:.2f} points{_seeds(summary, common)}.",
            "smallest standard deviation of Δm over seeds; one number for each treatment, so it has no test",
        )


def _cheapest(summary: Summary) -> Iterator[Finding]:
    found = leader({label: row.results.seconds_per_epoch for label, row in summary.rows.items()}, summary.level)
    if found is not None:
        yield Finding(
            "cheapest",
            f"{found.label}: {number(found.mean, 3)}{_ends(found, _three)} seconds per epoch{_seeds(summary, found.common)}"
            f"{_tied(found)}",
            "lowest median training seconds of an epoch, mean over seeds, measured while the study's other runs "
            f"may have been active; {TESTED}",
        )


def _ends(found: Leader, written: Callable[[float], str], sign: float = 1.0) -> str:
    """The interval of a leader's mean, after a space."""
    if found.interval is None:
        return ""
    low, high = sorted((sign * found.interval.low, sign * found.interval.high))
    return f" [{written(low)}, {written(high)}]"


def _seeds(summary: Summary, common: CommonSeeds) -> str:
    """The seeds of a finding where they are not all seeds of every treatment, after a space."""
    if common.complete:
        return ""
    seeds = [str(seed) for seed, used in zip(summary.results.plan.seeds, common.used, strict=True) if used]
    if not seeds:
        return ", each treatment on its own seeds, as all share none"
    few = f" of all but {join_names(common.few)}" if common.few else ""
    return f" on the common {'seed' if len(seeds) == 1 else 'seeds'} {join_names(seeds)}{few}"


def _three(value: float) -> str:
    return number(value, 3)


def _tied(found: Leader) -> str:
    """The treatments that are not distinguishable from the leader, after a semicolon."""
    if not found.tested and not found.tied:
        return ""
    if not found.tested:
        return f"; untested, {seed_count(found.seeds)}" if found.common.used.any() else "; untested"
    if not found.tied:
        return "; ahead of every other"
    names = join_names(found.tied) if len(found.tied) <= MOST_TIED else f"{len(found.tied)} others"
    return f"; tied with {names}"


def _tuned(summary: Summary) -> Iterator[Finding]:
    for label, row in summary.rows.items():
        choice = row.results.choice
        if choice is not None:
            trained = choice.run.front or choice.run.method
            yield Finding(
                f"chosen for {label}",
                f"{trained}{_compared_on(row.results, choice)}; finding it took {choice.runs} runs and "
                f"{choice.seconds:.0f} s.",
                "lowest mean Δm on validation data; seconds of training and evaluation of all its runs",
            )


def _compared_on(results: TreatmentResults, choice: Choice) -> str:
    """The seeds and candidates of a choice, after a comma; empty if they are all."""
    planned, grid = len(results.test), len(results.grid)
    seeds = (
        "" if choice.seeds == planned else f"on {choice.seeds} of {planned} seeds, on which all candidates were trained"
    )
    if not choice.seeds:
        seeds = "each candidate on its own seeds, as all of them share none"
    untrained = f"{grid - choice.candidates} of {grid} candidates have no result" if choice.candidates < grid else ""
    return "".join(f", {part}" for part in (seeds, untrained) if part)


def _missing(summary: Summary) -> Iterator[Finding]:
    for label, row in summary.rows.items():
        if row.results.missing:
            runs = row.results.missing
            places = "; ".join(f"{run.name} ({run.reason})" for run in runs[:MOST_NAMED])
            more = f" and {len(runs) - MOST_NAMED} more" if len(runs) > MOST_NAMED else ""
            yield Finding(
                f"missing of {label}",
                f"{len(runs)} {'run has' if len(runs) == 1 else 'runs have'} no result: {places}{more}.",
                "runs that failed (failed.json in their folder has the reason) or are not finished",
            )
