"""Cost of one step with a Fork under DistributedDataParallel, next to its cost in one process.

    python benchmarks/ddp.py [--rounds 60] [--cases mlp-2 ...] [--ranks 2] [--record]

Every rank is a process with one thread and its own batch; the ranks are connected by gloo. Within a round each rank takes, in an
order that rotates, a step of the plain sum and of a Fork alone, and the same two under DistributedDataParallel; the ranks start
each of them together. The time of a step is that of the slowest rank. Every ratio is the median over rounds of the Fork's time
divided by the plain sum's in the same round. ``--record`` appends to RESULTS.md.
"""

from __future__ import annotations

import argparse
import copy
import datetime
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.multiprocessing.spawn import spawn
from torch.nn.parallel import DistributedDataParallel

import paretorch as pt
import step

CASES = ("cnn-2", "cnn-10", "mlp-2", "mlp-10")
KINDS = ("plain", "fork", "ddp plain", "ddp fork")
WARM_UP = 3
CLOCKS = (time.perf_counter, time.process_time)


class Model(nn.Module):
    """Encoder and heads with an optional Fork: inputs to outputs by task."""

    def __init__(self, case: step.Case, fork: pt.Fork | None) -> None:
        super().__init__()
        self.encoder, self.heads, self.fork = copy.deepcopy(case.encoder), copy.deepcopy(case.heads), fork

    def forward(self, inputs: Tensor) -> dict[str, Tensor]:
        features = self.encoder(inputs)
        branch = dict.fromkeys(self.heads, features) if self.fork is None else self.fork(features)
        return {task: head(branch[task]) for task, head in self.heads.items()}


def made_step(case: step.Case, kind: str) -> Callable[[], None]:
    """A step of one kind on this rank."""
    tasks, group = tuple(case.heads), "all" if kind.startswith("ddp") else None
    model: nn.Module = Model(case, pt.Fork(pt.MGDA(), tasks, group=group) if kind.endswith("fork") else None)
    if kind.startswith("ddp"):
        model = DistributedDataParallel(model)

    def run() -> None:
        for parameter in model.parameters():
            parameter.grad = None
        outputs = model(case.inputs)
        losses = [nn.functional.cross_entropy(outputs[task], case.targets[task]) for task in tasks]
        torch.stack(losses).sum().backward()

    return run


def measured(name: str, rounds: int) -> Tensor:
    """(2, rounds, 4) seconds of a step of each kind, of the slowest rank: elapsed, and of the CPU."""
    torch.manual_seed(0)
    case = step.made(name)
    steps = {kind: made_step(case, kind) for kind in KINDS}
    seconds = torch.zeros(len(CLOCKS), rounds + WARM_UP, len(KINDS), dtype=torch.float64)
    for turn in range(rounds + WARM_UP):
        for kind in KINDS[turn % len(KINDS) :] + KINDS[: turn % len(KINDS)]:
            dist.barrier()
            start = [clock() for clock in CLOCKS]
            steps[kind]()
            elapsed = [clock() - begun for clock, begun in zip(CLOCKS, start, strict=True)]
            seconds[:, turn, KINDS.index(kind)] = torch.tensor(elapsed, dtype=torch.float64)
    dist.all_reduce(seconds, op=dist.ReduceOp.MAX)
    return seconds[:, WARM_UP:]


def on_rank(rank: int, ranks: int, folder: str, cases: tuple[str, ...], rounds: int) -> None:
    """All cases on one rank; the first one stores the times."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/ranks", rank=rank, world_size=ranks)
    found = {name: measured(name, rounds) for name in cases}
    if rank == 0:
        torch.save(found, Path(folder, "seconds.pt"))
    dist.destroy_process_group()


def row(name: str, seconds: Tensor) -> str:
    """A case's line of the table."""
    cells = [name]
    for each_clock in seconds:
        plain, fork, ddp_plain, ddp_fork = each_clock.unbind(1)
        alone, together = (statistics.median((a / b).tolist()) for a, b in ((fork, plain), (ddp_fork, ddp_plain)))
        times = [f"{statistics.median(each.tolist()) * 1e3:.1f} ms" for each in (plain, ddp_plain)]
        cells += [f"{alone:.2f} ({times[0]})", f"{together:.2f} ({times[1]})", f"{together - alone:+.2f}"]
    return f"| {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--cases", nargs="+", default=CASES)
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--record", action="store_true", help="append to RESULTS.md")
    options = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = "1"
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as folder:
        arguments = (options.ranks, folder, tuple(options.cases), options.rounds)
        spawn(on_rank, arguments, nprocs=options.ranks)
        found = torch.load(Path(folder, "seconds.pt"))
    text = [
        f"\n## Fork under DDP, {datetime.datetime.now(datetime.UTC).date()}",
        "",
        step.versions().replace(f"{step.THREADS} threads", f"{options.ranks} ranks by gloo with 1 thread each"),
        "",
        f"`python benchmarks/ddp.py --rounds {options.rounds}`; load average at the start: {load:.1f}. A Fork's time over that",
        "of the plain sum, alone and under DistributedDataParallel: medians of paired ratios (median milliseconds of the plain",
        "sum), of the slowest rank. CPU time leaves out the time in which other processes have the core.",
        "",
        "| case | elapsed, alone | elapsed, DDP | difference | CPU, alone | CPU, DDP | difference |",
        "|---|---|---|---|---|---|---|",
        *(row(name, seconds) for name, seconds in found.items()),
    ]
    print("\n".join(text))
    if options.record:
        with (Path(__file__).parent / "RESULTS.md").open("a") as file:
            file.write("\n".join(text) + "\n")


if __name__ == "__main__":
    main()
