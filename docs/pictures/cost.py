"""Draws the cost of a step against T and P from what benchmarks/scaling.py measured.

python docs/pictures/cost.py [--svg FILE]
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import matplotlib as mpl
from matplotlib import pyplot as plt

HERE = Path(__file__).parent
MEASURED = HERE.parents[1] / "benchmarks" / "scaling.json"

# One line and one marker each, so that they differ without colour; TorchJD's variants are one line, the best of them.
STYLES = {
    "plain": ("plain sum", "-", "", "0.0"),
    "fork": ("Fork", "-", "o", "0.0"),
    "balancer, samples=64": ("Balancer, samples=64", "-", "^", "0.35"),
    "balancer": ("Balancer", "-", "s", "0.35"),
    "torchjd": ("TorchJD, the best of its ways", "--", "x", "0.55"),
}


def lines(found: dict[str, list[float]]) -> dict[str, list[float]]:
    """What is drawn: a peer's best way at each point."""
    peers = [row for name, row in found.items() if name.startswith("torchjd")]
    own = {name: row for name, row in found.items() if not name.startswith("torchjd")}
    return own | ({"torchjd": [min(column) for column in zip(*peers, strict=True)]} if peers else {})


def main() -> None:
    """Draw them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--svg", type=Path, default=HERE / "cost.svg")
    options = parser.parse_args()
    results = json.loads(MEASURED.read_text())
    mpl.rcParams.update(
        {"svg.hashsalt": "paretorch", "font.size": 9, "axes.spines.top": False, "axes.spines.right": False}
    )
    about = {"time": "time of a step / that of the plain sum", "memory": "peak memory of a step [MiB]"}
    kinds = [kind for kind in about if kind in results]
    figure, panels = plt.subplots(len(kinds), 2, figsize=(8, 3.1 * len(kinds)), layout="constrained", squeeze=False)
    for row, kind in zip(panels, kinds, strict=True):
        for panel, (axis, label) in zip(
            row, {"tasks": "tasks T (P = 1.0 million)", "width": "shared parameters P (T = 10)"}.items(), strict=True
        ):
            places = results[kind][axis]["places"]
            for name, values in lines(results[kind][axis]["found"]).items():
                text, line, marker, colour = STYLES[name]
                panel.plot(places, values, line, marker=marker, color=colour, label=text, markersize=4)
            panel.set(xscale="log", yscale="log", xlabel=label, ylabel=about[kind])
            ticks = {"time": [1, 2, 4, 8, 16, 32, 64], "memory": [10, 30, 100, 300, 1000, 3000]}[kind]
            panel.set_yticks(ticks, [str(tick) for tick in ticks])
            panel.minorticks_off()
            panel.set_ylim(bottom=0.9 if kind == "time" else None)
            if axis == "tasks":
                panel.set_xticks(places, [str(place) for place in places])
            panel.grid(color="0.9")
    panels[0][0].legend(frameon=False, fontsize=8)
    figure.savefig(options.svg, metadata={"Date": None})


if __name__ == "__main__":
    main()
