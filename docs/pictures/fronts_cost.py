"""What a front costs: seconds of a step and memory against the models N, the tasks T and the parameters P.

    python docs/pictures/fronts_cost.py [--svg FILE] [--rounds 3]

Each point is measured in processes of its own, one thread: seconds of the processor per step, over those of one model in a plain
loop, and the most resident memory above what imports and data had taken. The smallest of the rounds counts on each side, so that
other work on the machine does not. Members run as one batched
product or in a loop, whichever was measured to be faster.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import matplotlib as mpl
import torch
import torch.fx.experimental.symbolic_shapes  # what torch.autograd.grad imports when it is given gradients
from matplotlib import pyplot as plt
from torch import nn
from torch.nn import functional

import paretorch as pt
from paretorch.metrics import MeanAbsoluteError, Metric
from paretorch.pareto import EPO
from paretorch.workloads.base import MultiTaskModel, Workload
from paretorch.workloads.streams import Splits, TensorStream

STEPS = 16  # of an epoch
EPOCHS = 3  # of a measurement
BATCH = 64
INPUTS = 32


@dataclass(frozen=True)
class Targets(Workload):
    """Some regressions by an MLP.

    Args:
        count: T.
        width: of its two hidden layers.
    """

    count: int = 2
    width: int = 64

    @property
    def tasks(self) -> tuple[str, ...]:
        """t0, t1, ..."""
        return tuple(f"t{t}" for t in range(self.count))

    def data(self) -> Splits:
        """Random inputs and targets."""
        generator = torch.Generator().manual_seed(0)
        inputs = torch.randn(STEPS * BATCH, INPUTS, generator=generator)
        streams = (TensorStream(inputs, {task: torch.randn(len(inputs), generator=generator) for task in self.tasks}),)
        small = (TensorStream(inputs[:2], {task: torch.zeros(2) for task in self.tasks}),)
        return Splits(streams, small, small)

    def model(self) -> nn.Module:
        """Two hidden layers, linear heads."""
        encoder = nn.Sequential(nn.Linear(INPUTS, self.width), nn.ReLU(), nn.Linear(self.width, self.width), nn.ReLU())
        return MultiTaskModel(
            encoder, {task: nn.Sequential(nn.Linear(self.width, 1), nn.Flatten(0)) for task in self.tasks}
        )

    def losses(self, outputs, targets):  # type: ignore[no-untyped-def]
        """Squared errors."""
        return {task: functional.mse_loss(output, targets[task]) for task, output in outputs.items()}

    def metrics(self) -> dict[str, tuple[Metric, ...]]:
        """Absolute errors."""
        return {task: (MeanAbsoluteError(),) for task in self.tasks}


ALGORITHMS = {"MT2O": pt.MT2O(), "MT2O, no transfer": pt.MT2O(transfer=None), "EPO": EPO()}
ONE = "one model"


def front_seconds(workload: Workload, name: str, models: int) -> float:
    """Of the processor, for a step of all models."""
    given = pt.preferences(len(workload.tasks), models, margin=0.1 / len(workload.tasks))

    def training(epochs: int) -> float:
        began = time.process_time()
        pt.fit_front(
            workload, ALGORITHMS[name], preferences=given, epochs=epochs, batch_size=BATCH, every=10**6
        )  # fmt: skip
        return time.process_time() - began

    return (training(1 + EPOCHS) - training(1)) / (EPOCHS * STEPS)


def plain_seconds(workload: Workload) -> float:
    """Of the processor, for a step of one model in a plain loop, by Adam on the sum."""
    torch.manual_seed(0)
    model, (stream,) = workload.model(), workload.data().train
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    began = 0.0
    for epoch in range(1 + EPOCHS):
        if epoch == 1:
            began = time.process_time()
        for samples in stream.batches(BATCH, order=epoch):
            optimizer.zero_grad()
            torch.autograd.backward(sum(workload.losses(model(samples.inputs), samples.targets).values()))
            optimizer.step()
    return (time.process_time() - began) / (EPOCHS * STEPS)


def alone(name: str, tasks: int, width: int, models: int) -> tuple[float, float]:
    """Seconds of a step, and MiB at the peak above what was there before, in this process."""
    front_seconds(Targets(2, 8), "EPO", 2)  # what is imported when it is first needed
    workload = Targets(tasks, width)

    def status(field: str) -> float:
        lines = Path("/proc/self/status").read_text().splitlines()
        return float(next(line for line in lines if line.startswith(field)).split()[1]) / 1024

    Path("/proc/self/clear_refs").write_text("5")
    before = status("VmRSS")
    spent = plain_seconds(workload) if name == ONE else front_seconds(workload, name, models)
    return spent, status("VmHWM") - before


def measured(name: str, tasks: int, width: int, models: int, rounds: int) -> tuple[float, float]:
    """The least seconds and MiB of some processes."""
    command = [sys.executable, __file__, "--alone", name, str(tasks), str(width), str(models)]
    outputs = [subprocess.run(command, check=True, capture_output=True, text=True).stdout for _ in range(rounds)]
    seconds, memory = zip(*(map(float, output.splitlines()[-1].split()) for output in outputs), strict=True)
    return min(seconds), min(memory)


PANELS = {
    "models N": [(2, 256, n) for n in (2, 5, 10, 20)],
    "tasks T": [(t, 256, 10) for t in (2, 4, 8)],
    "parameters P of a model": [(2, w, 10) for w in (128, 256, 512)],
}


def place(axis: str, tasks: int, width: int, models: int) -> int:
    """The position of a point on its axis."""
    if axis == "parameters P of a model":
        return sum(value.numel() for value in Targets(tasks, width).model().parameters())
    return tasks if axis == "tasks T" else models


def main() -> None:
    """Measures and draws."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--svg", type=Path, default=Path(__file__).with_name("fronts-cost.svg"))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--alone", nargs=4, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.alone:
        name, *sizes = arguments.alone
        print(*alone(name, *map(int, sizes)))
        return
    found: dict[tuple[str, tuple[int, int, int]], tuple[float, float]] = {}
    for point in dict.fromkeys(point for points in PANELS.values() for point in points):
        for name in (ONE, *ALGORITHMS):
            found[name, point] = measured(name, *point, arguments.rounds)
            print(name, point, "{:.5f} s, {:.0f} MiB".format(*found[name, point]), flush=True)
    mpl.rcParams |= {"svg.hashsalt": "fronts", "font.size": 9, "svg.fonttype": "none"}
    figure, rows = plt.subplots(2, 3, figsize=(9.5, 5.6), sharey="row", layout="constrained")
    styles = {"MT2O": ("o-", "#1f5f99"), "MT2O, no transfer": ("s--", "#000000"), "EPO": ("^:", "#a8400c")}
    for column, (axis, points) in enumerate(PANELS.items()):
        where = [place(axis, *point) for point in points]
        counts = [models for *_, models in points]
        for name, (style, colour) in styles.items():
            times = [found[name, point][0] / found[ONE, point][0] for point in points]
            rows[0][column].plot(where, times, style, color=colour, label=name)
            rows[1][column].plot(where, [found[name, point][1] for point in points], style, color=colour, label=name)
        together = [count * found[ONE, point][1] for count, point in zip(counts, points, strict=True)]
        rows[0][column].plot(where, counts, color="#777777", linewidth=1, label="N separate runs, in turn")
        rows[1][column].plot(where, together, color="#777777", linewidth=1, label="N separate runs, at once")
        for panel in (rows[0][column], rows[1][column]):
            panel.set(xscale="log", yscale="log", xlabel=axis)
            panel.set_xticks(where, [f"{each:,}" for each in where])
            panel.minorticks_off()
            panel.grid(alpha=0.25)
    labels = {
        "a step of all models\nover a step of one (times)": (2, 5, 10, 20, 50),
        "peak memory (MiB)": (3, 10, 30, 100),
    }
    for row, (label, ticks) in zip(rows, labels.items(), strict=True):
        row[0].set_ylabel(label)
        row[0].set_yticks(ticks, [str(tick) for tick in ticks])
        row[0].minorticks_off()
        row[0].legend(frameon=False, fontsize=7)
    figure.savefig(arguments.svg, metadata={"Date": None})


if __name__ == "__main__":
    main()
