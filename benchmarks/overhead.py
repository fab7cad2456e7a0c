"""Cost of the machinery of a run: paretorch's loop with its record, against the same training written out by hand.

    python benchmarks/overhead.py [--rounds 15] [--epochs 4] [--workloads digits scenes] [--profile] [--record]

Both sides train `digits`, or `scenes` with two tasks, with the same initial weights, batches, optimizer and Fork, score
the validation split after every epoch and the test split at the end; the last weights must be equal to the bit. The difference
is the cost of events, checkpoints, result, progress and sums over an epoch. The sides alternate within a round; the number is the
median over rounds of the ratio of their times.
"""

from __future__ import annotations

import argparse
import cProfile
import datetime
import os
import platform
import pstats
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

import paretorch as pt
from paretorch.training.loop import train
from paretorch.training.run import Run
from paretorch.workloads.base import Workload
from paretorch.workloads.digits import Digits
from paretorch.workloads.scenes import SceneImages
from paretorch.workloads.streams import combined_seed

LR = 5e-3
SEED = 3

DIGITS: dict[str, Any] = {"ink": True}
SCENES: dict[str, Any] = {
    "depth": False,
    "normals": False,
    "detection": False,
    "train": 512,
    "validation": 128,
    "test": 128,
}


@dataclass(frozen=True)
class Case:
    """A run and its twin by hand.

    Args:
        workload: by name.
        options: of it.
        batch: samples of a step.
        method: balances the Fork of both.
    """

    workload: str
    options: dict[str, Any]
    batch: int
    method: str

    @property
    def made(self) -> Workload:
        return Digits(**self.options) if self.workload == "digits" else SceneImages(**self.options)

    @property
    def name(self) -> str:
        return f"{self.workload}, {self.method}"

    def fork(self) -> pt.Fork:
        return pt.Fork(eval(f"pt.{self.method}"), tasks=self.made.tasks, seed=SEED)


CASES = (
    Case("digits", DIGITS, 256, "Equal()"),
    Case("digits", DIGITS, 256, "MGDA()"),
    Case("scenes", SCENES, 32, "Equal()"),
    Case("scenes", SCENES, 32, "MGDA()"),
)

Named = Mapping[str, Tensor]


def digits_losses(outputs: Named, targets: Named) -> dict[str, Tensor]:
    return {
        "left": functional.cross_entropy(outputs["left"], targets["left"]),
        "right": functional.cross_entropy(outputs["right"], targets["right"]),
        "ink": functional.mse_loss(outputs["ink"], targets["ink"]),
    }


def scenes_losses(outputs: Named, targets: Named) -> dict[str, Tensor]:
    return {task: functional.cross_entropy(outputs[task], targets[task].long()) for task in outputs}


def by_hand(case: Case, epochs: int) -> dict[str, Tensor]:
    """The training, as one would write it for this workload alone; returns the last weights."""
    workload, batch = case.made, case.batch
    losses_of = digits_losses if case.workload == "digits" else scenes_losses
    torch.manual_seed(SEED)
    model = workload.model()
    encoder: nn.Module = model.encoder  # type: ignore[assignment]
    heads: nn.ModuleDict = model.heads  # type: ignore[assignment]
    splits = workload.data()
    train_set, validation, test = (split[0] for split in (splits.train, splits.validation, splits.test))
    optimizer = torch.optim.Adam(model.parameters(), lr=LR)
    fork = case.fork()
    images, targets = train_set.inputs, train_set.targets  # type: ignore[attr-defined]
    torch.manual_seed(combined_seed(SEED, 1))
    for epoch in range(epochs):
        model.train()
        order = torch.randperm(len(images), generator=torch.Generator().manual_seed(combined_seed(SEED, epoch, 0, 0)))
        for start in range(0, len(images) // batch * batch, batch):
            index = order[start : start + batch]
            optimizer.zero_grad(set_to_none=True)
            branch = fork(encoder(images[index]))
            outputs = {task: head(branch[task]) for task, head in heads.items()}
            losses = losses_of(outputs, {task: target[index] for task, target in targets.items()})
            losses = fork.losses(losses) if fork.needs_losses else losses
            sum(losses.values()).backward()  # type: ignore[union-attr]
            optimizer.step()
        score(model, validation, case)
    score(model, test, case)
    return {name: value.clone() for name, value in model.state_dict().items()}


@torch.no_grad()
def score(model: nn.Module, split: object, case: Case) -> list[float]:
    """Losses and metrics of a split."""
    model.eval()
    images, targets = split.inputs, split.targets  # type: ignore[attr-defined]
    losses_of = digits_losses if case.workload == "digits" else scenes_losses
    sums, confusion = torch.zeros(6, dtype=torch.float64), torch.zeros(64, dtype=torch.int64)
    for start in range(0, len(images), case.batch):
        outputs = model(images[start : start + case.batch])
        wanted = {task: target[start : start + case.batch] for task, target in targets.items()}
        for place, (task, loss) in enumerate(losses_of(outputs, wanted).items()):
            sums[place] += loss * len(wanted[task])
            if task == "segmentation":
                pairs = wanted[task].long() * 8 + outputs[task].argmax(dim=1)
                confusion += torch.bincount(pairs.flatten(), minlength=64)
            elif task == "ink":
                sums[3 + place] += (outputs[task] - wanted[task]).abs().sum()
            else:
                sums[3 + place] += (outputs[task].argmax(dim=1) == wanted[task]).sum()
    table = confusion.view(8, 8)
    overlap = table.diagonal() / (table.sum(dim=0) + table.sum(dim=1) - table.diagonal())
    return [float(value) for value in sums / len(images)] + [float(overlap.nanmean())]


def by_machine(case: Case, epochs: int, folder: Path) -> None:
    run = Run(
        case.workload,
        options=case.options,
        method=case.method,
        optimizer_options={"lr": LR},
        epochs=epochs,
        batch_size=case.batch,
        seed=SEED,
    )
    train(run, folder, progress=None, checkpoint_every=None)  # as a study's worker does


def check_equal(case: Case) -> None:
    """Both sides must have computed the same."""
    from safetensors.torch import load_file

    with tempfile.TemporaryDirectory() as place:
        by_machine(case, 2, Path(place))
        machine = load_file(Path(place) / "checkpoint" / "epoch-2" / "model.safetensors")
    hand = by_hand(case, 2)
    for name, value in hand.items():
        if not torch.equal(machine[name], value):
            raise SystemExit(f"{case.name}: {name!r} differs between the two sides, so their times cannot be compared")


def measured(case: Case, epochs: int, rounds: int, clock: Callable[[], float]) -> tuple[list[float], float]:
    """The ratios of all rounds, and the median seconds by hand."""
    ratios, seconds = [], []
    for place in range(rounds + 1):
        times = {}
        for side in ("hand", "machine") if place % 2 else ("machine", "hand"):
            with tempfile.TemporaryDirectory() as folder:
                began = clock()
                by_hand(case, epochs) if side == "hand" else by_machine(case, epochs, Path(folder))
                times[side] = clock() - began
        if place:  # the first round warms up
            ratios.append(times["machine"] / times["hand"])
            seconds.append(times["hand"])
    return ratios, statistics.median(seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--workloads", nargs="+", default=["digits"], choices=["digits", "scenes"])
    parser.add_argument(
        "--cpu",
        action="store_true",
        help="processor time, if others use the machine; it excludes waiting for the disk",
    )
    parser.add_argument("--profile", action="store_true", help="where the machinery's time goes")
    parser.add_argument("--record", action="store_true", help="append to RESULTS.md")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    if chosen.profile:
        with tempfile.TemporaryDirectory() as folder:
            by_machine(CASES[0], 1, Path(folder))  # imports and the drawing of the data are paid once per process
        with tempfile.TemporaryDirectory() as folder, cProfile.Profile() as profile:
            by_machine(CASES[0], chosen.epochs, Path(folder))
        pstats.Stats(profile).sort_stats("cumulative").print_stats("paretorch", 45)
        return
    lines = [
        "| training | by hand, s | with the machinery, times as long | middle half of the rounds |",
        "|---|---|---|---|",
    ]
    for case in (case for case in CASES if case.workload in chosen.workloads):
        check_equal(case)
        ratios, seconds = measured(
            case, chosen.epochs, chosen.rounds, time.process_time if chosen.cpu else time.perf_counter
        )
        low, middle, high = statistics.quantiles(ratios, n=4)
        lines.append(f"| {case.name} | {seconds:.2f} | {middle:.3f} | {low:.3f} .. {high:.3f} |")
    text = "\n".join(lines)
    print(text)
    if chosen.record:
        about = f"{datetime.date.today()}, torch {torch.__version__}, {platform.machine()}, {os.cpu_count()} cores, 1 thread"
        with (Path(__file__).parent / "RESULTS.md").open("a") as file:
            file.write(f"\n## The machinery of a run ({about})\n\n{text}\n")


if __name__ == "__main__":
    main()
