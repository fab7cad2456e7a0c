"""Gradient norms along a run on digits with a third loss of another scale, as they are and times the weights that are found.

python docs/pictures/static_weights_norms.py [--svg FILE]
"""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib as mpl
import torch
from matplotlib import pyplot as plt

from paretorch.balance.static_weights import IGNORED_SHARE, weights_of_norms
from paretorch.training import Run
from paretorch.training.balanced_run import gradient_norms

RUN = Run(
    "digits",
    {"ink": True, "train": 2000},
    method="IMTLG()",
    optimizer_options={"lr": 1e-2},
    epochs=10,
    batch_size=128,
    schedule="cosine",
)
STYLES = {"left": "-", "right": "--", "ink": ":"}


def main() -> None:
    """Draws the picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--svg", type=Path, default=Path(__file__).with_suffix(".svg"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    norms = gradient_norms(RUN, share=1.0)
    third = norms[: len(norms) // 3 + 1]
    found = weights_of_norms(third, RUN.method)
    with mpl.rc_context({"svg.hashsalt": "paretorch", "font.size": 9}):
        figure, axes = plt.subplots(1, 2, figsize=(8, 2.8), sharex=True, layout="constrained")
        for axis, title in zip(axes, ("gradient norms", "times the weights found"), strict=True):
            axis.axvspan(IGNORED_SHARE * len(third), len(third), color="0.9", label="steps that are used")
            for task, style in STYLES.items():
                factor = 1.0 if axis is axes[0] else found[task]
                axis.plot([factor * step[task] for step in norms], style, color="black", linewidth=1, label=task)
            axis.set(yscale="log", title=title, xlabel="step", ylabel="norm on the encoder")
        axes[1].legend(fontsize=8, loc="lower right")
        figure.savefig(arguments.svg, metadata={"Date": None})


if __name__ == "__main__":
    main()
