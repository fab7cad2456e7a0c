"""The first sentences of a report: the answer in plain words, and the verdict."""

from __future__ import annotations

from paretorch.reports.analysis.formatting import join_names, seed_count
from paretorch.reports.analysis.summary import Summary, paired_difference
from paretorch.studies.statistics.paired import FEWEST_SEEDS, Comparison, Verdict, compare


def answer(summary: Summary) -> str:
    """What the recommended treatment gains, for a reader without statistics; empty if the study recommends none.

    The mean relative change of the metrics against the plain sum, with the paired t test at 5 %, and the study's comparison with
    the reference, with the number of runs that the reference took.
    """
    study = summary.results.plan.study
    row = summary.rows.get(study.recommended)
    if row is None or study.recommended == study.reference or trained_seeds(summary) < FEWEST_SEEDS:
        return ""
    against_sum = None
    if study.plain_sum not in ("", study.reference, study.recommended):
        difference = paired_difference(row.delta_m, summary.rows[study.plain_sum].delta_m)
        against_sum = compare({"": difference}, summary.level)[""]
    spent = runs_of(summary, study.reference)
    clauses = gains(against_sum, row.comparison, f"{study.reference} ({spent} {'run' if spent == 1 else 'runs'})")
    runs = runs_of(summary, study.recommended)
    counted = "one training run" if runs == 1 else f"{runs} training runs"
    return f"{study.recommended} takes {counted}: {clauses}." if clauses else ""


def gains(against_sum: Comparison | None, against_reference: Comparison | None, reference: str) -> str:
    """Two comparisons of mean relative changes of the metrics in words; empty without a verdict."""
    clauses = []
    if against_sum is not None and against_sum.verdict in (Verdict.BETTER, Verdict.WORSE):
        change = f"{abs(against_sum.difference):.0f}\u00a0% {against_sum.verdict.value}"
        clauses.append(f"on average its metrics are {change} than with the plain sum of the losses")
    elif against_sum is not None and against_sum.verdict is Verdict.NOT_DISTINGUISHABLE:
        clauses.append("no difference from the plain sum of the losses was found")
    if against_reference is not None and against_reference.verdict is Verdict.NOT_DISTINGUISHABLE:
        clauses.append(f"no difference from {reference} was found")
    elif against_reference is not None and against_reference.verdict is not Verdict.WITHHELD:
        verdict = against_reference.verdict.value
        clauses.append(f"{abs(against_reference.difference):.0f}\u00a0% {verdict} than with {reference}")
    return ", and ".join(clauses)


def runs_of(summary: Summary, label: str) -> int:
    """Number of runs to choose a treatment and to train it once."""
    plan, results = summary.results.plan, summary.rows[label].results
    searched = sum(tuning.cost(label, plan.workload).runs for tuning in plan.tunings)
    grid = results.choice.runs if results.choice is not None else 0
    return searched + grid if searched + grid else len(results.settings)


def trained_seeds(summary: Summary) -> int:
    """The number of seeds of the treatment with the most finished ones."""
    return max((row.results.seeds for row in summary.rows.values()), default=0)


def _compared_seeds(summary: Summary) -> str:
    """The number of pairs of the comparisons with a verdict: ``5 seeds``, or ``3 to 5 seeds``."""
    compared = [row.comparison for row in summary.rows.values() if row.comparison is not None]
    counts = [comparison.seeds for comparison in compared if comparison.verdict is not Verdict.WITHHELD]
    least, most = min(counts), max(counts)
    return seed_count(most) if least == most else f"{least} to {most} seeds"


def headline(summary: Summary) -> str:
    """The verdict in one or two sentences: the better treatments, and the number of the others by verdict."""
    reference, trained = summary.results.plan.study.reference, trained_seeds(summary)
    groups = summary.by_verdict
    others = sum(map(len, groups.values()))
    if not others:
        return f"One way of training was run, {reference}: there is nothing to compare it with."
    if trained < FEWEST_SEEDS:
        return (
            f"No verdict: {seed_count(trained)} {'is' if trained == 1 else 'are'} too few to separate differences from chance; "
            f"intervals and tests need at least {FEWEST_SEEDS}."
        )
    if len(groups[Verdict.WITHHELD]) == others:
        return (
            f"No verdict: no other treatment has Δm on {FEWEST_SEEDS} seeds on which {reference} has it, and intervals and tests "
            "need so many."
        )
    seeds = _compared_seeds(summary)
    better = groups[Verdict.BETTER]
    first = (
        f"No treatment was found better than {reference}"
        if not better
        else f"Better than {reference}: {join_names(better)}"
    )
    if len(groups[Verdict.NOT_DISTINGUISHABLE]) == others:
        none_distinguishable = "the other cannot" if others == 1 else f"none of the {others} others can"
        return f"{first}: {none_distinguishable} be distinguished from it ({seeds})."
    names = {
        Verdict.NOT_DISTINGUISHABLE: "not distinguishable from it",
        Verdict.WORSE: "worse",
        Verdict.WITHHELD: "without a verdict",
    }
    counted = [f"{len(groups[kind])} {name}" for kind, name in names.items() if groups[kind]]
    after = f" Of the {'others' if better else f'{others} others'}: {', '.join(counted)}." if counted else ""
    return f"{first} ({seeds}).{after}"
