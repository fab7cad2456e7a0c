"""Results as comma-separated values with ten digits, by treatment or by treatment and seed."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Sequence

import numpy as np

from paretorch.reports.analysis.summary import Summary, TreatmentSummary
from paretorch.studies.statistics.paired import interval
from paretorch.studies.statistics.quality import seed_mean

RISKY = ("=", "+", "-", "@", "\t", "\r")  # spreadsheets interpret a cell with such a first character as a formula


def treatments_csv(summary: Summary) -> str:
    """One row for each treatment: means with intervals, the comparison to the reference, costs; empty if withheld or missing."""
    tested = summary.results.tested
    metrics = [summary.results.metrics[k].title for k in tested]
    ends = [f"{metric} {part}" for metric in metrics for part in ("mean", "low", "high")]
    header = [
        "treatment",
        "seeds",
        *ends,
        "delta_m mean",
        "delta_m low",
        "delta_m high",
        "difference",
        "difference low",
    ]
    header += ["difference high", "alone low", "alone high", "p", "p corrected", "p wilcoxon", "verdict", "mean rank"]
    header += ["seconds per epoch", "seconds in all", "peak memory bytes"]
    return _written(header, (_treatment(label, row, tested, summary.level) for label, row in summary.rows.items()))


def seeds_csv(summary: Summary) -> str:
    """One row for each treatment and seed: metrics on validation and test data, Delta m, costs."""
    metrics, tested = [metric.title for metric in summary.results.metrics], summary.results.tested
    header = ["treatment", "seed", *(f"{m} validation" for m in metrics), *(f"{metrics[k]} test" for k in tested)]
    header += ["delta_m test", "seconds per epoch", "seconds in all", "peak memory bytes"]
    lines = (
        [
            label,
            seed,
            *row.results.validation[s],
            *row.results.test[s, tested],
            row.delta_m[s],
            row.results.seconds_per_epoch[s],
            row.results.seconds[s],
            row.results.peak_memory[s],
        ]
        for label, row in summary.rows.items()
        for s, seed in enumerate(summary.results.plan.seeds)
    )
    return _written(header, lines)


def _treatment(label: str, row: TreatmentSummary, tested: Sequence[int], level: float) -> list[object]:
    cells: list[object] = [label, row.results.seeds]
    for values in (*row.results.test.T[tested], row.delta_m):
        finite = values[np.isfinite(values)]
        found = interval(finite, level)
        cells += [seed_mean(finite), *(("", "") if found is None else (found.low, found.high))]
    if row.comparison is None:
        cells += ["", "", "", "", "", "", "", "", "reference"]
    else:
        c = row.comparison
        ends = [
            end
            for found in (c.interval, c.uncorrected)
            for end in (("", "") if found is None else (found.low, found.high))
        ]
        cells += [c.difference, *ends, c.p, c.p_corrected, c.p_wilcoxon, c.verdict.value]
    memory = seed_mean(row.results.peak_memory)
    return [*cells, row.rank, seed_mean(row.results.seconds_per_epoch), row.results.seconds.sum(), memory]


def _written(header: Iterable[object], lines: Iterable[Iterable[object]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(map(_cell, header))
    writer.writerows(map(_cell, line) for line in lines)
    return text.getvalue()


def _cell(value: object) -> object:
    if isinstance(value, str):
        return f"'{value}" if value.startswith(RISKY) else value
    if isinstance(value, int):
        return value
    number = float(value)  # type: ignore[arg-type]
    return "" if math.isnan(number) else f"{number:.10g}"
