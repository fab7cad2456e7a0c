"""Treatments over several workloads: mean ranks, Friedman's test and the critical difference."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from paretorch.core.arrays import Array
from paretorch.reports.analysis.formatting import join_names, number, points, short_titles, signed_interval
from paretorch.reports.analysis.summary import Summary, paired_difference
from paretorch.reports.findings.headline import gains, runs_of
from paretorch.reports.tables.fronts import transfer_table
from paretorch.reports.tables.row_order import MOST_IN_STUDY_ORDER
from paretorch.reports.tables.tables import Table
from paretorch.studies.statistics.paired import Comparison, compare
from paretorch.studies.statistics.quality import seed_mean
from paretorch.studies.statistics.ranking import FEWEST_TREATMENTS, FEWEST_WORKLOADS, Ranking, rank_over_workloads


@dataclass(frozen=True)
class Across:
    """Comparison of treatments over several workloads.

    Args:
        labels: treatments with a Delta m on every workload.
        table: their mean Delta m on each, and mean ranks if there is a test.
        ranking: None with too few workloads or common treatments.
        sentence: the finding, or the reason for its absence.
        note: further findings, and the reason for separate tables.
        transfer: the effect of transfer between the models of a front; None without such fronts.
    """

    labels: tuple[str, ...]
    table: Table | None
    ranking: Ranking | None
    sentence: str
    note: str
    transfer: Table | None = None


def across(summaries: Sequence[Summary]) -> Across:
    """Compares the treatments that all workloads share, by label; each workload counts once, as the mean over its seeds.

    Args:
        summaries: of two workloads or more.
    """
    transfer = transfer_table(summaries)
    common = [label for label in summaries[0].rows if all(_has(summary, label) for summary in summaries)]
    titles = [summary.results.plan.workload for summary in summaries]
    note = f"The {len(titles)} workloads have separate tables, as numbers of different problems are not comparable."
    if len(common) < 2:
        return Across(
            tuple(common), None, None, "The workloads do not share two treatments with results.", note, transfer
        )
    quality = np.array([[seed_mean(summary.rows[label].delta_m) for label in common] for summary in summaries])
    differences = _mean_differences(summaries, common)
    if len(titles) < FEWEST_WORKLOADS or len(common) < FEWEST_TREATMENTS:
        need = f"Friedman's test needs at least {FEWEST_WORKLOADS} workloads and {FEWEST_TREATMENTS} common treatments"
        ranking, found = None, f"{need}: there is no such test."
    else:
        ranking = rank_over_workloads(quality)
        found = _found(common, ranking)
    table = _table(titles, common, quality, ranking, differences, summaries)
    plain = _answer(summaries, differences)
    sentence, note = (plain, f"{found} {note}") if plain else (found, note)
    return Across(tuple(common), table, ranking, sentence, note, transfer)


def _mean_differences(summaries: Sequence[Summary], labels: Sequence[str]) -> dict[str, Comparison]:
    """Each treatment against the reference, by the mean over workloads of Delta m for each seed; empty if that is not defined."""
    references = {summary.results.plan.study.reference for summary in summaries}
    seeds = {tuple(summary.results.plan.seeds) for summary in summaries}
    if len(references) != 1 or len(seeds) != 1 or not references <= set(labels):
        return {}
    means = {label: _mean_delta_m(summaries, label) for label in labels}
    (reference,) = references
    others = {label: paired_difference(mean, means[reference]) for label, mean in means.items() if label != reference}
    return compare(others, summaries[0].level, {label: np.isfinite(means[label]) for label in others})


def _mean_delta_m(summaries: Sequence[Summary], label: str) -> Array:
    """(S,) the mean over workloads of a treatment's Delta m."""
    return np.asarray(np.mean([summary.rows[label].delta_m for summary in summaries], axis=0))


def _answer(summaries: Sequence[Summary], differences: Mapping[str, Comparison]) -> str:
    """What the recommended treatment gains on average over workloads, in plain words; empty if the study recommends none."""
    study = summaries[0].results.plan.study
    if study.recommended not in differences:
        return ""
    against_sum = None
    if study.plain_sum in differences:
        means = [_mean_delta_m(summaries, label) for label in (study.recommended, study.plain_sum)]
        against_sum = compare({"": paired_difference(*means)}, summaries[0].level)[""]
    own, reference = (_runs(summaries, label) for label in (study.recommended, study.reference))
    clauses = gains(against_sum, differences[study.recommended], f"{study.reference} ({reference} runs for each)")
    return f"{study.recommended} ({own} runs for each), over {len(summaries)} workloads: {clauses}." if clauses else ""


def _runs(summaries: Sequence[Summary], label: str) -> str:
    """The numbers of runs that a treatment takes on the workloads."""
    counts = sorted({runs_of(summary, label) for summary in summaries})
    return str(counts[0]) if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"


def _has(summary: Summary, label: str) -> bool:
    return label in summary.rows and not math.isnan(seed_mean(summary.rows[label].delta_m))


def _found(labels: Sequence[str], ranking: Ranking) -> str:
    p = f"Friedman's test, p = {ranking.p:.2g}"
    if ranking.p >= ranking.level:
        return f"The {len(labels)} common treatments are not distinguishable over {ranking.workloads} workloads ({p})."
    best = int(np.argmin(ranking.ranks))
    worse = [
        label
        for label, rank in zip(labels, ranking.ranks, strict=True)
        if rank - ranking.ranks[best] > ranking.critical_difference
    ]
    others = f"better than {join_names(worse)}" if worse else "not distinguishable from any other"
    return (
        f"{labels[best]} ranks best over {ranking.workloads} workloads, {number(float(ranking.ranks[best]), 3)} on average "
        f"({p}), and is {others} by Nemenyi's critical difference of {ranking.critical_difference:.2f}."
    )


def _table(
    titles: Sequence[str],
    labels: Sequence[str],
    quality: Array,
    ranking: Ranking | None,
    differences: Mapping[str, Comparison],
    summaries: Sequence[Summary],
) -> Table:
    header = (
        "treatment",
        *(("verdict", "mean difference") if differences else ()),
        *(f"Δm\u00a0% on {title}" for title in short_titles(titles)),
        *(("mean rank",) if ranking else ()),
    )
    order = _ordered(labels, ranking, differences)
    rows = tuple(
        (
            label,
            *(_difference_cells(differences.get(label)) if differences else ()),
            *(points(float(value)) for value in quality[:, i]),
            *((number(float(ranking.ranks[i]), 3),) if ranking else ()),
        )
        for i, label in order
    )
    notes = ["Mean Δm over seeds on test data, each relative to its workload's own baseline; lower is better."]
    if differences:
        reference = summaries[0].results.plan.study.reference
        notes.append(
            f"mean difference: of Δm to '{reference}', averaged over the workloads and paired by seed, with its "
            f"{100 * summaries[0].level:.0f} % interval (Student's t, simultaneous for {len(differences)} comparisons). It holds "
            "for these workloads; verdict: better or worse if the interval excludes zero."
        )
    if ranking:
        notes.append(
            f"mean rank: over workloads, 1 is best; ranks further apart than {ranking.critical_difference:.2f} differ "
            "(Nemenyi, 5 %), to be read only where Friedman's test finds a difference."
        )
    if len(labels) > MOST_IN_STUDY_ORDER:
        notes.append(f"The treatments are sorted by {'mean difference' if differences else 'mean rank'}.")
    return Table("Over all workloads", header, rows, tuple(notes))


def _difference_cells(found: Comparison | None) -> tuple[str, str]:
    return ("reference", "") if found is None else (found.verdict.value, signed_interval(found))


def _ordered(
    labels: Sequence[str], ranking: Ranking | None, differences: Mapping[str, Comparison]
) -> list[tuple[int, str]]:
    """Indices and labels in the study's order; of many, those with the lowest mean difference or rank first."""
    places = list(enumerate(labels))
    if len(labels) <= MOST_IN_STUDY_ORDER:
        return places
    if differences:
        return sorted(places, key=lambda place: differences[place[1]].difference if place[1] in differences else 0.0)
    return places if ranking is None else sorted(places, key=lambda place: float(ranking.ranks[place[0]]))
