"""Definitions of the numbers of a report."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from paretorch.reports.analysis.formatting import points, seed_count
from paretorch.reports.analysis.summary import Summary
from paretorch.studies.statistics.paired import BOOTSTRAP_FROM, FEWEST_SEEDS


def definitions(summary: Summary) -> tuple[tuple[str, str], ...]:
    """Terms and their definitions."""
    return (*_quality(summary), *_certainty(summary), *_training(summary))


def _quality(summary: Summary) -> Iterator[tuple[str, str]]:
    study, counted = summary.results.plan.study, sum(summary.results.counted)
    yield (
        "Δm",
        f"100 % times the mean over {counted} metrics of (M - B) / |B|, with the sign turned where higher is better; M is the "
        f"treatment's metric on test data, B the mean over {_baseline_seeds(summary)} of {study.baseline}. Lower is better, and "
        f"{study.baseline} has 0 on average (Maninis et al., CVPR 2019, with the opposite sign).",
    )
    yield (
        "difference",
        f"Δm minus that of {study.reference} on the same seed, mean over seeds, in percentage points. Seeds, initial weights "
        "and data order are shared by all treatments, so what they have in common cancels.",
    )
    yield (
        "mean rank",
        "on every seed and metric the treatments are ranked, 1 is best and ties share their mean; the mean of these ranks.",
    )


def _baseline_seeds(summary: Summary) -> str:
    """The seeds over which the baseline's metrics are averaged."""
    values = summary.rows[summary.results.plan.study.baseline].delta_m
    complete = int(np.isfinite(values).sum())
    return f"the {complete} of {len(values)} seeds with all metrics" if 0 < complete < len(values) else "seeds"


def _certainty(summary: Summary) -> Iterator[tuple[str, str]]:
    seeds = len(summary.results.plan.seeds)
    if seeds < FEWEST_SEEDS:
        yield (
            "interval",
            f"withheld: with {seed_count(seeds)} the variation of results is unknown; an interval needs at least "
            f"{FEWEST_SEEDS}.",
        )
    else:
        yield (
            "interval",
            f"{100 * summary.level:.0f} %, of a mean over seeds: Student's t below {BOOTSTRAP_FROM} seeds, from there on the "
            "bootstrap over seeds with widened quantiles (Hesterberg 2015). Bands of curves are Student's.",
        )
    reference = summary.results.plan.study.reference
    yield (
        "interval of a difference",
        "Student's t on the paired differences, simultaneous (Bonferroni): in 95 of 100 studies, all intervals of a column "
        "contain their true differences.",
    )
    yield (
        "better, worse, not distinguishable",
        f"the interval of the difference to {reference} excludes zero, or touches it. Not distinguishable does not mean equal: "
        "more seeds may show a difference.",
    )
    alone = [
        f"{label} [{points(row.comparison.uncorrected.low)}, {points(row.comparison.uncorrected.high)}]"
        for label, row in summary.rows.items()
        if row.comparison is not None and row.comparison.uncorrected is not None
    ]
    if alone:
        yield (
            "interval of one difference alone",
            f"without the correction, for a comparison that was planned as the only one: {'; '.join(alone)}.",
        )


def _training(summary: Summary) -> Iterator[tuple[str, str]]:
    reference = summary.results.plan.study.reference
    if math.isnan(summary.target):
        yield ("convergence", f"not given: {reference} is never better on validation data than after its first epoch.")
    else:
        yield (
            "convergence",
            f"the first epoch after which Δm on validation data is {points(summary.target)} % or less, where {reference} has "
            "made 95 % of its progress; the median over seeds. Fast, medium, slow and very slow are the quarters of the "
            "epochs that were trained. Runs that never reach it are counted as such.",
        )
    yield (
        "late variation",
        "standard deviation of Δm on validation data over the last quarter of the epochs (4 at least) about their own "
        "straight line, in percentage points, mean over seeds.",
    )
    yield (
        "spike",
        "an epoch whose Δm on validation data is above both neighbours by more than three robust standard deviations of the "
        "changes between epochs.",
    )
    yield (
        "seconds per epoch",
        "median wall-clock time of an epoch's training, evaluation left out, mean over seeds; joined networks "
        "add up. Runs that are trained simultaneously slow each other down.",
    )
    yield ("peak memory", "; ".join(summary.results.memory_measures) + "; the mean over seeds.")
    yield (
        "weights",
        "the factor of each task's gradient (or loss, for methods that weight losses), mean over the steps of "
        "an epoch in which the task was present. Jacobian methods, and networks of one task, have none.",
    )
    yield (
        "cosines",
        "between the gradients of two tasks as compared by the method (at features or shared parameters), mean over the "
        "steps of an epoch in which both were present. Below 0 the tasks conflict.",
    )
