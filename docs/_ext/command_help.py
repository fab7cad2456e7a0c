"""Sphinx: the page of the command line, from the help of the commands themselves.

The directive ``command-line`` writes a section for each command: its purpose, a usage line, tables of its arguments and of its
options, and its example.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import typer
from docutils import nodes
from docutils.statemachine import StringList
from public_names import row
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective
from sphinx.util.nodes import nested_parse_with_titles

from paretorch.cli import app as paretorch

MARKUP = re.compile(r"\[/?(?:bold|italic|dim|cyan|green|yellow|red)\]")
QUOTED = re.compile(r"(?<!\w)'([^'\s][^']*)'(?!\w)")


class CommandLine(SphinxDirective):
    """A section for each command."""

    def run(self) -> list[nodes.Node]:
        """The nodes that replace the directive."""
        lines = [
            line
            for name, command in commands("paretorch", typer.main.get_command(paretorch))
            for line in section(name, command)
        ]
        container = nodes.section(document=self.state.document)
        nested_parse_with_titles(self.state, StringList(lines, f"<{self.name} in {self.env.docname}>"), container)
        return container.children


def commands(name: str, command: Any) -> Iterator[tuple[str, Any]]:
    """Commands with their full names; groups are replaced by their commands."""
    if not hasattr(command, "commands"):
        yield name, command
        return
    for part, inner in command.commands.items():
        yield from commands(f"{name} {part}", inner)


def section(name: str, command: Any) -> Iterator[str]:
    """The lines of a command's section, as reStructuredText."""
    arguments = [one for one in command.params if one.param_type_name == "argument"]
    options = [one for one in command.params if one.param_type_name == "option" and not one.hidden]
    usage = " ".join([name, *(placeholder(one) for one in arguments), "[OPTIONS]" if options else ""]).strip()
    yield from (
        name,
        "-" * len(name),
        "",
        plain(command.help or ""),
        "",
        ".. code-block:: console",
        "",
        f"   {usage}",
        "",
    )
    for kind, parameters in (("argument", arguments), ("option", options)):
        if parameters:
            yield from (".. list-table::", "   :header-rows: 1", "   :widths: 25 55 20", "")
            yield from row(kind, "meaning", "default")
            for one in parameters:
                yield from row(spelled(one), plain(getattr(one, "help", "") or ""), default(one))
            yield ""
    if example := MARKUP.sub("", command.epilog or ""):
        yield from ("Example:", "", ".. code-block:: console", "")
        yield from (f"   {line}" for line in example.removeprefix("Example:").strip().splitlines())
        yield ""


def placeholder(argument: Any) -> str:
    """An argument in a usage line."""
    shown = argument.metavar or argument.name.upper()
    return f"{shown}..." if argument.nargs == -1 and not shown.endswith("...") else shown


def spelled(parameter: Any) -> str:
    """The names of a parameter as they are typed."""
    if parameter.param_type_name == "argument":
        return f"``{placeholder(parameter)}``"
    return ", ".join(f"``{name}``" for name in (*parameter.opts, *parameter.secondary_opts))


def default(parameter: Any) -> str:
    """The default of a parameter; empty if there is none."""
    value = parameter.default
    if parameter.required:
        return "required"
    if value is None or value == "" or value == () or callable(value) or "UNSET" in repr(value).upper():
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"``{getattr(value, 'value', value)}``"


def plain(text: str) -> str:
    """Text without the console's markup, on one line; quoted values are code, ``*`` is literal."""
    words = " ".join(MARKUP.sub("", text).replace("\\[", "[").split()).replace("*", "\\*")
    return QUOTED.sub(r"``\1``", words.replace("`", "'"))


def setup(app: Sphinx) -> dict[str, bool]:
    """Register with Sphinx."""
    app.add_directive("command-line", CommandLine)
    return {"parallel_read_safe": True}
