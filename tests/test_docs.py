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
HEADING = re.compile(r"^#{1,3} (.+)$", re.MULTILINE)
TARGET = re.compile(r"^\(([\w-]+)\)=$", re.MULTILINE)
LINK = re.compile(r"\]\(([^)\s]+)\)|(?:src|srcset)=\"([^\"]+)\"")

# Sections that are now on other pages; their anchors lead to a link.
MOVED = {
    "quickstart.md": "the-demo in-your-own-loop methods-that-need-loss-values on-the-shared-parameters "
    "a-task-without-labels-in-this-batch in-a-model-you-did-not-write saving the-command-line",
    "fronts.md": "files-of-others from-many-losses-to-one the-update-in-matrix-form when-transfer-helps what-it-saves "
    "what-the-study-found adapted-preferences what-is-shared what-a-front-costs",
    "line_search.md": "what-is-guaranteed-and-what-is-not limits-of-a-first-order-search what-trials-repeat "
    "why-the-features-own-direction-can-increase-a-loss length-of-the-steps names-in-the-papers newtons-dual "
    "the-minimum-norm-in-a-metric-decreases-every-loss the-study-and-searches-in-reports what-it-found",
    "studies.md": "reports-of-any-folders results-belong-to-their-runs tuned-studies contents-of-the-report in-python",
}


def blocks(page: Path) -> list[str]:
    """A page's Python, with blank lines before each block so that an error names the page's own line."""
    text = page.read_text(encoding="utf-8")
    return ["\n" * text[: found.start(1)].count("\n") + found.group(1) for found in BLOCK.finditer(text)]


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub and MyST make them, and of its explicit targets."""
    text = CODE.sub("", page.read_text(encoding="utf-8"))
    titles = [re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in HEADING.findall(text)]
    return {*titles, *TARGET.findall(text)}


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


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_docs_links_to_sections_have_targets(page: Path) -> None:
    targets = [first or second for first, second in LINK.findall(CODE.sub("", page.read_text(encoding="utf-8")))]
    split = [target.partition("#") for target in targets if "#" in target and "://" not in target]
    files = [((page.parent / file).resolve() if file else page, anchor) for file, _, anchor in split]
    includes = {"contributing.md": "CONTRIBUTING.md", "changelog.md": "CHANGELOG.md"}
    sources = [(ROOT / includes[file.name] if file.name in includes else file, anchor) for file, anchor in files]
    assert [(file.name, anchor) for file, anchor in sources if anchor not in anchors(file)] == []


@pytest.mark.parametrize(("page", "sections"), MOVED.items())
def test_docs_links_to_moved_sections_still_have_targets(page: str, sections: str) -> None:
    assert set(sections.split()) - anchors(ROOT / "docs" / page) == set()


@pytest.mark.parametrize("page", ["promises.md", "setups.md"])
def test_docs_promises_name_existing_tests(page: str) -> None:
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    promised = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", text)
    assert len(promised) > 25
    assert len(promised) == text.count(".py::")
    assert [
        (file, name) for file, name in promised if f"\ndef {name}(" not in (ROOT / file).read_text(encoding="utf-8")
    ] == []


def test_docs_command_line_page_has_every_option_and_no_markup(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "docs" / "_ext"))
    script = runpy.run_path(str(ROOT / "docs" / "_ext" / "command_help.py"))
    commands = dict(script["commands"]("paretorch", script["typer"].main.get_command(script["paretorch"])))
    assert {"paretorch train", "paretorch study", "paretorch data check"} <= set(commands)
    for name, command in commands.items():
        text = "\n".join(script["section"](name, command))
        options = [option for one in command.params if one.param_type_name == "option" for option in one.opts]
        assert [option for option in options if f"``{option}``" not in text] == []
        assert "[bold]" not in text


def test_docs_readme_names_existing_methods() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    kinds = text[text.index("They are of four kinds") : text.index("From the command line")]
    names = [name.partition("(")[0] for name in re.findall(r"`(\w+)(?:\(.*\))?`", kinds)]
    assert len(names) > 8
    assert [name for name in names if name not in pt.balance.__all__] == []


@pytest.mark.parametrize("picture", ["fork", "package"])
@pytest.mark.sampled(2)
def test_docs_pictures_equal_those_that_their_script_draws(picture: str) -> None:
    script = runpy.run_path(str(ROOT / "docs" / "pictures" / f"{picture}.py"))
    for name, theme in script["THEMES"].items():
        drawn = (ROOT / "docs" / "pictures" / f"{picture}-{name}.svg").read_text(encoding="utf-8")
        assert script["picture"](theme) == drawn, f"run python docs/pictures/{picture}.py"


def test_docs_schemes_equal_those_that_their_script_draws() -> None:
    folder = ROOT / "docs" / "pictures"
    drawn = runpy.run_path(str(folder / "schemes.py"))["pictures"]()
    assert [name for name, content in drawn.items() if (folder / name).read_text(encoding="utf-8") != content] == []


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
