"""Words that had private meanings in this package, in names, docstrings, comments, messages and pages of the documentation."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = ("src", "tests", "benchmarks", "docs")

# Parts of names, as of ``was_told`` or ``WasTold``.
PARTS = frozenset(
    re.findall(
        r"\w+",
        "amazed ask asked asking asks calm dealt dear door doors doubt due laid look looked looks rest rested rests said say "
        "says seen tell telling tells told unlooked uphill way ways whose worth",
    )
)
# Names of functions and classes that were replaced.
REPLACED = frozenset(
    re.findall(
        r"\w+",
        "Asking Calm Detected Doubt Due Extent Family Follow Keeper Lines Live Looks Matching Moving Repeat Rows Searched Seen "
        "Silence Streams Trains Troubles Uphill Watch Weighing Within all_present check_room descend everyone listened "
        "nothing_told promises",
    )
)
# Words and phrases in prose. Names in backticks are no prose.
PHRASES = {
    name: re.compile(pattern, re.IGNORECASE)
    for name, pattern in {
        "told": r"\b(?:told|tells?|telling)\b",
        "seen": r"\bseen\b",
        "said": r"\b(?:says?|said)\b",
        "asked": r"\b(?:asks?|asked|asking)\b",
        "looks": r"\blook(?:s|ed|ing)?\b(?! up\b)",
        "rests": r"\brest(?:s|ed|ing)\b",
        "calm": r"\bcalm\b",
        "door": r"\bdoors?\b",
        "due": r"\bdue\b(?! to\b)",
        "worth": r"\bworth\b",
        "dear": r"\bdear\b",
        "amazed": r"\bamaz(?!on\b)\w*",  # not the domain of Office-31
        "uphill": r"\buphill\b",
        "come to": r"\b(?:comes?|came|coming) to\b",
        "let go": r"\blet(?:s|ting)? (?:\w+ ){0,3}go\b",
        "go on": r"\b(?:go|goes|going|gone|went) on\b",
        "stands": r"\b(?:stands?|stood|standing)\b(?!-| for\b)",
        "lies": r"\b(?:lies?|lay|lying)\b",
        "a word": r"\ba word\b",
        "wants": r"\bwants\b",
        "beside": r"\bbeside\b(?! (?:each other|one folder)\b)",
    }.items()
}
# (file, name or phrase): why the use is allowed.
ALLOWED = {
    ("src/paretorch/balance/moco.py", "seen"): "the name of a state on disk",
    ("src/paretorch/balance/momentum.py", "seen"): "the name of a state on disk",
    ("src/paretorch/cli/train.py", "asked"): "the command asks questions on the console",
    ("src/paretorch/cli/interactive/questions.py", "ask"): "it reads an answer from the console",
    ("src/paretorch/cli/interactive/questions.py", "asked"): "it reads an answer from the console",
    ("src/paretorch/cli/train.py", "door"): "the name of an option in files of runs",
    ("src/paretorch/core/method/module.py", "said"): "a former public name, which warns",
    ("src/paretorch/diagnosis/advice.py", "worth"): "the sentence of a verdict",
    ("docs/diagnose.md", "worth"): "the sentence of a verdict",
    ("tests/test_diagnosis_page.py", "worth"): "the sentence of a verdict",
    ("tests/test_diagnosis.py", "worth"): "the sentence of a verdict",
    ("src/paretorch/pareto/models/ensemble.py", "asked"): "a fact in files of fronts",
    ("src/paretorch/pareto/subset.py", "lies"): "of points below a reference, in geometry",
    ("src/paretorch/training/names/constructors.py", "rest"): "the remaining text after a name",
    ("src/paretorch/training/run.py", "door"): "the name of an option in files of runs",
    ("src/paretorch/workloads/imagenet_coco.py", "seen"): "a fact in files of runs",
    ("tests/faults/test_damaged_kinds.py", "door"): "the name of a file of checkpoints",
    ("tests/test_balancer_and_fork_state.py", "said"): "a former public name",
    ("tests/test_cli_interactive.py", "ask"): "it replaces the input of the console",
    ("tests/test_layers.py", "beside"): "of files in the same folder as folders",
    ("tests/test_linesearch_former_names.py", "calm"): "a former public name",
    ("tests/test_pareto.py", "lies"): "the message of pareto/subset.py",
    ("tests/test_pareto_former_names.py", "looks_at_gradients"): "a former public name",
    ("tests/test_studies_optimizers.py", "looks"): "the message of a missing folder",
}


class Use(NamedTuple):
    """A use of a word.

    Args:
        file: relative to the repository.
        word: the name, or the key of the phrase.
        text: the name or the sentence with it.
    """

    file: str
    word: str
    text: str


def parts(name: str) -> set[str]:
    """The words of a name in snake_case or CamelCase."""
    return {part.lower() for part in re.findall(r"[A-Z]?[a-z]+|[A-Z]+", name)}


def defined_names(tree: ast.AST) -> Iterator[tuple[str, bool]]:
    """Names that a module defines or assigns; and whether it is that of a function or class."""
    for node in ast.walk(tree):
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                yield node.name, True
            case ast.arg():
                yield node.arg, False
            case ast.Name(ctx=ast.Store()):
                yield node.id, False
            case ast.Attribute(ctx=ast.Store()):
                yield node.attr, False
            case ast.alias(asname=str()) | ast.ExceptHandler(name=str()):
                yield str(node.asname if isinstance(node, ast.alias) else node.name), False


def prose_of(source: str) -> Iterator[str]:
    """Docstrings and messages, which are the strings with a space, and comments. Comments of consecutive lines are joined."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and " " in node.value:
            yield node.value
    last, lines = -1, list[str]()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            if token.start[0] != last + 1:
                yield " ".join(lines)
                lines = []
            last = token.start[0]
            lines.append(token.string.lstrip("# "))
    yield " ".join(lines)


def uses_in_prose(file: str, text: str) -> Iterator[Use]:
    plain = re.sub(r"\s+", " ", re.sub(r"```.*?```|``[^`]*``|`[^`\n]*`", "NAME", text, flags=re.DOTALL))
    for phrase, pattern in PHRASES.items():
        for match in pattern.finditer(plain):
            yield Use(file, phrase, plain[max(0, match.start() - 60) : match.end() + 60])


def private_uses(file: str, text: str) -> Iterator[Use]:
    """The uses in a file, allowed ones too."""
    if not file.endswith(".py"):
        yield from uses_in_prose(file, text)
        return
    names = set(defined_names(ast.parse(text))) | {(Path(file).stem, False)}
    for name, is_definition in sorted(names):
        if parts(name) & PARTS or (is_definition and name.lstrip("_") in REPLACED):
            yield Use(file, name, name)
    for prose in prose_of(text):
        yield from uses_in_prose(file, prose)


def texts() -> Iterator[tuple[str, str]]:
    """The files of the repository that are read, but this one."""
    for path in [path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py")] + list(
        (ROOT / "docs").glob("*.md")
    ):
        file = path.relative_to(ROOT).as_posix()
        if path != Path(__file__) and "/_build/" not in file:
            yield file, path.read_text(encoding="utf-8")


def refused(files: Iterable[tuple[str, str]]) -> list[Use]:
    return [use for file, text in files for use in private_uses(file, text) if (file, use.word) not in ALLOWED]


@pytest.mark.long
def test_words_have_no_private_meaning() -> None:
    found = refused(texts())
    assert not found, "\n".join(f"{use.file}: {use.word!r} in {use.text!r}" for use in found)


@pytest.mark.long
def test_words_that_are_allowed_are_in_existing_files() -> None:
    assert [file for file, _ in ALLOWED if not (ROOT / file).is_file()] == []


@pytest.mark.parametrize(
    ("source", "word"),
    [
        ("def nothing_told(): ...", "nothing_told"),
        ("class Seen: ...", "Seen"),
        ("class Weighing: ...", "Weighing"),
        ("class _Doubt: ...", "_Doubt"),
        ("def step(task_seen): ...", "task_seen"),
        ("isWorth = 1", "isWorth"),
        ("self.rests = True", "rests"),
        ("for way in (): ...", "way"),
        ("import torch as door", "door"),
        ('"""What a step came to."""', "come to"),
        ('def step():\n    """The method is told the losses."""', "told"),
        ('"""The state goes on\n    from the checkpoint."""', "go on"),
        ('raise ValueError(f"{1} stands in the file")', "stands"),
        ("x = 1  # the front lies on disk", "lies"),
        ("# lets the\n# graph go", "let go"),
        ("# the search is amazed", "amazed"),
        ("# a backward is dear", "dear"),
        ("# a word of the run", "a word"),
        ("# as the wrapper wants it", "wants"),
        ("# the losses beside the weights are kept", "beside"),
    ],
)
def test_words_of_code_with_private_meaning_are_found(source: str, word: str) -> None:
    assert [use.word for use in refused([("src/planted.py", source)])] == [word]


def test_words_of_pages_and_file_names_with_private_meaning_are_found() -> None:
    files = [("docs/planted.md", "The value\nstands in the table."), ("src/told_losses.py", "")]
    assert [use.word for use in refused(files)] == ["stands", "told_losses"]


@pytest.mark.parametrize(
    "source",
    [
        '"""See the table; names that stand for objects, panels beside each other; `told` is a field."""',
        "def interest(highway, restore, weight_decay): ...",
        "# due to rounding, look up the rest of the names",
    ],
)
def test_words_in_ordinary_use_are_accepted(source: str) -> None:
    assert refused([("src/planted.py", source)]) == []


def test_words_are_allowed_in_their_file_only() -> None:
    (file, word), *_ = ALLOWED
    assert refused([(file, f"{word} = 1")]) == []
    assert [use.word for use in refused([("src/planted.py", f"{word} = 1")])] == [word]
