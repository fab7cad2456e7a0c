"""Cost of a step against the number of tasks T, and against the shared parameters P: time and peak memory, both sides.

    python benchmarks/scaling.py [--rounds 20] [--seconds 10] [--time] [--memory]

Every point is taken as in step.py: the contenders alternate in one process and their times are divided by plain's in the same
round, over as many rounds as fit into ``--seconds``, three at least; memory is the peak of a process that runs one contender
alone, once, at some of the points. What is found goes into scaling.json and RESULTS.md; docs/pictures/cost.py draws it.
"""

from __future__ import annotations

import argparse
import datetime
import json
from pathlib import Path
from typing import Any

import torch

from memory import measured
from step import THREADS, available, made, ratios, versions

TASKS = (1, 2, 5, 10, 20, 40, 80, 128)  # at the width of step.py
WIDTHS = (96, 192, 384, 768, 1536, 3072)  # at ten tasks
AXES = {"tasks": [f"mlp-{tasks}" for tasks in TASKS], "width": [f"mlp-10-{width}" for width in WIDTHS]}
MEASURED = {"mlp-1", "mlp-10", "mlp-40", "mlp-128", "mlp-10-96", "mlp-10-768", "mlp-10-3072"}  # whose memory is taken
FILE = Path(__file__).parent / "scaling.json"


def size(axis: str, name: str) -> int:
    """The position of a case on its axis: T, or P."""
    if axis == "tasks":
        return int(name.split("-")[1])
    return sum(parameter.numel() for parameter in made(name).encoder.parameters())


def kept(
    results: dict[str, Any], kind: str, axis: str, cases: list[str], found: dict[str, list[float]], digits: int
) -> list[str]:
    """Keep what was found, and return it as a table in Markdown: a row for each contender."""
    places = [size(axis, name) for name in cases]
    results.setdefault(kind, {})[axis] = {"places": places, "found": found}
    symbol = "T" if axis == "tasks" else "P"
    lines = [f"| {symbol} | " + " | ".join(f"{place:,}" for place in places) + " |", "|---|" + "---|" * len(places)]
    return lines + [f"| {name} | " + " | ".join(f"{v:.{digits}f}" for v in row) + " |" for name, row in found.items()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=10.0, help="for each point")
    parser.add_argument("--time", action="store_true", help="time alone")
    parser.add_argument("--memory", action="store_true", help="memory alone")
    options = parser.parse_args()
    torch.set_num_threads(THREADS)
    both, names = options.time == options.memory, available()
    results: dict[str, Any] = json.loads(FILE.read_text()) if FILE.exists() else {}
    results["versions"] = versions()
    text = [f"\n## Scaling, {datetime.datetime.now(datetime.UTC).date()}", "", versions(), ""]
    for axis, cases in AXES.items():
        if both or options.time:
            columns = [ratios(case, names, options.rounds, options.seconds) for case in cases]
            found = {name: [column[name][1] for column in columns] for name in names}
            text += ["Time over the plain sum of losses:", "", *kept(results, "time", axis, cases, found, 2), ""]
        if both or options.memory:
            some = [case for case in cases if case in MEASURED]
            found = {name: [measured(case, name, processes=1) for case in some] for name in names}
            text += ["Peak memory above imports, model and data, MiB:", ""]
            text += [*kept(results, "memory", axis, some, found, 0), ""]
        FILE.write_text(json.dumps(results, indent=1) + "\n")
    print("\n".join(text))
    with (Path(__file__).parent / "RESULTS.md").open("a") as file:
        file.write("\n".join(text).rstrip() + "\n")


if __name__ == "__main__":
    main()
