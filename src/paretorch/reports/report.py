"""Report of finished runs: the page, tables, figures and findings."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from paretorch.extras import extra
from paretorch.reports.analysis.summary import Summary, summarize
from paretorch.reports.figures import paper
from paretorch.reports.findings.findings import Finding
from paretorch.reports.findings.headline import answer, headline
from paretorch.reports.page.page import Contents, page, sources, title
from paretorch.reports.page.writing import HTML, MARKDOWN, check_page, write_page, write_text
from paretorch.reports.reading.load import load_all
from paretorch.reports.tables.across import Across, across
from paretorch.reports.tables.overview import overview
from paretorch.reports.tables.settings import different_settings
from paretorch.reports.tables.tables import Table, code, escaped
from paretorch.reports.tables.tuning import budget
from paretorch.storage import atomic
from paretorch.studies.runner import Failure

with extra("studies"):
    from rich.console import Console

PAGE, TEXT, FOLDER = "report.html", "report.md", "report"
FIGURE_FILES = {  # names of the files of those figures that are drawn for papers
    "curves": "learning_curves",
    "weights": "weights",
    "cosines": "cosines",
    "trade-off": "trade_off",
    "trials": "trials",
    "radar": "radar",
    "cost": "cost",
}
# tables of line searches are on the page alone
TABLE_FILES = (
    "overview",
    "means",
    "by_metric",
    "dominance",
    "stationarity",
    "losses",
    "expected",
    "fronts",
    "faster",
    "dynamics",
    "costs",
    "tuning",
)


@dataclass(frozen=True)
class Report:
    """Results of a report.

    Args:
        summaries: all numbers as arrays, for each workload.
        findings: of each workload, the verdict first.
        across: the comparison over several workloads; None for one.
        page: the page.
        files: all written files, the page first.
        failures: the runs of a study that failed, trials left out; the traceback of each is in ``failed.json`` of its folder.
    """

    summaries: tuple[Summary, ...]
    findings: tuple[tuple[Finding, ...], ...]
    across: Across | None
    page: Path
    files: tuple[Path, ...]
    failures: tuple[Failure, ...] = ()

    @property
    def summary(self) -> Summary:
        """The numbers of the first workload."""
        return self.summaries[0]

    @property
    def table(self) -> Table:
        """The main table of the first workload."""
        return overview(self.summary)

    @property
    def verdict(self) -> str:
        """The verdict; for several workloads, one for each."""
        if self.across is None:
            return self.findings[0][0].sentence
        named = zip(self.summaries, self.findings, strict=True)
        return " ".join(f"{summary.results.plan.workload}: {found[0].sentence}" for summary, found in named)

    def show(self, console: Console | None = None) -> None:
        """Prints tables, findings, the verdict, and the path of the page."""
        console = console or Console(emoji=False, highlight=False)
        line = partial(console.print, markup=False, highlight=False)
        for summary, found in zip(self.summaries, self.findings, strict=True):
            if self.across is not None:
                line(f"\n{summary.results.plan.workload}", style="bold")
            console.print(overview(summary).terminal(console.width))
            for finding in found[1:]:  # the verdict is printed last
                line(f"{finding.name}: {finding.sentence}")
            line(f"\n{headline(summary)}\n", style="bold")
            if answer(summary):
                line(f"{answer(summary)}\n", style="bold")
        if self.across is not None:
            if self.across.table is not None:
                console.print(self.across.table.terminal(console.width))
            line(f"{self.across.sentence}\n", style="bold")
            line(f"{self.across.note}\n")
        line(f"The page: {self.page}", soft_wrap=True)
        others = f"Tables and figures: {len(self.files) - 1} files in {self.page.parent / FOLDER} and {TEXT}"
        line(others, soft_wrap=True)


def report(
    *paths: str | Path,
    out: str | Path | None = None,
    formats: Sequence[str] = ("svg",),
    reference: str | None = None,
) -> Report:
    """Reads finished runs and writes the page, tables and figures.

    ``report.html`` is one file that needs no network; ``report.md`` is a short version; ``report/`` contains the tables as
    Markdown, LaTeX and CSV, and the figures.

    Args:
        paths: of studies, of single runs, or of folders that contain them. Each workload has its own tables.
        out: folder of the report; by default the only path, or ``report-of-runs`` for several.
        formats: of the figures: ``svg``, ``pdf``, ``png``; the first is shown in ``report.md``.
        reference: label of the treatment to which all others are compared, instead of the study's own.

    Raises:
        ValueError: no path or format, a file with a page's name that is not a report, or see
            :func:`paretorch.reports.reading.load.load_all`.

    Example:
        >>> report()
        Traceback (most recent call last):
        ...
        ValueError: a report needs at least one folder, got none
    """
    if not paths or not formats:
        raise ValueError(f"a report needs at least one {'folder' if not paths else 'format of figures'}, got none")
    for form in formats:
        paper.check_format(form)
    contents = tuple(map(Contents.of, map(summarize, load_all(paths, reference))))
    summaries = tuple(each.summary for each in contents)
    overall = across(summaries) if len(summaries) > 1 else None
    folder = Path(out) if out is not None else Path(paths[0]) if len(paths) == 1 else Path("report-of-runs")
    check_page(folder / PAGE, HTML)
    check_page(folder / TEXT, MARKDOWN)
    atomic.own_folder(folder / FOLDER)
    write_page(folder / PAGE, page(contents, overall), HTML)
    files = [folder / PAGE, folder / TEXT]
    shown = []
    for each, prefix in zip(contents, _prefixes(summaries), strict=True):
        drawn = [
            paper.save(paper.draw(figure, each.summary), folder / FOLDER, prefix + FIGURE_FILES[figure.name], formats)
            for figure in each.figures
            if figure.name in FIGURE_FILES
        ]
        shown.append([group[0] for group in drawn])
        files += [path for group in drawn for path in group]
        files += [
            path for name, table in _tables(each).items() for path in _write(table, folder / FOLDER, prefix + name)
        ]
        for name, text in each.csv.items():
            files.append(folder / FOLDER / f"{prefix}{name}")
            write_text(files[-1], text)
    if overall is not None:
        files += _write_across(overall, folder / FOLDER, formats)
    write_page(folder / TEXT, _markdown(contents, overall, shown), MARKDOWN)
    return Report(summaries, tuple(each.findings for each in contents), overall, folder / PAGE, tuple(files))


def _tables(contents: Contents) -> dict[str, Table]:
    """The tables that are written as files, by name."""
    return {name: contents.tables[name] for name in TABLE_FILES if name in contents.tables}


def _write(table: Table, folder: Path, name: str) -> Iterator[Path]:
    for ending, text in {"md": table.markdown(), "tex": table.latex()}.items():
        path = folder / f"{name}.{ending}"
        write_text(path, text)
        yield path


def _write_across(overall: Across, folder: Path, formats: Sequence[str]) -> Iterator[Path]:
    if overall.table is not None:
        yield from _write(overall.table, folder, "across")
    if overall.transfer is not None:
        yield from _write(overall.transfer, folder, "transfer")
    if overall.ranking is not None:
        yield from paper.save(paper.draw_ranks(overall.labels, overall.ranking), folder, "ranks", formats)


def _prefixes(summaries: Sequence[Summary]) -> list[str]:
    """The prefix of the files of each workload; empty for a single workload."""
    if len(summaries) == 1:
        return [""]
    slugs = [re.sub(r"[^a-z0-9]+", "-", s.results.plan.workload.lower()).strip("-")[:40] for s in summaries]
    return [f"{i}-{slug}-" for i, slug in enumerate(slugs, start=1)]


def _markdown(contents: Sequence[Contents], overall: Across | None, shown: Sequence[Sequence[Path]]) -> str:
    parts = [f"# {escaped(title(contents))}"]
    if overall is not None:
        parts += [
            escaped(f"{overall.sentence} {overall.note}"),
            *(table.markdown() for table in (overall.table, overall.transfer) if table),
        ]
    for each, drawn in zip(contents, shown, strict=True):
        summary, plan = each.summary, each.summary.results.plan
        parts += [
            *([f"# {escaped(plan.workload)}"] if overall is not None else []),
            escaped(plan.study.question),
            "\n\n".join(f"**{escaped(text)}**" for text in (answer(summary), headline(summary)) if text),
            "\n".join(table.markdown() for table in _tables(each).values()),
            "\n".join(f"![{path.stem.replace('_', ' ')}]({FOLDER}/{path.name})" for path in drawn),
            "## Findings\n\n"
            + "\n".join(
                f"- **{escaped(f.name)}**: {escaped(f'{f.sentence} ({f.definition})')}" for f in each.findings[1:]
            ),
            f"## Settings\n\nseeds {', '.join(map(str, plan.seeds))}. {escaped(budget(summary))} Seeds, initial weights and "
            f"data order are shared by all treatments.\n\n{different_settings(summary.results).markdown()}",
        ]
    made = [
        f"- {escaped(source.path.resolve().name)}: {code(source.command)}; "
        + escaped(", ".join(f"{name} {value}" for name, value in [*source.versions.items(), *source.machine.items()]))
        for source in sources(contents)
    ]
    return "\n\n".join([*parts, "## How it was made\n\n" + "\n".join(made)]) + "\n"
