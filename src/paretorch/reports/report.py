"""Reports: a study's folder in, ``report.md`` and figures beside it out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from paretorch.reports import figures
from paretorch.reports.findings import Finding, findings
from paretorch.reports.load import StudyResults, load
from paretorch.reports.overview import by_metric, costs, overview
from paretorch.reports.summary import Summary, summarize
from paretorch.reports.tables import Table
from paretorch.studies.folder import read_json
from paretorch.workloads.data import atomic
from paretorch.workloads.extras import extra

with extra("studies"):
    from rich.console import Console


@dataclass(frozen=True)
class Report:
    """What a study found.

    Args:
        summary: every number, as arrays.
        table: the main table; ``by_metric``: paired differences of each metric; ``costs``: time, memory, runs.
        findings: in plain words, the verdict first.
        files: what was written.
    """

    summary: Summary
    table: Table
    by_metric: Table
    costs: Table
    findings: tuple[Finding, ...]
    files: tuple[Path, ...]

    @property
    def verdict(self) -> str:
        """The study's answer."""
        return self.findings[0].sentence

    def show(self, console: Console | None = None) -> None:
        """Prints table, findings and where the files are."""
        console = console or Console(highlight=False)
        console.print(self.table.terminal(console.width))
        for finding in self.findings:
            console.print(f"{finding.name}: {finding.sentence}", markup=False, highlight=False)
        console.print("", *map(str, self.files), sep="\n", markup=False, highlight=False, soft_wrap=True)


def report(path: str | Path, formats: Sequence[str] = ("svg", "png")) -> Report:
    """Reads a study's folder and writes ``report.md`` and ``learning_curves`` into it.

    Args:
        path: the study's folder.
        formats: of the figures: ``svg``, ``pdf``, ``png``; the first is shown in the report.

    Raises:
        ValueError: see :func:`paretorch.reports.load.load`.
    """
    results = load(path)
    summary = summarize(results)
    curves = figures.save(figures.learning_curves(results), results.folder.path, "learning_curves", formats)
    tables, found = (overview(summary), by_metric(summary), costs(summary)), findings(summary)
    page = results.folder.path / "report.md"
    atomic.write(page, _markdown(results, tables, found, curves).encode())
    return Report(summary, *tables, found, (page, *curves))


def _markdown(results: StudyResults, tables: Sequence[Table], found: Sequence[Finding], curves: Sequence[Path]) -> str:
    folder = results.folder
    facts = read_json(folder.path / "study.json")
    versions = ", ".join(f"{name} {version}" for name, version in facts["versions"].items())
    machine = ", ".join(f"{name} {value}" for name, value in facts["machine"].items() if name != "release")
    parts = [
        f"# {folder.study.name}\n\n{folder.study.question}\n\n{found[0].sentence}",
        "\n".join(table.markdown() for table in tables),
        f"![learning curves]({curves[0].name})",
        "## Findings\n\n" + "\n".join(f"- **{f.name}**: {f.sentence} ({f.definition})" for f in found[1:]),
        f"## How it was made\n\nscale {folder.scale}, seeds {', '.join(map(str, folder.seeds))}, "
        f"{folder.study.threads} CPU threads per run; all methods with their default settings. "
        f"Seeds, initial weights and data order are shared by all treatments.\n\n{versions}; {machine}",
    ]
    return "\n\n".join(parts) + "\n"
