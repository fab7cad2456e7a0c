"""Random networks with every displacement and method: resolvable steps, progress, no increased loss."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import paretorch as pt
from paretorch.linesearch import LineSearch
from paretorch.linesearch.armijo.bound_search import largest_step
from paretorch.linesearch.armijo.rules import Rules
from paretorch.linesearch.contract import SearchOutcome, StepLine
from paretorch.linesearch.parameter_line import ParameterLine, smallest_step

NAMES = ("classical", "gradient", "linearised", "difference", "calibrated")
METHODS = (pt.MGDA(), pt.UPGrad(), pt.Equal(), pt.PCGrad())
STEPS = 6
PATIENCE = 40  # steps until there must be progress: a bound that was found begins with caution, doubled every ten steps
SEED = 7  # of the rounding by which inputs are perturbed

Losses = Callable[[Tensor], dict[str, Tensor]]


def random_network(seed: int, perturbed: int = 0) -> tuple[nn.Module, nn.ModuleDict, Tensor, Losses]:
    """A random network with its batch: tasks, sizes, activations, normalisation, dropout, units and dtype are drawn."""
    generator = torch.Generator().manual_seed(seed)

    def draw(low: int, high: int) -> int:
        return int(torch.randint(low, high, (), generator=generator))

    torch.manual_seed(seed)
    tasks, width, features, batch, inputs, depth = (
        draw(2, 6),
        draw(4, 33),
        draw(3, 17),
        draw(8, 129),
        draw(2, 9),
        draw(1, 4),
    )
    activation: type[nn.Module] = (nn.Tanh, nn.ReLU, nn.SiLU)[draw(0, 3)]
    dtype = (torch.float64, torch.float32)[draw(0, 2)]
    layers: list[nn.Module] = []
    size = inputs
    for layer in range(depth):
        wide = features if layer + 1 == depth else width
        norm = [nn.BatchNorm1d(wide)] if draw(0, 4) == 0 else []
        layers += [nn.Linear(size, wide), *norm, activation()]
        size = wide
    if draw(0, 8) == 0:
        layers.append(nn.Dropout(0.2))
    encoder = nn.Sequential(*layers).to(dtype)
    heads = nn.ModuleDict({str(task): nn.Linear(features, 1) for task in range(tasks)}).to(dtype)
    units = 10.0 ** (2 * torch.rand(tasks, generator=generator) - 1) if draw(0, 2) else torch.ones(tasks)
    x = torch.randn(batch, inputs, generator=generator)
    learnable = torch.tanh(x @ torch.randn(inputs, tasks, generator=generator))
    y = (learnable if draw(0, 2) else torch.randn(batch, tasks, generator=generator)) * units
    x, y = x.to(dtype), y.to(dtype)
    if perturbed:
        noise = torch.Generator().manual_seed(SEED + perturbed)
        sign = torch.randint(-1, 2, x.shape, generator=noise).to(dtype)
        x = x * (1 + sign * torch.finfo(dtype).eps)
    return encoder, heads, x, lambda z: {t: (h(z)[:, 0] - y[:, int(t)]).square().mean() for t, h in heads.items()}


def true_losses(encoder: nn.Module, heads: nn.ModuleDict, x: Tensor, losses: Losses) -> np.ndarray[Any, Any]:
    """(T,) by a whole forward with the masks of every step, which leaves running statistics as they are."""
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    torch.manual_seed(99)
    with torch.no_grad():
        found = [float(loss) for loss in losses(encoder(x)).values()]
        encoder.load_state_dict(before)
    return np.array(found)


def descent(seed: int) -> float:
    """Relative decrease of the sum of the losses by as many steps of gradient descent, at the best of four rates."""
    best = 0.0
    for rate in (0.1, 0.01, 0.001, 1e-4):
        encoder, heads, x, losses = random_network(seed)
        leaves = [*encoder.parameters(), *heads.parameters()]
        first = true_losses(encoder, heads, x, losses).sum()
        for _ in range(STEPS):
            torch.manual_seed(99)
            found = torch.autograd.grad(torch.stack(list(losses(encoder(x)).values())).sum(), leaves)
            with torch.no_grad():
                for leaf, gradient in zip(leaves, found, strict=True):
                    leaf.sub_(gradient, alpha=rate)
        part = 1 - true_losses(encoder, heads, x, losses).sum() / first
        best = max(best, float(part) if np.isfinite(part) else 0.0)
    return best


def faults(seed: int, name: str, method: pt.Method[Any], possible: float, perturbed: int = 0) -> list[str]:
    """Descriptions of the faults of a search in some steps."""
    encoder, heads, x, losses = random_network(seed, perturbed)
    search: LineSearch = (
        pt.Backtracking(encoder, heads, method)
        if name == "classical"
        else pt.FastBacktracking(encoder, heads, method, displacement=name)
    )
    first, found = true_losses(encoder, heads, x, losses), []
    rounding, last, progress = torch.finfo(x.dtype).eps, first, 0.0
    for number in range(PATIENCE):
        if number >= STEPS and (possible <= 1e-2 or progress > 5e-4):
            break
        parameters = torch.cat([p.detach().flatten() for p in (*encoder.parameters(), *heads.parameters())])
        torch.manual_seed(99)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            step = search.step(x, losses)
        last = true_losses(encoder, heads, x, losses)
        progress = 1 - last.sum() / first.sum()
        if not step.accepted:
            continue
        after = torch.cat([p.detach().flatten() for p in (*encoder.parameters(), *heads.parameters())])
        shown = [step.step * step.slopes[task] / float(loss) for task, loss in step.losses.items()]
        if max(shown) <= 2 * rounding or torch.equal(parameters, after):
            found.append(f"a step of {step.step:.1g} below resolution was accepted")
    if possible > 1e-2 and not progress > 5e-4:
        found.append(f"a part {progress:.1g} of the sum, where gradient descent takes {possible:.1g}")
    if (last > first * (1 + 4 * rounding)).any():
        found.append(f"a task ends at {(last / first).max():.3g} of its loss")
    return [f"network {seed}, {name}, {method}: {fault}" for fault in found]


@pytest.mark.parametrize("seed", [8, 10, 24, 44, 60])
@pytest.mark.sampled(2)
def test_search_makes_progress_in_resolvable_steps(seed: int) -> None:
    """Among them are networks whose published displacement increases a loss, so that no bound is small enough."""
    possible = descent(seed)
    assert [fault for name in NAMES for method in METHODS for fault in faults(seed, name, method, possible)] == []


@pytest.mark.parametrize("perturbed", [1, 2, 3])
@pytest.mark.parametrize("seed", [8, 44])
def test_search_makes_progress_for_rounded_inputs(seed: int, perturbed: int) -> None:
    possible = descent(seed)
    assert [fault for method in METHODS for fault in faults(seed, "gradient", method, possible, perturbed)] == []


@pytest.mark.long
@pytest.mark.parametrize("block", range(10))
def test_search_makes_progress_on_two_hundred_networks(block: int) -> None:
    found = []
    for seed in range(20 * block, 20 * block + 20):
        possible = descent(seed)
        found += [fault for name in NAMES for method in METHODS for fault in faults(seed, name, method, possible)]
    assert found == []


@pytest.mark.long
@pytest.mark.parametrize("block", range(4))
def test_calibrated_displacement_increases_no_loss_in_320_short_runs(block: int) -> None:
    seeds = range(1000 + 20 * block, 1020 + 20 * block)
    assert [fault for seed in seeds for method in METHODS for fault in faults(seed, "calibrated", method, 0.0)] == []


# --- steps that are too short ---


def test_bound_is_found_only_among_resolvable_steps() -> None:
    """Losses that increase, and round to their first value below a step of 1e-16, where they fulfil any condition."""
    tried = []

    def at(step: float) -> np.ndarray[Any, Any]:
        tried.append(step)
        return np.array([1.0 + step])

    one = np.ones(1)
    found = largest_step(Rules(), StepLine(("a",), (0,), one, one, one, at))
    assert found.outcome is SearchOutcome.REJECTED
    assert min(tried) > 2e-16


def test_constant_losses_are_noise() -> None:
    for trial in ("backtracking", "parabolic", "golden"):
        rules = Rules(trial=trial)
        one = np.ones(1)
        found, _ = rules.search(StepLine(("a",), (0,), one, one, one, lambda step: np.ones(1)), rules.init(1), 1e-17)
        assert found.outcome is SearchOutcome.NOISE
        assert found.step == 0


def test_step_that_rounds_to_no_change_is_noise() -> None:
    class Far(nn.Module):
        """A point so far from zero that a step along its gradient rounds to no change."""

        def __init__(self) -> None:
            super().__init__()
            self.at = nn.Parameter(torch.full((3,), 1e12))

        def forward(self, x: Tensor) -> Tensor:
            return (self.at - 1e12) + x

    encoder = Far()
    search = pt.FastBacktracking(encoder, {}, pt.MGDA(), 1.0, displacement="gradient")
    step = search.step(torch.ones(3), lambda z: {"a": z.square().sum(), "b": 2 * z.square().sum()})
    assert step.outcome is SearchOutcome.NOISE
    assert "no parameter moves" in step.reason
    assert torch.equal(encoder.at.detach(), torch.full((3,), 1e12))
    moving = ParameterLine([torch.full((3,), 4.0)], [torch.ones(3)])
    assert smallest_step([moving]) == pytest.approx(4 * torch.finfo(torch.float32).eps / 2, rel=1e-6)
