"""Inf and nan in losses, features, gradients, parameters and inputs of a step of every multi-task optimizer and line search."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import paretorch as pt
from broken_numbers import KINDS, SHARED_KINDS, TASKS, BrokenNet
from line_searches import SEARCHES
from optimizers import OPTIMIZERS, OptimizerEntry
from paretorch.linesearch import LineSearch
from tensors import equal_tensors

METHODS = [pt.MGDA(), pt.FAMO(), pt.Uncertainty(), pt.GradNorm()]
STEP = 2  # the step in which numbers are broken


def tensors_in(state: Any) -> list[Tensor]:
    """All tensors in a nested state, and numbers as tensors, in order."""
    if isinstance(state, Tensor):
        return [state.detach().clone()]
    if isinstance(state, Mapping):
        return [tensor for value in state.values() for tensor in tensors_in(value)]
    if isinstance(state, list | tuple):
        return [tensor for value in state for tensor in tensors_in(value)]
    return [torch.tensor(float(state), dtype=torch.float64)] if isinstance(state, int | float) else []


def unchanged(one: list[Tensor], other: list[Tensor]) -> bool:
    return equal_tensors([each.nan_to_num(nan=-7.5) for each in one], [each.nan_to_num(nan=-7.5) for each in other])


def check_refused(net: BrokenNet, state: Callable[[], Any], step: Callable[[], object], kind: str) -> None:
    """The step with broken numbers names the task and changes nothing; the next one works."""
    for _ in range(STEP):
        step()
    generator = torch.Generator().manual_seed(len(kind))
    for value in (math.nan,) if kind == "encoder" else (math.nan, math.inf):  # tanh(inf) is finite
        values, before = net.values(), tensors_in(copy.deepcopy(state()))
        task = TASKS[int(torch.randint(2, (), generator=generator))]
        named = "'0'|'1'" if kind in SHARED_KINDS else f"'{task}'"
        net.breaks(kind, value, task)
        with pytest.raises(FloatingPointError, match=named):
            step()
        net.breaks(None)
        assert equal_tensors(net.values(), values), (kind, value)
        assert all(leaf.grad is None for leaf in net.parameters())
        assert unchanged(tensors_in(state()), before), (kind, value)
        step()
        assert not equal_tensors(net.values(), values)
        assert all(bool(each.isfinite().all()) for each in net.values())


@pytest.mark.parametrize("kind", [*KINDS, *SHARED_KINDS])
@pytest.mark.parametrize("entry", OPTIMIZERS, ids=lambda entry: entry.name)
def test_optimizer_refuses_a_step_that_is_not_finite(entry: OptimizerEntry, kind: str) -> None:
    net = BrokenNet()
    optimizer = entry(net.parameters(), lr=1e-2, tasks=TASKS)

    def state() -> Any:
        return {leaf: optimizer.state.get(leaf, {}) for leaf in net.parameters()}

    check_refused(net, state, lambda: optimizer.step(net(net.batch())), kind)


def search_of(name: str, net: BrokenNet, method: pt.Method[Any]) -> LineSearch:
    return SEARCHES[name](net.encoder, net.heads, method, max_step=0.05)


@pytest.mark.parametrize("kind", [*KINDS, *SHARED_KINDS])
@pytest.mark.parametrize("method", METHODS, ids=lambda method: type(method).__name__)
@pytest.mark.parametrize("name", SEARCHES)
@pytest.mark.sampled(3)
def test_search_refuses_a_step_that_is_not_finite(name: str, method: pt.Method[Any], kind: str) -> None:
    if method.observes:
        pytest.skip("a line search takes no method that uses the losses after the step")
    net = BrokenNet()
    search = search_of(name, net, method)

    def step() -> object:
        return search.step(net.batch(), net.of_features)

    check_refused(net, search.state_dict, step, kind)


@pytest.mark.parametrize("name", SEARCHES)
def test_search_that_refuses_a_batch_restores_running_statistics(name: str) -> None:
    net = BrokenNet()
    net.encoder = nn.Sequential(net.encoder, nn.BatchNorm1d(3).double())
    search = search_of(name, net, pt.MGDA())

    def step() -> object:
        return search.step(net.batch(), net.of_features)

    step()
    before = [buffer.clone() for buffer in net.buffers()]
    net.breaks("input", math.nan)
    with pytest.raises(FloatingPointError):
        step()
    assert equal_tensors(net.buffers(), before)
    net.breaks(None)
    step()
    assert not equal_tensors(net.buffers(), before)
    assert all(bool(buffer.isfinite().all()) for buffer in net.buffers())


@pytest.mark.parametrize("name", SEARCHES)
def test_search_does_not_accept_a_trial_that_is_not_finite(name: str) -> None:
    """Losses that are finite at the parameters and not at most trials: the accepted step is finite and decreases them."""
    torch.manual_seed(0)
    encoder = nn.Linear(3, 4).double()
    heads = nn.ModuleDict({task: nn.Linear(4, 1).double() for task in TASKS})
    search = SEARCHES[name](encoder, heads, pt.MGDA(), max_step=1e3)
    x = torch.randn(8, 3, dtype=torch.float64)

    def losses(z: Tensor) -> dict[str, Tensor]:
        squares = {task: head(z).square().mean() for task, head in heads.items()}
        # log of a number that is negative far from the start
        return {task: -(4 - square).log() for task, square in squares.items()}

    for _ in range(5):
        before = [float(loss.detach()) for loss in losses(encoder(x)).values()]
        step = search.step(x, losses)
        after = [float(loss.detach()) for loss in losses(encoder(x)).values()]
        assert all(map(math.isfinite, after))
        if step.accepted and name == "classical":
            assert all(new <= old for new, old in zip(after, before, strict=True))
