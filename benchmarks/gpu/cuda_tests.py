"""The tests that are marked ``cuda``, in a process of their own."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).parents[2]
FILE = ROOT / "tests" / "test_cuda.py"
TAIL = 12_000  # characters of output that are kept


def measure(device: torch.device, tiny: bool, seconds: float, save: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    """The summary of pytest, and its output where a test fails; in a tiny run two of the tests, on the CPU."""
    del save  # one result
    if importlib.util.find_spec("pytest") is None:
        return {"left out": "pytest is not installed: `pip install pytest` runs the tests marked cuda"}
    command = [
        sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--noconftest", "-c", os.devnull,
        "--rootdir", str(ROOT), "-o", "markers=cuda: needs a CUDA device", "--tb=short", "-rfE", str(FILE),
    ]  # fmt: skip
    if tiny:
        command += ["-k", "scale_of_the_losses or state_moves"]
    paths = os.pathsep.join(filter(None, (str(ROOT / "src"), str(FILE.parent), os.environ.get("PYTHONPATH"))))
    environment = {**os.environ, "PARETORCH_TEST_DEVICE": device.type, "PYTHONPATH": paths}
    try:
        done = subprocess.run(
            command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=seconds, check=False
        )
    except subprocess.TimeoutExpired as error:
        output = error.stdout.decode(errors="replace") if isinstance(error.stdout, bytes) else error.stdout or ""
        return {"left out": f"the tests took longer than {seconds:.0f} s", "output": output[-TAIL:]}
    lines = done.stdout.strip().splitlines() or [done.stderr.strip()[-200:]]
    summary = {"exit status": done.returncode, "summary": lines[-1]}
    return summary if done.returncode == 0 else {**summary, "output": (done.stdout + done.stderr)[-TAIL:]}
