"""Page of a report: verdict, tables, figures, definitions and origin of the results."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from paretorch.extras import extra
from paretorch.reports.analysis.formatting import signed_interval
from paretorch.reports.analysis.summary import Summary, ordered
from paretorch.reports.figures.description import Figure
from paretorch.reports.figures.differences import ranks
from paretorch.reports.figures.interactive import interactive
from paretorch.reports.figures.styles import STYLES, style
from paretorch.reports.findings.definitions import definitions
from paretorch.reports.findings.findings import Finding, headline
from paretorch.reports.page.embedded import asset, plotly, script_data, template
from paretorch.reports.reading.missing import Missing
from paretorch.reports.reading.plan import Source
from paretorch.reports.tables.across import Across
from paretorch.reports.tables.expected import expected_table
from paretorch.reports.tables.fronts import front_tables
from paretorch.reports.tables.losses import loss_table
from paretorch.reports.tables.overview import MOST_METRICS, by_metric, costs, dynamics, means, overview
from paretorch.reports.tables.searches import lowered_table, search_table, time_table
from paretorch.reports.tables.settings import different_settings, equal_settings
from paretorch.reports.tables.spreadsheets import seeds_csv, treatments_csv
from paretorch.reports.tables.tables import Table
from paretorch.reports.tables.tuning import budget, tuning_table
from paretorch.studies.statistics.paired import FEWEST_SEEDS, Verdict
from paretorch.training.record import machine

with extra("studies"):
    from markupsafe import Markup

MOST_SOURCES = 40  # folders with an entry each
MARKS = {
    "better": ("better", "▲"),
    "worse": ("worse", "▼"),
    "not distinguishable": ("same", "≈"),
    "withheld": ("same", "–"),
}
TITLES = {
    Verdict.BETTER: "Better",
    Verdict.NOT_DISTINGUISHABLE: "Not distinguishable",
    Verdict.WORSE: "Worse",
    Verdict.WITHHELD: "No verdict",
}


@dataclass(frozen=True)
class Group:
    """Treatments with one verdict, the best first: label, and difference with interval."""

    title: str
    mark: str
    sign: str
    members: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Part:
    """Content of the page for one workload."""

    anchor: str
    workload: str
    headline: str
    reference: str
    groups: tuple[Group, ...]
    tuned: str
    notices: tuple[str, ...]
    figures: tuple[Figure, ...]
    overview: Table
    tables: tuple[Table, ...]
    downloads: tuple[tuple[str, str], ...]
    findings: tuple[Finding, ...]
    more: tuple[Finding, ...]
    tuning: Table | None
    missing: tuple[Missing, ...]
    definitions: tuple[tuple[str, str], ...]
    differing: Table
    alike: tuple[tuple[str, str], ...]


def page(
    summaries: Sequence[Summary],
    found: Sequence[Sequence[Finding]],
    figures: Sequence[Sequence[Figure]],
    overall: Across | None = None,
) -> str:
    """The page as HTML; every text from outside is escaped.

    Args:
        summaries: one for each workload.
        found: the findings of each.
        figures: the figures of each.
        overall: the comparison over several workloads; None for one.
    """
    parts = [
        _part(summary, f"w{i}", own_findings, own_figures)
        for i, (summary, own_findings, own_figures) in enumerate(zip(summaries, found, figures, strict=True))
    ]
    ranking = None if overall is None else overall.ranking
    overall_figures = [] if overall is None or ranking is None else [ranks(overall.labels, ranking)]
    sources = _sources(summaries)
    names = list(dict.fromkeys(summary.results.plan.study.name for summary in summaries))
    questions = {summary.results.plan.study.question for summary in summaries}
    return template("page.html.jinja").render(
        title=" + ".join(names),
        question=questions.pop() if len(questions) == 1 else "",
        parts=parts,
        overall=overall,
        overall_figures=overall_figures,
        marks=MARKS,
        sources=sources[:MOST_SOURCES],
        more_sources=max(0, len(sources) - MOST_SOURCES),
        version=machine.versions()["paretorch"],
        data=_data(summaries, parts, overall_figures),
        style=Markup(asset("page.css")),
        script=Markup(asset("page.js")),
        plotly=Markup(plotly()),
    )


def _part(summary: Summary, anchor: str, found: Sequence[Finding], figures: Sequence[Figure]) -> Part:
    results = summary.results
    # the overview has the means of few metrics
    all_means = (means(summary),) if len(results.metrics) > MOST_METRICS else ()
    titles = {f"best {metric.title}" for metric in results.metrics} if all_means else set()
    single = tuple(finding for finding in found if finding.name in titles)
    own = (loss_table(summary), expected_table(summary))
    searched = (search_table(summary), time_table(summary), lowered_table(summary))
    tables = (
        *all_means,
        by_metric(summary),
        *front_tables(summary),
        *own,
        *searched,
        dynamics(summary),
        costs(summary),
    )
    return Part(
        anchor=anchor,
        workload=results.plan.workload,
        headline=headline(summary),
        reference=results.plan.study.reference,
        groups=tuple(_groups(summary)),
        tuned=budget(summary),
        notices=tuple(_notices(summary)),
        figures=tuple(figures),
        overview=overview(summary),
        tables=tuple(table for table in tables if table.rows),
        downloads=(_download("treatments.csv", treatments_csv(summary)), _download("seeds.csv", seeds_csv(summary))),
        findings=tuple(finding for finding in found if finding.name != "verdict" and finding not in single),
        more=single,
        tuning=tuning_table(summary),
        missing=tuple(run for row in summary.rows.values() for run in row.results.missing),
        definitions=definitions(summary),
        differing=different_settings(results),
        alike=equal_settings(results),
    )


def _groups(summary: Summary) -> Iterator[Group]:
    """The treatments by verdict; verdicts without treatments are omitted."""
    for verdict, title in TITLES.items():
        members = []
        for label in ordered(summary):
            comparison = summary.rows[label].comparison
            if comparison is not None and comparison.verdict is verdict:
                members.append((label, signed_interval(comparison)))
        if members:
            yield Group(title, *MARKS[verdict.value], tuple(members))


def _notices(summary: Summary) -> Iterator[str]:
    """Restrictions of the numbers."""
    plan = summary.results.plan
    seeds = len(plan.seeds)
    if seeds < FEWEST_SEEDS:
        yield (
            f"Intervals and tests are withheld: they need at least {FEWEST_SEEDS} seeds, and there "
            f"{'is' if seeds == 1 else 'are'} {seeds}."
        )
    fewer = [f"{label} ({row.results.seeds})" for label, row in summary.rows.items() if row.results.seeds < seeds]
    if fewer:
        yield (
            f"Fewer than {seeds} seeds have a result for: {'; '.join(fewer)}. They are compared over the seeds that they "
            f"share with {plan.study.reference}. A run that failed, is not finished or ended in nan has none."
        )
    if summary.left_out:
        yield f"Δm leaves out {', '.join(summary.left_out)}: the baseline's mean is zero or missing."
    yield from plan.notes


def _sources(summaries: Sequence[Summary]) -> list[Source]:
    """The origins of the results, without duplicates."""
    return list({source.path: source for summary in summaries for source in summary.results.plan.sources}.values())


def _data(summaries: Sequence[Summary], parts: Sequence[Part], overall: Sequence[Figure]) -> Markup:
    """The figures for the script, as JSON that no text in it can end."""
    figures = {f"{part.anchor}-{figure.name}": figure for part in parts for figure in part.figures}
    figures |= {f"over-{figure.name}": figure for figure in overall}
    values: dict[str, Any] = {
        "styles": [[each.colour, each.on_dark, each.dash, each.symbol] for each in map(style, range(STYLES))],
        "parts": [{"labels": list(summary.rows), "first": _first(summary)} for summary in summaries],
        "figures": {name: interactive(figure) for name, figure in figures.items()},
    }
    return script_data(values)


def _first(summary: Summary) -> list[int]:
    """Indices of the treatments in the order of preference, for figures that cannot show all."""
    index = {label: i for i, label in enumerate(summary.rows)}
    study = summary.results.plan.study
    return [index[label] for label in dict.fromkeys([study.reference, study.baseline, *ordered(summary)])]


def _download(name: str, text: str) -> tuple[str, str]:
    return name, "data:text/csv;charset=utf-8;base64," + base64.b64encode(text.encode()).decode()
