"""Line searches in special cases: coupled heads, negative parts of a slope, exceptions, replaced buffers."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import paretorch as pt
from line_searches import DISPLACEMENTS
from paretorch.core.arrays import Array
from paretorch.linesearch import LBFGS, Rules
from paretorch.linesearch.contract import SearchOutcome, Slopes, StepLine
from paretorch.linesearch.search import LineSearch

F64 = torch.float64
Make = Callable[..., LineSearch]
EVERY: dict[str, tuple[Make, dict[str, Any]]] = {"classical": (pt.Backtracking, {})} | {
    name: (pt.FastBacktracking, {"displacement": name}) for name in DISPLACEMENTS
}


def linear_heads(seed: int = 0, tasks: int = 3) -> tuple[nn.Module, dict[str, nn.Module], Tensor, Tensor]:
    torch.manual_seed(seed)
    encoder = nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 6), nn.Tanh())
    heads: dict[str, nn.Module] = {str(task): nn.Linear(6, 1) for task in range(tasks)}
    for module in (encoder, *heads.values()):
        module.double()
    return encoder, heads, torch.randn(40, 5, dtype=F64), torch.randn(40, tasks, dtype=F64)


def scaled_head_losses(
    heads: dict[str, nn.Module], y: Tensor, scales: tuple[float, ...]
) -> Callable[[Any], dict[str, Tensor]]:
    return lambda z: {
        task: scale * (head(z)[:, 0] - y[:, int(task)]).square().mean()
        for (task, head), scale in zip(heads.items(), scales, strict=True)
    }


# --- slopes of which a part is below zero ---


@pytest.mark.parametrize("accept", ["both", "heads", "features"])
def test_required_decrease_is_between_zero_and_the_slope(accept: str) -> None:
    slopes = Slopes(np.array([2.0, -1.0, 3.0, 1.0]), np.array([1.0, 2.0, -1.0, 0.0]))
    required = slopes.required_decrease(accept)
    assert (required >= 0).all()
    assert (required <= slopes.total).all()


@pytest.mark.parametrize("memory", ["monotone", "nonmonotone", "smoothed"])
def test_search_of_increasing_losses_ends_with_shorter_and_shorter_trials(memory: Any) -> None:
    """Losses that increase at every step: each refused step is followed by a shorter one."""
    required, total = np.array([0.0, 0.4, 1.0]), np.array([0.5, 0.4, 1.0])
    rules = Rules(beta=0.3, memory=memory)
    tried = []

    def at(step: float) -> Array:
        tried.append(step)
        return 1.0 + step * np.array([3.0, 1.0, 0.5])

    line = StepLine(("a", "b", "c"), (0, 1, 2), np.ones(3), total, required, at)
    found, _ = rules.search(line, rules.init(3), 1.0)
    assert found.outcome in (SearchOutcome.REJECTED, SearchOutcome.NOISE)
    assert all(later < earlier for earlier, later in itertools.pairwise(tried))


@pytest.mark.parametrize("displacement", ["linearised", "difference"])
@pytest.mark.parametrize("accept", ["heads", "features"])
def test_accepted_step_predicts_no_increase_for_any_required_part(displacement: Any, accept: Any) -> None:
    for seed in range(12):
        encoder, heads, x, y = linear_heads(seed)
        momentum = torch.optim.SGD(
            [*encoder.parameters(), *(p for h in heads.values() for p in h.parameters())], lr=1.0, momentum=0.9
        )
        search = pt.FastBacktracking(
            encoder, heads, pt.PCGrad(), 1.0, displacement=displacement, accept=accept, direction=momentum, samples=None
        )
        for _ in range(8):
            step = search.step(x, scaled_head_losses(heads, y, (1.0, 3.0, 0.3)))
            assert all(step.predicted[task] <= float(loss) for task, loss in step.losses.items() if step.accepted)


# --- coupled heads ---


@pytest.mark.parametrize("seed", range(4))
def test_metric_that_couples_heads_is_never_stationary(seed: int) -> None:
    """The matrix of L-BFGS couples heads: each along its own gradient, they can increase each other's loss."""
    encoder, heads, x, y = linear_heads(seed)
    search = pt.Backtracking(encoder, heads, pt.MGDA(), direction=LBFGS())
    outcomes = [search.step(x, scaled_head_losses(heads, y, (1.0, 10.0, 0.1))).outcome for _ in range(12)]
    assert SearchOutcome.STATIONARY not in outcomes


class Shared(nn.Module):
    """Heads with a shared layer."""

    def __init__(self) -> None:
        super().__init__()
        self.common = nn.Linear(6, 4)
        self.ends = nn.ModuleList(nn.Linear(4, 1) for _ in range(2))
        self.double()

    def losses(self, z: Tensor, y: Tensor) -> dict[str, Tensor]:
        hidden = self.common(z).tanh()
        return {
            str(i): (100.0, 1.0)[i] * (end(hidden)[:, 0] - y[:, i]).square().mean() for i, end in enumerate(self.ends)
        }


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("seed", range(3))
def test_shared_layer_of_heads_is_never_stationary(name: str, seed: int) -> None:
    make, options = EVERY[name]
    encoder, _, x, y = linear_heads(seed, tasks=2)
    heads = Shared()
    search = make(encoder, heads, pt.MGDA(), **options)
    outcomes = [search.step(x, lambda z: heads.losses(z, y)).outcome for _ in range(40)]
    assert SearchOutcome.STATIONARY not in outcomes


# --- exceptions ---


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
@pytest.mark.parametrize("call", [2, 3])
def test_exception_in_a_trial_restores_the_parameters(name: str, error: type[BaseException], call: int) -> None:
    make, options = EVERY[name]
    encoder, heads, x, y = linear_heads()
    modules = nn.ModuleList([encoder, *heads.values()])
    before = copy.deepcopy(modules.state_dict())
    inner, calls = scaled_head_losses(heads, y, (1.0, 1.0, 1.0)), 0

    def failing(z: Any) -> dict[str, Tensor]:
        nonlocal calls
        calls += 1
        if calls == call:
            raise error("stop")
        return inner(z)

    with pytest.raises(error, match="stop"):
        make(encoder, heads, pt.MGDA(), **options).step(x, failing)
    assert all(torch.equal(value, before[key]) for key, value in modules.state_dict().items())


@pytest.mark.parametrize("name", EVERY)
def test_impossible_polyak_start_restores_the_parameters(name: str) -> None:
    make, options = EVERY[name]
    encoder, heads, x, y = linear_heads()
    modules = nn.ModuleList([encoder, *heads.values()])
    before, inner = copy.deepcopy(modules.state_dict()), scaled_head_losses(heads, y, (1.0, 1.0, 1.0))
    with pytest.raises(ValueError, match="give a smaller lowest="):
        make(encoder, heads, pt.MGDA(), start="polyak", **options).step(
            x, lambda z: {task: loss - 100 for task, loss in inner(z).items()}
        )
    assert all(torch.equal(value, before[key]) for key, value in modules.state_dict().items())


# --- buffers that are replaced ---


class Counting(nn.Module):
    """Subtracts a running mean that it updates by assignment or in place, in training mode and out of it."""

    mean: Tensor
    calls: Tensor
    last: Tensor | None

    def __init__(self, in_place: bool) -> None:
        super().__init__()
        self.in_place = in_place
        self.register_buffer("mean", torch.zeros(5, dtype=F64))
        self.register_buffer("calls", torch.zeros((), dtype=F64))
        self.register_buffer("last", None)

    def forward(self, x: Tensor) -> Tensor:
        if self.in_place:
            self.mean.mul_(0.9).add_(x.detach().mean(0), alpha=0.1)
            self.calls += 1
        else:
            self.mean = 0.9 * self.mean + 0.1 * x.detach().mean(0)
            self.calls = self.calls + 1
        self.last = x.detach()[0].clone()
        return x - self.mean


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("training", [True, False])
def test_assigned_buffers_are_those_of_the_first_forward(name: str, training: bool) -> None:
    make, options = EVERY[name]
    found = []
    for in_place in (True, False):
        encoder, heads, x, y = linear_heads()
        counting = Counting(in_place)
        whole = nn.Sequential(counting, encoder).train(training)
        search = make(whole, heads, pt.MGDA(), **options)
        steps = [search.step(x, scaled_head_losses(heads, y, (1.0, 1.0, 1.0))) for _ in range(3)]
        assert float(counting.calls) == 3
        assert all(step.accepted for step in steps)
        found.append(([step.step for step in steps], counting.mean.clone()))
    assert found[0][0] == found[1][0]
    assert torch.allclose(found[0][1], found[1][1], rtol=1e-12)


# --- resuming ---


class Centred(nn.Module):
    """Every sample's features depend on the whole batch."""

    def forward(self, x: Tensor) -> Tensor:
        return x - x.mean(0)


def test_search_with_dependent_samples_resumes_bit_identically() -> None:
    def made() -> tuple[LineSearch, Callable[[Any], dict[str, Tensor]], Tensor, nn.ModuleList]:
        encoder, heads, _, _ = linear_heads()
        x, y = torch.randn(128, 5, dtype=F64), torch.randn(128, 3, dtype=F64)
        search = pt.FastBacktracking(nn.Sequential(encoder, Centred()), heads, pt.MGDA())
        return search, scaled_head_losses(heads, y, (1.0, 1.0, 1.0)), x, nn.ModuleList([encoder, *heads.values()])

    search, losses_of, x, modules = made()
    for _ in range(3):
        search.step(x, losses_of)
    other, others_losses, _, copies = made()
    copies.load_state_dict(modules.state_dict())
    other.load_state_dict(search.state_dict())
    for _ in range(3):
        assert other.step(x, others_losses).step == search.step(x, losses_of).step
