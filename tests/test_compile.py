"""``torch.compile(fullgraph=True)`` through the Fork equals eager: gradients, state and presence."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

QUICK = ("mgda", "aot famo", "aot gradvac", "aot recorded outside")
MORE = (
    "famo", "graddrop", "pcgrad", "dwa", "loss+", "recorded outside", "gradnorm", "gradvac", "uncertainty", "excess",
    "aot gradnorm", "aot uncertainty", "aot excess",
)  # fmt: skip


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
    for name, found in results["own backwards"].items():
        assert "compile the encoder and the heads apart" in found["error"], name
        assert found["worst"] <= 1e-12, name
    for name, found in results["ended graphs"].items():
        assert found["worst"] <= 1e-12, name
    assert "shared=" in results["balancer"]
    assert "compiled" in results["balancer"]


def test_compiled_step_equals_eager_step() -> None:
    check_compiled(run_compiled(QUICK), QUICK)


@pytest.mark.long
def test_compiled_step_equals_eager_step_for_every_kind_of_method() -> None:
    check_compiled(run_compiled(MORE), MORE)


STORED = """
import sys
import torch
from torch import nn
import paretorch as pt

options = {"plain": {}, "gap": {"gap": 1}, "weighted": {"heads": "weighted"}}[sys.argv[1]]
torch.manual_seed(0)
encoder, fork = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 6), nn.Tanh()), pt.Fork(pt.UPGrad(), ("a", "b"), **options)
heads = {task: nn.Sequential(nn.Linear(6, 2), nn.Tanh()) for task in "ab"}
for part in (encoder, *heads.values()):
    part.compile()
branches = fork(encoder(torch.randn(8, 4)))
losses = fork.losses({task: head(branches[task]).square().mean() for task, head in heads.items()})
sum(losses.values()).backward()
assert sys.argv[1] != "gap" or fork.balance.gap
print("done")
"""


@pytest.mark.long
@pytest.mark.parametrize("option", ["gap", "weighted"])
def test_own_backwards_run_through_kernels_that_another_process_compiled_without_them(
    tmp_path: Path, option: str
) -> None:
    for name in ("plain", option):
        done = subprocess.run(
            [sys.executable, "-c", STORED, name],
            capture_output=True,
            text=True,
            check=False,
            env=os.environ | {"TORCHINDUCTOR_CACHE_DIR": str(tmp_path)},
        )
        assert done.stdout.splitlines()[-1:] == ["done"], done.stderr[-2000:]
