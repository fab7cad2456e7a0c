"""The command ``paretorch report``: the report of finished runs."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

from paretorch.cli.errors import readable_errors
from paretorch.extras import extra

with extra("studies"):
    import typer


class Format(StrEnum):
    """File format of figures."""

    svg = "svg"
    pdf = "pdf"
    png = "png"


def report(
    folders: Annotated[
        list[Path],
        typer.Argument(metavar="DIR...", help="Studies, single runs, or folders that contain them at any depth."),
    ],
    figures: Annotated[Format, typer.Option(help="Format of the figures in DIR/report.")] = Format.svg,
    reference: Annotated[
        str | None, typer.Option(help="The treatment to which all others are compared; the study's own by default.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="The folder of the report; DIR by default, report-of-runs for several DIRs.")
    ] = None,
) -> None:
    """Write the page, tables and figures of finished runs, with a table for each workload."""
    with readable_errors():
        from paretorch.reports.report import report as write_report

        write_report(*folders, out=out, formats=(figures.value,), reference=reference).show()
