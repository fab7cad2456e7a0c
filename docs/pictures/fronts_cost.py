"""What a front costs: seconds of a step and memory against the models N, the tasks T and the parameters P.

    python docs/pictures/fronts_cost.py [--svg FILE] [--rounds 2]

Each is measured against one model of its own, alternating in one process, in seconds of the processor, the smallest of the
rounds on each side, so that other work on the machine does not count. Members run as one batched product (vmap). Memory is that
of parameters, gradients and Adam's moments. One thread.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib as mpl
import torch
from matplotlib import pyplot as plt
from torch import nn
from torch.nn import functional

import paretorch as pt
from paretorch.pareto import EPO, FrontAlgorithm
from paretorch.workloads.base import MultiTaskModel, Workload
from paretorch.workloads.metrics import MeanAbsoluteError, Metric
from paretorch.workloads.streams import Splits, TensorStream

STEPS = 16  # of a measurement
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


def seconds(workload: Workload, algorithm: FrontAlgorithm, models: int) -> float:
    """Of a step of all models; what it takes to set them up is in both trainings."""
    given = pt.preferences(len(workload.tasks), models, margin=0.1 / len(workload.tasks))

    def training(epochs: int) -> float:
        began = time.process_time()
        pt.fit_front(workload, algorithm, preferences=given, epochs=epochs, batch_size=BATCH, execution="vmap")
        return time.process_time() - began

    return (training(3) - training(1)) / (2 * STEPS)


def one(workload: Workload) -> float:
    """Seconds of a step of one model in a plain loop, by Adam on the sum."""
    torch.manual_seed(0)
    model, (stream,) = workload.model(), workload.data().train
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    began = time.process_time()
    for epoch in range(2):
        for samples in stream.batches(BATCH, order=epoch):
            optimizer.zero_grad()
            torch.autograd.backward(sum(workload.losses(model(samples.inputs), samples.targets).values()))
            optimizer.step()
    return (time.process_time() - began) / (2 * STEPS)


def ratio(workload: Workload, algorithm: FrontAlgorithm, models: int, rounds: int) -> float:
    """A step of all models over a step of one."""
    pairs = [(seconds(workload, algorithm, models), one(workload)) for _ in range(rounds)]
    return min(pair[0] for pair in pairs) / min(pair[1] for pair in pairs)


def megabytes(workload: Workload, models: int) -> float:
    """Of parameters, gradients and two moments, in float32."""
    return models * sum(value.numel() for value in workload.model().parameters()) * 4 * 4 / 1e6


def measured(rounds: int) -> dict[str, list[tuple[float, dict[str, float]]]]:
    """By panel: a place on its axis, and the ratios by name."""
    together = {"MT2O": pt.MT2O(), "MT2O, no transfer": pt.MT2O(transfer=None), "EPO": EPO()}

    def point(count: int, width: int, models: int, names: Sequence[str]) -> dict[str, float]:
        workload = Targets(count, width)
        found = {name: ratio(workload, together[name], models, rounds) for name in names}
        return {**found, "memory (MB)": megabytes(workload, models)}

    some = list(together)
    return {
        "models N": [(n, point(2, 64, n, some)) for n in (2, 5, 10, 20)],
        "tasks T": [(t, point(t, 64, 10, some)) for t in (2, 4, 8)],
        "parameters P of a model": [
            (sum(v.numel() for v in Targets(2, w).model().parameters()), point(2, w, 10, some)) for w in (32, 128, 512)
        ],
    }


def main() -> None:
    """Measures and draws."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--svg", type=Path, default=Path(__file__).with_name("fronts-cost.svg"))
    parser.add_argument("--rounds", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    found = measured(arguments.rounds)
    for axis, points in found.items():
        for place, ratios in points:
            print(axis, f"{place:,.0f}", {name: round(value, 2) for name, value in ratios.items()}, flush=True)
    mpl.rcParams |= {"svg.hashsalt": "fronts", "font.size": 9, "svg.fonttype": "none"}
    figure, axes = plt.subplots(1, 3, figsize=(9.5, 3.2), sharey=True, layout="constrained")
    looks = {"MT2O": ("o-", "#1f5f99"), "MT2O, no transfer": ("s--", "#000000"), "EPO": ("^:", "#a8400c")}
    for panel, (axis, points) in zip(axes, found.items(), strict=True):
        for name, (style, colour) in looks.items():
            panel.plot([p for p, _ in points], [r[name] for _, r in points], style, color=colour, label=name)
        models = [p for p, _ in points] if axis == "models N" else [10] * len(points)
        panel.plot([p for p, _ in points], models, color="#777777", linewidth=1, label="N separate runs")
        panel.set(xlabel=axis, xscale="log", yscale="log")
        panel.set_xticks([p for p, _ in points], [f"{p:,.0f}" for p, _ in points])
        panel.minorticks_off()
        for place, ratios in points:
            panel.annotate(
                f"{ratios['memory (MB)']:.2g} MB", (place, 0), xycoords=("data", "axes fraction"), xytext=(0, 4),
                textcoords="offset points", ha="center", fontsize=7, color="#555555",
            )  # fmt: skip
        panel.grid(alpha=0.25)
    axes[0].set_ylabel("a step of all models\nover a step of one (times)")
    axes[0].legend(frameon=False, fontsize=8)
    figure.savefig(arguments.svg, metadata={"Date": None})


if __name__ == "__main__":
    main()
