"""The house has floors: imports go downwards, and the ground floors need torch and numpy only."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src"

FLOORS = {
    "extras": 0,  # imports nothing
    "former_names": 0,
    "storage": 1,
    "core": 2,
    "workloads": 2,
    "balance": 3,
    "linesearch": 3,
    "optim": 3,
    "pareto": 3,
    "training": 4,
    "studies": 5,
    "reports": 6,
    "cli": 7,
}
ROOF = 6  # the package itself imports all floors for its users; only the command line may stand on it
LIGHT = ("core", "balance")
LIGHT_PACKAGES = {"torch", "numpy"}
VAGUE = {"utils", "helpers", "misc", "common"}


@dataclass(frozen=True)
class Import:
    """One imported module, by its full name."""

    file: Path
    line: int
    module: str
    for_types: bool  # within `if TYPE_CHECKING ...`: types only

    def __str__(self) -> str:
        return f"{self.file}:{self.line} imports {self.module}"


def imports(root: Path) -> Iterator[Import]:
    """Every import of every file below ``root/paretorch``, at the top or within a function."""
    modules = {module_name(root, file) for file in (root / "paretorch").rglob("*.py")}
    for file in sorted((root / "paretorch").rglob("*.py")):
        tree = ast.parse(file.read_text(encoding="utf-8"))
        guarded = {id(node) for test in ast.walk(tree) if is_for_types(test) for node in ast.walk(test)}
        for node in ast.walk(tree):
            for module in imported(node, module_name(root, file), modules):
                yield Import(file.relative_to(root), node.lineno, module, id(node) in guarded)  # type: ignore[attr-defined]


def module_name(root: Path, file: Path) -> str:
    parts = file.relative_to(root).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def is_for_types(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)


def imported(node: ast.AST, here: str, modules: set[str]) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if not isinstance(node, ast.ImportFrom):
        return []
    assert node.level == 0, f"{here}: relative import in line {node.lineno}: write the module's full name"
    assert node.module is not None
    inner = [f"{node.module}.{alias.name}" for alias in node.names]
    return [name if name in modules else node.module for name in inner]


def part(module: str) -> str:
    """The floor's name: ``core`` of ``paretorch.core.fork.fork``; empty for the package itself."""
    return module.split(".")[1] if "." in module else ""


def upward(found: Import) -> bool:
    """Whether it climbs, or crosses to a neighbour on the same floor."""
    here = found.file.with_suffix("").parts[1]
    if here in ("__init__", "__main__") or found.module.split(".")[0] != "paretorch":
        return False
    there = part(found.module)
    return there != here and FLOORS.get(there, ROOF) >= FLOORS[here]


def heavy(found: Import) -> bool:
    """Whether a light floor needs a package that `pip install paretorch` does not bring."""
    package = found.module.split(".")[0]
    if found.file.with_suffix("").parts[1] not in LIGHT or found.for_types or package == "paretorch":
        return False
    return package not in LIGHT_PACKAGES and package not in sys.stdlib_module_names


def test_every_part_of_the_package_has_a_floor() -> None:
    parts = {file.relative_to(SOURCE).with_suffix("").parts[1] for file in (SOURCE / "paretorch").rglob("*.py")}
    assert parts - {"__init__", "__main__"} <= FLOORS.keys()


def test_imports_go_downwards() -> None:
    assert [str(found) for found in imports(SOURCE) if upward(found)] == []


def test_core_and_balance_need_torch_and_numpy_only() -> None:
    found = list(imports(SOURCE))
    assert any(each.module.split(".")[0] == "torch" for each in found)
    assert [str(each) for each in found if heavy(each)] == []


def test_the_package_itself_imports_the_light_floors_only() -> None:
    roof = ast.parse((SOURCE / "paretorch" / "__init__.py").read_text(encoding="utf-8"))
    modules = {module_name(SOURCE, file) for file in (SOURCE / "paretorch").rglob("*.py")}
    names = [name for node in roof.body for name in imported(node, "paretorch", modules)]
    assert [name for name in names if name.startswith("paretorch") and part(name) not in LIGHT] == []


@pytest.mark.parametrize(
    ("file", "text", "climbs", "weighs"),
    [
        ("core/fork.py", "from paretorch.balance.mgda import MGDA", True, False),
        ("core/fork.py", "def f():\n    import paretorch.training.loop", True, False),
        ("core/fork.py", "import paretorch", True, False),
        ("core/fork.py", "from paretorch import balance", True, False),
        ("workloads/digits.py", "from paretorch.core.fork.fork import Fork", True, False),
        ("studies/study.py", "from paretorch.reports.page.page import page", True, False),
        ("studies/study.py", "from paretorch.training.run import Run", False, False),
        ("core/fork.py", "from paretorch.core.contract import Method", False, False),
        ("balance/mgda.py", "import scipy.optimize", False, True),
        ("balance/mgda.py", "import math, torch.nn, numpy", False, False),
        ("balance/mgda.py", "if TYPE_CHECKING:\n    from jaxtyping import Float", False, False),
        ("training/loop.py", "import rich", False, False),
        ("reports/load.py", "import paretorch", True, False),
        ("cli.py", "import paretorch", False, False),
    ],
)
def test_the_rules_see_what_breaks_them(tmp_path: Path, file: str, text: str, climbs: bool, weighs: bool) -> None:
    for name in ("__init__.py", "balance/__init__.py", file):
        (tmp_path / "paretorch" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "paretorch" / name).touch()
    (tmp_path / "paretorch" / file).write_text(text)
    found = list(imports(tmp_path))
    assert any(upward(each) for each in found) == climbs
    assert any(heavy(each) for each in found) == weighs


def test_files_are_named_after_their_subject() -> None:
    assert [str(file) for file in (SOURCE / "paretorch").rglob("*.py") if file.stem in VAGUE] == []
