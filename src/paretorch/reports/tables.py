"""Tables: one structure of plain cells, written for the terminal, Markdown or LaTeX."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from paretorch.reports.load import Metric
from paretorch.reports.summary import Row, Summary
from paretorch.studies.quality import seed_mean
from paretorch.studies.statistics import Comparison
from paretorch.workloads.extras import extra

with extra("studies"):
    import rich.table
    from rich.text import Text


@dataclass(frozen=True)
class Table:
    """Cells of text.

    Args:
        title: one line.
        header: of the columns. The first column names the rows and is aligned left, as are those in ``left``.
        rows: as many cells each as the header.
        notes: what a reader must know to read it, one line each.
        left: places of further columns that hold words.
    """

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()
    left: tuple[int, ...] = ()

    def terminal(self) -> rich.table.Table:
        """For a rich console."""
        table = rich.table.Table(title=self.title, title_justify="left", caption_justify="left")
        table.caption = Text("\n".join(self.notes))
        for place, name in enumerate(self.header):
            words = place == 0 or place in self.left
            cells = [row[place] for row in self.rows]
            # neither an interval nor a word may be broken over two lines
            widest = max((len(part) for cell in cells for part in ([cell] if "[" in cell else cell.split())), default=0)
            table.add_column(Text(name), justify="left" if words else "right", overflow="fold", min_width=widest)
        for row in self.rows:
            table.add_row(*(Text(cell) for cell in row))
        return table

    def markdown(self) -> str:
        """GitHub's Markdown."""
        rule = [":--" if place == 0 or place in self.left else "--:" for place in range(len(self.header))]
        lines = [self.header, rule, *self.rows]
        body = "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
        notes = "".join(f"\n- {note}" for note in self.notes)
        return f"**{self.title}**\n\n{body}\n" + (f"{notes}\n" if notes else "")

    def latex(self) -> str:
        """A tabular for the booktabs package."""
        columns = "".join("l" if place == 0 or place in self.left else "r" for place in range(len(self.header)))
        lines = [" & ".join(_tex(cell) for cell in row) + r" \\" for row in (self.header, *self.rows)]
        body = "\n".join([r"\toprule", lines[0], r"\midrule", *lines[1:], r"\bottomrule"])
        return f"% {self.title}\n\\begin{{tabular}}{{{columns}}}\n{body}\n\\end{{tabular}}\n"


def overview(summary: Summary) -> Table:
    """The study's main table: means on test data, Delta m, its paired difference to the reference, cost, verdict."""
    study, seeds = summary.results.folder.study, len(summary.results.folder.seeds)
    header = (
        "treatment",
        *map(_heading, summary.results.metrics),
        "Δm %",
        "difference",
        "rank",
        "s/epoch",
        "runs",
        "verdict",
    )
    rows = tuple(_overview_row(label, row) for label, row in summary.rows.items())
    notes = (
        f"Means on test data over {seeds} {'seed' if seeds == 1 else 'seeds'}. ↑ higher is better, ↓ lower.",
        f"Δm: mean relative loss over all metrics against {study.baseline!r}, lower is better.",
        f"difference: of Δm to {study.reference!r}, paired by seed, with its {_interval_words(summary)}.",
        "verdict: paired t test, Holm-corrected for all rows, 5 % level.",
        *(
            f"{label}: {row.comparison.note}"
            for label, row in summary.rows.items()
            if row.comparison and row.comparison.seeds < seeds
        ),
    )
    return Table(f"{study.name}: {study.question}", header, rows, notes, left=(len(header) - 1,))


def by_metric(summary: Summary) -> Table:
    """Every test metric's paired difference to the reference, with its interval."""
    study = summary.results.folder.study
    header = ("treatment", *map(_heading, summary.results.metrics))
    rows = tuple(
        (
            label,
            *(
                _difference(comparison, metric)
                for comparison, metric in zip(row.metrics, summary.results.metrics, strict=True)
            ),
        )
        for label, row in summary.rows.items()
        if row.comparison is not None
    )
    notes = (
        f"Paired differences to {study.reference!r} on test data with their {_interval_words(summary)}.",
        "* better, † worse: paired t test, Holm-corrected for all treatments of this metric, 5 % level.",
    )
    return Table("Differences by metric", header, rows, notes)


def number(value: float, digits: int = 4, signed: bool = False) -> str:
    """A number with so many significant digits; a dash for nan.

    Example:
        >>> number(0.95377), number(-12.0, 3), number(3.0, 2, signed=True), number(float("nan"))
        ('0.9538', '-12.0', '+3.0', '-')
    """
    if math.isnan(value):
        return "-"
    if value == 0 or math.isinf(value):
        return f"{value:g}"
    places = max(0, digits - 1 - math.floor(math.log10(abs(value))))
    return f"{value:{'+' if signed else ''}.{places}f}"


def points(value: float) -> str:
    """Percentage points with their sign and two places; a dash for nan.

    Example:
        >>> points(-3.104), points(-0.0001), points(float("nan"))
        ('-3.10', '+0.00', '-')
    """
    return "-" if math.isnan(value) else f"{round(value, 2) + 0.0:+.2f}"  # adding 0.0 turns -0.0 into 0.0


def signed_interval(comparison: Comparison) -> str:
    """A mean difference in percentage points and its interval, ``-3.10 [-4.20, -2.00]``; a dash where withheld."""
    if math.isnan(comparison.difference):
        return "-"
    if comparison.interval is None:
        return f"{points(comparison.difference)} [-]"
    ends = f"{points(comparison.interval.low)}, {points(comparison.interval.high)}"
    return f"{points(comparison.difference)} [{ends}]"


def _overview_row(label: str, row: Row) -> tuple[str, ...]:
    means = [number(seed_mean(row.results.test[:, k])) for k in range(row.results.test.shape[1])]
    comparison = row.comparison
    return (
        label,
        *means,
        points(seed_mean(row.delta_m)),
        "reference" if comparison is None else signed_interval(comparison),
        number(row.rank, 3),
        number(seed_mean(row.results.seconds_per_epoch), 3),
        str(row.results.runs),
        "" if comparison is None else comparison.verdict.value,
    )


def _difference(comparison: Comparison, metric: Metric) -> str:
    mark = {"better": " *", "worse": " †"}.get(comparison.verdict.value, "")
    sign = -1.0 if metric.higher_is_better else 1.0  # comparisons are turned so that lower is better
    if math.isnan(comparison.difference):
        return "-"
    mean = number(sign * comparison.difference, 3, signed=True)
    if comparison.interval is None:
        return f"{mean} [-]"
    ends = sorted((sign * comparison.interval.low, sign * comparison.interval.high))
    return f"{mean} [{number(ends[0], 3, signed=True)}, {number(ends[1], 3, signed=True)}]{mark}"


def _heading(metric: Metric) -> str:
    unit = f", {metric.unit}" if metric.unit else ""
    return f"{metric.title}{unit} {'↑' if metric.higher_is_better else '↓'}"


def _interval_words(summary: Summary) -> str:
    found = [row.comparison.interval for row in summary.rows.values() if row.comparison and row.comparison.interval]
    if not found:
        return "interval withheld: it needs at least 3 seeds"
    names = {"t": "Student's t", "bootstrap": "paired bootstrap over seeds"}
    methods = sorted({names[interval.method] for interval in found})
    return f"{found[0].level:.0%} interval ({' or '.join(methods)})".replace("%", " %")


def _tex(cell: str) -> str:
    escaped = re.sub(r"([%&#_{}$])", r"\\\1", cell)
    for symbol, command in {"Δm": r"$\Delta m$", "↑": r"$\uparrow$", "↓": r"$\downarrow$", "†": r"$^\dagger$"}.items():
        escaped = escaped.replace(symbol, command)
    return re.sub(r"(?<![\w.])-(?=\d)", "$-$", escaped)
