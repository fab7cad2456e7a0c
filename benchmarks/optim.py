"""Cost of a step of the multi-task optimizers over T separate backwards and a step of Adam.

    python benchmarks/optim.py [--rounds 30] [--cases cnn-2 ...] [--record]

The floor is what any such optimizer has to do: one forward, T backwards to all parameters, one update. Both sides run in the same
rounds, one after the other; every number is the median over rounds of the ratio within a round, with its quartiles.
"""

from __future__ import annotations

import argparse
import copy
import datetime
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import paretorch as pt
from paretorch.workloads.models.two_heads import classification_and_segmentation

Losses = Callable[[nn.Module], dict[str, Tensor]]


def mlp(tasks: int, batch: int = 256) -> tuple[nn.Module, Losses]:
    """784-768-512 with linear heads: about a million shared parameters."""
    encoder = nn.Sequential(nn.Linear(784, 768), nn.ReLU(), nn.Linear(768, 512), nn.ReLU())
    model = nn.ModuleDict({"encoder": encoder, **{f"head{t}": nn.Linear(512, 10) for t in range(tasks)}})
    x, targets = torch.randn(batch, 784), torch.randint(10, (tasks, batch))

    def losses(net: nn.Module) -> dict[str, Tensor]:
        z = net["encoder"](x)  # type: ignore[index]
        return {f"{t}": F.cross_entropy(net[f"head{t}"](z), targets[t]) for t in range(tasks)}  # type: ignore[index]

    return model, losses


def cnn(tasks: int, batch: int = 256) -> tuple[nn.Module, Losses]:
    """A LeNet-like network on 28 x 28 images."""
    encoder = nn.Sequential(
        nn.Conv2d(1, 10, 5), nn.MaxPool2d(2), nn.ReLU(), nn.Conv2d(10, 20, 5), nn.MaxPool2d(2), nn.ReLU(),
        nn.Flatten(), nn.Linear(320, 50), nn.ReLU(),
    )  # fmt: skip
    model = nn.ModuleDict({"encoder": encoder, **{f"head{t}": nn.Linear(50, 10) for t in range(tasks)}})
    x, targets = torch.randn(batch, 1, 28, 28), torch.randint(10, (tasks, batch))

    def losses(net: nn.Module) -> dict[str, Tensor]:
        z = net["encoder"](x)  # type: ignore[index]
        return {f"{t}": F.cross_entropy(net[f"head{t}"](z), targets[t]) for t in range(tasks)}  # type: ignore[index]

    return model, losses


def mobilenet(batch: int = 32) -> tuple[nn.Module, Losses]:
    """The optimizer study's model in small: 0.35 of the width, 64 x 64 images."""
    model = classification_and_segmentation(6, 8, edge=64, width=0.35, stride=16)
    x = torch.randn(batch, 3, 64, 64)
    classes, masks = torch.randint(6, (batch,)), torch.randint(8, (batch, 64, 64))

    def losses(net: nn.Module) -> dict[str, Tensor]:
        out = net(x)
        return {
            "classification": F.cross_entropy(out["classification"], classes),
            "segmentation": F.cross_entropy(out["segmentation"], masks),
        }

    return model, losses


CASES: dict[str, Callable[[], tuple[nn.Module, Losses]]] = {
    "cnn-2": partial(cnn, 2),
    "mlp-2": partial(mlp, 2),
    "mlp-10": partial(mlp, 10),
    "mobilenet-2": mobilenet,
}


def floor(model: nn.Module, losses: Losses) -> Callable[[], None]:
    """T separate backwards to all parameters, and Adam on their sum."""
    parameters = list(model.parameters())
    adam = torch.optim.Adam(parameters, lr=1e-4)

    def step() -> None:
        values = list(losses(model).values())
        adam.zero_grad()
        for place, value in enumerate(values):
            value.backward(retain_graph=place + 1 < len(values))
        adam.step()

    return step


def ours(make: Callable[..., torch.optim.Optimizer], model: nn.Module, losses: Losses) -> Callable[[], None]:
    """A step of one of ours."""
    optimizer = make(model.parameters(), lr=1e-4)

    def step() -> None:
        optimizer.step(losses(model))  # type: ignore[call-overload]

    return step


CONTENDERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "MTAdam": pt.MTAdam,
    "MTAdamV2": pt.MTAdamV2,
    "MTAdamV2 equal": partial(pt.MTAdamV2, mode="equal"),
    "AdaTask": pt.AdaTask,
    "Preconditioned(MGDA)": lambda parameters, lr: pt.Preconditioned(parameters, pt.MGDA(), lr=lr),
}


def measure(case: str, rounds: int) -> dict[str, list[float]]:
    """Ratios to the floor by contender, one for each round."""
    torch.manual_seed(0)
    model, losses = CASES[case]()
    base = floor(copy.deepcopy(model), losses)
    steps = {name: ours(make, copy.deepcopy(model), losses) for name, make in CONTENDERS.items()}
    ratios: dict[str, list[float]] = {name: [] for name in steps}
    for number in range(rounds + 2):
        for name, step in steps.items():
            # the order alternates, so that neither side always comes after the other's cache
            pair = (base, step) if number % 2 else (step, base)
            seconds = [timed(each) for each in pair]
            below, above = seconds if number % 2 else seconds[::-1]
            if number >= 2:
                ratios[name].append(above / below)
    return ratios


def timed(step: Callable[[], None]) -> float:
    """Seconds of one step, by this thread's processor: others on the machine do not count."""
    began = time.process_time()
    step()
    return time.process_time() - began


def main() -> None:
    """Measures and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--cases", nargs="+", default=list(CASES), choices=CASES)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--record", action="store_true", help="append to RESULTS.md")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    text = [
        f"## Multi-task optimizers, {datetime.date.today()}, torch {torch.__version__}, {options.threads} thread(s)",
        "",
        "Processor time of a step over T separate backwards and Adam: median of paired ratios (quartiles).",
        "",
        "| case | " + " | ".join(CONTENDERS) + " |",
        "|---|" + "---|" * len(CONTENDERS),
    ]
    for case in options.cases:
        cells = []
        for values in measure(case, options.rounds).values():
            low, middle, high = statistics.quantiles(values, n=4)
            cells.append(f"{middle:.2f} ({low:.2f}-{high:.2f})")
        text.append(f"| {case} | " + " | ".join(cells) + " |")
        print(text[-1], flush=True)
    print("\n".join(text))
    if options.record:
        with (Path(__file__).parent / "RESULTS.md").open("a") as file:
            file.write("\n" + "\n".join(text) + "\n")


if __name__ == "__main__":
    main()
