"""Cost of ``import paretorch`` over ``import torch``: the median over pairs of fresh processes, one of each, in turn.

python benchmarks/import_time.py [--pairs 15]
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys

GOAL = 1.05
TIMED = "import time; start = time.perf_counter(); import {module}; print(time.perf_counter() - start)"


def seconds(module: str) -> float:
    command = [sys.executable, "-c", TIMED.format(module=module)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=15)
    pairs = parser.parse_args().pairs
    for module in ("torch", "paretorch"):  # compiled and cached
        seconds(module)
    ratios = []
    for turn in range(pairs):
        order = ("torch", "paretorch") if turn % 2 else ("paretorch", "torch")
        times = {module: seconds(module) for module in order}
        ratios.append(times["paretorch"] / times["torch"])
    low, middle, high = statistics.quantiles(ratios, n=4)
    print(
        f"import paretorch / import torch: median {middle:.3f}, quartiles {low:.3f} to {high:.3f}, {pairs} pairs; goal {GOAL}"
    )


if __name__ == "__main__":
    main()
