"""Sphinx: the table of what every method claims, from the entries of ``tests/methods.py``, which the tests hold it to.

The directive ``method-properties`` writes a row for each entry. A claim is changed there, and fails a test if it is not true.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

from docutils import nodes
from docutils.statemachine import StringList
from public_names import row
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

CLAIMS = Path(__file__).parents[2] / "tests" / "methods.py"
COLUMNS = {
    "conflict_free": "conflicts with no task",
    "scale_free": "direction free of a task's scale",
    "homogeneous": "of degree one",
    "calibrated": "equal gradients give their sum",
    "single": "one task gives its gradient",
    "equivariant": "order of tasks is no matter",
    "converges": "ends stationary on quadratics",
}
WORDS = {True: "yes", False: "·", "independent": "independent gradients"}


class MethodProperties(SphinxDirective):
    """A table: methods, and what each claims."""

    def run(self) -> list[nodes.Node]:
        """The nodes that stand in its place."""
        self.env.note_dependency(str(CLAIMS))
        lines = [".. list-table::", "   :header-rows: 1", f"   :widths: 30 {'10 ' * len(COLUMNS)}", ""]
        lines += row("method", *COLUMNS.values())
        for entry in claims().METHODS:
            lines += row(f"``{entry.name}``", *(WORDS[getattr(entry, claim)] for claim in COLUMNS))
        container = nodes.container()
        self.state.nested_parse(StringList(lines, f"<{self.name} in {self.env.docname}>"), 0, container)
        return list(container.children)


def claims() -> ModuleType:
    """The module of the entries, which needs nothing but the package."""
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
