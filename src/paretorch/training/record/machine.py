"""Versions, commit, machine and peak memory of a run."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from contextlib import suppress
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

RECORDED = ("paretorch", "torch", "torchvision", "numpy", "scikit-learn", "safetensors")


def versions() -> dict[str, str]:
    """Versions of Python and of the installed packages on which a run's numbers depend."""
    return dict(_versions())


@lru_cache(maxsize=1)
def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in RECORDED:
        with suppress(metadata.PackageNotFoundError):
            found[package] = metadata.version(package)
    return found


@lru_cache(maxsize=1)
def commit() -> str | None:
    """The git commit if the package runs from its repository, with ``+changes`` if files differ from it; else None."""
    here = Path(__file__)

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(here.parent), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()

    try:
        # an installed copy may be inside another repository, whose commit does not identify this package
        git("ls-files", "--error-unmatch", here.name)
        changed = git("status", "--porcelain", "--untracked-files=no", "--", str(here.parents[1]))
        return git("rev-parse", "HEAD") + ("+changes" if changed else "")
    except (OSError, subprocess.SubprocessError):
        return None


def environment(device: torch.device) -> dict[str, Any]:
    """Versions, commit and machine, as ``run.json`` contains them."""
    return {"versions": versions(), "commit": commit(), "machine": machine(device)}


def machine(device: torch.device) -> dict[str, Any]:
    """Operating system, processor, cores and threads, without the name of the machine."""
    found: dict[str, Any] = {
        "system": platform.system(),
        "release": platform.release(),
        "processor": platform.machine(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
    }
    if device.type == "cuda":
        found["accelerator"] = torch.cuda.get_device_name(device)
    return found


def reset_peak_memory(device: torch.device) -> None:
    """Starts a new measurement of peak memory, if the operating system supports it."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    elif device.type == "cpu":
        with suppress(OSError):  # other systems than Linux, and sandboxes
            Path("/proc/self/clear_refs").write_text("5")


def peak_memory(device: torch.device) -> dict[str, Any]:
    """``bytes``, and what they measure."""
    if device.type == "cuda":
        return {
            "bytes": torch.cuda.max_memory_allocated(device),
            "measures": "tensors on the device, peak while training",
        }
    if device.type == "mps":
        return {"bytes": torch.mps.driver_allocated_memory(), "measures": "the device driver's memory, after training"}
    with suppress(OSError, ValueError, StopIteration):
        lines = Path("/proc/self/status").read_text().splitlines()
        line = next(line for line in lines if line.startswith("VmHWM:"))
        return {"bytes": 1024 * int(line.split()[1]), "measures": "the process, imports included, peak while training"}
    if sys.platform == "win32":
        return {"bytes": None, "measures": "not measured on this system"}
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    unit = 1 if sys.platform == "darwin" else 1024
    return {"bytes": unit * peak, "measures": "the process, imports included, peak since it started"}
