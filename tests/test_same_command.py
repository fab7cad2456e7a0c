"""The same command twice gives the same numbers: in another process, at another pace, after other commands, with other jobs."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence, Set
from pathlib import Path
from typing import Any

import pytest
import typer

from command_line import call
from image_folders import write_both
from package_imports import SOURCE
from paretorch.cli import app
from repeated_commands import CALLS, STUDY, SYNTHETIC, commands

PROGRAM = Path(__file__).with_name("repeated_commands.py")
# Times, memory, the number of threads, and digests of files that contain them.
MEASURED = {"seconds", "threads", "seconds_per_epoch", "peak_memory", "loader advice", "chain", "checksum", "sha256"}
TEXTS = {".html", ".md", ".tex", ".csv", ".svg", ".txt"}
# Endings of the texts of a command that contain no times.
UNTIMED = dict.fromkeys(
    ("weights", "weights, population", "diagnose", "report", "list", "data list", "data check", "data pack"), TEXTS
) | {"pick": {".txt"}}

Results = dict[str, Any]


def without_measured(value: Any) -> Any:
    """A nested value without times, memory and their digests."""
    if isinstance(value, dict):
        return {key: without_measured(each) for key, each in value.items() if key not in MEASURED}
    return [without_measured(each) for each in value] if isinstance(value, list) else value


def content(path: Path, texts: Set[str]) -> Any:
    """What of a file is the same whenever the command is the same."""
    if path.suffix == ".json":
        return json.dumps(without_measured(json.loads(path.read_text())))  # equal where nan is
    if path.suffix == ".jsonl":
        return [json.dumps(without_measured(json.loads(line))) for line in path.read_text().splitlines()]
    return path.read_bytes() if path.suffix in texts or path.suffix not in TEXTS else None


def results(folder: Path, texts: Set[str] = frozenset()) -> Results:
    """The content of every file by its path in the folder."""
    return {str(path.relative_to(folder)): content(path, texts) for path in sorted(folder.rglob("*")) if path.is_file()}


def called(folder: Path, names: Sequence[str], seed: int, **setting: Any) -> Path:
    """The folder in which a process has made the calls of ``names``."""
    threads = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    environment = {
        **os.environ,
        **threads,
        "PYTHONHASHSEED": str(seed),
        "PYTHONPATH": os.pathsep.join([str(SOURCE), *sys.path]),
    }
    command = [sys.executable, str(PROGRAM), str(folder), json.dumps({"seed": seed, **setting}), *names]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Path]:
    """A function that makes a folder with images and a finished study for the commands that read them."""
    folder = tmp_path_factory.mktemp("given")
    write_both(folder / "images", 6, 4)
    code, printed = call(*STUDY, "--jobs", "1", "--out", str(folder / "given"))
    assert code == 0, printed

    def copied() -> Path:
        target = tmp_path_factory.mktemp("calls")
        shutil.copytree(folder, target, dirs_exist_ok=True)
        return target

    return copied


@pytest.fixture(scope="module")
def twice(given: Callable[[], Path]) -> tuple[Path, Path]:
    """Folders of two processes that made all calls: in opposite orders, with one job and two, at another pace."""
    one = called(given(), list(CALLS), 1, more={"study": ["--jobs", "1"]})
    other = called(given(), list(reversed(CALLS)), 2, more={"study": ["--jobs", "2"]})
    return one, other


def options_of(name: str) -> set[str]:
    """The options of a command."""
    found: Any = typer.main.get_command(app)
    for part in name.split():
        found = found.commands[part]
    return {option for parameter in found.params for option in parameter.opts}


def command_of(name: str) -> str:
    """The command whose results the calls of a name are compared for."""
    words = CALLS[name][-1]
    return " ".join(words[:2]) if words[0] == "data" else words[0]


DETERMINISTIC = [
    name for name, calls in CALLS.items() if "--deterministic" in options_of(calls[0][0]) and len(calls) == 1
]


def test_every_command_is_called_twice() -> None:
    assert {command_of(name) for name in CALLS} == set(commands())


@pytest.mark.long
@pytest.mark.parametrize("name", CALLS)
def test_same_command_twice_gives_the_same_results(name: str, twice: tuple[Path, Path]) -> None:
    one, other = (results(folder / name, UNTIMED.get(name, frozenset())) for folder in twice)
    assert one.keys() == other.keys()
    assert [path for path in one if one[path] != other[path]] == []


@pytest.fixture(scope="module")
def deterministic(given: Callable[[], Path]) -> tuple[Path, Path]:
    """Folders of two processes that made the calls that can be deterministic, with one thread and with two.

    The workload has no layer whose sums depend on the number of threads in torch, as those of batch norm and convolutions do.
    """
    more = {CALLS[name][0][0]: ["--deterministic"] for name in DETERMINISTIC}
    one, other = (
        called(given(), DETERMINISTIC, seed, threads=threads, workload=SYNTHETIC, more=more)
        for seed, threads in ((3, 1), (4, 2))
    )
    return one, other


@pytest.mark.long
@pytest.mark.parametrize("name", DETERMINISTIC)
def test_deterministic_command_gives_the_same_results_with_two_threads(
    name: str, deterministic: tuple[Path, Path]
) -> None:
    one, other = (results(folder / name) for folder in deterministic)
    assert one.keys() == other.keys()
    assert [path for path in one if one[path] != other[path]] == []
