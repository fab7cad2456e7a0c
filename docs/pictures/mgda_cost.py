"""Draws the cost of MGDA and MGDA-UB against the number of tasks from what benchmarks/attributes.py measured.

python docs/pictures/mgda_cost.py [--svg FILE]
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import matplotlib as mpl
from matplotlib import pyplot as plt

HERE = Path(__file__).parent
MEASURED = HERE.parents[1] / "benchmarks" / "attributes.json"
STYLES = {"sum": ("-", "", "0.0"), "MGDA-UB": ("-", "o", "0.0"), "MGDA": ("--", "s", "0.35")}
PANELS = {"ratio": "time of a step / that of the sum", "MiB": "peak memory of a step [MiB]"}


def main() -> None:
    """Draw them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--svg", type=Path, default=HERE / "mgda_cost.svg")
    options = parser.parse_args()
    measured = json.loads(MEASURED.read_text())
    mpl.rcParams.update(
        {"svg.hashsalt": "paretorch", "font.size": 9, "axes.spines.top": False, "axes.spines.right": False}
    )
    figure, panels = plt.subplots(1, 2, figsize=(8, 3.1), layout="constrained")
    for panel, (quantity, label) in zip(panels, PANELS.items(), strict=True):
        for name, values in measured["found"].items():
            line, marker, colour = STYLES[name]
            panel.plot(measured["tasks"], values[quantity], line, marker=marker, color=colour, label=name, markersize=4)
        panel.set(xscale="log", xlabel="tasks T", ylabel=label, ylim=(0, None))
        panel.set_xticks(measured["tasks"], [str(tasks) for tasks in measured["tasks"]])
        panel.minorticks_off()
        panel.grid(color="0.9")
    panels[0].legend(frameon=False, fontsize=8)
    figure.savefig(options.svg, metadata={"Date": None})


if __name__ == "__main__":
    main()
