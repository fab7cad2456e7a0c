"""Optimizers with moments per task equal oracles written from the formulas, for every order of parameters."""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import paretorch as pt
from optimizers import OPTIMIZERS, PER_TASK, OptimizerEntry
from paretorch.optim import MTAdam, MTAdamV2, MultiTaskOptimizer
from paretorch.optim.per_task import moments
from tensors import equal_tensors

TASKS = ("first", "second", "third")
SIZES = {"first": 1e-3, "second": 1.0, "third": 1e3}
Make = Callable[..., MultiTaskOptimizer]


class ScaledTasksNet(nn.Module):
    """A shared layer and a head per task; one parameter that nothing reaches."""

    def __init__(self, dtype: torch.dtype = torch.float64, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.shared = nn.Linear(4, 5, dtype=dtype)
        self.heads = nn.ModuleDict({task: nn.Linear(5, 1, dtype=dtype) for task in TASKS})
        self.unreached = nn.Parameter(torch.ones(3, dtype=dtype))

    def losses(self, step: int, tasks: Sequence[str] = TASKS) -> dict[str, Tensor]:
        generator = torch.Generator().manual_seed(step)
        x = torch.randn(7, 4, generator=generator, dtype=torch.float64).to(self.unreached.dtype)
        z = torch.tanh(self.shared(x))
        return {
            task: SIZES[task] * (self.heads[task](z) - (x.sum(1, keepdim=True)) ** 2).square().mean() for task in tasks
        }


def absent(step: int) -> tuple[str, ...]:
    """The tasks of a step: one or two are missing now and then, the third comes late."""
    here = [task for place, task in enumerate(TASKS) if (step + place) % 5 or step == 0]
    return tuple(task for task in here if task != "third" or step >= 10)


class Oracle:
    """One parameter at a time, one number at a time where it matters: the formulas as they are printed."""

    def __init__(self, entry: OptimizerEntry, lr: float, weight_decay: float, amsgrad: bool, eps: float = 1e-8) -> None:
        self.scaling, self.lr, self.weight_decay, self.amsgrad, self.eps = entry.moments, lr, weight_decay, amsgrad, eps
        self.state: dict[tuple[str, str], dict[str, Any]] = {}

    def step(self, net: ScaledTasksNet, losses: dict[str, Tensor]) -> None:
        gradients: dict[str, dict[str, Tensor]] = {}
        for task, loss in losses.items():
            net.zero_grad()
            loss.backward(retain_graph=True)
            gradients[task] = {n: p.grad.clone() for n, p in net.named_parameters() if p.grad is not None}
        with torch.no_grad():
            for name, parameter in net.named_parameters():
                here = [task for task in TASKS if task in gradients and name in gradients[task]]
                if here:
                    parameter.mul_(1 - self.lr * self.weight_decay)
                    self._move(name, parameter, here, gradients)

    def _move(self, name: str, parameter: Tensor, here: list[str], gradients: dict[str, dict[str, Tensor]]) -> None:
        for task in here:
            g = gradients[task][name]
            state = self.state.setdefault((name, task), {"t": 0, "n": None, "m": 0 * g, "v": 0 * g, "top": 0 * g})
            length = math.sqrt(sum(float(x) ** 2 for x in g.flatten()))
            state["n"] = length if state["n"] is None else 0.9 * state["n"] + 0.1 * length
        known = [self.state[name, task]["n"] for task in TASKS if (name, task) in self.state]
        anchor = next(n for n in known if n > 1e-10 * max(known))
        numerator, denominators, apart = torch.zeros_like(parameter), [], torch.zeros_like(parameter)
        for task in here:
            state = self.state[name, task]
            scale = {"first length": anchor / state["n"], "unit length": 1 / state["n"], "unscaled": 1.0}[
                self.scaling or ""
            ]
            g = scale * gradients[task][name]
            state["t"] += 1
            state["m"] = 0.9 * state["m"] + 0.1 * g
            state["v"] = 0.999 * state["v"] + 0.001 * g * g
            state["top"] = torch.maximum(state["top"], state["v"])
            square = state["top"] if self.amsgrad else state["v"]
            mean = state["m"] / (1 - 0.9 ** state["t"])
            denominator = torch.sqrt(square) / math.sqrt(1 - 0.999 ** state["t"]) + self.eps
            numerator += mean
            denominators.append(denominator)
            apart += mean / denominator
        largest = torch.stack(denominators).amax(dim=0)
        count = len(here) if self.scaling == "unit length" else 1
        parameter -= self.lr * (apart if self.scaling == "unscaled" else numerator / count / largest)


@pytest.mark.parametrize("amsgrad", [False, True], ids=["", "amsgrad"])
@pytest.mark.parametrize("foreach", [False, True], ids=["one by one", "foreach"])
@pytest.mark.parametrize("entry", PER_TASK, ids=lambda entry: entry.name)
@pytest.mark.sampled(3)
def test_per_task_step_agrees_with_the_formulas(entry: OptimizerEntry, foreach: bool, amsgrad: bool) -> None:
    ours, theirs = ScaledTasksNet(), ScaledTasksNet()
    options: dict[str, Any] = {"lr": 1e-2, "weight_decay": 0.1, "amsgrad": amsgrad}
    optimizer = entry(ours.parameters(), foreach=foreach, tasks=TASKS, **options)
    oracle = Oracle(entry, **options)
    for step in range(100):
        optimizer.step(ours.losses(step, absent(step)))
        oracle.step(theirs, theirs.losses(step, absent(step)))
    for one, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)
    assert torch.equal(ours.unreached, torch.ones(3, dtype=torch.float64))


@pytest.mark.parametrize("entry", PER_TASK, ids=lambda entry: entry.name)
def test_per_task_step_is_independent_of_the_order_of_parameters(entry: OptimizerEntry) -> None:
    def after(order: Callable[[list[nn.Parameter]], Any]) -> list[Tensor]:
        net = ScaledTasksNet()
        optimizer = entry(order(list(net.parameters())), lr=1e-2, tasks=TASKS)
        for step in range(20):
            optimizer.step(net.losses(step, absent(step)))
        return [parameter.detach() for parameter in net.parameters()]

    expected = after(lambda p: p)
    for order in (lambda p: p[::-1], lambda p: p[3:] + p[:3], lambda p: [{"params": [each]} for each in p[::-1]]):
        assert equal_tensors(expected, after(order))


@pytest.mark.parametrize("kind", ["MTAdam", "MTAdamV2"])
@pytest.mark.parametrize("order", [*list(itertools.permutations(range(6)))[::60], (5, 4, 3, 2, 1, 0)], ids=str)
@pytest.mark.sampled(4)
def test_mtadam_solves_a_regression_for_every_order_of_parameters(kind: str, order: tuple[int, ...]) -> None:
    final = regression(kind, order)
    assert max(final) <= 2e-3


@pytest.mark.long
@pytest.mark.parametrize("kind", ["MTAdam", "MTAdamV2"])
def test_mtadam_is_bit_identical_for_all_orders_of_parameters(kind: str) -> None:
    """To the last bit, so that what is solved for one order is solved for all of them."""
    expected = regression(kind, range(6), steps=60)
    assert all(regression(kind, order, steps=60) == expected for order in itertools.permutations(range(6)))
    assert max(regression(kind, range(6))) <= 2e-3


def regression(kind: str, order: Sequence[int], steps: int = 600) -> list[float]:
    """Both losses after training a shared layer with two heads whose targets differ a hundredfold."""
    torch.manual_seed(0)
    shared, left, right = nn.Linear(4, 16), nn.Linear(16, 1), nn.Linear(16, 1)
    x = torch.randn(64, 4)
    targets = x[:, :1] - x[:, 1:2], 0.1 * (x[:, 2:3] + 0.5 * x[:, 3:])
    parameters = [*shared.parameters(), *left.parameters(), *right.parameters()]
    optimizer = getattr(pt, kind)([parameters[place] for place in order], lr=1e-2)

    def losses() -> dict[str, Tensor]:
        z = torch.tanh(shared(x))
        return {
            "left": (left(z) - targets[0]).square().mean(),
            "right": (right(z) - targets[1]).square().mean(),
        }

    for _ in range(steps):
        optimizer.step(losses())
    return [loss.item() for loss in losses().values()]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
@pytest.mark.parametrize("amsgrad", [False, True])
@pytest.mark.parametrize("tasks", [TASKS[:2], TASKS], ids=len)
def test_equal_mode_is_torchs_adam_on_the_mean_loss_bit_for_bit(
    tasks: tuple[str, ...], amsgrad: bool, weight_decay: float, dtype: torch.dtype
) -> None:
    ours, theirs = ScaledTasksNet(dtype), ScaledTasksNet(dtype)
    options: dict[str, Any] = {"lr": 1e-2, "amsgrad": amsgrad, "weight_decay": weight_decay}
    optimizer = MTAdamV2(ours.parameters(), mode="equal", **options)
    made = torch.optim.AdamW if weight_decay else torch.optim.Adam
    reference = made(theirs.parameters(), **options)
    for step in range(50):
        optimizer.step(ours.losses(step, tasks))
        reference.zero_grad()
        torch.stack(list(theirs.losses(step, tasks).values())).mean().backward()
        reference.step()
    assert equal_tensors(ours.parameters(), theirs.parameters())


def test_equal_mode_with_equal_weights_is_the_mean() -> None:
    def after(**options: Any) -> list[Tensor]:
        net = ScaledTasksNet()
        optimizer = MTAdamV2(net.parameters(), mode="equal", **options)
        for step in range(5):
            optimizer.step(net.losses(step, TASKS[:2]))
        return list(net.parameters())

    for weights in ((0.5, 0.5), {"first": 0.5, "second": 0.5}):
        assert equal_tensors(after(), after(weights=weights))
    assert not torch.equal(after()[1], after(weights=(0.9, 0.1))[1])


@pytest.mark.parametrize("entry", PER_TASK, ids=lambda entry: entry.name)
def test_per_task_step_of_one_task_is_adam(entry: OptimizerEntry) -> None:
    """Up to eps, which Adam adds to lengths of its own scale."""
    ours, theirs = ScaledTasksNet(), ScaledTasksNet()
    optimizer = entry(ours.parameters(), lr=1e-3, eps=1e-30)
    reference = torch.optim.Adam(theirs.parameters(), lr=1e-3, eps=1e-30)
    for _ in range(20):  # one batch: the mean length would follow another one's
        for net in (ours, theirs):
            net.zero_grad()
        loss = theirs.losses(0, ("second",))["second"]
        loss.backward()
        reference.step()
        optimizer.step(ours.losses(0, ("second",)))
    for one, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-12 if entry.moments == "unscaled" else 2e-3)


@pytest.mark.parametrize("make", OPTIMIZERS, ids=lambda entry: entry.name)
def test_equal_gradients_equal_adam_steps_of_the_table(make: OptimizerEntry) -> None:
    point = nn.Parameter(torch.tensor([1.0, -2.0], dtype=torch.float64))
    optimizer, steps = make([point], lr=0.1, tasks=TASKS), make.adam_steps
    optimizer.step({task: point.square().sum() for task in TASKS})
    torch.testing.assert_close(
        point.detach(), torch.tensor([1.0 - 0.1 * steps, -2.0 + 0.1 * steps], dtype=torch.float64), rtol=0, atol=1e-7
    )


SCALES = [pytest.param(entry, size, id=f"{entry.name}-{size:g}") for entry in OPTIMIZERS for size in entry.scale_free]


@pytest.mark.parametrize(("make", "size"), SCALES)
def test_step_is_independent_of_the_scale_of_a_task(make: OptimizerEntry, size: float) -> None:
    """In MTAdam a head keeps its own scale, for which Adam's eps matters; MTAdamV2 is independent of every scale."""

    def after(size: float) -> Tensor:
        net = ScaledTasksNet(torch.float32)
        optimizer = make(net.parameters(), lr=1e-2)
        for step in range(10):
            losses = net.losses(step, TASKS[:2])
            optimizer.step({"first": losses["first"], "second": losses["second"] * size})
        return net.shared.weight.detach()

    torch.testing.assert_close(after(size), after(1.0), rtol=0, atol=1e-6)


def test_mtadam_v2_is_not_stalled_by_a_vanishing_task() -> None:
    def moved(make: Make) -> float:
        point = nn.Parameter(torch.zeros(2))
        optimizer = make([point], lr=0.1, tasks=("vanishing", "steady"))
        for step in range(100):
            optimizer.step({"vanishing": 10.0 ** -(step / 10) * point[0], "steady": -point[1]})
        return point[1].item()

    assert moved(MTAdamV2) == pytest.approx(5.0, rel=0.01)
    assert moved(MTAdam) < 9.0


def test_late_task_has_a_full_first_step() -> None:
    point = nn.Parameter(torch.zeros(2, dtype=torch.float64))
    optimizer = MTAdam([point], lr=0.1, tasks=("early", "late"))
    for _ in range(50):
        optimizer.step({"early": point[0], "late": None})
    optimizer.step({"early": point[0], "late": point[1]})
    assert point[1].item() == pytest.approx(-0.1, rel=1e-6)


@pytest.mark.parametrize("make", PER_TASK, ids=lambda entry: entry.name)
def test_zero_initialized_heads_do_not_enlarge_encoder_steps(make: OptimizerEntry) -> None:
    """The encoder's first gradients are exactly zero: a mean length begun there would make later steps ten times too long."""
    net = ScaledTasksNet()
    for head in net.heads.values():
        nn.init.zeros_(head.weight)  # type: ignore[arg-type]
    before = net.shared.weight.detach().clone()
    optimizer = make(net.parameters(), lr=1e-2)
    for step in range(2):
        optimizer.step(net.losses(step))
    assert 0 < (net.shared.weight - before).abs().max().item() <= 3 * 1.001e-2 * math.sqrt(2)


@pytest.mark.parametrize("make", [MTAdam, MTAdamV2])
def test_length_over_group_is_common_to_its_tensors(make: Make) -> None:
    a, b = (nn.Parameter(torch.zeros(1, dtype=torch.float64)) for _ in range(2))
    optimizer = make([a, b], lr=0.1, length_over="group", eps=1.0, weights={"only": 1.0})
    optimizer.step({"only": 3 * a.sum() + 4 * b.sum()})
    lengths = {task["length"] for p in (a, b) for task in optimizer.state[p]["by_task"].values()}
    assert lengths == {5.0}


def test_deep_copy_continues_equally() -> None:
    net = ScaledTasksNet()
    optimizer = MTAdam(net.parameters())
    optimizer.step(net.losses(0))
    twin_net, twin = copy.deepcopy((net, optimizer))
    for each, other in ((net, optimizer), (twin_net, twin)):
        other.step(each.losses(1))
    assert equal_tensors(net.parameters(), twin_net.parameters())


@pytest.mark.parametrize("make", PER_TASK, ids=lambda entry: entry.name)
def test_chunked_tensors_equal_whole_ones(make: OptimizerEntry, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, parts = ScaledTasksNet(), ScaledTasksNet()
    optimizers = {net: make(net.parameters(), lr=1e-2, weight_decay=0.1, amsgrad=True) for net in (whole, parts)}
    for step in range(12):
        optimizers[whole].step(whole.losses(step, absent(step)))
        with monkeypatch.context() as context:
            context.setattr(moments, "ELEMENTS_PER_THREAD", 3)
            optimizers[parts].step(parts.losses(step, absent(step)))
    for one, other in zip(whole.parameters(), parts.parameters(), strict=True):
        torch.testing.assert_close(other, one, rtol=1e-14, atol=1e-15)
    stored = [optimizers[net].state_dict()["state"][1]["by_task"]["third"]["taken"] for net in (whole, parts)]
    assert stored[0] == stored[1] > 0, "a step counts once, however many parts a tensor has"
