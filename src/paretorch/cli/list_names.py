"""The command ``paretorch list``: names that other commands accept."""

from __future__ import annotations

from typing import Annotated

from paretorch.cli.errors import readable_errors
from paretorch.extras import extra

with extra("studies"):
    import typer
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table


def list_names(
    what: Annotated[
        str, typer.Argument(metavar="methods|optimizers|algorithms|workloads|studies", help="The list to print.")
    ],
) -> None:
    """List the available methods, optimizers, algorithms for fronts, workloads or studies."""
    with readable_errors():
        from paretorch.cli.listing import LISTS
        from paretorch.training.names.constructors import find_named

        table = Table(box=None, show_header=False, pad_edge=False)
        for name, about in find_named("list", what, LISTS)():
            table.add_row(f"[bold]{escape(name)}[/bold]", escape(about))
        Console(emoji=False).print(table, highlight=False)
