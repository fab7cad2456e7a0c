"""KeyboardInterrupt at a random Python line of a step: modes, hooks and parameters are as before, and the next step works."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable
from functools import partial
from types import FrameType
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.autograd import forward_ad

import paretorch as pt
from line_searches import SEARCHES
from optimizers import OPTIMIZERS
from paretorch.core.fork.insertion import InsertedFork
from small_models import head_losses

Step = Callable[[], object]
TASKS = ("a", "b", "c")


# Python loses an error that is raised within a callback of a weak reference, such as that of a Fork that is removed.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


def interrupted(step: Step, line: int, file: str = "") -> int:
    """Runs a step and raises KeyboardInterrupt at its n-th Python line, torch's own included; returns the lines that were run.

    Args:
        step: is run.
        line: n, from 1.
        file: counts the lines alone of files whose path ends so.
    """
    count = 0

    def at_line(frame: FrameType, event: str, argument: Any) -> Any:
        nonlocal count
        if event == "line" and frame.f_code.co_filename.endswith(file):
            count += 1
            if count == line:
                sys.settrace(None)
                raise KeyboardInterrupt
        return at_line

    before = sys.gettrace()
    sys.settrace(at_line)
    try:
        step()
    except KeyboardInterrupt:
        pass
    finally:
        sys.settrace(before)
    return count


def network() -> nn.ModuleDict:
    torch.manual_seed(0)
    encoder = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Dropout(0.2), nn.Linear(8, 5), nn.Tanh())
    encoder[0].bias.requires_grad_(False)
    encoder[2].eval()
    encoder[0].weight.register_hook(lambda gradient: gradient)  # type: ignore[operator]
    encoder.register_forward_hook(lambda *_: None)
    return nn.ModuleDict({"encoder": encoder, "heads": nn.ModuleDict({task: nn.Linear(5, 1) for task in TASKS})})


def losses(net: nn.ModuleDict, z: Tensor | None = None) -> dict[str, Tensor]:
    x = torch.randn(64, 6, generator=torch.Generator().manual_seed(1))
    return head_losses(net["heads"], net["encoder"](x) if z is None else z)  # type: ignore[arg-type]


def search_step(make: Callable[..., Any], net: nn.ModuleDict) -> Step:
    search = make(net["encoder"], net["heads"], pt.MGDA(), max_step=1.0, verify=2)
    x = torch.randn(64, 6, generator=torch.Generator().manual_seed(1))
    return lambda: search.step(x, lambda z: losses(net, z))


def optimizer_step(make: Callable[..., Any], net: nn.ModuleDict) -> Step:
    optimizer = make([leaf for leaf in net.parameters() if leaf.requires_grad], lr=1e-3, tasks=TASKS)
    return lambda: optimizer.step(losses(net))


def balancer_step(method: pt.Method[Any], net: nn.ModuleDict) -> Step:
    balancer = pt.Balancer(method, TASKS)
    return lambda: balancer.backward(losses(net))


def fork_step(net: nn.ModuleDict) -> Step:
    fork = pt.Fork(pt.FAMO(), TASKS)
    x = torch.randn(64, 6, generator=torch.Generator().manual_seed(1))

    def step() -> None:
        branches = fork(net["encoder"](x))
        heads = net["heads"]
        assert isinstance(heads, nn.ModuleDict)
        found = {task: head(branches[task]).square().mean() + 1 for task, head in heads.items()}
        sum(fork.losses(found).values()).backward()  # type: ignore[union-attr]
        with torch.no_grad():
            after = losses(net)
        fork.observe({task: loss.detach() for task, loss in after.items()})
        assert not fork._step.pauses
        with fork.paused():
            fork(net["encoder"](x))

    return step


def remove_fork(net: nn.ModuleDict) -> None:
    fork = net.fork
    assert isinstance(fork, InsertedFork)
    fork.remove()


def insertion(net: nn.ModuleDict) -> Step:
    heads = {task: f"heads.{task}" for task in TASKS}

    def step() -> None:
        if hasattr(net, "fork"):  # the interrupt came after the Fork was complete
            remove_fork(net)
        pt.fork_at(net, "encoder", heads, method=pt.MGDA()).remove()

    return step


CASES: dict[str, Callable[[nn.ModuleDict], Step]] = {
    **{f"search {name}": partial(search_step, make) for name, make in SEARCHES.items()},
    **{f"optimizer {entry.name}": partial(optimizer_step, entry) for entry in OPTIMIZERS},
    "balancer of losses": partial(balancer_step, pt.FAMO()),
    "balancer of a Gramian": partial(balancer_step, pt.UPGrad()),
    "balancer of a Jacobian": partial(balancer_step, pt.GradDrop()),
    "fork": fork_step,
    "insertion": insertion,
}


def state_of(net: nn.ModuleDict) -> list[Any]:
    """Everything that a step changes for a moment only."""
    modules = list(net.modules())
    return [
        [id(module) for module in modules],
        [id(leaf) for leaf in net.parameters()],
        [id(buffer) for buffer in net.buffers()],
        [leaf.requires_grad for leaf in net.parameters()],
        [leaf.dtype for leaf in net.parameters()],
        [module.training for module in modules],
        [len(module._forward_hooks) + len(module._forward_pre_hooks) for module in modules],
        [len(leaf._backward_hooks or ()) for leaf in net.parameters()],
        ["forward" in module.__dict__ for module in modules],
        torch.is_grad_enabled(),
        torch.is_inference_mode_enabled(),
        torch.is_anomaly_enabled(),
        forward_ad._current_level,
        len(torch.overrides._get_current_function_mode_stack()),
    ]


def check_interrupts(case: str, count: int) -> None:
    net = network()
    step = CASES[case](net)
    step()
    lines = interrupted(step, 10**9)
    for line in random.Random(len(case)).sample(range(1, lines + 1), min(count, lines)):
        before = state_of(net)
        interrupted(step, line)
        if case == "insertion" and hasattr(net, "fork"):
            remove_fork(net)
        assert state_of(net) == before, line
        step()
        assert state_of(net) == before, line


@pytest.mark.parametrize("case", CASES)
def test_interrupt_leaves_modes_hooks_and_parameters_as_before(case: str) -> None:
    check_interrupts(case, 6)


@pytest.mark.long
@pytest.mark.parametrize("case", CASES)
def test_many_interrupts_leave_modes_hooks_and_parameters_as_before(case: str) -> None:
    check_interrupts(case, 150)


@pytest.mark.parametrize("name", ["search difference", "optimizer MTAdamV2-equal"])
def test_interrupt_within_set_grad_enabled_restores_grad_mode(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """torch.set_grad_enabled changes the mode before its context is entered."""
    net = network()
    step = CASES[name](net)
    step()

    class Interrupted(torch.set_grad_enabled):
        def __enter__(self) -> None:
            raise KeyboardInterrupt

    class InterruptedNoGrad(torch.no_grad):
        def __exit__(self, *_: Any) -> None:
            raise KeyboardInterrupt

    before = state_of(net)
    with monkeypatch.context() as patch:
        patch.setattr(torch, "set_grad_enabled", Interrupted)
        patch.setattr(torch, "no_grad", InterruptedNoGrad)
        with pytest.raises(KeyboardInterrupt):
            step()
    assert state_of(net) == before
    step()
