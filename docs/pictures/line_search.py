"""Draws the figures of the page on line search: ``python docs/pictures/line_search.py`` writes five SVG files into its folder.

Every curve is computed by the library; lines differ in dashes as well as in colour, so that they read in black and white.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("svg")
import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

import paretorch as pt
from paretorch.core.gradients.task_gradients import Row
from paretorch.core.solvers.minimum_norm import minimum_norm
from paretorch.linesearch import newton, newton_step
from paretorch.linesearch.directions.metrics import Metric, common_descent
from paretorch.linesearch.newton.newton import criticality

HERE = Path(__file__).parent
DARK, WARM, COLD, GREY = "#1f2933", "#b4490f", "#1f5fa8", "#7a8591"
STYLES = [(DARK, "-"), (WARM, "--"), (COLD, "-."), (GREY, ":")]
TASKS = ("left", "right")

plt.rcParams.update(
    {
        "svg.hashsalt": "paretorch",
        "svg.fonttype": "none",
        "font.family": "sans-serif",
        "font.size": 10,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "grid.color": "#e3e7eb",
        "legend.frameon": False,
    }
)


# --- a small network, and what is measured on it -------------------------------------------------------------------------


class Model(nn.Module):
    """Two regressions on shared features; the tasks' targets conflict."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.encoder = nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Linear(16, 4), nn.Tanh())
        self.heads = nn.ModuleDict({task: nn.Linear(4, 2) for task in TASKS})
        self.double()


def batch(samples: int, seed: int = 1) -> tuple[Tensor, dict[str, Tensor]]:
    """Inputs (B, 6) and targets (B, 2) by task, with noise that no network explains."""
    generator = torch.Generator().manual_seed(seed)
    draw = partial(torch.randn, generator=generator, dtype=torch.float64)
    x, map_generator = draw(samples, 6), torch.Generator().manual_seed(99)
    maps = torch.randn(2, 6, 2, generator=map_generator, dtype=torch.float64)
    return x, {task: (x @ maps[place]).tanh() + 0.3 * draw(samples, 2) for place, task in enumerate(TASKS)}


def losses_of(model: Model, targets: dict[str, Tensor]) -> Callable[[Tensor], dict[str, Tensor]]:
    """Features -> mean squared errors."""
    return lambda z: {task: (head(z) - targets[task]).square().mean() for task, head in model.heads.items()}  # type: ignore[operator]


def measured(model: Model, x: Tensor, targets: dict[str, Tensor], surface: str) -> float:
    """The shortest convex combination of the tasks' gradients, on features and heads or on all parameters."""
    z = model.encoder(x)
    leaves = [z] if surface == "features" else list(model.encoder.parameters())
    rows = []
    for loss in losses_of(model, targets)(z).values():
        everything = [*leaves, *model.heads.parameters()]
        found = torch.autograd.grad(loss, everything, retain_graph=True, allow_unused=True)
        rows.append(torch.cat([torch.zeros(leaf.numel()).double() if part is None else part.flatten()
                               for part, leaf in zip(found, everything, strict=True)]))  # fmt: skip
    return criticality(torch.stack(rows).detach().numpy())


class Free(nn.Module):
    """Features that are parameters themselves."""

    def __init__(self, z: Tensor) -> None:
        super().__init__()
        self.z = nn.Parameter(z.detach().clone())

    def forward(self, x: Tensor) -> Tensor:
        """The features."""
        return self.z + 0 * x.sum()


# --- figures -------------------------------------------------------------------------------------------------------------


def theorem(steps: int = 400) -> Figure:
    """Criticality under the published search: free features, an encoder, mini-batches."""
    x, targets = batch(64)
    figure, axis = plt.subplots(figsize=(7.2, 3.4), layout="constrained")

    def drawn(label: str, model: Model, batches: Callable[[int], Any], surface: str, style: tuple[str, str]) -> None:
        search = pt.FastBacktracking(model.encoder, model.heads, pt.MGDA(), displacement="gradient")
        criticalities = []
        for step in range(steps):
            criticalities.append(measured(model, x, targets, surface))
            inputs, wanted = batches(step)
            search.step(inputs, losses_of(model, wanted))
        axis.semilogy(np.array(criticalities) / criticalities[0], color=style[0], ls=style[1], label=label)

    free = Model()
    free.encoder = Free(free.encoder(x))  # type: ignore[assignment]
    drawn("free features: where the theorem holds", free, lambda _: (x, targets), "features", STYLES[0])
    drawn("encoder, whole batch: on its parameters", Model(), lambda _: (x, targets), "parameters", STYLES[1])

    def part(step: int) -> tuple[Tensor, dict[str, Tensor]]:
        rows = torch.randperm(64, generator=torch.Generator().manual_seed(step))[:16]
        return x[rows], {task: target[rows] for task, target in targets.items()}

    drawn("encoder, batches of 16: on its parameters", Model(), part, "parameters", STYLES[2])
    axis.set(xlabel="step", ylabel="distance from criticality,\nrelative to the first step")
    axis.legend(loc="lower left")
    return figure


def displacement() -> Figure:
    """One task's loss along a step: as the trials see it, and as a whole forward does."""
    x, targets = batch(64, seed=3)
    figure, axes = plt.subplots(1, 2, figsize=(7.2, 3.2), layout="constrained")
    model = _worst_model(x, targets)
    z, u, p, q, features = _directions(model, x, targets)
    steps = np.linspace(0, 1.2 * _limit(model, x, targets, u, p), 40)
    for task, axis in zip(TASKS, axes, strict=True):
        curves = {"whole forward": [], "trial, true displacement": [], "trial, features' own direction": []}
        for step in steps:
            moved = _moved(model, u, p, step)
            points = (moved.encoder(x), z - step * q, z - step * features)
            for curve, at in zip(curves.values(), points, strict=True):
                curve.append(float(losses_of(moved, targets)(at)[task].detach()))
        for (label, curve), (colour, dash) in zip(curves.items(), STYLES, strict=False):
            axis.plot(steps, np.array(curve) / curve[0], color=colour, ls=dash, label=label)
        axis.set(xlabel="step", title=f"task {task!r}")
        axis.axhline(1, color=GREY, lw=0.8)
    axes[0].set_ylabel("loss over its value at step 0")
    axes[0].legend(loc="best", fontsize=8.5)
    return figure


def _worst_model(x: Tensor, targets: dict[str, Tensor]) -> Model:
    """Of a hundred networks, the one whose features' direction raises a task most when the encoder follows it."""

    def slope(model: Model) -> float:
        _, _, p, q, _ = _directions(model, x, targets)
        return min(_slopes(model, x, targets, q, p).values())

    return min((Model(seed) for seed in range(100)), key=slope)


def _directions(
    model: Model, x: Tensor, targets: dict[str, Tensor]
) -> tuple[Tensor, list[Tensor], dict[str, list[Tensor]], Tensor, Tensor]:
    """Features, the encoder's direction, the heads', the true displacement and the features' own direction."""
    z = model.encoder(x)
    losses = losses_of(model, targets)(z)
    on_z = torch.stack([torch.autograd.grad(loss, z, retain_graph=True)[0] for loss in losses.values()])
    flat = on_z.flatten(1)
    along = 2 * torch.einsum("t,tij->ij", minimum_norm(flat @ flat.T).weights, on_z)
    parameters = list(model.encoder.parameters())
    u = list(torch.autograd.grad(z, parameters, along, retain_graph=True))
    own = {
        task: list(torch.autograd.grad(loss, list(model.heads[task].parameters()), retain_graph=True))
        for task, loss in losses.items()
    }
    names = [name for name, _ in model.encoder.named_parameters()]
    _, q = torch.func.jvp(
        lambda held: torch.func.functional_call(model.encoder, held, (x,)),
        (dict(zip(names, [leaf.detach() for leaf in parameters], strict=True)),),
        (dict(zip(names, u, strict=True)),),
    )
    return z.detach(), u, own, q.detach(), along.detach()


def _slopes(
    model: Model, x: Tensor, targets: dict[str, Tensor], q: Tensor, p: dict[str, list[Tensor]]
) -> dict[str, float]:
    z = model.encoder(x).detach().requires_grad_()
    losses = losses_of(model, targets)(z)
    return {
        task: float((torch.autograd.grad(loss, z, retain_graph=True)[0] * q).sum())
        + sum(float(part.square().sum()) for part in p[task])
        for task, loss in losses.items()
    }


def _moved(model: Model, u: list[Tensor], p: dict[str, list[Tensor]], step: float) -> Model:
    there = copy.deepcopy(model)
    with torch.no_grad():
        for leaf, part in zip(there.encoder.parameters(), u, strict=True):
            leaf.sub_(part, alpha=step)
        for task, parts in p.items():
            for leaf, part in zip(there.heads[task].parameters(), parts, strict=True):
                leaf.sub_(part, alpha=step)
    return there


def _limit(model: Model, x: Tensor, targets: dict[str, Tensor], u: list[Tensor], p: dict[str, list[Tensor]]) -> float:
    """The step, to a factor of two, at which the sum of the losses is back where it was."""
    start = sum(float(loss.detach()) for loss in losses_of(model, targets)(model.encoder(x)).values())
    step = 0.01
    while step < 1e3:
        moved = _moved(model, u, p, step)
        if sum(float(loss.detach()) for loss in losses_of(moved, targets)(moved.encoder(x)).values()) > start:
            break
        step *= 2
    return step


class Diagonal(Metric):
    """M^-1 as a diagonal."""

    def __init__(self, inverse: Tensor) -> None:
        self.factors = inverse

    def inverse(self, gradient: Row) -> list[Tensor | None]:
        """Times the factors."""
        return [None if part is None else part * self.factors for part in gradient]


def metric(cases: int = 2000) -> Figure:
    """The slope of the task that falls least, along two directions in a metric, over random gradients."""
    generator = torch.Generator().manual_seed(0)
    worst: dict[str, list[float]] = {"minimum norm, then the metric": [], "minimum norm in the metric": []}
    for _ in range(cases):
        rows = [[torch.randn(8, generator=generator, dtype=torch.float64)] for _ in range(3)]
        inverse = Diagonal(torch.exp(1.5 * torch.randn(8, generator=generator, dtype=torch.float64)))
        plain, _, _ = common_descent(Diagonal(torch.ones(8, dtype=torch.float64)), rows)  # type: ignore[arg-type]
        inside, _, _ = common_descent(inverse, rows)  # type: ignore[arg-type]
        for name, direction in zip(worst, (inverse.inverse(plain)[0], inside[0]), strict=True):
            assert direction is not None
            sizes = [float(row[0].norm() * direction.norm()) for row in rows]
            slopes = [float((row[0] * direction).sum()) for row in rows]
            worst[name].append(min(slope / size for slope, size in zip(slopes, sizes, strict=True)))
    figure, axis = plt.subplots(figsize=(7.2, 3.0), layout="constrained")
    for (name, values), (colour, dash) in zip(worst.items(), (STYLES[1], STYLES[0]), strict=True):
        raised = 100 * sum(value < -1e-9 for value in values) / cases
        axis.plot(
            sorted(values),
            np.linspace(0, 1, cases),
            color=colour,
            ls=dash,
            label=f"{name}: {raised:.0f} % raise a task",
        )
    axis.axvline(0, color=GREY, lw=0.8)
    axis.set(
        xlabel="cosine of the direction with the gradient of the task that falls least", ylabel="share of cases below"
    )
    axis.legend(loc="upper left")
    return figure


def dual() -> Figure:
    """Left: the dual of Newton's subproblem, with the primal's minimum. Right: the iterations, and those of steepest descent."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(7.2, 3.2), layout="constrained")
    gradients = np.array([[1.0, 0.4], [-0.6, 0.8]])
    hessians = np.array([[[2.0, 0.3], [0.3, 0.5]], [[0.6, -0.2], [-0.2, 1.5]]])
    shares = np.linspace(0, 1, 200)
    values = []
    for share in shares:
        weights = np.array([share, 1 - share])
        mixed, g = np.tensordot(weights, hessians, 1), weights @ gradients
        values.append(-g @ np.linalg.solve(mixed, g) / 2)
    found = newton_step(gradients, hessians)
    left.plot(shares, values, color=DARK, label="dual")
    left.axhline(found.value, color=WARM, ls="--", label="smallest largest model")
    left.plot([found.weights[0]], [found.value], "o", color=DARK, mfc="white")
    left.set(xlabel=r"weight $\lambda_1$ of the first task", ylabel="value of the quadratic model")
    left.legend(loc="lower center", fontsize=8.5)

    start = torch.empty(20, dtype=torch.float64).uniform_(-0.5, 0.5, generator=torch.Generator().manual_seed(1))
    center = 1 / math.sqrt(20)

    def objectives(x: Tensor) -> dict[str, Tensor]:
        return {name: 1 - torch.exp(-(x - sign * center).square().sum()) for name, sign in (("f1", 1), ("f2", -1))}

    run = newton(objectives, start)
    right.semilogy(np.maximum(run.criticalities, 1e-17), "o-", color=DARK, mfc="white", label="Newton")
    point = Free(start)
    search = pt.Backtracking(point, nn.ModuleDict(), pt.MGDA())
    criticalities = []
    for _ in range(15):
        rows = [torch.autograd.grad(loss, point.z)[0] for loss in objectives(point.z).values()]
        criticalities.append(criticality(torch.stack(rows).numpy()))
        if not search.step(torch.zeros(1, dtype=torch.float64), objectives).accepted:
            break
    right.semilogy(criticalities, "s--", color=WARM, mfc="white", label="first order, the same search")
    right.set(xlabel="iteration", ylabel="criticality (VLMOP2, n = 20)")
    right.legend(loc="lower right", fontsize=8.5)
    return figure


def imbalance(steps: int = 400) -> Figure:
    """Criticality on two quadratics whose units differ, with and without divided losses."""
    generator = torch.Generator().manual_seed(2)
    draw = partial(torch.randn, generator=generator, dtype=torch.float64)
    bases = [torch.linalg.qr(draw(6, 6)).Q for _ in TASKS]
    matrices = [q @ torch.diag(torch.logspace(0, 1, 6, dtype=torch.float64)) @ q.T for q in bases]
    centers, start = [2 * draw(6) for _ in TASKS], 5 * draw(6)
    figure, axes = plt.subplots(1, 2, figsize=(7.2, 3.2), layout="constrained", sharey=True)
    for axis, most, title in zip(
        axes, (math.inf, 10.0), ("losses as they are", "imbalance=10, the default"), strict=True
    ):
        for ratio, (colour, dash) in zip((1, 100, 1000), STYLES, strict=False):
            point = Free(start)

            def of(z: Tensor, ratio: float = ratio) -> dict[str, Tensor]:
                return {
                    task: factor * ((z - center) @ matrix @ (z - center)) / 2
                    for task, factor, matrix, center in zip(TASKS, (1.0, ratio), matrices, centers, strict=True)
                }

            search = pt.FastBacktracking(point, nn.ModuleDict(), pt.MGDA(), imbalance=most)
            criticalities = []
            for _ in range(steps):
                rows = [matrix @ (point.z.detach() - center) for matrix, center in zip(matrices, centers, strict=True)]
                criticalities.append(criticality(torch.stack(rows).numpy()))
                if not search.step(torch.zeros(1, dtype=torch.float64), of).accepted:
                    break
            axis.loglog(
                np.arange(1, len(criticalities) + 1),
                np.array(criticalities) / criticalities[0],
                color=colour,
                ls=dash,
                label=f"units 1 : {ratio}",
            )
        axis.set(xlabel="step", title=title, ylim=(1e-9, 3))
    axes[0].set_ylabel("distance from criticality,\nrelative to the start")
    axes[0].legend(loc="lower left", fontsize=8.5)
    return figure


FIGURES: dict[str, Callable[[], Figure]] = {
    "theorem": theorem,
    "displacement": displacement,
    "metric": metric,
    "dual": dual,
    "imbalance": imbalance,
}


def main() -> None:
    """Writes every figure."""
    torch.set_num_threads(1)
    for name, make in FIGURES.items():
        figure = make()
        figure.savefig(HERE / f"line_search_{name}.svg", metadata={"Date": None})
        plt.close(figure)


if __name__ == "__main__":
    main()
