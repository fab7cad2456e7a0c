"""Draws how methods cross a valley with plateaus and walls: ``python docs/pictures/valleys.py`` writes it into its folder.

Two losses of two numbers (Liu et al., NeurIPS 2021, appendix), three starts, Adam with rate 1e-3. Dots mark where methods end;
the thick line is the Pareto set.
"""

from __future__ import annotations

from math import log, tanh
from pathlib import Path

import numpy as np
import torch
from matplotlib import pyplot as plt
from torch import Tensor

import paretorch as pt

LOWER = 5e-6
STARTS = ((-8.5, 7.5), (-8.5, -5.0), (9.0, 9.0))
STEPS, RATE = 40_000, 1e-3
METHODS = (
    pt.Equal(),
    pt.MGDA(),
    pt.PCGrad(),
    pt.CAGrad(),
    pt.IMTLG(),
    pt.NashMTL(),
    pt.FairGrad(),
    pt.AlignedMTL(),
    pt.UPGrad(),
    pt.DualProjection(),
    pt.ConFIG(),
    pt.GradVac(),
)
Pair = tuple[float, float]


def losses(x: float, y: float) -> tuple[Pair, Pair, Pair]:
    """The two losses, and the gradient of each."""
    wall, above, below = tanh(y), max(tanh(0.5 * y), 0.0), max(tanh(-0.5 * y), 0.0)
    steep, slope = 1 - wall * wall, 0.5 * (1 - tanh(0.5 * y) ** 2)
    result = []
    for offset, side, center in ((-0.5 * x - 3.5 + wall, 1.0, 7.0), (-0.5 * x + 3.5 - wall, -1.0, -7.0)):
        log_part = log(max(abs(offset), LOWER)) + 6
        inverse = 1 / offset if abs(offset) > LOWER else 0.0
        bowl = ((x - center) ** 2 + 0.1 * (y + 8) ** 2) / 10 - 20
        along = -0.5 * inverse * above + 0.2 * (x - center) * below
        across = side * steep * inverse * above + 0.02 * (y + 8) * below
        across += log_part * slope * (y > 0) - bowl * slope * (y < 0)
        result.append((log_part * above + bowl * below, (along, across)))
    (first, one), (second, two) = result
    return (first, second), one, two


def path(method: pt.Method[None], start: Pair, steps: int = STEPS, rate: float = RATE) -> list[Pair]:
    """The points of a descent by Adam, every hundredth."""
    point, mean, square = list(start), [0.0, 0.0], [0.0, 0.0]
    present, ones = torch.ones(2, dtype=torch.bool), torch.ones(2, dtype=torch.float64)
    generator = torch.Generator().manual_seed(0)
    state = method.init(("left", "right"), ones)
    points = [start]
    for step in range(1, steps + 1):
        values, one, two = losses(*point)
        cross = one[0] * two[0] + one[1] * two[1]
        gramian = [[one[0] ** 2 + one[1] ** 2, cross], [cross, two[0] ** 2 + two[1] ** 2]]
        evidence = pt.Evidence(
            ("left", "right"),
            present,
            torch.tensor(values, dtype=torch.float64),
            torch.tensor(gramian, dtype=torch.float64),
            factor=ones,
            generator=generator,
        )
        balance, state = method.calibrated(evidence, state)
        assert balance.weights is not None
        weights = balance.weights.tolist()
        for place in range(2):
            gradient = weights[0] * one[place] + weights[1] * two[place]
            mean[place] += 0.1 * (gradient - mean[place])
            square[place] += 1e-3 * (gradient * gradient - square[place])
            size = (square[place] / (1 - 0.999**step)) ** 0.5 + 1e-8
            point[place] -= rate * mean[place] / (1 - 0.9**step) / size
        if step % 100 == 0:
            points.append((point[0], point[1]))
    return points


def pareto_set(count: int = 81) -> Tensor:
    """(count, 2) points between the two minima: for each share of the first task, the minimum of the weighted sum."""
    found = []
    for x in np.linspace(-7, 7, count):
        low, high = -9.0, -8.0
        for _ in range(60):
            y = (low + high) / 2
            _, one, two = losses(float(x), y)
            share = two[0] / (two[0] - one[0])
            low, high = (low, y) if share * one[1] + (1 - share) * two[1] > 0 else (y, high)
        found.append((float(x), y))
    return torch.tensor(found, dtype=torch.float64)


def figure() -> plt.Figure:
    """A panel for each method."""
    drawn, axes = plt.subplots(2, len(METHODS) // 2, figsize=(2.1 * len(METHODS) / 2, 4.8), sharex=True, sharey=True)
    grid = np.linspace(-11, 11, 120)
    heights = np.array([[sum(losses(x, y)[0]) for x in grid] for y in grid])
    front = pareto_set()
    for axis, method in zip(axes.flat, METHODS, strict=True):
        axis.contour(grid, grid, heights, levels=18, colors="0.8", linewidths=0.5)
        axis.plot(front[:, 0], front[:, 1], color="0.4", linewidth=4)
        for start, style in zip(STARTS, ("-", "--", ":"), strict=True):
            points = np.array(path(method, start))
            axis.plot(points[:, 0], points[:, 1], style, color="black", linewidth=1.2)
            axis.plot(*points[0], marker="o", color="white", markeredgecolor="black", markersize=4)
            axis.plot(*points[-1], marker="o", color="black", markersize=5)
        axis.set_title(type(method).__name__, fontsize=9)
        axis.set(xlim=(-11, 11), ylim=(-11, 11))
    for axis in axes[-1]:
        axis.set_xlabel("first number")
    for axis in axes[:, 0]:
        axis.set_ylabel("second number")
    drawn.tight_layout()
    return drawn


if __name__ == "__main__":
    figure().savefig(Path(__file__).with_name("valleys.png"), dpi=110)
