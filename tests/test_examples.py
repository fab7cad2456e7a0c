"""Every program in ``examples/`` runs, is short, and improves every task."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
ON_RANKS = {"ddp": 2, "fsdp2": 2, "accelerate_loop": 2}  # processes
PROGRESS = re.compile(r"(\w+) ([\d.]+) -> ([\d.]+)")


def packages(example: Path) -> set[str]:
    """What an example needs, by the names of packages; those of torch.utils.tensorboard and of a launch on Ray included."""
    names = set()
    for node in ast.walk(ast.parse(example.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            names.add(node.module)
    names |= {"ray"} if 'launch="ray"' in example.read_text(encoding="utf-8") else set()
    return {"tensorboard" if name == "torch.utils.tensorboard" else name.partition(".")[0] for name in names}


def printed(example: Path) -> str:
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ON_RANKS.get(example.stem)}"]
    command = [sys.executable, *(launcher if example.stem in ON_RANKS else []), str(example)]
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    ran = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


@pytest.mark.long
@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.stem)
def test_example_decreases_the_loss_of_every_task(example: Path) -> None:
    for package in packages(example):
        pytest.importorskip(package)
    progress = PROGRESS.findall(printed(example).strip().splitlines()[-1])
    assert len(progress) >= 2
    for task, first, last in progress:
        assert float(last) < 0.97 * float(first), task


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.stem)
def test_example_is_at_most_sixty_lines(example: Path) -> None:
    assert len(example.read_text(encoding="utf-8").splitlines()) <= 60


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.stem)
def test_example_is_on_a_page_of_the_documentation(example: Path) -> None:
    pages = "".join(page.read_text(encoding="utf-8") for page in (ROOT / "docs").glob("*.md"))
    assert f"{{literalinclude}} ../examples/{example.name}" in pages
