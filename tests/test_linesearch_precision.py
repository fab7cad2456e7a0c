"""Line searches around autocast and in low precision, and with parameters that are frozen or not by the step."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss

import paretorch as pt
from line_searches import SEARCHES, is_possible
from paretorch.linesearch import LBFGS, Kronecker, Orthogonal
from paretorch.linesearch.search import LineSearch

TASKS = ("a", "b")


DIRECTIONS: dict[str, Callable[[list[nn.Parameter]], Any]] = {
    "gradient": lambda _: None,
    "Adam": lambda leaves: torch.optim.Adam(leaves, lr=1.0),
    "Kronecker": lambda _: Kronecker(),
    "Orthogonal": lambda _: Orthogonal(),
    "LBFGS": lambda _: LBFGS(),
}


def pairs(*directions: str) -> list[tuple[str, str]]:
    """Every search with each of these directions that it has."""
    return [(name, direction) for name in SEARCHES for direction in directions if is_possible(name, direction)]


class Net(nn.Module):
    """An encoder with two heads; under autocast where ``low`` is given."""

    def __init__(self, seed: int, low: torch.dtype | None = None, widened: bool = False) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.low, self.widened = low, widened
        self.layers = nn.Sequential(nn.Linear(8, 32), nn.Tanh(), nn.Linear(32, 32), nn.Tanh())
        self.heads = nn.ModuleDict({task: nn.Linear(32, 1) for task in TASKS})

    def forward(self, x: Tensor) -> Tensor:
        with contextlib.nullcontext() if self.low is None else torch.autocast("cpu", self.low):
            z: Tensor = self.layers(x)
        return z.float() if self.widened else z

    def losses_of(self, x: Tensor) -> Callable[[Tensor], dict[str, Tensor]]:
        targets = {"a": x[:, :3].sum(dim=1, keepdim=True), "b": x[:, 3:].square().mean(dim=1, keepdim=True)}

        def losses(z: Tensor) -> dict[str, Tensor]:
            with contextlib.nullcontext() if self.low is None else torch.autocast("cpu", self.low):
                return {task: mse_loss(head(z).float(), targets[task]) for task, head in self.heads.items()}

        return losses

    def decrease(self, search: LineSearch, steps: int, around: Callable[[], Any] = contextlib.nullcontext) -> float:
        """The least decrease of a task's loss over some steps, each on a batch of its own, relative to the loss."""
        x = torch.randn(256, 8, generator=torch.Generator().manual_seed(1))
        with torch.no_grad():
            before = self.losses_of(x)(self(x))
        for number in range(steps):
            batch = torch.randn(64, 8, generator=torch.Generator().manual_seed(10 + number))
            with around():
                search.step(batch, self.losses_of(batch))
        with torch.no_grad():
            after = self.losses_of(x)(self(x))
        return min(float((before[task] - after[task]) / before[task]) for task in TASKS)


def search_of(net: Net, name: str, method: pt.Method[Any], direction: Any = None) -> LineSearch:
    """A search on a network, whose heads are then no part of its encoder."""
    heads = net._modules.pop("heads")
    net.__dict__["heads"] = heads
    return SEARCHES[name](net, heads, method, direction=direction)


@pytest.mark.parametrize(("name", "direction"), pairs("gradient", "Kronecker", "Orthogonal"))
def test_autocast_around_the_step_equals_autocast_in_the_model(name: str, direction: str) -> None:
    outcomes = []
    for low, around in (
        (torch.bfloat16, contextlib.nullcontext),
        (None, lambda: torch.autocast("cpu", torch.bfloat16)),
    ):
        net = Net(0, low)
        search = search_of(net, name, pt.MGDA(), DIRECTIONS[direction]([]))
        found = []
        for number in range(6):
            x = torch.randn(64, 8, generator=torch.Generator().manual_seed(number))
            with around():
                search.step(x, net.losses_of(x))
            assert search.last is not None
            found.append((search.last.outcome, search.last.step))
        outcomes.append((found, net.layers.state_dict(), net.heads.state_dict()))
    (inside, *states), (outside, *others) = outcomes
    assert inside == outside
    for state, other in zip(states, others, strict=True):
        torch.testing.assert_close(state, other, rtol=0, atol=0)
    assert all(outcome.value == "accepted" for outcome, _ in inside)


@pytest.mark.parametrize("widened", [False, True])
@pytest.mark.parametrize("method", [pt.IMTLG(), pt.UPGrad(), pt.Equal()], ids=repr)
@pytest.mark.parametrize("name", ["difference", "calibrated", "linearised"])
def test_search_on_features_in_bfloat16_trains_as_in_float32(name: str, method: pt.Method[Any], widened: bool) -> None:
    decreases = []
    for low in (None, torch.bfloat16):
        net = Net(3, low, widened)
        decreases.append(net.decrease(search_of(net, name, method, Kronecker()), 12))
    full, low_precision = decreases
    assert full > 0.2
    assert low_precision > full / 2


class Rounded(torch.autograd.Function):
    """Features in bfloat16 by a function without a forward-mode derivative or a second backward."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        del ctx
        return x.bfloat16()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        del ctx
        return grad.float()


def test_search_on_coarse_features_without_second_derivatives_uses_the_secant() -> None:
    class Encoder(nn.Sequential):
        def forward(self, x: Tensor) -> Tensor:
            found: Tensor = Rounded.apply(super().forward(x))  # type: ignore[no-untyped-call]
            return found

    torch.manual_seed(0)
    encoder, heads = Encoder(nn.Linear(8, 16), nn.Tanh()), nn.ModuleDict({task: nn.Linear(16, 1) for task in TASKS})
    search = pt.FastBacktracking(encoder, heads, pt.MGDA())
    x = torch.randn(64, 8)

    def losses_of(z: Tensor) -> dict[str, Tensor]:
        return {
            task: mse_loss(head(z.float()), x[:, place : place + 1]) for place, (task, head) in enumerate(heads.items())
        }

    with torch.no_grad():
        before = losses_of(encoder(x))
    for _ in range(5):
        search.step(x, losses_of)
    with torch.no_grad():
        after = losses_of(encoder(x))
    assert all(after[task] < 0.9 * before[task] for task in TASKS)


# --- parameters that are frozen or not by the step -----------------------------------------------------------------------


@pytest.mark.parametrize(("name", "direction"), pairs("gradient", "Adam", "Kronecker", "LBFGS"))
def test_search_moves_the_parameters_that_require_grad_in_the_step(name: str, direction: str) -> None:
    net = Net(0)
    leaves, heads = [*net.parameters()], net.heads
    first, _, last, _ = net.layers
    first.requires_grad_(False)
    heads["b"].requires_grad_(False)
    search = search_of(net, name, pt.MGDA(), DIRECTIONS[direction](leaves))

    def moved(*frozen: nn.Module) -> None:
        before = [leaf.detach().clone() for leaf in leaves]
        assert net.decrease(search, 3) > 0
        still = {id(leaf) for module in frozen for leaf in module.parameters()}
        for leaf, value in zip(leaves, before, strict=True):
            assert torch.equal(leaf, value) == (id(leaf) in still)

    moved(first, heads["b"])
    for module in (net, heads):
        module.requires_grad_(True)
    moved()
    last.requires_grad_(False)
    moved(last)
    net.requires_grad_(False)
    with pytest.raises(ValueError, match="the encoder has no parameter that requires grad"):
        net.decrease(search, 1)


@pytest.mark.parametrize("name", SEARCHES)
def test_step_that_fails_after_a_change_of_the_frozen_parameters_is_undone(name: str) -> None:
    found = []
    for fails in (False, True):
        net = Net(0)
        first, *_ = net.layers
        first.requires_grad_(False)
        search = search_of(net, name, pt.MGDA(), None if name == "gradient" else Kronecker())
        net.decrease(search, 3)
        first.requires_grad_(True)
        if fails:
            with pytest.raises(ZeroDivisionError):
                search.step(torch.randn(64, 8), lambda z: {"a": z / (1 // 0)})
        net.decrease(search, 3)
        found.append(net.layers.state_dict())
    torch.testing.assert_close(found[0], found[1], rtol=0, atol=0)


def test_loss_that_reaches_an_encoder_part_that_was_frozen_is_found_when_it_is_trained() -> None:
    net = Net(0)
    first = net.layers[0]
    assert isinstance(first, nn.Linear)
    first.requires_grad_(False)
    search = search_of(net, "difference", pt.MGDA())
    x = torch.randn(64, 8)

    def losses_of(z: Tensor) -> dict[str, Tensor]:
        losses = net.losses_of(x)(z)
        return {**losses, "a": losses["a"] + first.weight.square().sum()}

    search.step(x, losses_of)
    first.requires_grad_(True)
    with pytest.raises(ValueError, match="reaches the encoder past the features"):
        search.step(x, losses_of)
