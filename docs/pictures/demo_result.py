"""Draws the demo's result for the README: ``python docs/pictures/demo_result.py`` after the study quickstart.

The numbers are those of ``docs/studies/quickstart-small/report/seeds.csv``, which ``paretorch study quickstart`` writes.
"""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl
import pandas as pd
from matplotlib import pyplot as plt

from paretorch.studies.statistics.paired import interval

HERE = Path(__file__).parent
ROWS = {
    "plain sum": "plain sum of the losses, 1 run",
    "MGDA": "MGDA, 1 run",
    "static weights, tuned": "static weights, tuned, 25 runs",
    "IMTLG": "Paretorch's default (IMTLG), 1 run",
    "single tasks (ceiling)": "a network for each task (ceiling)",
}
COLOURS = {"light": ("#1f2328", "#0969da", "#818b98"), "dark": ("#e6edf3", "#58a6ff", "#7d8590")}


def main() -> None:
    """Draw both files."""
    runs = pd.read_csv(HERE.parent / "studies/quickstart-small/report/seeds.csv")
    for scheme, (ink, accent, faint) in COLOURS.items():
        mpl.rcParams.update({"svg.hashsalt": "paretorch", "font.size": 11, "text.color": ink, "axes.labelcolor": ink})
        figure, axes = plt.subplots(figsize=(8.6, 2.5), layout="constrained")
        for place, (label, title) in enumerate(reversed(ROWS.items())):
            values = runs.loc[runs.treatment == label, "delta_m test"]
            found = interval(values)
            assert found is not None
            colour = accent if label == "IMTLG" else faint if "ceiling" in label else ink
            axes.plot([found.low, found.high], [place, place], color=colour, linewidth=2.2, solid_capstyle="round")
            axes.plot(values.mean(), place, "o", color=colour, markersize=8)
            axes.text(-9, place, title, ha="right", va="center", color=colour)
        axes.axvline(0, color=faint, linewidth=1, linestyle=(0, (2, 3)))
        axes.set(xlim=(-8, 50), ylim=(-0.6, len(ROWS) - 0.4), yticks=[])
        axes.set_xlabel("% worse than a network for each task (3 metrics, 5 seeds)")
        axes.tick_params(colors=ink)
        for side in ("top", "right", "left"):
            axes.spines[side].set_visible(False)
        axes.spines["bottom"].set_color(faint)
        figure.savefig(HERE / f"demo_result-{scheme}.svg", transparent=True, metadata={"Date": None})
        plt.close(figure)


if __name__ == "__main__":
    main()
