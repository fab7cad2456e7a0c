"""Weights from a Gramian: time and quality of every method that TorchJD has too, in one process.

    python benchmarks/solvers.py [--tasks 2 10 40 128] [--rounds 30] [--methods MGDA ...]

Ours and theirs alternate on the same Gramians; a ratio is the median over rounds of our time divided by theirs in the same
round. Quality is the method's own objective, relative to its scale (0 is perfect), at its worst over the Gramians. TorchJD's
CAGrad, NashMTL and UPGrad need cvxpy, clarabel, ecos and quadprog.
"""

from __future__ import annotations

import argparse
import statistics
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torchjd import aggregation as jd

import paretorch as pt
from paretorch.core.solvers.conflict_averse import conflict_averse
from paretorch.core.solvers.minimum_norm import minimum_norm

KINDS = {"gaussian": 0.0, "conflicting": 0.0, "norm ratio 1e3": 3.0}


@dataclass(frozen=True)
class Pair:
    """A method of ours, theirs for T tasks, and what its weights should make small, from Gramian and weights."""

    ours: Callable[[int], pt.Method[Any]]
    theirs: Callable[[int], Any]
    residual: Callable[[Tensor, Tensor], float] | None = None
    matrix: bool = False  # whether theirs takes the Jacobian


def shortest(gramian: Tensor, w: Tensor) -> float:
    """The excess of the squared norm over the minimum, as a share of the mean squared norm."""
    w = w.clamp_min(0) / w.clamp_min(0).sum()
    least = minimum_norm(gramian).weights
    return float((w @ gramian @ w - least @ gramian @ least) / gramian.diagonal().mean())


def fair(alpha: float) -> Callable[[Tensor, Tensor], float]:
    return lambda gramian, w: float((w.clamp_min(0) ** (1 / alpha) * (gramian @ w) - 1).abs().max())


def averse(gramian: Tensor, w: Tensor) -> float:
    """The distance of the worst task from the maximum in the ball, and of the update from the ball; shares of |g_0|^2."""
    even = torch.full_like(w, 1 / len(w))
    square = float(even @ gramian @ even)
    best = conflict_averse(gramian, 0.5).weights
    bound = float(best @ gramian @ even) + 0.5 * (square * float((best @ gramian @ best).clamp_min(0))) ** 0.5
    outside = float(((w - even) @ gramian @ (w - even)).clamp_min(0) / (0.25 * square)) ** 0.5 - 1
    return (bound - float((gramian @ w).min())) / square + max(outside, 0.0)


def conflict(gramian: Tensor, w: Tensor) -> float:
    """The worst cosine of the update with a task's gradient, where it is negative."""
    length = (w @ gramian @ w).clamp_min(1e-300).sqrt()
    return max(0.0, -float((gramian @ w / gramian.diagonal().sqrt() / length).min()))


PAIRS = {
    "MGDA": Pair(lambda t: pt.MGDA(), lambda t: jd.MGDAWeighting(), shortest),
    "PCGrad": Pair(lambda t: pt.PCGrad(), lambda t: jd.PCGradWeighting()),
    "GradVac": Pair(lambda t: pt.GradVac(), lambda t: jd.GradVacWeighting()),
    "CAGrad": Pair(lambda t: pt.CAGrad(c=0.5, rescale=0), lambda t: jd.CAGradWeighting(c=0.5), averse),
    "IMTLG": Pair(lambda t: pt.IMTLG(), lambda t: jd.IMTLGWeighting()),
    "NashMTL": Pair(lambda t: pt.NashMTL(), lambda t: jd.NashMTL(n_tasks=t, max_norm=0.0).weighting, fair(1.0), True),
    "FairGrad": Pair(lambda t: pt.FairGrad(), lambda t: jd.FairGradWeighting(alpha=2.0), fair(2.0)),
    "AlignedMTL": Pair(lambda t: pt.AlignedMTL(), lambda t: jd.AlignedMTLWeighting()),
    "UPGrad": Pair(lambda t: pt.UPGrad(), lambda t: jd.UPGradWeighting(), conflict),
    "DualProjection": Pair(lambda t: pt.DualProjection(), lambda t: jd.DualProjWeighting(), conflict),
    "SDMGrad": Pair(lambda t: pt.SDMGrad(), lambda t: jd.SDMGradWeighting()),
    "ConFIG": Pair(lambda t: pt.ConFIG(), lambda t: jd.ConFIG(), None, True),
}


def jacobian(kind: str, tasks: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randn(tasks, 2 * tasks + 20, generator=generator, dtype=torch.float64)
    if kind == "conflicting":
        rows = rows - 0.9 * rows.mean(dim=0)
    return rows * torch.logspace(0, KINDS[kind], tasks, dtype=torch.float64)[:, None]


def ours_on(method: pt.Method[Any], tasks: int) -> Callable[[Tensor], Tensor]:
    """One step of a method from a Gramian, as Fork and Balancer call it."""
    names = tuple(map(str, range(tasks)))
    state = method.init(names, torch.zeros((), dtype=torch.float64))
    present, ones = torch.ones(tasks, dtype=torch.bool), torch.ones(tasks, dtype=torch.float64)
    generator = torch.Generator().manual_seed(0)

    def weights(gramian: Tensor) -> Tensor:
        evidence = pt.Evidence(names, present, ones, gramian, factor=ones, generator=generator)
        found = method.balance(evidence, state)[0].weights
        assert found is not None
        return found

    return weights


def seconds(function: Callable[[Tensor], Any], given: Tensor, least: float = 2e-3) -> float:
    """The time of the fastest of the calls that fit into ``least`` seconds, three at least: the others were interrupted."""
    fastest, calls, begun = float("inf"), 0, time.perf_counter()
    while calls < 3 or time.perf_counter() - begun < least:
        start = time.perf_counter()
        function(given)
        fastest = min(fastest, time.perf_counter() - start)
        calls += 1
    return fastest


def compare(name: str, tasks: int, rounds: int) -> str:
    """One line of the table."""
    pair = PAIRS[name]
    ours, theirs = ours_on(pair.ours(tasks), tasks), pair.theirs(tasks)
    times: list[tuple[float, float]] = []
    quality: list[tuple[float, float]] = []
    begun = time.perf_counter()
    for place in range(rounds):
        rows = jacobian(list(KINDS)[place % len(KINDS)], tasks, place)
        gramian = rows @ rows.T
        given = rows if pair.matrix else gramian
        if hasattr(theirs, "reset"):
            theirs.reset()
        other = theirs(given)
        if pair.residual is not None:
            quality.append((pair.residual(gramian, ours(gramian)), pair.residual(gramian, other.double())))
        times.append((seconds(ours, gramian), seconds(theirs, given)))
        if place >= 5 and time.perf_counter() - begun > 20:
            break
    mine, other_time = (statistics.median(column) for column in zip(*times, strict=True))
    ratio = statistics.median(a / b for a, b in times)
    worst = "" if not quality else "{:10.1e} {:10.1e}".format(*(max(column) for column in zip(*quality, strict=True)))
    return f"{name:15} {tasks:4} {1e3 * mine:9.3f} {1e3 * other_time:9.3f} {ratio:7.3f}  {worst}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", type=int, nargs="+", default=[2, 10, 40, 128])
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--methods", nargs="+", choices=PAIRS, default=list(PAIRS))
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    warnings.simplefilter("ignore")
    print(f"{'method':15} {'T':>4} {'ours ms':>9} {'jd ms':>9} {'ratio':>7}  worst residual: ours, theirs")
    for name in given.methods:
        for tasks in given.tasks:
            try:
                print(compare(name, tasks, given.rounds), flush=True)
            except Exception as error:
                print(f"{name:15} {tasks:4} theirs failed: {type(error).__name__}: {str(error)[:80]}", flush=True)


if __name__ == "__main__":
    main()
