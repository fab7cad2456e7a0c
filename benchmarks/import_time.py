"""Cost of ``import paretorch`` over ``import torch``, alone and with the first use of a Fork, and of a method with it.

python benchmarks/import_time.py [--pairs 15]

Names are imported when they are first used. Medians over pairs of fresh processes, one of each, in turn.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys

GOAL = 1.05
CASES = {
    "import paretorch": "import torch, paretorch",
    "and its Fork": "import torch, paretorch; paretorch.Fork",
    "and its Fork, Balancer, MGDA": "import torch, paretorch; paretorch.Fork, paretorch.Balancer, paretorch.MGDA",
}
TIMED = "import time; start = time.perf_counter(); {statement}; print(time.perf_counter() - start)"


def seconds(statement: str) -> float:
    command = [sys.executable, "-c", TIMED.format(statement=statement)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=15)
    pairs = parser.parse_args().pairs
    for name, statement in CASES.items():
        seconds(statement)  # compiled and cached
        ratios = []
        for turn in range(pairs):
            order = ("import torch", statement) if turn % 2 else (statement, "import torch")
            times = {each: seconds(each) for each in order}
            ratios.append(times[statement] / times["import torch"])
        low, middle, high = statistics.quantiles(ratios, n=4)
        print(
            f"{name} / import torch: median {middle:.3f}, quartiles {low:.3f} to {high:.3f}, {pairs} pairs; goal {GOAL}"
        )


if __name__ == "__main__":
    main()
