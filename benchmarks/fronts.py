"""Fronts: N models jointly over N runs one after the other, and what transfer saves in gradient evaluations.

    python benchmarks/fronts.py time [--threads 2] [--rounds 3]
    python benchmarks/fronts.py transfer [--seeds 10] [--problems vlmop2 regression ...]

Times are medians of paired ratios, both sides in one process, in turn: N models jointly over N runs of ``fit_front`` with one
model each, and over N loops as one would write them by hand. Of transfer, the
table has gradient evaluations with `Gated()` over those without transfer, from the same seed, until the front's hypervolume is
first at a share of the best that N points can have; means are geometric, 95 % intervals those of our studies, on logarithms:
paired bootstrap over seeds, Student's below seven.
"""

from __future__ import annotations

import argparse
import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

import paretorch as pt
from paretorch.pareto import Front, SmoothTchebycheff, best_subset, hypervolume
from paretorch.studies.statistics.paired import interval
from paretorch.workloads.base import Workload
from paretorch.workloads.digits import Digits
from paretorch.workloads.forward import outputs_of
from paretorch.workloads.scenes import SceneImages
from paretorch.workloads.streams import training_batches
from paretorch.workloads.synthetic import Synthetic

MEMBERS = 10
BATCH = 128
CANDIDATES = 2000  # points of a known front, of which the best N are sought


@dataclass(frozen=True)
class Problem:
    """What transfer is measured on.

    Args:
        workload: what is trained.
        optimizer: over the stacked parameters.
        epochs: of training; transfer fades over them.
        share: of the best hypervolume that is to be reached.
        members: N.
        batch_size: samples per step.
        reference: of the hypervolume; None: the workload's own.
        every: epochs between two evaluations.
        adapt: see MT2O; on both sides.
        smoothing: mu of the smooth Tchebycheff.
    """

    workload: Workload
    optimizer: Callable[[list[Tensor]], torch.optim.Optimizer]
    epochs: int
    share: float = 0.8
    members: int = MEMBERS
    batch_size: int = 128
    reference: tuple[float, ...] | None = None
    every: int = 1
    adapt: str | None = None
    smoothing: float = 0.1


def sgd(rate: float) -> Callable[[list[Tensor]], torch.optim.Optimizer]:
    return lambda parameters: torch.optim.SGD(parameters, lr=rate)


def adam(rate: float) -> Callable[[list[Tensor]], torch.optim.Optimizer]:
    return lambda parameters: torch.optim.Adam(parameters, lr=rate)


PROBLEMS: dict[str, Problem] = {
    "vlmop2": Problem(Synthetic("vlmop2"), sgd(0.05), 400),
    "zdt1": Problem(Synthetic("zdt1"), sgd(0.05), 400),
    "zdt2": Problem(Synthetic("zdt2"), sgd(0.05), 400),
    "zdt3": Problem(Synthetic("zdt3"), sgd(0.05), 400),
    "dtlz2": Problem(Synthetic("dtlz2"), sgd(0.05), 400, members=21, every=4, smoothing=0.02),
    "two_valley": Problem(Synthetic("two_valley"), sgd(0.2), 400),
    "correlated": Problem(Synthetic(conflict=20.0), sgd(0.1), 60),
    "conflicting": Problem(Synthetic(conflict=80.0), sgd(0.1), 120),
    "digits": Problem(Digits(train=1024, validation=256, test=64), adam(5e-3), 20, reference=(2.4, 2.4)),
}


def seconds(workload: Workload, given: Tensor, execution: str, epochs: int) -> float:
    """Of training the models of given preferences by ``fit_front``, without evaluation and setup."""
    front = pt.fit_front(
        workload,
        pt.MT2O(transfer=None),
        preferences=given,
        epochs=epochs,
        batch_size=BATCH,
        execution=execution,
        every=10**6,
    )
    return float(front.facts["seconds"])


def plainly(workload: Workload, preference: Tensor, epochs: int) -> float:
    """Seconds of training one model in a loop as one would write it: what no front is needed for."""
    torch.manual_seed(0)
    model, streams = workload.model().train(), workload.data().train
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    scalarization = SmoothTchebycheff(0.02, 0.0003)
    began = time.perf_counter()
    for epoch in range(epochs):
        for batch in training_batches(streams, BATCH, 0, epoch):
            losses = workload.losses(*outputs_of(model, batch))
            stacked = torch.stack([losses[task] for task in workload.tasks])
            optimizer.zero_grad()
            torch.autograd.backward(scalarization.value(stacked[None], preference[None].to(stacked)).sum())
            optimizer.step()
    return time.perf_counter() - began


def joint_over_separate(workload: Workload, rounds: int, epochs: int) -> str:
    """Cells of a row: the median of paired ratios to N runs of ``fit_front`` and to N plain loops, and how it was executed."""
    given = pt.preferences(2, MEMBERS)
    probe = pt.fit_front(workload, pt.MT2O(transfer=None), preferences=given, epochs=1, batch_size=BATCH)
    execution = str(probe.facts["execution"])
    apart, plain = [], []
    for _ in range(rounds):
        joint = seconds(workload, given, execution, epochs)
        apart.append(joint / sum(seconds(workload, row[None], "loop", epochs) for row in given))
        plain.append(joint / sum(plainly(workload, row, epochs) for row in given))
    return f"{statistics.median(apart):.2f} | {statistics.median(plain):.2f} | {execution}"


def times(rounds: int) -> None:
    scenes = SceneImages(
        size=32, depth=False, normals=False, detection=False, objects=2, train=256, validation=8, test=8,
        encoder="resnet18", width=0.15,
    )  # fmt: skip
    timed: dict[str, tuple[Callable[[], Workload], int]] = {
        "MLP, 20-32-1 (regression)": (lambda: Synthetic(samples=1024), 4),
        "MLP, 20-256-1 (regression)": (lambda: Synthetic(samples=1024, hidden=256), 4),
        "LeNet, 16 x 16 pixels (digits)": (lambda: Digits(train=1024, validation=64, test=64), 1),
        "ResNet-18 at .15, 32 x 32 pixels (scenes)": (
            lambda: scenes,
            1,
        ),
    }
    print(f"| {MEMBERS} models | over runs of fit_front | over plain loops | by |")
    print("|---|---|---|---|")
    for name, (make, epochs) in timed.items():
        print(f"| {name} | {joint_over_separate(make(), rounds, epochs)} |", flush=True)


def trained(problem: Problem, transfer: pt.pareto.Transfer | None, starts: str, seed: int) -> Front:
    algorithm = pt.MT2O(SmoothTchebycheff(problem.smoothing, 0.0003), transfer, adapt=problem.adapt)
    front: Front = pt.fit_front(
        problem.workload,
        algorithm,
        preferences=pt.preferences(len(problem.workload.tasks), problem.members),
        epochs=problem.epochs,
        batch_size=problem.batch_size,
        optimizer=problem.optimizer,
        reference=problem.reference,
        starts=starts,
        seed=seed,
        every=problem.every,
    )
    return front


def best_known(problem: Problem, fronts: Sequence[Front]) -> float:
    """Of N points on the known front; where there is none, the best of all fronts that were trained."""
    truth = problem.workload.truth
    if truth is None:
        return max(moment.hypervolume for front in fronts for moment in front.history)
    reference = torch.tensor(truth.reference, dtype=torch.float64)
    inside = truth.front[(truth.front < reference).all(dim=1)].double()
    points = inside[:: max(1, len(inside) // CANDIDATES)]
    return hypervolume(points[best_subset(points, problem.members, reference)], reference)


def evaluations(front: Front, target: float) -> float:
    """Gradient evaluations until the hypervolume is first at the target; infinite where it never is."""
    return next((float(moment.gradients) for moment in front.history if moment.hypervolume >= target), math.inf)


def shown(ratios: Sequence[float], digits: int) -> str:
    """Geometric mean of ratios and its 95 % interval, which fewer than three do not have."""
    logs = [math.log(ratio) for ratio in ratios]
    mean, found = math.exp(statistics.fmean(logs)), interval(logs)
    if found is None:
        return f"{mean:.{digits}f} [-]"
    return f"{mean:.{digits}f} [{math.exp(found.low):.{digits}f}, {math.exp(found.high):.{digits}f}]"


def transfer_saves(name: str, starts: str, seeds: int) -> str:
    """A row of the table."""
    problem = PROBLEMS[name]
    fronts = [[trained(problem, each, starts, seed) for each in (pt.pareto.Gated(), None)] for seed in range(seeds)]
    target = problem.share * best_known(problem, [front for pair in fronts for front in pair])
    needed = [tuple(evaluations(front, target) for front in pair) for pair in fronts]
    limit = float(fronts[0][0].history[-1].gradients)
    # a side that never arrives needed more than the whole training: the ratio is then a bound in its disfavour
    ratios = [min(gated, limit) / min(none, limit) for gated, none in needed if min(gated, none) <= limit]
    arrived = [sum(math.isfinite(pair[side]) for pair in needed) for side in (0, 1)]
    ends = [sum(pair[side].history[-1].hypervolume for pair in fronts) / seeds for side in (0, 1)]
    heard = sum(float(pair[0].facts["took something over"]) for pair in fronts) / seeds
    if not ratios:
        return f"| {name} | {starts} | {problem.share:.0%} | neither arrives |  |  |  | {heard:.0%} |"
    fewer = [1 / ratio for ratio in ratios]
    return (
        f"| {name} | {starts} | {problem.share:.0%} | {shown(ratios, 2)} | {shown(fewer, 1)} | "
        f"{arrived[0]} / {arrived[1]} of {seeds} | {ends[0]:.4g} / {ends[1]:.4g} | {heard:.0%} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("time", "transfer"))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--problems", nargs="*", choices=tuple(PROBLEMS), default=list(PROBLEMS))
    parser.add_argument("--starts", nargs="*", choices=("independent", "common"), default=["independent", "common"])
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if arguments.what == "time":
        times(arguments.rounds)
        return
    print(
        "| problem | starts | target | evaluations gated / none | times fewer | arrived | end gated / none | listened |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for name in arguments.problems:
        for starts in arguments.starts:
            print(transfer_saves(name, starts, arguments.seeds), flush=True)


if __name__ == "__main__":
    main()
