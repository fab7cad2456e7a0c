"""Draws all methods of the study ``methods``, for the page "Which method?": ``python docs/pictures/methods_ranked.py``.

The numbers are those of ``docs/studies/methods-small/report/*-seeds.csv``, which ``paretorch study methods`` writes:
the difference of Delta m to tuned static weights, averaged over the workloads and paired by seed, with simultaneous intervals.
"""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib import pyplot as plt

from paretorch.core.method.default import DEFAULT_NAME
from paretorch.studies.statistics.paired import Comparison, Verdict, compare

HERE = Path(__file__).parent
REFERENCE = "static weights, tuned"
ON_PARAMETERS = " on parameters"
WIDEST = 44  # of the axis, in percent
COLOURS = {"light": ("#1f2328", "#0969da", "#818b98", "#bc4c00"), "dark": ("#e6edf3", "#58a6ff", "#7d8590", "#ffa657")}


def differences() -> dict[str, Comparison]:
    """Every treatment against tuned static weights."""
    tables = [
        pd.read_csv(path).pivot(index="seed", columns="treatment", values="delta_m test")
        for path in sorted((HERE.parent / "studies/methods-small/report").glob("*-seeds.csv"))
    ]
    mean = sum(tables[1:], tables[0]) / len(tables)
    return compare({label: np.asarray(mean[label] - mean[REFERENCE]) for label in mean if label != REFERENCE})


def main() -> None:
    """Draw both files."""
    found = differences()
    names = {label.removesuffix(ON_PARAMETERS) for label in found}

    def best(name: str) -> float:
        return min(found[label].difference for label in (name, name + ON_PARAMETERS) if label in found)

    order = sorted(names, key=best, reverse=True)
    for scheme, (ink, accent, faint, worse) in COLOURS.items():
        mpl.rcParams.update({"svg.hashsalt": "paretorch", "font.size": 10, "text.color": ink, "axes.labelcolor": ink})
        figure, axes = plt.subplots(figsize=(8.6, 0.25 * len(order) + 1), layout="constrained")
        for place, name in enumerate(order):
            plain = name in ("sum", "single task")
            for label, offset, marker in ((name, 0.0, "o"), (name + ON_PARAMETERS, -0.3, "s")):
                if label not in found:
                    continue
                each = found[label]
                assert each.interval is not None
                colour = worse if each.verdict is Verdict.WORSE else ink if plain else accent
                ends = np.clip([each.interval.low, each.interval.high], -WIDEST, WIDEST)
                axes.plot(ends, [place + offset] * 2, color=colour, linewidth=1.3)
                size, fill = (6, colour) if marker == "o" else (4, "none")
                axes.plot(each.difference, place + offset, marker, color=colour, markersize=size, markerfacecolor=fill)
            title = {"sum": "plain sum of the losses", "single task": "a network for each task"}.get(name, name)
            axes.text(-11, place, title, ha="right", va="center", weight="bold" if name == DEFAULT_NAME else "normal")
        axes.axvline(0, color=faint, linewidth=1, linestyle=(0, (2, 3)))
        axes.set(xlim=(-10.5, WIDEST), ylim=(-0.9, len(order) - 0.4), yticks=[])
        axes.set_xlabel(
            "% worse than tuned static weights (18 to 27 runs); circles: on features, squares: on parameters"
        )
        axes.tick_params(colors=ink)
        for side in ("top", "right", "left"):
            axes.spines[side].set_visible(False)
        axes.spines["bottom"].set_color(faint)
        figure.savefig(HERE / f"methods_ranked-{scheme}.svg", transparent=True, metadata={"Date": None})
        plt.close(figure)


if __name__ == "__main__":
    main()
