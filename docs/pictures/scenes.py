"""Draws the contact sheet of the workload ``scenes``: ``python docs/pictures/scenes.py`` writes it into its folder."""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib import pyplot as plt
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle

from paretorch.workloads.generated.scene_labels import image_labels
from paretorch.workloads.generated.scene_layout import CLASSES, KINDS, sample_scenes
from paretorch.workloads.generated.scene_rendering import render

EDGE, COUNT = 96, 10
ROWS = ("image", "segmentation", "depth", "normals")


def sheet() -> plt.Figure:
    """Ten scenes with their labels."""
    found = render(sample_scenes(COUNT, 4, 0.1, 0), EDGE)
    labels = image_labels(found)
    colors = mpl.colormaps["tab10"](np.arange(len(CLASSES)))
    figure, axes = plt.subplots(len(ROWS), COUNT, figsize=(COUNT * 1.15, len(ROWS) * 1.15 + 0.75))
    for place in range(COUNT):
        shown = (
            found.images[place].permute(1, 2, 0).numpy(),
            colors[found.segmentation[place].numpy()],
            found.depth[place].numpy(),
            ((found.normals[place].permute(1, 2, 0) + 1) / 2).numpy(),
        )
        for axis, picture in zip(axes[:, place], shown, strict=True):
            axis.imshow(picture, cmap="viridis_r", vmin=1.5, vmax=10)
            axis.set(xticks=[], yticks=[])
        depth = axes[2, place].images[0]
        left, top, right, bottom = (labels.detection[place] * EDGE - 0.5).tolist()
        axes[0, place].add_patch(Rectangle((left, top), right - left, bottom - top, fill=False, edgecolor="white"))
        axes[0, place].set_title(KINDS[int(labels.classification[place])], fontsize=9)
    for axis, name in zip(axes[:, 0], ROWS, strict=True):
        axis.set_ylabel(name, fontsize=9)
    figure.subplots_adjust(left=0.03, right=0.93, top=0.95, bottom=0.11, wspace=0.04, hspace=0.04)
    bar = figure.add_axes((0.94, 0.33, 0.008, 0.19))
    figure.colorbar(depth, cax=bar).set_label("metres", fontsize=8)
    bar.tick_params(labelsize=7)
    handles: list[Patch | Line2D] = [
        Patch(color=color, label=name) for name, color in zip(CLASSES, colors, strict=True)
    ]
    handles.append(Line2D([], [], color="0.6", marker="s", markerfacecolor="none", linestyle="", label="box"))
    figure.legend(handles=handles, loc="lower center", ncols=len(handles), fontsize=8, frameon=False)
    return figure


if __name__ == "__main__":
    mpl.use("agg")
    sheet().savefig(Path(__file__).with_name("scenes.png"), dpi=110)
