"""Treatments over several workloads: mean ranks, Friedman's test and the critical difference."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from paretorch.reports.analysis.formatting import join_names, number, points, short_titles
from paretorch.reports.analysis.summary import Summary
from paretorch.reports.tables.fronts import transfer_table
from paretorch.reports.tables.row_order import MOST_IN_STUDY_ORDER
from paretorch.reports.tables.tables import Table
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
        note: the reason for separate tables.
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
    if len(titles) < FEWEST_WORKLOADS or len(common) < FEWEST_TREATMENTS:
        need = f"Friedman's test needs at least {FEWEST_WORKLOADS} workloads and {FEWEST_TREATMENTS} common treatments"
        return Across(
            tuple(common), _table(titles, common, quality, None), None, f"{need}: there is no test.", note, transfer
        )
    ranking = rank_over_workloads(quality)
    table = _table(titles, common, quality, ranking)
    return Across(tuple(common), table, ranking, _found(common, ranking), note, transfer)


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


def _table(titles: Sequence[str], labels: Sequence[str], quality: np.ndarray, ranking: Ranking | None) -> Table:
    header = (
        "treatment",
        *(f"Δm\u00a0% on {title}" for title in short_titles(titles)),
        *(("mean rank",) if ranking else ()),
    )
    rows = tuple(
        (
            label,
            *(points(float(value)) for value in quality[:, i]),
            *((number(float(ranking.ranks[i]), 3),) if ranking else ()),
        )
        for i, label in _ordered(labels, ranking)
    )
    notes = ["Mean Δm over seeds on test data, each relative to its workload's own baseline; lower is better."]
    if ranking:
        notes.append(
            f"mean rank: over workloads, 1 is best; ranks further apart than {ranking.critical_difference:.2f} differ "
            "(Nemenyi, 5 %), to be read only where Friedman's test finds a difference."
        )
    if ranking and len(labels) > MOST_IN_STUDY_ORDER:
        notes.append("The treatments are sorted by mean rank.")
    return Table("Over all workloads", header, rows, tuple(notes))


def _ordered(labels: Sequence[str], ranking: Ranking | None) -> list[tuple[int, str]]:
    """Indices and labels in the study's order; of many, those with the lowest mean rank first."""
    places = list(enumerate(labels))
    if ranking is None or len(labels) <= MOST_IN_STUDY_ORDER:
        return places
    return sorted(places, key=lambda place: float(ranking.ranks[place[0]]))
