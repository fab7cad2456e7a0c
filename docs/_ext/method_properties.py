"""Sphinx: the table of the properties of every method, from the entries of ``tests/methods.py``.

The directive ``method-properties`` writes a row for each entry. The tests check every property.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from docutils import nodes
from docutils.statemachine import StringList
from public_names import row
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

CLAIMS = Path(__file__).parents[2] / "tests" / "methods.py"
COLUMNS = {
    "conflict_free": "no conflict",
    "scale_free": "scale-free",
    "homogeneous": "homo\u00adgeneous",
    "calibrated": "cali\u00adbrated",
    "single": "single",
    "equivariant": "any order",
    "converges": "con\u00adverges",
}
WORDS = {True: "yes", False: "·", "independent": "(yes)"}


class MethodProperties(SphinxDirective):
    """A table of methods and their properties."""

    def run(self) -> list[nodes.Node]:
        """The nodes that replace the directive."""
        self.env.note_dependency(str(CLAIMS))
        lines = [".. list-table::", "   :header-rows: 1", f"   :widths: 30 {'10 ' * len(COLUMNS)}", ""]
        lines += row("method", *COLUMNS.values())
        for entry in methods_table().METHODS:
            lines += row(f"``{short(entry.method)}``", *(WORDS[getattr(entry, claim)] for claim in COLUMNS))
        container = nodes.container()
        self.state.nested_parse(StringList(lines, f"<{self.name} in {self.env.docname}>"), 0, container)
        return list(container.children)


def short(method: Any) -> str:
    """A method as its constructor, with the options that are not at their defaults."""
    given = [
        f"{field.name}={short(value) if dataclasses.is_dataclass(value) else repr(value)}"
        for field in dataclasses.fields(method)
        if (value := getattr(method, field.name)) != field.default
    ]
    return f"{type(method).__name__}({', '.join(given)})"


def methods_table() -> ModuleType:
    """The module of the entries."""
    spec = importlib.util.spec_from_file_location("paretorch_method_claims", CLAIMS)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def setup(app: Sphinx) -> dict[str, bool]:
    """Register with Sphinx."""
    app.add_directive("method-properties", MethodProperties)
    return {"parallel_read_safe": True}
