"""The results as JSON, and as a page of Markdown tables."""

from __future__ import annotations

import datetime
import json
import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).parents[2]
BLANK = ""


def machine(device: torch.device) -> dict[str, str]:
    """The card, its driver, the versions and the commit."""
    facts = {
        "date": str(datetime.datetime.now(datetime.UTC).date()),
        "card": torch.cuda.get_device_name() if device.type == "cuda" else "none (CPU)",
        "driver": _output(["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"])
        if device.type == "cuda"
        else BLANK,
        "torch": torch.__version__,
        "CUDA": str(torch.version.cuda or BLANK),
        "Python": platform.python_version(),
        "commit": _output(["git", "-C", str(ROOT), "rev-parse", "--short", "HEAD"]),
    }
    for package in ("torchjd", "torchvision"):
        try:
            facts[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            facts[package] = "not installed"
    return facts


def _output(command: list[str]) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return BLANK
    return done.stdout.strip().splitlines()[0] if done.stdout.strip() else BLANK


def write(folder: Path, results: dict[str, Any]) -> None:
    """``gpu.json`` and ``gpu.md``; called after every part, so that an interrupted run leaves what it has measured."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in (("gpu.json", json.dumps(results, indent=1)), ("gpu.md", page(results))):
        partial = folder / f"{name}.partial"
        partial.write_text(text + "\n")
        partial.replace(folder / name)


def page(results: dict[str, Any]) -> str:
    """The page; a figure that was not measured is blank."""
    facts = results["machine"]
    lines = ["# A step on the GPU", "", ", ".join(f"{name} {value}" for name, value in facts.items() if value), ""]
    if results.get("tiny"):
        lines += [
            "A dry run with tiny models on the CPU: it shows that every part runs. Its times are not results.",
            "",
        ]
    for title, part, table in (
        ("Time over plain, and peak memory", "costs", _costs),
        ("Waits for the device in a step", "waits", _waits),
        ("CUDA graphs", "graphs", _graphs),
        ("Tests marked cuda", "tests", _tests),
    ):
        found = results["parts"].get(part)
        lines += [f"## {title}", ""]
        if found is None:
            lines += ["Not run.", ""]
        elif "error" in found:
            lines += [f"Failed: {_last_line(found['error'])}", ""]
        else:
            lines += [*table(found, bool(results.get("tiny"))), ""]
    left_out = [f"- {text}" for text in results.get("left out", [])]
    left_out += [f"- {text}" for part in results["parts"].values() for text in _listed(part.get("left out"))]
    return "\n".join([*lines, "## Left out", "", *(left_out or ["Nothing."])])


def _listed(value: Any) -> list[str]:
    return [value] if isinstance(value, str) else list(value or ())


def _last_line(text: str) -> str:
    return text.strip().splitlines()[-1]


def _costs(found: dict[str, Any], tiny: bool) -> list[str]:
    names = ["plain", "fork", "balancer", "torchjd"]
    lines = ["| model | " + " | ".join(names) + " |", "|---|" + "---|" * len(names)]
    for case, entries in found["cases"].items():
        if "error" in entries:
            lines.append(f"| {case} | failed: {_last_line(entries['error'])} |" + " |" * (len(names) - 1))
            continue
        lines.append(f"| {case} | " + " | ".join(_cost(entries.get(name, {}), tiny) for name in names) + " |")
    return lines


def _cost(entry: dict[str, Any], tiny: bool) -> str:
    if "error" in entry:
        return "failed"
    if tiny or "over plain" not in entry:
        return BLANK
    memory = BLANK if entry["peak MiB"] is None else f", {entry['peak MiB']:.0f} MiB"
    return f"{entry['over plain']:.2f} ({entry['milliseconds']:.1f} ms{memory})"


def _waits(found: dict[str, Any], tiny: bool) -> list[str]:
    del tiny
    goals = ", ".join(f"{name} {number}" for name, number in found["goals"].items())
    lines = [f"Goals: {goals}.", "", "| step | waits | places |", "|---|---|---|"]
    for case, entry in found["cases"].items():
        if "error" in entry:
            lines.append(f"| {case} | failed | {_last_line(entry['error'])} |")
            continue
        places = ", ".join(f"{place} ({number})" for place, number in (entry["places"] or {}).items())
        lines.append(f"| {case} | {BLANK if entry['waits'] is None else entry['waits']} | {places} |")
    return lines


def _graphs(found: dict[str, Any], tiny: bool) -> list[str]:
    lines = ["| way | over eager | distance of gradients |", "|---|---|---|"]
    notes = []
    for name, entry in found["cases"].items():
        if "error" in entry:
            lines.append(f"| {name} | failed | {_last_line(entry['error'])} |")
        elif "captured" in entry:
            outcome = {None: BLANK, True: "captured", False: "not possible"}[entry["captured"]]
            lines.append(f"| {name} | {outcome} | |")
            notes += ["", entry["why not"]] if "why not" in entry else []
        else:
            ratio = BLANK if tiny else f"{entry['over eager']:.2f}"
            lines.append(f"| {name} | {ratio} | {entry['distance of gradients']:.1e} |")
    return lines + notes


def _tests(found: dict[str, Any], tiny: bool) -> list[str]:
    del tiny
    return [found.get("summary", found.get("left out", BLANK))]
