"""Tables of a study of fronts: quality of the sets of models, speed-up, and the effect of transfer."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from paretorch.core.arrays import Array
from paretorch.pareto import MT2O
from paretorch.reports.analysis.formatting import mean_interval, number
from paretorch.reports.analysis.front_indicators import indicators, missing_package, reference_set
from paretorch.reports.analysis.summary import Summary
from paretorch.reports.reading.front_results import Fronts, reached
from paretorch.reports.reading.load import TreatmentResults
from paretorch.reports.tables.tables import Table
from paretorch.studies.statistics.paired import FEWEST_SEEDS, t_bounds
from paretorch.studies.statistics.quality import seed_mean
from paretorch.training.fronts.algorithms import find_algorithm

LEVELS = (0.5, 0.8, 0.9, 0.95)  # of the best hypervolume
TIMED = (0.8, 0.95)
NEVER = "never"


def quality_table(summary: Summary) -> Table:
    """Hypervolume, non-dominated models, transfer and cost of every treatment; no rows if no front was trained."""
    found, level = _trained(summary), summary.level
    if not found:
        return Table("Quality of the fronts", (), ())
    rows = []
    for label, treatment in found.items():
        fronts = _of(treatment)
        volume = fronts.final
        share = 100 * np.nanmean(volume) / fronts.largest if np.isfinite(volume).any() else math.nan
        rows.append(
            (
                label,
                mean_interval(volume, level),
                number(float(share), 3),
                mean_interval(fronts.ideal, level),
                number(seed_mean(fronts.non_dominated), 3),
                number(100 * seed_mean(fronts.transfer_share), 3),
                f"{seed_mean(fronts.gradients[:, -1]):,.0f}",
            )
        )
    split = "test" if all(_of(treatment).tested for treatment in found.values()) else "validation"
    header = (
        "treatment", f"hypervolume, {split}", "% of the largest", "of the ideal point", "models not dominated",
        "% with transfer", "gradient evaluations",
    )  # fmt: skip
    first = _of(next(iter(found.values())))
    reference = ", ".join(f"{task} {value:.12g}" for task, value in zip(first.tasks, first.reference, strict=True))
    single = [label for label, treatment in found.items() if _of(treatment).single_task]
    notes = [
        f"Measured from {reference}. The ideal point has every task's lowest loss of any model of the set.",
        *(f"Of {label}, the ideal point is that of its networks, each for its own task." for label in single),
    ]
    if (missing := missing_package()) is not None:
        notes.append(f"{missing}.")
    return Table("Quality of the fronts", header, tuple(rows), tuple(notes))


def indicator_table(summary: Summary) -> Table:
    """IGD+, additive epsilon and R2 of every treatment with the hypervolume; no rows without fronts or without moocore."""
    found, level = _trained(summary), summary.level
    title = "Indicators of the fronts"
    reference = reference_set([points for treatment in found.values() for points in _of(treatment).points])
    if reference is None or missing_package() is not None:
        return Table(title, (), ())
    rows = []
    for label, treatment in found.items():
        each = [indicators(points, reference) for points in _of(treatment).points]
        columns = ([one.igd_plus for one in each], [one.epsilon for one in each], [one.r2 for one in each])
        rows.append(
            (
                label,
                mean_interval(_of(treatment).final, level),
                *(mean_interval(np.array(column), level) for column in columns),
            )
        )
    header = ("treatment", "hypervolume ↑", "IGD+ ↓", "additive epsilon ↓", "R2 ↓")
    notes = (
        f"The reference set of IGD+ and epsilon is the {len(reference.points)} points that no other model of any treatment and "
        "seed dominates; R2 is measured from their ideal point. Losses are divided by the range of the reference set, from its "
        "ideal to its nadir point, so 0.01 is 1 % of the trade-off. A value relative to this set changes with the treatments.",
        "IGD+: mean distance from a reference point to what the set dominates. Additive epsilon: the largest such distance in "
        "any one loss, at the worst reference point. R2: mean over all weights of the smallest weighted maximum of the losses; "
        "for two tasks.",
    )
    return Table(title, header, tuple(rows), notes)


def speedup_table(summary: Summary) -> Table:
    """Speed-ups over the reference in gradient evaluations and seconds, for fractions of the best hypervolume.

    It has no rows if the reference trained no front, or no hypervolume is positive.
    """
    found, reference, level = _trained(summary), summary.results.plan.study.reference, summary.level
    best = _best(found)
    rows = []
    for label, treatment in found.items():
        if label == reference or reference not in found or not best > 0:
            continue
        cells = [_times(found[reference], treatment, share * best, False, level) for share in LEVELS]
        cells += [_times(found[reference], treatment, share * best, True, level) for share in TIMED]
        rows.append((label, *cells))
    header = (
        "treatment",
        *(f"to {share:.0%}" for share in LEVELS),
        *(f"to {share:.0%}, in seconds" for share in TIMED),
    )
    notes = (
        f"Gradient evaluations of {reference} over those of the treatment, until the hypervolume on validation data first "
        f"reaches a fraction of {best:.4g}, the best mean of any treatment; above 1 is faster. Geometric means over the seeds "
        f"on which both reach it, with 95 % intervals of paired logarithms; '{NEVER}': the treatment reaches it on no seed.",
    )
    return Table(f"Times faster than {reference}", header, tuple(rows), notes)


def transfer_table(summaries: Sequence[Summary]) -> Table | None:
    """The effect of transfer on each workload: each treatment against the same one without transfer; None without such pairs."""
    rows = [row for summary in summaries for row in _transfers(summary)]
    if not rows:
        return None
    header = (
        "workload", "treatment", "without transfer", *(f"times fewer to {share:.0%}" for share in TIMED),
        "hypervolume at the end, times", "% with transfer",
    )  # fmt: skip
    notes = (
        "Gradient evaluations without transfer over those with it, from the same start on the same seed, until the hypervolume "
        "on validation data first reaches that fraction of the best mean of any treatment; above 1 transfer helps, below 1 it "
        "hurts. Geometric means with 95 % intervals of paired logarithms. % with transfer: share of models and steps that "
        "accepted a transfer.",
    )
    return Table("Effect of transfer", header, tuple(rows), notes, left=(1, 2))


def _transfers(summary: Summary) -> Iterator[tuple[str, ...]]:
    found = _trained(summary)
    best = _best(found)
    for label, treatment in found.items():
        plain = _without_transfer(treatment, found)
        if plain is None or not best > 0:
            continue
        base = found[plain]
        ends = _of(treatment).hypervolume[:, -1] / _of(base).hypervolume[:, -1]
        yield (
            summary.results.plan.workload, label, plain,
            *(_times(base, treatment, share * best, False, summary.level) for share in TIMED),
            _ratio(ends, summary.level), number(100 * seed_mean(_of(treatment).transfer_share), 3),
        )  # fmt: skip


def _without_transfer(treatment: TreatmentResults, found: dict[str, TreatmentResults]) -> str | None:
    """The treatment that differs only in having no transfer."""
    (run, *_) = treatment.settings
    algorithm = find_algorithm(run.front)
    if not isinstance(algorithm, MT2O) or algorithm.transfer is None:
        return None
    wanted = replace(algorithm, transfer=None)
    for label, other in found.items():
        (there, *_) = other.settings
        if replace(there, front=run.front) == run and find_algorithm(there.front) == wanted:
            return label
    return None


def _best(found: dict[str, TreatmentResults]) -> float:
    """The best mean hypervolume at the end of any treatment."""
    finals = [seed_mean(_of(treatment).hypervolume[:, -1]) for treatment in found.values()]
    return max((value for value in finals if math.isfinite(value)), default=math.nan)


def _times(base: TreatmentResults, other: TreatmentResults, target: float, timed: bool, level: float) -> str:
    ratios = np.asarray(_needed(base, target, timed) / _needed(other, target, timed))
    there = ratios[np.isfinite(ratios)]
    if not len(there):
        return NEVER if not np.isfinite(_needed(other, target, timed)).any() else "reference never"
    missing = "" if len(there) == len(ratios) else f" ({len(there)} of {len(ratios)} seeds)"
    return _ratio(there, level) + missing


def _ratio(ratios: Array, level: float) -> str:
    """The geometric mean of ratios with its interval, which is withheld below three ratios."""
    there = ratios[np.isfinite(ratios) & (ratios > 0)]
    if not len(there):
        return "-"
    logs = np.log(there)
    shown = f"{math.exp(logs.mean()):.2f}"
    if len(there) >= FEWEST_SEEDS:
        low, high = t_bounds(logs[None], level)
        shown += f" [{math.exp(float(low[0])):.2f}, {math.exp(float(high[0])):.2f}]"
    return shown


def _needed(treatment: TreatmentResults, target: float, timed: bool) -> Array:
    """(S,) cost to reach a hypervolume; nan if it is never reached."""
    fronts = _of(treatment)
    cost = np.cumsum(treatment.epoch_seconds, axis=1) if timed else fronts.gradients
    return reached(fronts.hypervolume, cost, target)


def _trained(summary: Summary) -> dict[str, TreatmentResults]:
    """The treatments that trained fronts."""
    return {label: t for label, t in summary.results.treatments.items() if t.fronts is not None}


def _of(treatment: TreatmentResults) -> Fronts:
    assert treatment.fronts is not None
    return treatment.fronts
