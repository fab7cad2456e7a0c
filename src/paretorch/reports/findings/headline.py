"""The first sentences of a report: the answer in plain words, and the verdict."""

from __future__ import annotations

import numpy as np

from paretorch.reports.analysis.formatting import join_names, seed_count
from paretorch.reports.analysis.summary import Summary
from paretorch.studies.statistics.paired import FEWEST_SEEDS, Verdict, compare


def answer(summary: Summary) -> str:
    """What the recommended treatment gains, for a reader without statistics; empty if the study recommends none.

    The mean relative change of the metrics against the plain sum, with the paired t test at 5 %, and the study's comparison with
    the reference, with the number of runs that the reference took.
    """
    study = summary.results.plan.study
    row = summary.rows.get(study.recommended)
    if row is None or study.recommended == study.reference or len(summary.results.plan.seeds) < FEWEST_SEEDS:
        return ""
    clauses = [clause for clause in (_against_sum(summary), _against_reference(summary)) if clause]
    return f"{study.recommended} takes one training run: {', and '.join(clauses)}." if clauses else ""


def _against_sum(summary: Summary) -> str:
    study = summary.results.plan.study
    if study.plain_sum in ("", study.reference, study.recommended):
        return ""
    difference = summary.rows[study.recommended].delta_m - summary.rows[study.plain_sum].delta_m
    found = compare({"": difference}, summary.level)[""]
    if found.verdict in (Verdict.BETTER, Verdict.WORSE):
        change = f"{abs(found.difference):.0f}\u00a0% {found.verdict.value}"
        return f"on average its metrics are {change} than with the plain sum of the losses"
    if found.verdict is Verdict.NOT_DISTINGUISHABLE:
        return "no difference from the plain sum of the losses was found"
    return ""


def _against_reference(summary: Summary) -> str:
    study = summary.results.plan.study
    found = summary.rows[study.recommended].comparison
    reference = f"{study.reference} ({_runs(summary)} runs)"
    if found is None or found.verdict is Verdict.WITHHELD:
        return ""
    if found.verdict is Verdict.NOT_DISTINGUISHABLE:
        return f"no difference from {reference} was found"
    return f"{abs(found.difference):.0f}\u00a0% {found.verdict.value} than with {reference}"


def _runs(summary: Summary) -> int:
    """Number of runs to find the reference and to train it once."""
    plan, reference = summary.results.plan, summary.reference.results
    searched = sum(tuning.cost(plan.study.reference, plan.workload).runs for tuning in plan.tunings)
    grid = reference.runs if reference.chosen is not None else 0
    return searched + grid if searched + grid else int(np.ceil(reference.runs / max(1, reference.seeds)))


def headline(summary: Summary) -> str:
    """The verdict in one or two sentences: the better treatments, and the number of the others by verdict."""
    reference, seeds = summary.results.plan.study.reference, len(summary.results.plan.seeds)
    groups = summary.by_verdict
    others = sum(map(len, groups.values()))
    if not others:
        return f"One way of training was run, {reference}: there is nothing to compare it with."
    if seeds < FEWEST_SEEDS:
        return (
            f"No verdict: {seed_count(seeds)} {'is' if seeds == 1 else 'are'} too few to separate differences from chance; "
            f"intervals and tests need at least {FEWEST_SEEDS}."
        )
    better = groups[Verdict.BETTER]
    first = (
        f"No treatment was found better than {reference}"
        if not better
        else f"Better than {reference}: {join_names(better)}"
    )
    if len(groups[Verdict.NOT_DISTINGUISHABLE]) == others:
        none_distinguishable = "the other cannot" if others == 1 else f"none of the {others} others can"
        return f"{first}: {none_distinguishable} be distinguished from it ({seeds} seeds)."
    names = {
        Verdict.NOT_DISTINGUISHABLE: "not distinguishable from it",
        Verdict.WORSE: "worse",
        Verdict.WITHHELD: "without a verdict",
    }
    counted = [f"{len(groups[kind])} {name}" for kind, name in names.items() if groups[kind]]
    after = f" Of the {'others' if better else f'{others} others'}: {', '.join(counted)}." if counted else ""
    return f"{first} ({seeds} seeds).{after}"
