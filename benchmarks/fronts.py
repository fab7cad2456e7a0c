"""Fronts: N models jointly over N runs one after the other, and what transfer saves in gradient evaluations.

    python benchmarks/fronts.py [--threads 2] [--rounds 3] [--seeds 10]

Times are ratios of both sides in one process, alternating; the smallest of the rounds counts on each side.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable

import torch
from torch import Tensor

import paretorch as pt
from paretorch.pareto import Front, SmoothTchebycheff
from paretorch.workloads.base import Workload
from paretorch.workloads.digits import Digits
from paretorch.workloads.synthetic import Synthetic

MEMBERS = 10
SHARE = 0.8  # of the best hypervolume that is to be reached


def seconds(workload: Workload, given: Tensor, execution: str, epochs: int) -> float:
    front = pt.fit_front(
        workload,
        pt.MT2O(transfer=None),
        preferences=given,
        epochs=epochs,
        batch_size=128,
        execution=execution,
        every=10**6,
    )
    return float(front.facts["seconds"])


def joint_over_separate(workload: Workload, rounds: int, epochs: int) -> tuple[float, str]:
    given = pt.preferences(2, MEMBERS)
    probe = pt.fit_front(workload, pt.MT2O(transfer=None), preferences=given, epochs=1, batch_size=128)
    execution = str(probe.facts["execution"])
    joint, apart = [], []
    for _ in range(rounds):
        joint.append(seconds(workload, given, execution, epochs))
        apart.append(sum(seconds(workload, row[None], "loop", epochs) for row in given))
    return min(joint) / min(apart), execution


def evaluations(front: Front, target: float) -> float:
    """Gradient evaluations until the hypervolume is first at the target; infinite where it never is."""
    return next((float(moment.gradients) for moment in front.history if moment.hypervolume >= target), math.inf)


def gated_over_none(problem: str, starts: str, best: float, seeds: int, rate: float) -> list[float]:
    workload = Synthetic(problem)
    ratios = []
    for seed in range(seeds):
        needed = []
        for algorithm in (pt.MT2O(SmoothTchebycheff(0.1)), pt.MT2O(SmoothTchebycheff(0.1), transfer=None)):
            front = pt.fit_front(
                workload,
                algorithm,
                preferences=pt.preferences(2, MEMBERS),
                epochs=150,
                optimizer=lambda parameters: torch.optim.SGD(parameters, lr=rate),
                starts=starts,
                execution="vmap",
                seed=seed,
                every=1,
            )
            needed.append(evaluations(front, SHARE * best))
        ratios.append(needed[0] / needed[1] if math.isfinite(max(needed)) else math.nan)
    return ratios


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--rate", type=float, default=0.1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    timed: dict[str, Callable[[], Workload]] = {
        "MLP (regression, 32 hidden)": lambda: Synthetic(samples=1024),
        "MLP (regression, 256 hidden)": lambda: Synthetic(samples=1024, hidden=256),
        "LeNet (digits)": lambda: Digits(train=1024, validation=64, test=64),
    }
    for name, make in timed.items():
        ratio, execution = joint_over_separate(make(), arguments.rounds, 4)
        print(f"{MEMBERS} x {name}: jointly / one after the other {ratio:.2f} ({execution})", flush=True)
    for starts in ("independent", "common"):
        found = sorted(gated_over_none("vlmop2", starts, 0.2998, arguments.seeds, arguments.rate))
        print(
            f"vlmop2, {starts} starts: gradient evaluations gated / none to {SHARE:.0%}: {[round(r, 2) for r in found]}"
        )


if __name__ == "__main__":
    main()
