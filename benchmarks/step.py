"""Cost of one step: forward and gradients, against the plain sum of losses and against TorchJD, in one process.

    python benchmarks/step.py [--rounds 60] [--cases mlp-10 ...] [--contenders balancer ...] [--memory] [--record]

Within a case all contenders alternate, so that a slow phase of the machine meets all of them; every number is the median over
rounds of a contender's time divided by plain's time in the same round. ``--memory`` runs each contender in a process of its own
and reports the peak above imports, model and data. ``--record`` appends to RESULTS.md.
"""

from __future__ import annotations

import argparse
import copy
import datetime
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import paretorch as pt

BATCH = 256
THREADS = 2


@dataclass
class Case:
    """A model with its data: encoder, heads by task, and the losses of the features."""

    encoder: nn.Module
    heads: nn.ModuleDict
    inputs: Tensor
    targets: dict[str, Tensor]

    @property
    def parameters(self) -> list[Tensor]:
        return [*self.encoder.parameters(), *self.heads.parameters()]

    def losses(self, branch: dict[str, Tensor]) -> dict[str, Tensor]:
        return {task: F.cross_entropy(head(branch[task]), self.targets[task]) for task, head in self.heads.items()}


def cnn(tasks: int) -> Case:
    """A LeNet-like network on 28 x 28 images."""
    encoder = nn.Sequential(
        nn.Conv2d(1, 10, 5), nn.MaxPool2d(2), nn.ReLU(), nn.Conv2d(10, 20, 5), nn.MaxPool2d(2), nn.ReLU(),
        nn.Flatten(), nn.Linear(320, 50), nn.ReLU(),
    )  # fmt: skip
    heads = {f"t{t}": nn.Sequential(nn.Linear(50, 50), nn.ReLU(), nn.Linear(50, 10)) for t in range(tasks)}
    return _case(encoder, heads, torch.randn(BATCH, 1, 28, 28))


def mlp(tasks: int, width: int = 768) -> Case:
    """784-768-512 with linear heads: about a million shared parameters. Another width scales both layers."""
    last = width * 2 // 3
    encoder = nn.Sequential(nn.Linear(784, width), nn.ReLU(), nn.Linear(width, last), nn.ReLU())
    return _case(encoder, {f"t{t}": nn.Linear(last, 10) for t in range(tasks)}, torch.randn(BATCH, 784))


def transformer(tasks: int) -> Case:
    """Four layers of width 192 on 64 tokens, batch 32: 1.8 million shared parameters."""
    layer = nn.TransformerEncoderLayer(192, 6, 768, dropout=0.0, batch_first=True)
    encoder = nn.Sequential(nn.TransformerEncoder(layer, 4, enable_nested_tensor=False), MeanOverTokens())
    return _case(encoder, {f"t{t}": nn.Linear(192, 10) for t in range(tasks)}, torch.randn(32, 64, 192))


def resnet18(tasks: int) -> Case:
    """ResNet-18 of torchvision on 64 x 64 images, batch 32: 11 million shared parameters."""
    from torchvision.models import resnet18 as make

    encoder = make(weights=None)
    encoder.fc = nn.Identity()
    return _case(encoder, {f"t{t}": nn.Linear(512, 10) for t in range(tasks)}, torch.randn(32, 3, 64, 64))


@dataclass
class AttributeCase(Case):
    """Binary tasks: the losses are those of the workload ``scenes`` with attributes."""

    def losses(self, branch: dict[str, Tensor]) -> dict[str, Tensor]:
        outputs = {task: head(branch[task]) for task, head in self.heads.items()}
        return {task: F.binary_cross_entropy_with_logits(each, self.targets[task]) for task, each in outputs.items()}


def attributes(tasks: int) -> Case:
    """The encoder of the study mgda on 40 attributes of scenes: 32 x 32 images, batch 64, 0.13 million shared parameters."""
    from paretorch.workloads.scenes import SceneImages

    model = SceneImages(variant="attributes", attributes=tasks, size=32, encoder="convnet", stride=8).model()
    heads = {f"t{t}": head for t, head in enumerate(model.heads.values())}
    targets = {task: torch.randint(2, (64,)).float() for task in heads}
    return AttributeCase(model.encoder, nn.ModuleDict(heads), torch.randn(64, 3, 32, 32), targets)


class MeanOverTokens(nn.Module):
    """(B, L, D) to (B, D)."""

    def forward(self, tokens: Tensor) -> Tensor:
        return tokens.mean(dim=1)


def _case(encoder: nn.Module, heads: dict[str, nn.Module], inputs: Tensor) -> Case:
    targets = {task: torch.randint(10, (len(inputs),)) for task in heads}
    return Case(encoder, nn.ModuleDict(heads), inputs, targets)


KINDS: dict[str, Callable[..., Case]] = {
    "cnn": cnn, "mlp": mlp, "transformer": transformer, "resnet18": resnet18, "attributes": attributes,
}  # fmt: skip
CASES = ("cnn-2", "mlp-2", "mlp-10", "mlp-40", "transformer-2", "transformer-10", "resnet18-2")


def made(name: str) -> Case:
    """The case of a name: model, tasks and, of an MLP, width."""
    kind, *sizes = name.split("-")
    return KINDS[kind](*map(int, sizes))


def plain(case: Case) -> Callable[[], None]:
    def step() -> None:
        features = case.encoder(case.inputs)
        sum(case.losses(dict.fromkeys(case.heads, features)).values()).backward()

    return step


def fork(case: Case) -> Callable[[], None]:
    layer = pt.Fork(pt.MGDA(), tuple(case.heads))

    def step() -> None:
        sum(case.losses(layer(case.encoder(case.inputs))).values()).backward()

    return step


def balancer(case: Case, samples: int | None = None, method: pt.Method | None = None) -> Callable[[], None]:
    balanced_by = pt.Balancer(method or pt.UPGrad(), samples=samples)

    def step() -> None:
        features = case.encoder(case.inputs)
        balanced_by.backward(case.losses(dict.fromkeys(case.heads, features)))

    return step


def torchjd_jacobian(case: Case, chunk: int | None) -> Callable[[], None]:
    from torchjd.aggregation import UPGrad
    from torchjd.autojac import jac_to_grad, mtl_backward

    aggregator, shared = UPGrad(), list(case.encoder.parameters())

    def step() -> None:
        features = case.encoder(case.inputs)
        losses = list(case.losses(dict.fromkeys(case.heads, features)).values())
        mtl_backward(losses, features=features, parallel_chunk_size=chunk)
        jac_to_grad(shared, aggregator)

    return step


def torchjd_gramian(case: Case) -> Callable[[], None]:
    from torchjd.aggregation import UPGradWeighting
    from torchjd.autogram import Engine

    engine, weighting = Engine(case.encoder, batch_dim=None), UPGradWeighting()

    def step() -> None:
        features = case.encoder(case.inputs)
        losses = torch.stack(list(case.losses(dict.fromkeys(case.heads, features)).values()))
        losses.backward(weighting(engine.compute_gramian(losses)))

    return step


CONTENDERS: dict[str, Callable[[Case], Callable[[], None]]] = {
    "plain": plain,
    "fork": fork,
    "balancer": balancer,
    "balancer, samples=8": partial(balancer, samples=8),
    "balancer, samples=64": partial(balancer, samples=64),
    "torchjd jacobian": partial(torchjd_jacobian, chunk=None),
    "torchjd jacobian, one by one": partial(torchjd_jacobian, chunk=1),
    "torchjd gramian": torchjd_gramian,
    "balancer, MGDA": partial(balancer, method=pt.MGDA()),
}
LISTED = [name for name in CONTENDERS if name != "balancer, MGDA"]  # by default


def available() -> list[str]:
    """All contenders, or ours alone where TorchJD is not installed."""
    try:
        import torchjd  # noqa: F401
    except ModuleNotFoundError:
        print("TorchJD is not installed (`make bench` installs it): measuring ours alone", file=sys.stderr)
        return [name for name in LISTED if not name.startswith("torchjd")]
    return LISTED


def timed(case: Case, step: Callable[[], None]) -> float:
    for parameter in case.parameters:
        parameter.grad = None
    start = time.perf_counter()
    step()
    return time.perf_counter() - start


def ratios(name: str, names: list[str], rounds: int, least: float = float("inf")) -> dict[str, tuple[float, float]]:
    """Median seconds and median ratio to plain, by contender; of three rounds at least once ``least`` seconds are over."""
    torch.manual_seed(0)
    case = made(name)
    # Engines of other libraries hook the modules for good: each contender has a copy of its own.
    cases = {contender: copy.deepcopy(case) for contender in names}
    steps = {contender: CONTENDERS[contender](cases[contender]) for contender in names}
    times: dict[str, list[float]] = {contender: [] for contender in names}
    begun = time.perf_counter()
    for turn in range(rounds + 3):
        if turn >= 6 and time.perf_counter() - begun > least:
            break
        order = names[turn % len(names) :] + names[: turn % len(names)]
        seconds = {contender: timed(cases[contender], steps[contender]) for contender in order}
        if turn >= 3:
            for contender, value in seconds.items():
                times[contender].append(value)
    return {
        contender: (
            statistics.median(values),
            statistics.median(own / base for own, base in zip(values, times["plain"], strict=True)),
        )
        for contender, values in times.items()
    }


def table(results: dict[str, dict[str, tuple[float, float]]]) -> list[str]:
    names = next(iter(results.values())).keys()
    lines = ["| contender | " + " | ".join(results) + " |", "|---|" + "---|" * len(results)]
    for name in names:
        cells = [f"{case[name][1]:.2f} ({case[name][0] * 1e3:.1f} ms)" for case in results.values()]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return lines


def versions() -> str:
    from importlib import metadata

    packages = [("paretorch", pt.__version__), ("torch", torch.__version__)]
    for name in ("torchjd",):
        try:
            packages.append((name, metadata.version(name)))
        except metadata.PackageNotFoundError:
            continue
    listing = ", ".join(f"{name} {version}" for name, version in packages)
    return f"{listing}; Python {platform.python_version()}, {os.cpu_count()} cores, {THREADS} threads, batch {BATCH}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--cases", nargs="+", default=list(CASES))
    parser.add_argument("--contenders", nargs="+", default=None, choices=list(CONTENDERS))
    parser.add_argument("--memory", action="store_true")
    parser.add_argument("--record", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(THREADS)
    names = available() if options.contenders is None else ["plain", *options.contenders]
    text = [f"\n## Step, {datetime.datetime.now(datetime.UTC).date()}", "", versions(), ""]
    results = {case: ratios(case, names, options.rounds) for case in options.cases}
    text += ["Time over the plain sum of losses (median of paired ratios; median milliseconds):", "", *table(results)]
    if options.memory:
        text += [
            "",
            "Peak memory above imports, model and data, MiB:",
            "",
            "| contender | " + " | ".join(options.cases) + " |",
        ]
        text.append("|---|" + "---|" * len(options.cases))
        from memory import measured

        for name in names:
            cells = " | ".join(f"{measured(case, name):.0f}" for case in options.cases)
            text.append(f"| {name} | {cells} |")
    print("\n".join(text))
    if options.record:
        with (Path(__file__).parent / "RESULTS.md").open("a") as file:
            file.write("\n".join(text) + "\n")


if __name__ == "__main__":
    main()
