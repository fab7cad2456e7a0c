"""Tests and measurements on one GPU, in less than 8 minutes: `make gpu`.

    PYTHONPATH=src python benchmarks/gpu/run.py [--out DIR] [--seconds 470] [--parts costs waits ...] [--dry-run]

Needs torch and this checkout; pytest and TorchJD are used where they are installed. Each part runs in a process of its own, so
that a part that fails or hangs does not stop the others: its traceback is in the results, and what did not fit into the time is
named. ``--dry-run`` runs every part on the CPU with tiny models, in seconds.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch

import report

# By part: its module, and the share of the remaining time that it may take.
PARTS = {"waits": ("waits", 0.2), "costs": ("costs", 0.5), "graphs": ("graphs", 0.35), "tests": ("cuda_tests", 1.0)}
SECONDS = 470.0
START = 15.0  # seconds for a process to start, in addition to what its part may take
DRY_SECONDS = 60.0


def main(arguments: list[str] | None = None) -> int:
    """0 if all parts ran and their tests passed, else 1."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = os.environ.get("OUT") or Path(__file__).parent / "results"
    parser.add_argument("--out", type=Path, default=Path(default), help="the folder of gpu.json and gpu.md")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="of the whole run")
    parser.add_argument("--parts", nargs="+", choices=list(PARTS), default=list(PARTS))
    parser.add_argument("--dry-run", action="store_true", help="tiny models on the CPU")
    parser.add_argument("--alone", nargs=3, metavar=("PART", "SECONDS", "FILE"), help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    device = torch.device("cpu" if options.dry_run else "cuda")
    if options.alone:
        part, seconds, file = options.alone
        save = partial(_write, Path(file))
        save(_measured(part, device, options.dry_run, float(seconds), save))
        return 0
    if device.type == "cuda" and not torch.cuda.is_available():
        print("no CUDA device is available; --dry-run runs tiny models on the CPU", file=sys.stderr)
        return 1
    return _run(options.parts, device, options.dry_run, options.seconds, options.out)


def _run(parts: list[str], device: torch.device, tiny: bool, seconds: float, out: Path) -> int:
    end = time.monotonic() + (DRY_SECONDS if tiny else seconds)
    results: dict[str, Any] = {"machine": report.machine(device), "tiny": tiny, "parts": {}, "left out": []}
    for place, part in enumerate(parts):
        left = end - time.monotonic() - START * (not tiny)
        own = left * (1.0 if place + 1 == len(parts) else PARTS[part][1])
        if own <= 0:
            results["left out"].append(f"{part}: no time was left")
            continue
        print(f"{part}: at most {own:.0f} s", flush=True)
        found = _measured(part, device, tiny, own, lambda _: None) if tiny else _in_process(part, own)
        results["parts"][part] = found
        report.write(out, results)
    report.write(out, results)
    print((out / "gpu.md").read_text(), f"Results: {out / 'gpu.md'}, {out / 'gpu.json'}", sep="\n")
    failed = [part for part, found in results["parts"].items() if "error" in found or found.get("exit status", 0) != 0]
    return int(bool(failed))


def _measured(
    part: str, device: torch.device, tiny: bool, seconds: float, save: Callable[[dict[str, Any]], None]
) -> dict[str, Any]:
    """The results of a part, which saves those that it has; where it fails, its traceback."""
    try:
        found: dict[str, Any] = importlib.import_module(PARTS[part][0]).measure(device, tiny, seconds, save)
    except Exception:
        return {"error": traceback.format_exc()}
    return found


def _in_process(part: str, seconds: float) -> dict[str, Any]:
    """The results of a part in a process of its own, which is ended when its time is over."""
    with tempfile.TemporaryDirectory() as folder:
        file, log = Path(folder) / "found.json", Path(folder) / "log.txt"
        command = [sys.executable, __file__, "--alone", part, str(seconds), str(file)]
        with log.open("w") as output:
            try:
                status = subprocess.run(
                    command, stdout=output, stderr=output, timeout=seconds + START, check=False
                ).returncode
                end = f"exit status {status}"
            except subprocess.TimeoutExpired:
                status, end = -1, f"ended after {seconds + START:.0f} s"
        if not file.exists():
            return {"error": f"{log.read_text()[-4000:]}\n{end}"}
        found: dict[str, Any] = json.loads(file.read_text())
        if status != 0:
            found["left out"] = [*found.get("left out", ()), f"the rest of {part}: {end}"]
            found["output"] = log.read_text()[-4000:]
            found["exit status"] = status
        return found


def _write(file: Path, found: dict[str, Any]) -> None:
    """Writes the results as a whole, so that an interrupted process leaves complete ones."""
    partial_file = file.with_suffix(".partial")
    partial_file.write_text(json.dumps(found))
    partial_file.replace(file)


if __name__ == "__main__":
    sys.exit(main())
