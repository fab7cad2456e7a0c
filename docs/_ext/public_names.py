"""Sphinx: every public name of paretorch has an entry, or the build warns of it.

The directive ``public-methods`` writes a table of ``paretorch.balance.__all__`` and an entry for each of its names: an export
line there is all that a new method needs to be documented. The other names have theirs in ``docs/reference.md``: those of
``paretorch.__all__``, and of the packages in ``PACKAGES``, there under the name of their package, of ``paretorch``, or of
``paretorch.metrics``, some of whose classes ``paretorch.workloads`` exports too.
"""

from __future__ import annotations

import importlib
import inspect
from typing import Any

from docutils import nodes
from docutils.statemachine import StringList
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective
from sphinx.util.nodes import nested_parse_with_titles

import paretorch
import paretorch.balance
import paretorch.metrics

LOG = logging.getLogger(__name__)

PACKAGES = ("balance", "linesearch", "metrics", "optim", "pareto", "training", "workloads")


class PublicMethods(SphinxDirective):
    """A table of all methods, then the entry of each."""

    def run(self) -> list[nodes.Node]:
        """The nodes that replace the directive."""
        objects = {name: getattr(paretorch, name) for name in sorted(paretorch.balance.__all__, key=str.lower)}
        methods = {name: value for name, value in objects.items() if inspect.isclass(value)}
        lines = [".. list-table::", "   :header-rows: 1", "   :widths: 20 25 55", ""]
        lines += row("method", "needs", "in one line")
        for name, method in methods.items():
            lines += row(f":class:`~paretorch.{name}`", evidence(method), (method.__doc__ or "").partition("\n")[0])
        for name, value in objects.items():
            kind = "autoclass" if inspect.isclass(value) else "autofunction"
            lines += ["", f".. {kind}:: paretorch.{name}", ""]
        section = nodes.section(document=self.state.document)
        source = f"<{self.name} in {self.env.docname}>"
        nested_parse_with_titles(self.state, StringList(lines, source), section)
        return section.children


def row(*cells: str) -> list[str]:
    """A row of a list-table."""
    return [f"   {'*' if place == 0 else ' '} - {cell}" for place, cell in enumerate(cells)]


def evidence(method: Any) -> str:
    """The evidence that a method needs."""
    words = {"LOSSES": "losses", "GRAMIAN": "inner products of gradients", "JACOBIAN": "gradients"}
    return ", ".join(words[need.name] for need in method.needs)


def check_all_are_there(app: Sphinx, env: BuildEnvironment) -> None:
    """Warn of every public name without an entry; the build runs with warnings as errors."""
    there = env.domains.python_domain.objects
    for name in paretorch.__all__:
        if f"paretorch.{name}" not in there:
            LOG.warning("paretorch.%s is public and has no entry: add it to docs/reference.md", name)
    for package in PACKAGES:
        public = importlib.import_module(f"paretorch.{package}")
        for name in public.__all__:
            homes = [home for home in (public, paretorch, paretorch.metrics) if f"{home.__name__}.{name}" in there]
            if not any(getattr(home, name, None) is getattr(public, name) for home in homes):
                LOG.warning("paretorch.%s.%s is public and has no entry: add it to docs/reference.md", package, name)


def setup(app: Sphinx) -> dict[str, bool]:
    """Register with Sphinx."""
    app.add_directive("public-methods", PublicMethods)
    app.connect("env-check-consistency", check_all_are_there)
    return {"parallel_read_safe": True}
