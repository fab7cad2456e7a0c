"""The documentation is true: its Python runs, its links lead somewhere, its pictures are what their script draws."""

from __future__ import annotations

import re
import runpy
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

import paretorch as pt

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]
CODE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)\s]+)\)|(?:src|srcset)=\"([^\"]+)\"")


def blocks(page: Path) -> list[str]:
    """A page's Python, with blank lines before each block so that an error names the page's own line."""
    text = page.read_text(encoding="utf-8")
    return ["\n" * text[: found.start(1)].count("\n") + found.group(1) for found in BLOCK.finditer(text)]


def named(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page)], ids=named)
def test_docs_python_of_a_page_runs_from_top_to_bottom(page: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType(f"page_{page.stem}")
    monkeypatch.setitem(sys.modules, module.__name__, module)  # classes find their module there
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for block in blocks(page):
            exec(compile(block, str(page), "exec"), module.__dict__)


def test_readme_contains_python() -> None:
    assert len(blocks(ROOT / "README.md")) >= 2


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_docs_links_into_the_repository_have_targets(page: Path) -> None:
    targets = [first or second for first, second in LINK.findall(CODE.sub("", page.read_text(encoding="utf-8")))]
    inside = [target.partition("#")[0] for target in targets if "://" not in target and not target.startswith("#")]
    assert [target for target in inside if not (page.parent / target).exists()] == []


def test_docs_readme_names_existing_methods() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    kinds = text[text.index("They are of four kinds") : text.index("From the command line")]
    names = [name.partition("(")[0] for name in re.findall(r"`(\w+)(?:\(.*\))?`", kinds)]
    assert len(names) > 8
    assert [name for name in names if name not in pt.balance.__all__] == []


@pytest.mark.parametrize("picture", ["fork", "package"])
def test_docs_pictures_equal_those_that_their_script_draws(picture: str) -> None:
    script = runpy.run_path(str(ROOT / "docs" / "pictures" / f"{picture}.py"))
    for name, theme in script["THEMES"].items():
        drawn = (ROOT / "docs" / "pictures" / f"{picture}-{name}.svg").read_text(encoding="utf-8")
        assert script["picture"](theme) == drawn, f"run python docs/pictures/{picture}.py"


def test_docs_picture_weights_equal_those_of_the_fork() -> None:
    script = runpy.run_path(str(ROOT / "docs" / "pictures" / "fork.py"))
    fork = pt.Fork(pt.MGDA(), tasks=tuple(script["GRADIENTS"]))
    branch = fork(torch.ones(2, dtype=torch.float64, requires_grad=True))
    losses = [
        (branch[task] * torch.tensor(vector, dtype=torch.float64)).sum() for task, vector in script["GRADIENTS"].items()
    ]
    torch.stack(losses).sum().backward()
    assert fork.balance is not None
    assert fork.balance.weights is not None
    assert fork.balance.weights.tolist() == pytest.approx(list(script["mgda_weights"]().values()), rel=1e-12)
