"""Cost of a line search for each iteration, over a fixed step along the same direction, in one process.

    python benchmarks/linesearch.py [--rounds 40] [--cases lenet resnet18] [--rises 200] [--record]

Baseline (c) is gradient descent along the features' minimum norm: a Fork and SGD. All train on batches of real digits, a new one
in every round: the cost of a search depends on the batch. Within a case all contenders alternate, so that a slow phase of the
machine affects all of them; every number is the median over rounds of a contender's time divided by the baseline's in the same
round. ``--rises`` then takes so many steps of each search, outside the timing, on the workloads ``digits``
and ``scenes``, and prints the share of accepted steps after which a true forward has a larger loss of a task on the batch.
``--record`` appends to RESULTS.md.
"""

from __future__ import annotations

import argparse
import copy
import datetime
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import paretorch as pt
from paretorch.workloads.base import Workload
from paretorch.workloads.digits import Digits
from paretorch.workloads.scenes import SceneImages
from paretorch.workloads.streams import training_batches

THREADS = 2
RATE = 0.01  # of the baselines; the numbers of an iteration do not depend on it


@dataclass
class Case:
    """A model with a batch: encoder, heads by task, inputs and classes."""

    encoder: nn.Module
    heads: nn.ModuleDict
    shape: tuple[int, ...]  # of the inputs

    def use_batch(self, number: int) -> None:
        """Take the batch of a number: pairs of digits, enlarged, to classify one, the other, or the last digit of their sum."""
        stream = Digits().data().train[0]
        index = torch.randperm(len(stream), generator=torch.Generator().manual_seed(number))[: self.shape[0]]
        images = F.interpolate(stream.inputs[index], size=self.shape[2:], mode="bilinear")
        self.inputs = images.expand(-1, self.shape[1], -1, -1).contiguous()
        left, right = (stream.targets[task][index] for task in ("left", "right"))
        self.targets = dict(zip(self.heads, (left, right, (left + right) % 10), strict=False))

    def losses(self, features: dict[str, Tensor]) -> dict[str, Tensor]:
        return {task: F.cross_entropy(head(features[task]), self.targets[task]) for task, head in self.heads.items()}

    def losses_of(self, features: Tensor) -> dict[str, Tensor]:
        return self.losses(dict.fromkeys(self.heads, features))

    @property
    def parameters(self) -> list[nn.Parameter]:
        return [*self.encoder.parameters(), *self.heads.parameters()]


def lenet() -> Case:
    """Two digits of 36 x 36 pixels, 256 images."""
    encoder = nn.Sequential(
        nn.Conv2d(1, 10, 5), nn.MaxPool2d(2), nn.ReLU(), nn.Conv2d(10, 20, 5), nn.BatchNorm2d(20), nn.MaxPool2d(2), nn.ReLU(),
        nn.Flatten(), nn.Linear(720, 50), nn.ReLU(),
    )  # fmt: skip
    heads = {task: nn.Sequential(nn.Linear(50, 50), nn.ReLU(), nn.Linear(50, 10)) for task in ("left", "right")}
    return Case(encoder, nn.ModuleDict(heads), (256, 1, 36, 36))


def resnet18() -> Case:
    """Three classifiers of 64 x 64 pixels, 64 images."""
    from torchvision.models import resnet18 as make

    encoder = make(weights=None)
    encoder.fc = nn.Identity()
    heads = {f"task {t}": nn.Linear(512, 10) for t in range(3)}
    return Case(encoder, nn.ModuleDict(heads), (64, 3, 64, 64))


CASES: dict[str, Callable[[], Case]] = {"lenet": lenet, "resnet18": resnet18}

FAST: dict[str, dict[str, Any]] = {
    "gradient": {"displacement": "gradient"},
    "linearised": {"displacement": "linearised", "samples": None},
    "linearised, a quarter": {"displacement": "linearised", "samples": 0.25},
    "difference": {"displacement": "difference", "samples": None},
    "difference, a quarter": {"displacement": "difference", "samples": 0.25},
    "difference, an eighth": {"displacement": "difference", "samples": 0.125},
    "calibrated": {"displacement": "calibrated"},
    "default": {},
}


def sgd(case: Case, method: pt.Method[Any]) -> Callable[[], None]:
    """(a) with Equal, (c) with MGDA: a fixed step along a combination on the features."""
    fork, optimizer = pt.Fork(method, tuple(case.heads)), torch.optim.SGD(case.parameters, lr=RATE)

    def step() -> None:
        optimizer.zero_grad()
        losses = case.losses(fork(case.encoder(case.inputs)))
        sum((losses if isinstance(method, pt.MGDA) else fork.losses(losses)).values()).backward()
        optimizer.step()

    return step


def sgd_exact(case: Case) -> Callable[[], None]:
    """(b): a fixed step along the minimum norm on the parameters."""
    balancer, optimizer = pt.Balancer(pt.MGDA()), torch.optim.SGD(case.parameters, lr=RATE)

    def step() -> None:
        optimizer.zero_grad()
        balancer.backward(case.losses_of(case.encoder(case.inputs)))
        optimizer.step()

    return step


def fast(case: Case, options: dict[str, Any]) -> Callable[[], object]:
    search = pt.FastBacktracking(case.encoder, case.heads, pt.MGDA(), **options)
    return lambda: search.step(case.inputs, case.losses_of)


def classical(case: Case) -> Callable[[], object]:
    search = pt.Backtracking(case.encoder, case.heads, pt.MGDA())
    return lambda: search.step(case.inputs, case.losses_of)


BASELINE = "(c) SGD, features"
CONTENDERS: dict[str, Callable[[Case], Callable[[], object]]] = {
    BASELINE: partial(sgd, method=pt.MGDA()),
    "(a) SGD on the sum": partial(sgd, method=pt.Equal()),
    "(b) SGD, parameters": sgd_exact,
    **{name: partial(fast, options=options) for name, options in FAST.items()},
    "classical": classical,
}


def measured(case: Callable[[], Case], names: list[str], rounds: int) -> dict[str, tuple[float, float, float]]:
    """By contender: the median ratio to the baseline, the ratio of all time to its, and the median milliseconds."""
    torch.manual_seed(0)
    made = case()
    own_case = {name: copy.deepcopy(made) for name in names}
    steps = {name: CONTENDERS[name](own_case[name]) for name in names}
    times: dict[str, list[float]] = {name: [] for name in names}
    for turn in range(rounds + 3):
        for name, step in steps.items():
            own_case[name].use_batch(turn)
            began = time.perf_counter()
            step()
            if turn >= 3:
                times[name].append(time.perf_counter() - began)
    base = times[BASELINE]
    return {
        name: (
            statistics.median(t / b for t, b in zip(own, base, strict=True)),
            sum(own) / sum(base),
            1e3 * statistics.median(own),
        )
        for name, own in times.items()
    }


def workloads() -> dict[str, tuple[Workload, int]]:
    scenes = SceneImages(train=512, validation=1, test=1, width=0.5)
    return {"digits": (Digits(), 256), "scenes": (scenes, 32)}


def rises(workload: Workload, batch_size: int, options: dict[str, Any], steps: int) -> tuple[float, float]:
    """Shares of the accepted steps that raised some task's loss on their batch, and trials per step."""
    torch.manual_seed(0)
    model = workload.model()
    search = pt.FastBacktracking(model.encoder, model.heads, pt.MGDA(), verify=1, **options)  # type: ignore[arg-type]
    accepted = raised = trials = taken = epoch = 0
    stream = workload.data().train
    while taken < steps:
        for (batch,) in training_batches(stream, batch_size, 0, epoch):

            def losses_of(z: Tensor, targets: Any = batch.targets) -> dict[str, Tensor]:
                outputs = {task: head(z) for task, head in model.heads.items()}  # type: ignore[union-attr, operator]
                return workload.losses(outputs, targets)

            step = search.step(batch.inputs, losses_of)
            taken, trials, accepted = taken + 1, trials + step.trials, accepted + step.accepted
            raised += step.accepted and any(step.actual[task] > float(loss) for task, loss in step.losses.items())
            if taken == steps:
                break
        epoch += 1
    return raised / max(accepted, 1), trials / taken


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--cases", nargs="*", choices=CASES, default=list(CASES))
    parser.add_argument("--contenders", nargs="*", choices=CONTENDERS, default=list(CONTENDERS))
    parser.add_argument("--rises", type=int, default=0, metavar="STEPS")
    parser.add_argument("--record", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(THREADS)
    names = list(dict.fromkeys([BASELINE, *options.contenders]))
    table = {case: measured(CASES[case], names, options.rounds) for case in options.cases}
    lines = [
        f"paretorch {pt.__version__}, torch {torch.__version__}; Python {platform.python_version()}, {THREADS} threads, "
        f"{options.rounds} rounds",
        "",
        "Time of an iteration over (c) (median of paired ratios; ratio of the sums, since steps differ; median milliseconds):",
        "",
        "| contender | " + " | ".join(table) + " |",
        "|---|" + "---|" * len(table),
        *(
            f"| {name} | "
            + " | ".join("{:.2f} ({:.2f}; {:.1f} ms)".format(*table[case][name]) for case in table)
            + " |"
            for name in names
        ),
    ]
    if options.rises:
        found = {
            name: [rises(workload, size, FAST[name], options.rises) for workload, size in workloads().values()]
            for name in names
            if name in FAST
        }
        lines += [
            "",
            f"Share of {options.rises} steps that raised some task's loss on their batch (trials per step):",
            "",
            "| displacement | " + " | ".join(workloads()) + " |",
            "|---|" + "---|" * len(workloads()),
            *(
                f"| {name} | " + " | ".join(f"{100 * r:.2f} % ({t:.1f})" for r, t in row) + " |"
                for name, row in found.items()
            ),
        ]
    print("\n".join(lines))
    if options.record:
        title = f"\n## Line search, {datetime.date.today().isoformat()}\n\n"
        with open(Path(__file__).parent / "RESULTS.md", "a", encoding="utf-8") as file:
            file.write(title + "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
