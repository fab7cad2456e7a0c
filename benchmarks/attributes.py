"""Cost of MGDA against the number of tasks, on the encoder of the study ``mgda`` with 40 attributes: time and peak memory.

    python benchmarks/attributes.py [--rounds 40]

The sum, MGDA-UB (a Fork) and MGDA on the shared parameters (a Balancer) alternate in one process, as in step.py; memory is
the peak of a process that runs one of them alone. What is found goes into attributes.json; docs/pictures/mgda_cost.py draws it.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch

from memory import measured
from step import THREADS, ratios, versions

TASKS = (1, 2, 5, 10, 20, 40)
NAMES = {"plain": "sum", "fork": "MGDA-UB", "balancer, MGDA": "MGDA"}
FILE = Path(__file__).parent / "attributes.json"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=40)
    options = parser.parse_args()
    torch.set_num_threads(THREADS)
    cases = [f"attributes-{tasks}" for tasks in TASKS]
    times = [ratios(case, list(NAMES), options.rounds) for case in cases]
    found = {
        label: {
            "ratio": [round(column[name][1], 3) for column in times],
            "milliseconds": [round(1e3 * column[name][0], 2) for column in times],
            "MiB": [round(measured(case, name), 1) for case in cases],
        }
        for name, label in NAMES.items()
    }
    FILE.write_text(json.dumps({"versions": versions(), "tasks": TASKS, "found": found}, indent=1) + "\n")
    for quantity in ("ratio", "milliseconds", "MiB"):
        print(
            f"| {quantity} | " + " | ".join(f"T = {tasks}" for tasks in TASKS) + " |",
            "|---|" + "--:|" * len(TASKS),
            sep="\n",
        )
        for label, values in found.items():
            print(f"| {label} | " + " | ".join(map(str, values[quantity])) + " |")


if __name__ == "__main__":
    main()
