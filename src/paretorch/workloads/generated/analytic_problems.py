"""Objectives of a point with known fronts, the usual test functions of multi-objective optimization."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from paretorch.workloads.base import Truth

TINY = 1e-24  # added below a square root, whose slope at zero is infinite
LOWER = 5e-6  # of the arguments of the two-valley problem's logarithms


@dataclass(frozen=True)
class AnalyticProblem:
    """Objectives, their domain and their known front.

    Args:
        tasks: T.
        size: n by default.
        least: the smallest n.
        boxed: whether points are in [0, 1]^n; otherwise in R^n.
        box: bounds of every coordinate of the Pareto-optimal points.
        losses: (..., n) points -> (..., T).
        truth: n -> the known front.
        start: n -> (n,) random initial parameter.
    """

    tasks: int
    size: int
    least: int
    boxed: bool
    box: tuple[float, float]
    losses: Callable[[Tensor], Tensor]
    truth: Callable[[int], Truth]
    start: Callable[[int], Tensor]


def vlmop2(x: Tensor) -> Tensor:
    r"""(..., 2) of x (..., n): 1 - exp(-sum (x_i -+ 1/sqrt n)^2). The front is that of x = s 1, abs(s) <= 1/sqrt n.

    References:
        Fonseca & Fleming, "Multiobjective genetic algorithms made easy", GALESIA 1995; Van Veldhuizen & Lamont 1999 (VLMOP2).
    """
    shift = 1 / math.sqrt(x.shape[-1])
    return torch.stack([1 - torch.exp(-(x + sign * shift).square().sum(-1)) for sign in (-1, 1)], dim=-1)


def zdt(number: int) -> Callable[[Tensor], Tensor]:
    r"""ZDT1, 2 or 3 on x in [0, 1]^n: f_1 = x_1, f_2 = g h(f_1 / g), g = 1 + 9 mean(x_2..x_n).

    References:
        Zitzler, Deb & Thiele, "Comparison of multiobjective evolutionary algorithms", Evolutionary Computation 2000.
    """

    def losses(x: Tensor) -> Tensor:
        first, g = x[..., 0], 1 + 9 * x[..., 1:].mean(-1)
        ratio = first / g
        if number == 2:
            shape = 1 - ratio.square()
        else:
            shape = 1 - (ratio + TINY).sqrt()
            if number == 3:
                shape = shape - ratio * torch.sin(10 * math.pi * first)
        return torch.stack([first, g * shape], dim=-1)

    return losses


def dtlz2(x: Tensor) -> Tensor:
    r"""(..., 3) of x in [0, 1]^n: a part of a sphere of radius 1 + g, g = sum over i > 2 of (x_i - 1/2)^2; front: radius 1.

    References:
        Deb, Thiele, Laumanns & Zitzler, "Scalable test problems for evolutionary multiobjective optimization", 2005.
    """
    radius = 1 + (x[..., 2:] - 0.5).square().sum(-1)
    a, b = x[..., 0] * math.pi / 2, x[..., 1] * math.pi / 2
    unit = torch.stack([a.cos() * b.cos(), a.cos() * b.sin(), a.sin()], dim=-1)
    return radius[..., None] * unit


def two_valley(x: Tensor) -> Tensor:
    """(..., 2) of x (..., 2): two valleys of different steepness, where many methods converge to points off the front.

    References:
        Liu et al., "Conflict-averse gradient descent", NeurIPS 2021, appendix B, in the form of Navon et al.,
        "Multi-task learning as a bargaining game", ICML 2022.
    """
    p, q = x[..., 0], x[..., 1]
    f1 = ((0.5 * (-p - 7) - torch.tanh(-q)).abs()).clamp_min(LOWER).log() + 6
    f2 = ((0.5 * (-p + 3) + torch.tanh(-q) + 2).abs()).clamp_min(LOWER).log() + 6
    g1 = ((-p + 7).square() + 0.1 * (-q - 8).square()) / 10 - 20
    g2 = ((-p - 7).square() + 0.1 * (-q - 8).square()) / 10 - 20
    above, below = torch.tanh(0.5 * q).clamp_min(0), torch.tanh(-0.5 * q).clamp_min(0)
    return torch.stack([f1 * above + g1 * below, f2 * above + g2 * below], dim=-1)


def _vlmop2_truth(size: int) -> Truth:
    del size  # the front is the same for every n: ||s 1 -+ 1/sqrt n||^2 = (r -+ 1)^2, r = s sqrt n in [-1, 1]
    r = torch.linspace(-1, 1, 20001, dtype=torch.float64)
    front = torch.stack([1 - torch.exp(-((r - 1) ** 2)), 1 - torch.exp(-((r + 1) ** 2))], dim=1)
    return _of_curve(front, (1.0, 1.0))


def _zdt_truth(number: int) -> Truth:
    first = torch.linspace(0, 1, 200001, dtype=torch.float64)
    second = {1: 1 - first.sqrt(), 2: 1 - first**2, 3: 1 - first.sqrt() - first * torch.sin(10 * math.pi * first)}
    front = torch.stack([first, second[number]], dim=1)
    lowest = torch.cat([torch.full((1,), torch.inf, dtype=torch.float64), second[number].cummin(0).values[:-1]])
    return _of_curve(front[front[:, 1] < lowest], (1.1, 1.1))


def _dtlz2_truth() -> Truth:
    steps = torch.linspace(0, 1, 60, dtype=torch.float64)
    grid = torch.cartesian_prod(steps, steps)
    points = dtlz2(torch.cat([grid, torch.full((len(grid), 1), 0.5, dtype=torch.float64)], dim=1))
    # the volume below the reference without an eighth of the unit ball
    return Truth(points, (1.1, 1.1, 1.1), 1.1**3 - math.pi / 6)


def _two_valley_truth() -> Truth:
    p = torch.linspace(-7, 7, 2001, dtype=torch.float64)
    # for q < 0, f = g * c with c < 1; for each p, bisection finds the q at which a weighted sum is stationary
    low, high = torch.full_like(p, -9.0), torch.full_like(p, -8.0)
    for _ in range(60):
        middle = ((low + high) / 2).requires_grad_()
        both = two_valley(torch.stack([p, middle], dim=1))
        w = 0.5 * (1 + p / 7)  # of the first task: with it the slopes of g1 and g2 along p cancel
        (slope,) = torch.autograd.grad((w * both[:, 0] + (1 - w) * both[:, 1]).sum(), middle)
        low, high = torch.where(slope < 0, middle.detach(), low), torch.where(slope < 0, high, middle.detach())
    return _of_curve(two_valley(torch.stack([p, (low + high) / 2], dim=1)), (1.0, 1.0))


def _of_curve(front: Tensor, reference: tuple[float, ...]) -> Truth:
    """A front of two tasks with its hypervolume, whose error is of second order in the distance of the points."""
    points = front[front[:, 0].argsort()].numpy()
    inside = points[(points < reference).all(axis=1)]
    lowest = np.minimum.accumulate(inside[:, 1])
    volume = float(np.diff(inside[:, 0], append=reference[0]) @ (reference[1] - lowest))
    return Truth(front, reference, volume)


def _wide(size: int) -> Tensor:
    return torch.empty(size).uniform_(-2, 2) / math.sqrt(size)


PROBLEMS = {
    "vlmop2": AnalyticProblem(2, 20, 1, False, (-2.0, 2.0), vlmop2, _vlmop2_truth, _wide),
    "zdt1": AnalyticProblem(2, 30, 2, True, (0.0, 1.0), zdt(1), lambda _: _zdt_truth(1), torch.rand),
    "zdt2": AnalyticProblem(2, 30, 2, True, (0.0, 1.0), zdt(2), lambda _: _zdt_truth(2), torch.rand),
    "zdt3": AnalyticProblem(2, 30, 2, True, (0.0, 1.0), zdt(3), lambda _: _zdt_truth(3), torch.rand),
    "dtlz2": AnalyticProblem(3, 12, 3, True, (0.0, 1.0), dtlz2, lambda _: _dtlz2_truth(), torch.rand),
    "two_valley": AnalyticProblem(
        2, 2, 2, False, (-10.0, 10.0), two_valley, lambda _: _two_valley_truth(), lambda _: torch.rand(2) * 18 - 9
    ),
}
