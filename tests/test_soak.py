"""Many steps of Fork, Balancer, optimizers, searches, fronts and runs leave nothing behind and do not become slower.

``PARETORCH_SOAK_STEPS=100000 python -m pytest tests/test_soak.py -m long -s`` is the whole campaign; it prints the figures.
"""

from __future__ import annotations

import copy
import itertools
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import paretorch as pt
from paretorch.optim import MTAdam, MTAdamV2, Preconditioned
from paretorch.pareto import COSMOS, EPO, PHNLS
from paretorch.training.loop import train
from paretorch.training.record.run_record import SEARCH_LINES, STEP_LINES
from paretorch.training.run import Run
from small_models import TASKS, Net, data, losses_of
from soak import SAMPLES, Soak, findings, soaked
from training_runs import TINY
from training_workload import Tiny

STEPS = int(os.environ.get("PARETORCH_SOAK_STEPS", "1500"))

Step = Callable[[], object]
Case = Callable[[Soak], None]


def plain_step() -> Step:
    """A step of the sum of the losses."""
    net, (x, targets) = Net(seed=5), data()
    optimizer = torch.optim.SGD(net.parameters(), lr=1e-4)

    def step() -> None:
        optimizer.zero_grad()
        sum(losses_of(net(x), targets).values()).backward()  # type: ignore[union-attr]
        optimizer.step()

    return step


def steps_of(make: Callable[[Net, Tensor, dict[str, Tensor]], Step]) -> Case:
    """Steps on one small model and one batch."""

    def case(soak: Soak) -> None:
        step = make(Net(seed=0), *data())
        for _ in range(soak.steps):
            step()
            soak.step()

    return case


def fork(method: pt.Method[Any], **options: Any) -> Case:
    def make(net: Net, x: Tensor, targets: dict[str, Tensor]) -> Step:
        fork, optimizer = pt.Fork(method, TASKS, **options), torch.optim.Adam(net.parameters(), lr=1e-4)

        def losses() -> dict[str, Tensor]:
            branch = fork(net.encoder(x))
            return losses_of({task: head(branch[task]) for task, head in net.heads.items()}, targets)

        def step() -> None:
            optimizer.zero_grad()
            sum(fork.losses(losses()).values()).backward()  # type: ignore[union-attr]
            optimizer.step()
            if method.observes:
                with torch.no_grad():
                    fork.observe(losses())

        return step

    return steps_of(make)


def balancer(method: pt.Method[Any], total: bool = False) -> Case:
    def make(net: Net, x: Tensor, targets: dict[str, Tensor]) -> Step:
        balancer, optimizer = pt.Balancer(method, TASKS), torch.optim.Adam(net.parameters(), lr=1e-4)

        def step() -> None:
            optimizer.zero_grad()
            losses = losses_of(net(x), targets)
            balancer.total(losses).backward() if total else balancer.backward(losses)
            optimizer.step()

        return step

    return steps_of(make)


def optimizer(make_optimizer: Callable[[Any], Any]) -> Case:
    def make(net: Net, x: Tensor, targets: dict[str, Tensor]) -> Step:
        made = make_optimizer(net.parameters())
        return lambda: made.step(losses_of(net(x), targets))

    return steps_of(make)


def search(make_search: Callable[..., Any]) -> Case:
    def make(net: Net, x: Tensor, targets: dict[str, Tensor]) -> Step:
        made, count = make_search(net.encoder, net.heads, pt.MGDA(), max_step=1e-3), itertools.count()
        start = copy.deepcopy(net.state_dict())

        def step() -> None:
            if next(count) % 50 == 0:  # near a minimum a step takes more trials
                net.load_state_dict(start)
            made.step(x, lambda z: losses_of({task: head(z) for task, head in net.heads.items()}, targets))

        return step

    return steps_of(make)


def front(algorithm: Any, execution: str = "auto") -> Case:
    """The steps of a front of three models, which is evaluated once."""

    def case(soak: Soak) -> None:
        epochs = -(-soak.steps // 100)

        def schedule(progress: float) -> float:
            soak.step()
            return 1.0

        pt.fit_front(
            Tiny(samples=2000),
            algorithm,
            preferences=pt.preferences(2, 3, margin=0.1),
            epochs=epochs,
            batch_size=20,
            schedule=schedule,
            reference=(9.0, 2e4),
            every=epochs,
            **({"execution": execution} if algorithm.trains_members else {}),
        )

    return case


def run_of(optimizer: str, folder: Path, soak: Soak) -> None:
    """The steps of a run with a record and a checkpoint after every epoch."""
    run = Run(
        TINY,
        options={"samples": 20 * soak.every},
        method="UPGrad()" if optimizer == "Adam" else "Equal()",
        surface="parameters" if optimizer == "Adam" else "features",
        optimizer=optimizer,
        optimizer_options={"lr": 1e-3} if optimizer == "Adam" else {"max_step": 1e-3},
        epochs=SAMPLES,
        batch_size=20,
    )
    train(run, folder, progress=lambda done, planned: soak.epoch(soak.every))


CASES: dict[str, Case] = {
    "Fork, MGDA": fork(pt.MGDA()),
    "Fork, FAMO": fork(pt.FAMO()),
    "Fork, UPGrad that skips": fork(pt.UPGrad(), nonfinite="skip"),
    "Fork, MGDA that measures the gap": fork(pt.MGDA(), gap=10),
    "Balancer, UPGrad": balancer(pt.UPGrad()),
    "Balancer, GradDrop": balancer(pt.GradDrop()),
    "Balancer, Uncertainty in a total": balancer(pt.Uncertainty(), total=True),
    "MTAdam": optimizer(lambda parameters: MTAdam(parameters, lr=1e-4)),
    "MTAdamV2": optimizer(lambda parameters: MTAdamV2(parameters, lr=1e-4)),
    "Preconditioned": optimizer(lambda parameters: Preconditioned(parameters, pt.UPGrad(), lr=1e-4)),
    "FastBacktracking": search(pt.FastBacktracking),
    "Backtracking": search(pt.Backtracking),
    "MT2O": front(pt.MT2O()),
    "MT2O in a loop": front(pt.MT2O(), "loop"),
    "EPO": front(EPO()),
    "COSMOS": front(COSMOS()),
    "PHNLS": front(PHNLS(hidden=8)),
}


def soak_of(case: Case, steps: int = STEPS) -> Soak:
    with soaked(steps, plain_step()) as soak:
        case(soak)
    print(f"{soak.done} steps:", {name: f"{value:.3g}" for name, value in soak.figures.items()})
    return soak


@pytest.mark.long
@pytest.mark.filterwarnings("ignore::paretorch.pareto.DivergedWarning")
@pytest.mark.parametrize("case", CASES)
def test_many_steps_leave_nothing_behind(case: str) -> None:
    assert findings(soak_of(CASES[case])) == []


@pytest.mark.long
@pytest.mark.parametrize(("optimizer", "lines"), [("Adam", STEP_LINES), ("FastBacktracking", SEARCH_LINES)])
def test_long_run_leaves_nothing_behind_and_thins_its_record(optimizer: str, lines: int, tmp_path: Path) -> None:
    soak = soak_of(
        lambda soak: run_of(optimizer, tmp_path / "run", soak), max(6000, STEPS)
    )  # an epoch leaves its entry
    assert findings(soak) == []
    events = [json.loads(line) for line in (tmp_path / "run" / "events.jsonl").read_text().splitlines()]
    assert [event["event"] for event in events].count("epoch") == SAMPLES
    assert 0 < [event["event"] for event in events].count("step") <= lines + SAMPLES


def leaking(net: Net, x: Tensor, targets: dict[str, Tensor]) -> Step:
    step, kept = plain_step(), list[object]()

    def leak() -> None:
        step()
        kept.append(object())

    return leak


def leaking_tensors(net: Net, x: Tensor, targets: dict[str, Tensor]) -> Step:
    step, kept = plain_step(), list[Tensor]()

    def leak() -> None:
        step()
        if len(kept) < 1000:  # one in some steps is enough
            kept.append(torch.zeros(1))

    return leak


class OpenFiles:
    """File handles that are open as long as this object exists."""

    def __init__(self) -> None:
        self.handles: list[int] = []

    def __del__(self) -> None:
        for handle in self.handles:
            os.close(handle)


def leaking_files(net: Net, x: Tensor, targets: dict[str, Tensor]) -> Step:
    step, files, count = plain_step(), OpenFiles(), itertools.count()

    def leak() -> None:
        step()
        if next(count) % 100 == 0:
            files.handles.append(os.dup(2))

    return leak


def leaking_memory(net: Net, x: Tensor, targets: dict[str, Tensor]) -> Step:
    """A graph that grows by a node in every step, of which Python knows the last one alone."""
    step, kept = plain_step(), [torch.zeros(500, requires_grad=True).sum()]

    def leak() -> None:
        step()
        kept[0] = kept[0] + torch.zeros(5000).exp().requires_grad_().exp().sum()

    return leak


def slower(net: Net, x: Tensor, targets: dict[str, Tensor]) -> Step:
    step, count = plain_step(), [0]

    def slow() -> None:
        step()
        count[0] += 1
        sum(range(30 * count[0]))

    return slow


@pytest.mark.long
@pytest.mark.parametrize(
    ("make", "name"),
    [
        (leaking, "blocks"),
        (leaking_tensors, "tensors"),
        (leaking_files, "files"),
        (leaking_memory, "memory"),
        (slower, "time"),
    ],
)
def test_soak_finds_what_each_step_leaves_behind(make: Any, name: str) -> None:
    found = findings(soak_of(steps_of(make), 1500))
    assert [finding.partition(":")[0] for finding in found if finding.startswith(name)] == [name]
