"""Draws the pictures of the page on MGDA, for light and for dark pages: ``python docs/pictures/mgda.py``.

All points are computed: the path of Frank-Wolfe, the directions on features and parameters, and the ends of the descents.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import matplotlib as mpl
import numpy as np
import torch
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from numpy.typing import NDArray

import paretorch as pt
from paretorch.balance.mgda import frank_wolfe
from paretorch.workloads.generated.analytic_problems import vlmop2

HERE = Path(__file__).parent
GRADIENTS = torch.tensor([[2.2, 0.35], [-1.5, 1.05], [0.6, 2.4]], dtype=torch.float64)
CONDITIONS = (1.0, 2.0, 5.0, 10.0, 30.0, 100.0)
PROBLEMS = 300  # of each condition number
TASKS = {2: "-", 5: "--", 10: ":"}
FEATURES = 10
SHARES = (0.2, 0.35, 0.5, 0.65, 0.8)  # weights of the first loss

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Theme:
    """Colours of a page. Lines and markers differ in their form as well, so that the picture reads in black and white."""

    ink: str
    accent: str
    faint: str
    other: str


THEMES = {
    "light": Theme("#1f2328", "#0969da", "#818b98", "#bc4c00"),
    "dark": Theme("#e6edf3", "#58a6ff", "#7d8590", "#ffa657"),
}


def mgda(gradients: torch.Tensor) -> torch.Tensor:
    """(n,) the shortest convex combination of (T, n) gradients."""
    return pt.weights(pt.MGDA(), gradients @ gradients.T) @ gradients


def hull(axes: Axes, theme: Theme) -> None:
    """Three gradients, their hull, the shortest point of it, and the path of Frank-Wolfe."""
    gramian = GRADIENTS @ GRADIENTS.T
    path = torch.stack([torch.full((3,), 1 / 3, dtype=torch.float64) @ GRADIENTS])
    for steps in range(1, 40):
        path = torch.cat([path, (frank_wolfe(gramian, steps).weights @ GRADIENTS)[None]])
    shortest = mgda(GRADIENTS)
    axes.fill(*GRADIENTS.T.numpy(), color=theme.faint, alpha=0.2, linewidth=0)
    axes.plot(*GRADIENTS[[0, 1, 2, 0]].T.numpy(), color=theme.faint, linewidth=1)
    for task, (x, y) in enumerate(GRADIENTS.tolist()):
        axes.annotate(
            "", (x, y), (0, 0), arrowprops={"arrowstyle": "-|>", "color": theme.ink, "linewidth": 1.2, "shrinkB": 0}
        )
        axes.text(x * 1.06, y * 1.06, f"$g_{task + 1}$", ha="center", va="bottom" if y > 1 else "center")
    axes.plot(*path.T.numpy(), color=theme.other, linewidth=0.9, marker=".", markersize=4)
    axes.annotate("steps of Frank-Wolfe", path[1].tolist(), (1.55, 1.75), color=theme.other, arrowprops={
        "arrowstyle": "-", "color": theme.other, "linewidth": 0.7})  # fmt: skip
    axes.annotate(
        "",
        shortest.tolist(),
        (0, 0),
        arrowprops={"arrowstyle": "-|>", "color": theme.accent, "linewidth": 2.6, "shrinkB": 0},
    )
    axes.text(float(shortest[0]) + 0.28, float(shortest[1]) / 3, "shortest: $d$", color=theme.accent)
    axes.plot(0, 0, "o", color=theme.ink, markersize=4)
    axes.set(xlim=(-2, 2.9), ylim=(-0.25, 2.8), aspect="equal", xticks=[], yticks=[])
    for side in axes.spines.values():
        side.set_visible(False)


def random_jacobian(condition: float, random: np.random.Generator) -> Array:
    """A square matrix with logarithmically spaced singular values of that ratio."""
    left, _ = np.linalg.qr(random.normal(size=(FEATURES, FEATURES)))
    right, _ = np.linalg.qr(random.normal(size=(FEATURES, FEATURES)))
    return np.asarray(left * np.logspace(0, -np.log10(condition), FEATURES) @ right)


def increasing_share(tasks: int, condition: float, surface: str, problems: int = PROBLEMS) -> float:
    """The share of random problems in which a step of MGDA increases a loss to first order.

    Args:
        tasks: T.
        condition: of the Jacobian of the features by the parameters, at least 1.
        surface: "features" for the upper bound, "parameters" for the exact direction.
        problems: their number.
    """
    random = np.random.default_rng([tasks, int(condition)])
    increasing = 0
    for _ in range(problems):
        jacobian = torch.from_numpy(random_jacobian(condition, random))
        on_features = torch.from_numpy(random.normal(size=(tasks, FEATURES)))
        on_parameters = on_features @ jacobian
        step = mgda(on_features) @ jacobian if surface == "features" else mgda(on_parameters)
        rates = on_parameters @ step
        increasing += bool((rates < -1e-9 * on_parameters.norm(dim=1) * step.norm()).any())
    return increasing / problems


def surfaces(axes: Axes, theme: Theme) -> None:
    """How often the bound's step increases a loss."""
    for tasks, style in TASKS.items():
        shares = [100 * increasing_share(tasks, each, "features") for each in CONDITIONS]
        axes.plot(CONDITIONS, shares, style, color=theme.other, marker="o", markersize=4, label=f"bound, {tasks} tasks")
    exact = [100 * increasing_share(10, each, "parameters", 100) for each in CONDITIONS]
    axes.plot(CONDITIONS, exact, color=theme.accent, marker="s", markersize=4, label="exact, 10 tasks")
    axes.set(
        xscale="log",
        xlabel="condition number of the encoder's Jacobian",
        ylabel="steps that increase a loss (%)",
        ylim=(-4, 104),
    )
    axes.legend(frameon=False, fontsize=8)


def losses_along(rule: Callable[[torch.Tensor], torch.Tensor], start: torch.Tensor, steps: int = 1000) -> Array:
    """Both losses along a descent."""
    x, path = start.clone().requires_grad_(), []
    for _ in range(steps):
        losses = vlmop2(x)
        path.append(losses.detach())
        gradients = torch.stack([torch.autograd.grad(loss, x, retain_graph=True)[0] for loss in losses])
        with torch.no_grad():
            x -= 0.1 * rule(gradients)
    return torch.stack(path).numpy()


def front(axes: Axes, theme: Theme) -> None:
    """A concave front, and where weighted sums and MGDA end."""
    position = torch.linspace(-1, 1, 101, dtype=torch.float64)[:, None] * 0.5**0.5
    axes.plot(*vlmop2(position.expand(-1, 2)).T.numpy(), color=theme.ink, linewidth=2, label="front")
    ends = vlmop2(position[[0, -1]].expand(-1, 2))
    axes.plot(*ends.T.numpy(), color=theme.faint, linewidth=1, linestyle=(0, (2, 3)), label="edge of the convex hull")
    random = torch.Generator().manual_seed(4)
    for place, share in enumerate(SHARES):
        start = 0.5 * torch.randn(2, generator=random, dtype=torch.float64)
        weights = torch.tensor([share, 1 - share], dtype=torch.float64)
        summed, common = losses_along(lambda rows, weights=weights: weights @ rows, start), losses_along(mgda, start)
        name = {"label": "plain descent of a weighted sum"} if place == 0 else {}
        axes.plot(*summed.T, color=theme.other, linewidth=0.7, linestyle="--")
        axes.plot(*summed[-1], "s", color=theme.other, markersize=7, **name)
        name = {"label": "MGDA"} if place == 0 else {}
        axes.plot(*common.T, color=theme.accent, linewidth=0.9)
        axes.plot(*common[-1], "o", color=theme.accent, markersize=6, **name)
        axes.plot(*common[0], "x", color=theme.ink, markersize=5, **({"label": "starts"} if place == 0 else {}))
    axes.set(xlabel="loss of task 1", ylabel="loss of task 2", aspect="equal")
    axes.legend(frameon=False, fontsize=8, loc="lower left")


PICTURES = {"hull": (hull, (5.2, 3.4)), "surfaces": (surfaces, (5.6, 3.2)), "front": (front, (4.6, 4.4))}


def main() -> None:
    """Draw all files."""
    torch.set_num_threads(1)
    for scheme, theme in THEMES.items():
        mpl.rcParams.update({"svg.hashsalt": "paretorch", "font.size": 9.5, "text.color": theme.ink})
        mpl.rcParams.update(dict.fromkeys(("axes.labelcolor", "xtick.color", "ytick.color"), theme.ink))
        mpl.rcParams.update({"axes.edgecolor": theme.faint, "axes.spines.top": False, "axes.spines.right": False})
        for name, (draw, size) in PICTURES.items():
            figure, axes = plt.subplots(figsize=size, layout="constrained")
            draw(axes, theme)
            figure.savefig(HERE / f"mgda_{name}-{scheme}.svg", transparent=True, metadata={"Date": None})
            plt.close(figure)


if __name__ == "__main__":
    main()
