"""``torch.compile(fullgraph=True)`` through the Fork equals eager: gradients, state and presence."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

QUICK = (
    "mgda",
    "famo",
    "aot famo",
    "aot gradnorm",
    "aot gradvac",
    "aot uncertainty",
    "aot excess",
    "aot recorded outside",
)
MORE = ("graddrop", "pcgrad", "dwa", "loss+", "recorded outside", "gradnorm", "gradvac", "uncertainty", "excess")


def run_compiled(names: tuple[str, ...]) -> dict[str, Any]:
    """In a process of its own: the shape checks of the test run are not for compilers."""
    script = Path(__file__).parent / "compiled.py"
    done = subprocess.run([sys.executable, str(script), *names], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    results: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return results


def check_compiled(results: dict[str, Any], names: tuple[str, ...]) -> None:
    for name in names:
        assert results[name]["worst"] <= 1e-10, (name, results[name])
        assert results[name]["status"] == "solved"
    for name, found in results["missing"].items():
        assert found["worst"] <= 1e-10, name
        assert found["warnings"] == [], name
    assert "shared=" in results["balancer"]
    assert "compiled" in results["balancer"]


def test_compiled_step_equals_eager_step() -> None:
    check_compiled(run_compiled(QUICK), QUICK)


@pytest.mark.long
def test_compiled_step_equals_eager_step_for_every_kind_of_method() -> None:
    check_compiled(run_compiled(MORE), MORE)
