"""Structure of the package: imports go downwards, no circles, no class that a subclass in another file completes."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from package_imports import SOURCE, Class, Import, circles, classes, imports, trees

FLOORS = {
    "device_memory": 0,
    "extras": 0,  # imports nothing
    "former_names": 0,
    "task_names": 0,
    "display": 1,
    "metrics": 1,
    "storage": 1,
    "core": 2,
    "workloads": 2,
    "loop": 3,
    "balance": 4,
    "linesearch": 4,
    "optim": 4,
    "integrations": 5,
    "pareto": 4,
    "training": 5,
    "diagnosis": 6,
    "studies": 6,
    "reports": 7,
    "cli": 8,
}
ROOF = 7  # the package itself imports all floors for its users; only the command line imports it
LIGHT = ("core", "balance", "metrics")
LIGHT_PACKAGES = {"torch", "numpy"}
VAGUE = {"utils", "helpers", "misc", "common"}
PUBLIC = (
    "",
    ".balance",
    ".linesearch",
    ".metrics",
    ".optim",
    ".pareto",
    ".training",
    ".workloads",
)  # packages with an `__all__`


def top_package(module: str) -> str:
    """The first part below the package: ``core`` of ``paretorch.core.fork``; empty for the package itself."""
    return module.split(".")[1] if "." in module else ""


def is_upward(found: Import) -> bool:
    """Whether it imports from a higher floor or from a neighbour on the same floor."""
    here, there = top_package(found.importer), top_package(found.module)
    if here in ("", "__main__") or found.module.split(".")[0] != "paretorch":
        return False
    return there != here and FLOORS.get(there, ROOF) >= FLOORS[here]


def is_heavy(found: Import) -> bool:
    """Whether a package that needs torch and numpy only imports something else."""
    package = found.module.split(".")[0]
    if top_package(found.importer) not in LIGHT or found.for_types or package == "paretorch":
        return False
    return package not in LIGHT_PACKAGES and package not in sys.stdlib_module_names


def links(root: Path = SOURCE) -> list[tuple[str, str]]:
    """Importer and imported module of every import of the package's own modules."""
    return [(one.importer, one.module) for one in imports(root) if one.module.split(".")[0] == "paretorch"]


def folder_links(root: Path = SOURCE) -> list[tuple[str, str]]:
    """The same between folders of a package. Files beside the folders are left out: a package's contract and its entrances."""
    packages = {name for name, (file, _) in trees(root).items() if file.name == "__init__.py"}

    def folder(module: str) -> str:
        return module if module in packages else module.rpartition(".")[0]

    pairs = {(folder(one), folder(other)) for one, other in links(root)}
    return [(one, other) for one, other in pairs if one != other and one.count(".") >= 2 and other.count(".") >= 2]


def public_classes() -> set[str]:
    """Names of the classes that users may subclass: those of every ``__all__``."""
    return {name for package in PUBLIC for name in importlib.import_module(f"paretorch{package}").__all__}


def completed_elsewhere(root: Path, public: set[str]) -> Iterator[str]:
    """Every class that is not public, and not usable without a subclass that another file defines."""
    found = classes(root)
    for one in found.values():
        for key in one.bases:
            base = found[key]
            if base.module == one.module or base.name in public:
                continue
            missing = sorted(base.abstract | undefined(base, found))
            if missing:
                yield f"{one} completes {base}: {', '.join(missing)}"


def undefined(one: Class, found: dict[tuple[str, str], Class]) -> frozenset[str]:
    """Attributes of ``self`` that neither a class nor its bases define."""
    line = lineage(one, found)
    if any(each.inherits for each in line):
        return frozenset()
    return one.used.difference(*(each.defined for each in line), dir(object))


def lineage(one: Class, found: dict[tuple[str, str], Class]) -> list[Class]:
    """The class and its bases within the package."""
    return [one, *(each for base in one.bases for each in lineage(found[base], found))]


# --- the package ---------------------------------------------------------------------------------------------------------


def test_layers_give_every_package_a_floor() -> None:
    assert {top_package(module) for module in trees(SOURCE)} - {"", "__main__"} == FLOORS.keys()


def test_layers_import_downwards() -> None:
    assert [str(found) for found in imports() if is_upward(found)] == []


def test_layers_have_no_circle_between_files() -> None:
    assert circles(links()) == []


def test_layers_have_no_circle_between_folders() -> None:
    assert circles(folder_links()) == []


def test_layers_complete_no_class_in_another_file() -> None:
    assert list(completed_elsewhere(SOURCE, public_classes())) == []


def test_layers_core_and_balance_import_torch_and_numpy_only() -> None:
    found = list(imports())
    assert any(each.module.split(".")[0] == "torch" for each in found)
    assert [str(each) for each in found if is_heavy(each)] == []


def test_layers_package_imports_light_packages_only() -> None:
    named = [found for found in imports() if found.importer == "paretorch" and found.module.startswith("paretorch")]
    assert [str(found) for found in named if top_package(found.module) not in (*LIGHT, "former_names")] == []


def test_layers_name_files_after_their_subject() -> None:
    assert [str(file) for file in (SOURCE / "paretorch").rglob("*.py") if file.stem in VAGUE] == []


def test_layers_describe_every_package() -> None:
    packages = list((SOURCE / "paretorch").rglob("__init__.py"))
    texts = {file: ([*file.read_text(encoding="utf-8").split('"""'), "", ""])[1] for file in packages}
    assert [str(file.parent) for file, text in texts.items() if len(text.split()) < 5 or "TODO" in text] == []


# --- the rules find what breaks them -------------------------------------------------------------------------------------


def planted(folder: Path, **files: str) -> Path:
    """A package of these files, ``__`` for a folder; each folder has an empty ``__init__.py``."""
    for name, text in files.items():
        file = folder / "paretorch" / f"{name.replace('__', '/')}.py"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    for file in list((folder / "paretorch").rglob("*.py")):
        (file.parent / "__init__.py").touch()
        (file.parent.parent / "__init__.py").touch()
    (folder / "paretorch" / "__init__.py").touch()
    return folder


@pytest.mark.parametrize(
    ("file", "text", "upward", "heavy"),
    [
        ("core__fork", "from paretorch.balance.mgda import MGDA", True, False),
        ("core__fork", "def f():\n    import paretorch.training.loop", True, False),
        ("core__fork", "if TYPE_CHECKING:\n    from paretorch.training.loop import train", True, False),
        ("core__fork", "import paretorch", True, False),
        ("core__fork", "from paretorch import balance", True, False),
        ("workloads__digits", "from paretorch.core.fork import Fork", True, False),
        ("studies__study", "from paretorch.reports.page import page", True, False),
        ("studies__study", "from paretorch.training.run import Run", False, False),
        ("core__fork", "from paretorch.core.contract import Method", False, False),
        ("balance__mgda", "import scipy.optimize", False, True),
        ("balance__mgda", "import math, torch.nn, numpy", False, False),
        ("balance__mgda", "if TYPE_CHECKING:\n    from jaxtyping import Float", False, False),
        ("training__loop", "import rich", False, False),
        ("reports__load", "import paretorch", True, False),
        ("cli", "import paretorch", False, False),
    ],
)
def test_layers_find_an_import_that_breaks_the_rules(
    tmp_path: Path, file: str, text: str, upward: bool, heavy: bool
) -> None:
    found = list(imports(planted(tmp_path, balance__equal="", **{file: text})))
    assert any(is_upward(each) for each in found) == upward
    assert any(is_heavy(each) for each in found) == heavy


@pytest.mark.parametrize(
    "back",
    [
        "from paretorch.core.first import f",
        "from paretorch.core import first",
        "def g():\n    from paretorch.core.first import f",
        "if TYPE_CHECKING:\n    from paretorch.core.first import f",
        "from paretorch.core.third import h",  # through a third file
    ],
)
def test_layers_find_a_circle_within_a_package(tmp_path: Path, back: str) -> None:
    third = "import paretorch.core.first"
    package = planted(tmp_path, core__first="import paretorch.core.second", core__second=back, core__third=third)
    assert any({"paretorch.core.first", "paretorch.core.second"} <= set(one) for one in circles(links(package)))


def test_layers_find_no_circle_where_there_is_none(tmp_path: Path) -> None:
    package = planted(tmp_path, core__first="import paretorch.core.second", core__second="import torch")
    assert circles(links(package)) == []


def test_layers_find_a_circle_between_folders(tmp_path: Path) -> None:
    package = planted(
        tmp_path,
        core__fork__one="import paretorch.core.method.two",
        core__method__two="",
        core__method__three="import paretorch.core.fork.four",
        core__fork__four="",
    )
    assert circles(links(package)) == []
    assert circles(folder_links(package)) == [["paretorch.core.fork", "paretorch.core.method"]]


@pytest.mark.parametrize(
    ("base", "finds"),
    [
        ("class Base:\n    def step(self):\n        return self.direction()", True),
        ("class Base:\n    def step(self):\n        raise NotImplementedError", True),
        ("class Base:\n    @abstractmethod\n    def step(self): ...", True),
        (
            "class Base:\n    def __init__(self):\n        self.size = 1\n    def step(self):\n        return self.size",
            False,
        ),
    ],
)
def test_layers_find_a_base_class_that_another_file_completes(tmp_path: Path, base: str, finds: bool) -> None:
    derived = "from paretorch.core.base import Base\nclass Derived(Base):\n    def direction(self): ..."
    package = planted(tmp_path, core__base=base, core__derived=derived)
    assert bool(list(completed_elsewhere(package, set()))) == finds
    assert list(completed_elsewhere(package, {"Base"})) == []
