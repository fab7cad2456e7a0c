"""Page of a report: verdict, tables, figures, definitions and origin of the results."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from paretorch.extras import extra
from paretorch.reports.analysis.formatting import short_titles, signed_interval
from paretorch.reports.analysis.summary import Summary, by_priority, ordered
from paretorch.reports.figures.description import Figure
from paretorch.reports.figures.differences import ranks
from paretorch.reports.figures.figures import figures
from paretorch.reports.figures.interactive import interactive
from paretorch.reports.figures.styles import STYLES, style
from paretorch.reports.findings.definitions import definitions
from paretorch.reports.findings.findings import Finding, findings
from paretorch.reports.findings.headline import answer, headline
from paretorch.reports.page.embedded import asset, content_policy, plotly, script_data, template
from paretorch.reports.reading.plan import Source
from paretorch.reports.tables.across import Across
from paretorch.reports.tables.all_tables import all_tables
from paretorch.reports.tables.overview import MOST_METRICS
from paretorch.reports.tables.settings import different_settings, equal_settings
from paretorch.reports.tables.spreadsheets import seeds_csv, treatments_csv
from paretorch.reports.tables.tables import Table
from paretorch.reports.tables.tuning import budget
from paretorch.studies.statistics.paired import FEWEST_SEEDS, Verdict
from paretorch.training.record import machine

with extra("studies"):
    from markupsafe import Markup

MOST_SOURCES = 40  # folders with an entry each
MOST_MEMBERS = 8  # of one verdict that are listed at once
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
    """Treatments with one verdict, the best first: label, and difference with interval.

    Args:
        title: the verdict.
        mark: its name in the style sheet.
        sign: in front of the title.
        members: that are listed at once.
        more: the others.
    """

    title: str
    mark: str
    sign: str
    members: tuple[tuple[str, str], ...]
    more: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Contents:
    """What a report contains about one workload.

    Args:
        summary: the numbers.
        findings: the verdict first.
        figures: in the order of the page.
        tables: by name, in the order of the page.
        csv: results for spreadsheets, by name of the file.
    """

    summary: Summary
    findings: tuple[Finding, ...]
    figures: tuple[Figure, ...]
    tables: Mapping[str, Table]
    csv: Mapping[str, str]

    @classmethod
    def of(cls, summary: Summary) -> Contents:
        """The contents that follow from the numbers."""
        csv = {"treatments.csv": treatments_csv(summary), "seeds.csv": seeds_csv(summary)}
        return cls(summary, findings(summary), figures(summary), all_tables(summary), csv)


def page(contents: Sequence[Contents], overall: Across | None = None) -> str:
    """The page as HTML; every text from outside is escaped.

    Args:
        contents: one for each workload.
        overall: the comparison over several workloads; None for one.
    """
    ranking = None if overall is None else overall.ranking
    overall_figures = [] if overall is None or ranking is None else [ranks(overall.labels, ranking)]
    origins = sources(contents)
    names = short_titles([each.summary.results.plan.workload for each in contents])
    questions = {each.summary.results.plan.study.question for each in contents}
    library, script = plotly(), asset("frames.js") + asset("page.js")
    return template("page.html.jinja").render(
        title=title(contents),
        question=questions.pop() if len(questions) == 1 else "",
        parts=[_part(each, f"w{i}", name) for i, (each, name) in enumerate(zip(contents, names, strict=True))],
        overall=overall,
        overall_figures=overall_figures,
        marks=MARKS,
        sources=origins[:MOST_SOURCES],
        more_sources=max(0, len(origins) - MOST_SOURCES),
        version=machine.versions()["paretorch"],
        data=_data(contents, overall_figures),
        style=Markup(asset("page.css")),
        script=Markup(script),
        plotly=Markup(library),
        policy=content_policy(library, script),
    )


def title(contents: Sequence[Contents]) -> str:
    """The names of the studies."""
    return " + ".join(dict.fromkeys(each.summary.results.plan.study.name for each in contents))


def sources(contents: Sequence[Contents]) -> list[Source]:
    """The origins of the results, without duplicates."""
    return list({source.path: source for each in contents for source in each.summary.results.plan.sources}.values())


def _part(contents: Contents, anchor: str, name: str) -> dict[str, Any]:
    """Values of the template for one workload."""
    summary, tables = contents.summary, contents.tables
    results = summary.results
    many = len(results.tested) > MOST_METRICS  # of few metrics, the overview has the means
    elsewhere = ("overview", "tuning") if many else ("overview", "tuning", "means")
    titles = {f"best {metric.title}" for metric in results.metrics} if many else set()
    single = [finding for finding in contents.findings if finding.name in titles]
    return {
        "anchor": anchor,
        "name": name,
        "workload": results.plan.workload,
        "answer": answer(summary),
        "headline": headline(summary),
        "reference": results.plan.study.reference,
        "groups": list(_groups(summary)),
        "tuned": budget(summary),
        "notices": list(_notices(summary)),
        "figures": contents.figures,
        "overview": tables["overview"],
        "tables": [table for name, table in tables.items() if name not in elsewhere],
        "downloads": [(name, _download(text)) for name, text in contents.csv.items()],
        "findings": [finding for finding in contents.findings if finding.name not in {"verdict", *titles}],
        "more": single,
        "tuning": tables.get("tuning"),
        "missing": [run for row in summary.rows.values() for run in row.results.missing],
        "definitions": definitions(summary),
        "differing": different_settings(results),
        "alike": equal_settings(results),
    }


def _groups(summary: Summary) -> Iterator[Group]:
    """The treatments by verdict; verdicts without treatments are omitted."""
    compared = {label: summary.rows[label].comparison for label in ordered(summary)}
    for verdict, heading in TITLES.items():
        members = [
            (label, signed_interval(c).removesuffix(" [-]"))
            for label, c in compared.items()
            if c is not None and c.verdict is verdict
        ]
        if members:
            at_once = len(members) if len(members) <= MOST_MEMBERS + 2 else MOST_MEMBERS
            yield Group(heading, *MARKS[verdict.value], tuple(members[:at_once]), tuple(members[at_once:]))


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


def _data(contents: Sequence[Contents], overall: Sequence[Figure]) -> Markup:
    """The figures for the script, as JSON that no text in it can end."""
    drawn = {f"w{i}-{figure.name}": figure for i, each in enumerate(contents) for figure in each.figures}
    drawn |= {f"over-{figure.name}": figure for figure in overall}
    values: dict[str, Any] = {
        "styles": [[each.colour, each.on_dark, each.dash, each.symbol] for each in map(style, range(STYLES))],
        "parts": [{"labels": list(each.summary.rows), "first": _first(each.summary)} for each in contents],
        "figures": {name: interactive(figure) for name, figure in drawn.items()},
    }
    return script_data(values)


def _first(summary: Summary) -> list[int]:
    """Indices of the treatments, those first that a figure shows if it cannot show all."""
    index = {label: i for i, label in enumerate(summary.rows)}
    return [index[label] for label in by_priority(summary)]


def _download(text: str) -> str:
    return "data:text/csv;charset=utf-8;base64," + base64.b64encode(text.encode("utf-8", "backslashreplace")).decode()
