"""The time a report of 500 finished runs takes, page, tables and figures included: seconds of wall clock and of this process.

python benchmarks/report.py [--treatments 50] [--seeds 10] [--epochs 100] [--repeats 3]
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import reports_many as many
from paretorch.reports.report import report


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    for name, value in {"treatments": 50, "seeds": 10, "epochs": 100, "repeats": 3}.items():
        parser.add_argument(f"--{name}", type=int, default=value)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        study = many.study([f"treatment {i}" for i in range(options.treatments)], options.epochs)
        runs = len(many.finished(Path(folder) / "s", study, ["left", "right", "ink"], options.seeds).jobs())
        wall, own = [], []
        for _ in range(options.repeats):
            began, before = time.perf_counter(), time.process_time()
            found = report(Path(folder) / "s")
            wall.append(time.perf_counter() - began)
            own.append(time.process_time() - before)
        size = found.page.stat().st_size / 1e6
    print(
        f"{runs} runs of {options.epochs} epochs: wall {statistics.median(wall):.1f} s, process {statistics.median(own):.1f} s"
    )
    print(f"page {size:.1f} MB")


if __name__ == "__main__":
    main()
