"""Every number that a change of structure must not change: a fixed matrix of short runs, written in full precision.

    python benchmarks/recording.py write before.json [--only methods searches ...]
    python benchmarks/recording.py compare before.json after.json

``write`` trains every method by Fork and by Balancer, every search with every displacement, every optimizer, every algorithm for
fronts and one smoke study for a few steps, on one thread, and records losses, weights, steps and a digest of the parameters.
``compare`` lists every case that differs, with the largest relative difference, and exits with 1 where there is one. Numbers are
equal on one machine with one version of torch only. Only public names and the command line are used: the inside may move.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import os
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import paretorch as pt

TESTS = Path(__file__).parents[1] / "tests"
TASKS = ("a", "b", "c")
STEPS = 4
TIMES = (
    "second",
    "time",
    "version",
    "commit",
    "machine",
    "memory",
    "digest",
    "checksum",
    "python",
    "torch",
    "torchvision",
    "cores",
)
OPTIMIZERS = (
    "SGD(lr=0.01, momentum=0.9)", "SGD(lr=0.01, momentum=0.9, nesterov=True)", "Adam", "AdamW", "RMSprop", "Adagrad", "Adadelta",
    "MTAdam(lr=0.001)", "MTAdamV2(lr=0.001)", "AdaTask(lr=0.001)", "Preconditioned(lr=0.001)",
    "FastBacktracking(max_step=1.0)", "Backtracking(max_step=1.0)",
)  # fmt: skip
ALGORITHMS = (
    "MT2O", "MT2O(transfer=Gated())", "MT2O(transfer=Neighbours(rho=0.3))", "MT2O(adapt='hypervolume')", "Sweep", "EPO",
    "ParetoMTL", "COSMOS", "PHNLS", "PHNEPO", "PaMaL", "HypervolumeAscent", "MGDAStarts",
)  # fmt: skip


class Net(nn.Module):
    """An encoder of two layers and a head for each task."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.encoder = nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Linear(16, 8), nn.Tanh())
        self.heads = nn.ModuleDict({task: nn.Linear(8, 2) for task in TASKS})

    def losses(self, branch: dict[str, Tensor], targets: Tensor) -> dict[str, Tensor]:
        pairs = zip(self.heads.items(), (1.0, 10.0, 0.1), strict=True)
        return {task: (head(branch[task]) - size * targets).square().mean() for (task, head), size in pairs}


def batch(step: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(100 + step)
    return torch.randn(32, 6, generator=generator), torch.randn(32, 2, generator=generator)


def digest(module: nn.Module) -> str:
    found = hashlib.sha256()
    for name, value in module.state_dict().items():
        found.update(name.encode() + value.detach().contiguous().numpy().tobytes())
    return found.hexdigest()


def plain(value: Any) -> Any:
    """Tensors as lists of numbers, which JSON keeps to the last bit; what is not finite by name."""
    if isinstance(value, Tensor):
        return plain(value.tolist())
    if isinstance(value, list | tuple):
        return [plain(each) for each in value]
    return repr(value) if isinstance(value, float) and not math.isfinite(value) else value


# --- methods -------------------------------------------------------------------------------------------------------------


def methods() -> Iterator[tuple[str, Callable[[], Any]]]:
    """Every method of the test table by Fork and by Balancer, with the options that change how a step is taken."""
    sys.path.insert(0, str(TESTS))
    from methods import METHODS

    table = {repr(entry.method): entry.method for entry in METHODS if not isinstance(entry.method, pt.Static)}
    table["Static"] = pt.Static({"a": 0.5, "b": 2.0, "c": 1.0})
    for name, method in table.items():
        yield f"balancer/{name}", lambda method=method: balanced(method)
        if method.features and method.batches == 1:
            yield f"fork/{name}", lambda method=method: forked(method)
    for options in ({"scale": "paper"}, {"every": 2}, {"heads": "weighted"}):
        yield f"balancer/UPGrad/{options}", lambda options=options: balanced(pt.UPGrad(), **options)
        yield f"fork/UPGrad/{options}", lambda options=options: forked(pt.UPGrad(), **options)
    yield "balancer/MGDA/samples", lambda: balanced(pt.MGDA(), samples=8)


def forked(method: pt.Method[Any], **options: Any) -> Any:
    net, fork = Net(), pt.Fork(method, TASKS, **options)
    return steps(net, fork, lambda losses, _: sum(fork.losses(losses).values()).backward())


def balanced(method: pt.Method[Any], **options: Any) -> Any:
    net, balancer = Net(), pt.Balancer(method, TASKS, **options)

    def backward(losses: dict[str, Tensor], step: int) -> None:
        further = []
        for other in range(method.batches - 1):
            x, targets = batch(1000 * (other + 1) + step)
            further.append(net.losses(dict.fromkeys(TASKS, net.encoder(x)), targets))
        balancer.backward(losses, others=further)

    return steps(net, balancer, backward)


def steps(net: Net, balanced_by: Any, backward: Callable[[dict[str, Tensor], int], object]) -> Any:
    optimizer, found = torch.optim.SGD(net.parameters(), lr=0.01), []
    for step in range(STEPS):
        x, targets = batch(step)
        z = net.encoder(x)
        losses = net.losses(balanced_by(z) if isinstance(balanced_by, pt.Fork) else dict.fromkeys(TASKS, z), targets)
        optimizer.zero_grad()
        backward(losses, step)
        optimizer.step()
        if balanced_by.method.observes:
            with torch.no_grad():
                balanced_by.observe(net.losses(dict.fromkeys(TASKS, net.encoder(x)), targets))
        balance = balanced_by.balance
        weights = None if balance.weights is None else balance.weights
        found.append(
            {
                "losses": [float(loss) for loss in losses.values()],
                "weights": plain(weights),
                "status": balance.status.value,
            }
        )
    state = {name: plain(value) for name, value in balanced_by.state_dict().items() if value.numel() < 100}
    return {"steps": found, "parameters": digest(net), "state": state}


# --- searches ------------------------------------------------------------------------------------------------------------


def searches() -> Iterator[tuple[str, Callable[[], Any]]]:
    """Every search and displacement, with some directions and options."""
    for displacement in ("gradient", "linearised", "difference", "calibrated"):
        for method in (pt.MGDA(), pt.Equal(), pt.UPGrad()):
            yield (
                f"fast/{displacement}/{method}",
                lambda d=displacement, m=method: searched(pt.FastBacktracking, m, displacement=d),
            )
        yield (
            f"fast/{displacement}/bound",
            lambda d=displacement: searched(pt.FastBacktracking, pt.MGDA(), displacement=d, max_step=1.0),
        )
    for shrink in ("violation", 0.5):
        yield f"backtracking/{shrink}", lambda s=shrink: searched(pt.Backtracking, pt.MGDA(), shrink=s)


def searched(kind: Any, method: pt.Method[Any], **options: Any) -> Any:
    net, found = Net(), []
    search = kind(net.encoder, net.heads, method, **options)
    for step in range(STEPS):
        x, targets = batch(step // 2)
        result = search.step(x, lambda z, targets=targets: net.losses(dict.fromkeys(TASKS, z), targets))
        found.append({"step": plain(result.step), "accepted": bool(result.accepted), "reason": str(result.reason)})
    return {"steps": found, "parameters": digest(net)}


# --- runs, fronts and a study, by the command line -----------------------------------------------------------------------


def optimizers() -> Iterator[tuple[str, Callable[[], Any]]]:
    for optimizer in OPTIMIZERS:
        command = ["train", "digits(train=256)", "--optimizer", optimizer, "--epochs", "2", "--batch-size", "64"]
        yield f"train/{optimizer}", lambda command=command: run(command)
    yield (
        "train/balancer",
        lambda: run(
            ["train", "digits(ink=True, train=256)", "--method", "UPGrad()", "--surface", "parameters", "--epochs", "2"]
        ),
    )
    yield (
        "train/scenes",
        lambda: run(["train", "scenes(train=64)", "--method", "MGDA()", "--epochs", "1", "--batch-size", "16"]),
    )


def fronts() -> Iterator[tuple[str, Callable[[], Any]]]:
    for algorithm in ALGORITHMS:
        command = [
            "front",
            "synthetic",
            "--algorithm",
            algorithm,
            "--models",
            "3",
            "--epochs",
            "2",
            "--execution",
            "loop",
        ]
        yield f"front/{algorithm}", lambda command=command: run(command)
    yield (
        "front/NSGA2",
        lambda: run(["front", "synthetic(problem='zdt1')", "--algorithm", "NSGA2(population=12)", "--epochs", "2"]),
    )


def study() -> Iterator[tuple[str, Callable[[], Any]]]:
    yield "study/quickstart", lambda: run(["study", "quickstart", "--scale", "smoke"])


def run(command: list[str]) -> Any:
    """The numbers in all files that a command writes, and a digest of every file of tensors."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "out"
        done = subprocess.run(
            [sys.executable, "-m", "paretorch.cli", *command, "--out", str(out)],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            return {"failed": done.stderr.splitlines()[-3:]}
        found: dict[str, Any] = {}
        for path in sorted(out.rglob("*")):
            name = str(path.relative_to(out))
            if path.suffix == ".json":
                found[name] = timeless(json.loads(path.read_text()))
            elif path.name == "events.jsonl":
                found[name] = [timeless(json.loads(line)) for line in path.read_text().splitlines()]
            elif path.suffix == ".safetensors":
                found[name] = hashlib.sha256(tensors_of(path)).hexdigest()
        return found


def tensors_of(path: Path) -> bytes:
    """The tensors of a file without its head, in which the order of names is free."""
    from safetensors.torch import load_file

    return b"".join(name.encode() + value.numpy().tobytes() for name, value in sorted(load_file(path).items()))


def timeless(value: Any) -> Any:
    """Without what differs from run to run: times, versions, the machine."""
    if isinstance(value, dict):
        return {key: timeless(each) for key, each in value.items() if not any(word in key.lower() for word in TIMES)}
    return [timeless(each) for each in value] if isinstance(value, list) else value


# --- write and compare ---------------------------------------------------------------------------------------------------

PARTS = {"methods": methods, "searches": searches, "optimizers": optimizers, "fronts": fronts, "study": study}


def write(path: Path, only: list[str]) -> None:
    torch.set_num_threads(1)
    os.environ.update(OMP_NUM_THREADS="1", MKL_NUM_THREADS="1")
    found: dict[str, Any] = {}
    for part in only:
        for name, case in PARTS[part]():
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                try:
                    found[name] = case()
                except Exception as error:
                    found[name] = {"failed": f"{type(error).__name__}: {error}"}
            print(name, "failed" if "failed" in found[name] else "", flush=True)
    path.write_text(json.dumps(found, indent=1))
    failed = [name for name, value in found.items() if "failed" in value]
    if failed:
        sys.exit(f"{len(failed)} cases failed: {', '.join(failed)}")


def difference(one: Any, other: Any) -> float:
    """The largest relative difference of two recordings; infinite where they are not made alike."""
    if isinstance(one, bool | str | None) or isinstance(other, bool | str | None):
        return 0.0 if one == other else math.inf
    if isinstance(one, int | float) and isinstance(other, int | float):
        return 0.0 if one == other else abs(one - other) / max(abs(one), abs(other))
    if isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        return max((difference(a, b) for a, b in zip(one, other, strict=True)), default=0.0)
    if isinstance(one, dict) and isinstance(other, dict) and one.keys() == other.keys():
        return max((difference(one[key], other[key]) for key in one), default=0.0)
    return math.inf


def compare(before: Path, after: Path) -> int:
    one, other = (json.loads(path.read_text()) for path in (before, after))
    same = 0
    for name in sorted({*one, *other}):
        gap = difference(one.get(name), other.get(name))
        same += gap == 0
        if gap:
            print(f"{name}: {'made differently' if math.isinf(gap) else f'relative difference {gap:.2g}'}")
    print(f"{same} of {len({*one, *other})} cases are bit-identical")
    return int(same < len({*one, *other}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    writing = commands.add_parser("write")
    writing.add_argument("path", type=Path)
    writing.add_argument("--only", nargs="+", default=list(PARTS), choices=list(PARTS))
    comparing = commands.add_parser("compare")
    comparing.add_argument("before", type=Path)
    comparing.add_argument("after", type=Path)
    options = parser.parse_args()
    if options.command == "write":
        write(options.path, options.only)
    else:
        sys.exit(compare(options.before, options.after))


if __name__ == "__main__":
    main()
