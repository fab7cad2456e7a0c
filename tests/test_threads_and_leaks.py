"""Models that are trained in two threads do not disturb each other; Forks, Balancers and searches that are dropped are freed."""

from __future__ import annotations

import gc
import resource
import threading
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import paretorch as pt
from line_searches import SEARCHES
from paretorch.core.fork.step import FORK_STEPS
from paretorch.optim import MTAdam
from paretorch.pareto import PHNLS
from small_models import TASKS, Net, data, losses_of
from tensors import equal_tensors
from training_workload import Tiny

Train = Callable[[int], list[Tensor]]


def trained(
    seed: int, steps: int, step_of: Callable[[Net, Tensor, dict[str, Tensor]], Callable[[], object]]
) -> list[Tensor]:
    """The parameters, and the losses after training, of a model without shared random numbers."""
    net = Net(seed=seed)
    x, targets = data(seed=seed)
    step = step_of(net, x, targets)
    for _ in range(steps):
        step()
    return [*(leaf.detach().clone() for leaf in net.parameters())]


def by_fork(method: pt.Method[Any]) -> Train:
    def step_of(net: Net, x: Tensor, targets: dict[str, Tensor]) -> Callable[[], object]:
        fork, optimizer = pt.Fork(method, TASKS), torch.optim.SGD(net.parameters(), lr=0.02)

        def step() -> None:
            optimizer.zero_grad()
            branch = fork(net.encoder(x))
            losses = losses_of({task: head(branch[task]) for task, head in net.heads.items()}, targets)
            sum(fork.losses(losses).values()).backward()  # type: ignore[union-attr]
            optimizer.step()

        return step

    return lambda seed: trained(seed, 8, step_of)


def by_balancer(method: pt.Method[Any], total: bool = False) -> Train:
    def step_of(net: Net, x: Tensor, targets: dict[str, Tensor]) -> Callable[[], object]:
        balancer, optimizer = pt.Balancer(method, TASKS), torch.optim.Adam(net.parameters(), lr=0.01)

        def step() -> None:
            optimizer.zero_grad()
            losses = losses_of(net(x), targets)
            balancer.total(losses).backward() if total else balancer.backward(losses)
            optimizer.step()

        return step

    return lambda seed: trained(seed, 8, step_of)


def by_optimizer(seed: int) -> list[Tensor]:
    def step_of(net: Net, x: Tensor, targets: dict[str, Tensor]) -> Callable[[], object]:
        optimizer = MTAdam(net.parameters(), lr=0.01)
        return lambda: optimizer.step(losses_of(net(x), targets))

    return trained(seed, 8, step_of)


def by_search(name: str) -> Train:
    def step_of(net: Net, x: Tensor, targets: dict[str, Tensor]) -> Callable[[], object]:
        search = SEARCHES[name](net.encoder, net.heads, pt.MGDA(), max_step=1.0)
        return lambda: search.step(x, lambda z: losses_of({task: head(z) for task, head in net.heads.items()}, targets))

    return lambda seed: trained(seed, 6, step_of)


CASES: dict[str, Train] = {
    "Fork, MGDA": by_fork(pt.MGDA()),
    "Fork, losses alone": by_fork(pt.DWA()),
    "Fork, random draws": by_fork(pt.RLW()),
    "Balancer, UPGrad": by_balancer(pt.UPGrad()),
    "Balancer, a Jacobian": by_balancer(pt.GradDrop()),
    "Balancer, losses alone": by_balancer(pt.Uncertainty()),
    "Balancer.total": by_balancer(pt.MGDA(), total=True),
    "MTAdam": by_optimizer,
    **{f"search, {name}": by_search(name) for name in SEARCHES},
}


def in_threads(calls: list[Callable[[], list[Tensor]]]) -> list[list[Tensor]]:
    """The results of calls that start together, each in a thread of its own."""
    found: dict[int, list[Tensor]] = {}
    errors: list[BaseException] = []
    start = threading.Barrier(len(calls))

    def run(number: int, call: Callable[[], list[Tensor]]) -> None:
        start.wait()
        try:
            found[number] = call()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=item) for item in enumerate(calls)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    return [found[number] for number in range(len(calls))]


# The models are made in one thread: torch.manual_seed is of the process.
QUICK = ("Fork, MGDA", "Balancer, UPGrad", "MTAdam", "search, linearised")


@pytest.mark.parametrize(
    "case", [pytest.param(case, marks=[] if case in QUICK else pytest.mark.long) for case in CASES]
)
def test_two_models_in_two_threads_equal_models_trained_alone(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    train = CASES[case]
    made = {seed: Net(seed=seed) for seed in (1, 2)}
    alone = [train(seed) for seed in (1, 2)]
    monkeypatch.setitem(trained.__globals__, "Net", lambda seed: made[seed])
    together = in_threads([lambda seed=seed: train(seed) for seed in (1, 2)])  # type: ignore[misc]
    for one, other in zip(alone, together, strict=True):
        assert equal_tensors(one, other)


@pytest.mark.filterwarnings("ignore::paretorch.pareto.DivergedWarning")
@pytest.mark.parametrize("algorithm", [pt.MT2O(), PHNLS(hidden=8)], ids=["members", "conditional"])
def test_two_fronts_in_two_threads_equal_fronts_trained_alone(algorithm: Any) -> None:
    def front(seed: int) -> list[Tensor]:
        made = pt.fit_front(
            Tiny(),
            algorithm,
            preferences=pt.preferences(2, 3, margin=0.1),
            epochs=3,
            batch_size=20,
            seed=seed,
            reference=(9.0, 2e4),
            **({"execution": "loop", "starts": "independent"} if algorithm.trains_members else {}),
        )
        return [made.losses, *(tensor for state in made.states for tensor in state.values())]

    alone = [front(seed) for seed in (1, 2)]
    for _ in range(3):
        together = in_threads([lambda seed=seed: front(seed) for seed in (1, 2)])  # type: ignore[misc]
        for one, other in zip(alone, together, strict=True):
            assert equal_tensors(one, other)


def dropped(make: Callable[[], object]) -> weakref.ref[object]:
    return weakref.ref(make())


def stepped_fork() -> pt.Fork:
    fork = pt.Fork(pt.FAMO(), ("a", "b"), nonfinite="skip")
    z = torch.ones(2, 3, requires_grad=True)
    branch = fork(z * 2)
    losses = {"a": branch["a"].square().sum(), "b": branch["b"].exp().sum()}
    sum(fork.losses(losses).values()).backward()  # type: ignore[union-attr]
    return fork


def stepped_balancer() -> pt.Balancer:
    shared = nn.Linear(3, 2)
    balancer = pt.Balancer(pt.UPGrad())
    z = shared(torch.ones(4, 3))
    balancer.backward({"a": z.square().sum(), "b": z.exp().sum()})
    return balancer


def stepped_search() -> object:
    encoder, heads = nn.Linear(3, 2), nn.ModuleDict({"a": nn.Linear(2, 1), "b": nn.Linear(2, 1)})
    search = pt.FastBacktracking(encoder, heads, pt.MGDA(), max_step=0.1)
    search.step(torch.ones(4, 3), lambda z: {task: head(z).square().mean() for task, head in heads.items()})
    return search


def inserted_fork() -> pt.Fork:
    model = nn.ModuleDict({"body": nn.Linear(3, 2), "a": nn.Linear(2, 1), "b": nn.Linear(2, 1)})
    return pt.fork_at(model, "body", {"a": "a", "b": "b"}, method=pt.MGDA())


@pytest.mark.filterwarnings("ignore:two tasks")
@pytest.mark.parametrize(
    ("make", "count"),
    [(stepped_fork, 1000), (stepped_balancer, 100), (stepped_search, 50), (inserted_fork, 200)],
    ids=["Fork", "Balancer", "search", "inserted Fork"],
)
@pytest.mark.sampled(2)
def test_dropped_objects_leave_nothing_behind(make: Callable[[], object], count: int) -> None:
    for _ in range(20):
        make()
    gc.collect()
    steps, objects = len(FORK_STEPS), len(gc.get_objects())
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    refs = [dropped(make) for _ in range(count)]
    gc.collect()
    assert all(ref() is None for ref in refs)
    assert len(FORK_STEPS) == steps
    assert (
        len(gc.get_objects()) - objects < count + 500
    )  # the weak references themselves, and caches of the interpreter
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory < 20_000  # KiB


def test_removed_fork_leaves_no_hook_on_the_model() -> None:
    model = nn.ModuleDict({"body": nn.Linear(3, 2), "a": nn.Linear(2, 1), "b": nn.Linear(2, 1)})
    for _ in range(100):
        fork = pt.fork_at(model, "body", {"a": "a", "b": "b"}, method=pt.MGDA())
        fork.remove()
    assert all(not module._forward_hooks and not module._forward_pre_hooks for module in model.modules())
    ref = weakref.ref(fork)
    del fork
    gc.collect()
    assert ref() is None


def test_steps_leave_no_hook_on_parameters_and_features() -> None:
    net = Net(seed=0, fork=pt.Fork(pt.MGDA(), TASKS))
    x, targets = data()
    balancer = pt.Balancer(pt.FAMO(), TASKS)
    for _ in range(20):
        sum(net.fork.losses(losses_of(net(x), targets)).values()).backward()
        z = net.encoder(x)
        balancer.backward(losses_of({task: head(z) for task, head in net.heads.items()}, targets))
    assert all(not leaf._backward_hooks and not leaf._post_accumulate_grad_hooks for leaf in net.parameters())
    assert all(not module._forward_hooks and not module._backward_hooks for module in net.modules())
