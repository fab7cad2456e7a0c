"""Draws the errors of two tasks of unlike scale in training: ``python docs/pictures/unlike_scales.py``, about a minute.

The network, the data and the seed are those of ``docs/quickstart.md``; 600 steps of Adam.
"""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl
import torch
from matplotlib import pyplot as plt
from torch import nn
from torch.nn import functional

import paretorch as pt

STEPS, EVERY = 600, 10
METHODS: dict[str, tuple[pt.Method | None, str, str]] = {
    "plain sum": (None, "--", "0.45"),
    "MGDA": (pt.MGDA(), ":", "0.0"),
    "IMTLG": (pt.IMTLG(), "-", "0.0"),
}


def errors(method: pt.Method | None) -> tuple[list[int], list[float], list[float]]:
    """Steps, wrong signs in percent, and mean absolute errors of the size, on 4,000 samples that are not trained on."""
    torch.manual_seed(0)
    encoder = nn.Sequential(nn.Linear(8, 32), nn.ReLU())
    heads = nn.ModuleDict({"sign": nn.Linear(32, 2), "size": nn.Linear(32, 1)})
    optimizer = torch.optim.Adam([*encoder.parameters(), *heads.parameters()], lr=1e-2)
    fork = None if method is None else pt.Fork(method, tasks=("sign", "size"))
    test = torch.randn(4000, 8, generator=torch.Generator().manual_seed(1))
    steps, signs, sizes = [], [], []
    for step in range(STEPS + 1):
        if step % EVERY == 0:
            with torch.no_grad():
                z, total = encoder(test), test.sum(dim=1)
                wrong = heads["sign"](z).argmax(dim=1) != (total > 0).long()
                steps.append(step)
                signs.append(100 * float(wrong.float().mean()))
                sizes.append(float((heads["size"](z).squeeze(1) - 100 * total.abs()).abs().mean()))
        x = torch.randn(256, 8)
        total, z = x.sum(dim=1), encoder(x)
        branch = {"sign": z, "size": z} if fork is None else fork(z)
        sign = functional.cross_entropy(heads["sign"](branch["sign"]), (total > 0).long())
        size = functional.mse_loss(heads["size"](branch["size"]).squeeze(1), 100 * total.abs())
        optimizer.zero_grad()
        (sign + size).backward()
        optimizer.step()
    return steps, signs, sizes


def main() -> None:
    """Train with each method and draw."""
    mpl.rcParams.update(
        {"svg.hashsalt": "paretorch", "font.size": 10, "axes.spines.top": False, "axes.spines.right": False}
    )
    figure, (left, right) = plt.subplots(1, 2, figsize=(7.6, 2.9), layout="constrained")
    for name, (method, style, colour) in METHODS.items():
        steps, signs, sizes = errors(method)
        print(f"{name}: {signs[-1]:.2f} % of the signs are wrong, mean absolute error of the size {sizes[-1]:.2f}")
        left.plot(steps, signs, style, color=colour, label=name)
        right.plot(steps, sizes, style, color=colour, label=name)
    left.set(xlabel="step", ylabel="wrong signs [%]", yscale="log", title="task “sign”")
    right.set(xlabel="step", ylabel="mean absolute error", yscale="log", title="task “size” (226 on average)")
    for panel in (left, right):
        panel.grid(color="0.9")
    left.set_ylim(bottom=0.05)
    right.legend(frameon=False, fontsize=9)
    figure.savefig(Path(__file__).with_suffix(".svg"), metadata={"Date": None})


if __name__ == "__main__":
    main()
