"""When taking over from a neighbour brings a model nearer to its optimum: the condition of the theorem, drawn.

    python docs/pictures/fronts_condition.py [--svg FILE]

With the error e after a plain step and the displacement D, ||e + D|| < ||e|| iff cos(e, D) < -||D|| / (2 ||e||).
"""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib import pyplot as plt


def main() -> None:
    """Draws it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--svg", type=Path, default=Path(__file__).with_name("fronts-condition.svg"))
    arguments = parser.parse_args()
    mpl.rcParams |= {"svg.hashsalt": "fronts", "font.size": 9, "svg.fonttype": "none"}
    figure, axis = plt.subplots(figsize=(5.6, 3.4), layout="constrained")
    size = np.linspace(0, 2.5, 251)
    angles = np.linspace(-1, 1, 201)
    change = np.sqrt(np.maximum(0, 1 + 2 * size * angles[:, None] + size**2))
    axis.contourf(size, angles, change, levels=[0, 1], colors=["#d9d9d9"])
    lines = axis.contour(size, angles, change, levels=[0.25, 0.5, 0.75, 1.5, 2.0], colors="#555555", linewidths=0.7)
    axis.clabel(lines, fmt="%g", fontsize=7)
    axis.plot(size, -size / 2, color="black", linewidth=1.8)
    axis.text(0.12, -0.93, "listening helps", weight="bold")
    axis.text(1.2, 0.45, "listening hurts", weight="bold")
    axis.annotate("cos = −‖D‖ / (2‖e‖)", (1.3, -0.65), (1.55, -0.35), arrowprops={"arrowstyle": "-", "linewidth": 0.7})
    axis.set(
        xlabel="length of the displacement over that of the error, ‖D‖ / ‖e‖",
        ylabel="cosine between error and displacement",
        xlim=(0, 2.5),
        ylim=(-1, 1),
    )
    axis.set_title("‖e + D‖ / ‖e‖: below 1 where listening brings the model nearer", fontsize=9)
    figure.savefig(arguments.svg, metadata={"Date": None})


if __name__ == "__main__":
    main()
