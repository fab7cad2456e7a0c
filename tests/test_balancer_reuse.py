"""Steps of a Balancer that reuse the weights of an earlier one: one backward, for any encoder and number of tasks."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile
from torch.utils.checkpoint import checkpoint

import paretorch as pt
from broken_numbers import with_broken_gradient
from small_models import head_losses
from tensors import equal_tensors

WIDTH, BATCH = 8, 6


def transformer() -> nn.Module:
    layer = nn.TransformerEncoderLayer(WIDTH, 2, 16, dropout=0.0, batch_first=True)
    return nn.Sequential(nn.Unflatten(1, (3, WIDTH)), layer, nn.Flatten(), nn.Linear(3 * WIDTH, WIDTH))


def convolutions() -> nn.Module:
    return nn.Sequential(
        nn.Unflatten(1, (2, 3, 4)), nn.Conv2d(2, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(),
        nn.Conv2d(6, 4, 3, padding=1), nn.Flatten(), nn.Linear(48, WIDTH),
    )  # fmt: skip


class Checkpointed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = transformer()

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = checkpoint(self.inner, x, use_reentrant=False)
        return found


class Hooked(nn.Module):
    """A hook that depends on the gradient's sign: the gradient of a sum is not the sum of gradients."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(3 * WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        z: Tensor = self.first(x)
        if z.requires_grad:
            z.register_hook(lambda gradient: gradient.clamp(min=0))
        found: Tensor = self.second(z.tanh())
        return found


ENCODERS: dict[str, Callable[[], nn.Module]] = {
    "mlp": lambda: nn.Sequential(nn.Linear(3 * WIDTH, 16), nn.Tanh(), nn.Linear(16, WIDTH)),
    "transformer": transformer,
    "convolutions": convolutions,
    "checkpoint": Checkpointed,
    "hook": Hooked,
}


def made(kind: str, tasks: int) -> tuple[nn.Module, nn.ModuleDict, Tensor]:
    torch.manual_seed(tasks)
    encoder = ENCODERS[kind]().double()
    heads = nn.ModuleDict({f"t{task}": nn.Linear(WIDTH, 2) for task in range(tasks)}).double()
    return encoder, heads, torch.randn(BATCH, 3 * WIDTH, dtype=torch.float64)


@pytest.mark.parametrize("tasks", [2, 5])
@pytest.mark.parametrize("kind", ENCODERS)
def test_reused_weights_give_the_gradient_of_every_task_times_its_weight(kind: str, tasks: int) -> None:
    encoder, heads, x = made(kind, tasks)
    balancer = pt.Balancer(pt.IMTLG(), every=3)
    weights = []
    for step in range(5):
        encoder.zero_grad()
        heads.zero_grad()
        own = copy.deepcopy(encoder)  # batch norm counts steps
        losses = head_losses(heads, own(x * (step + 1)))
        shared = list(own.parameters())
        rows = [torch.autograd.grad(loss, shared, retain_graph=True) for loss in losses.values()]
        plain = torch.autograd.grad([*losses.values()], list(heads.parameters()))
        balance = balancer.backward(head_losses(heads, encoder(x * (step + 1))))
        assert balance.weights is not None
        weights.append(balance.weights)
        for place, leaf in enumerate(encoder.parameters()):
            expected = sum(weight * row[place] for weight, row in zip(balance.weights, rows, strict=True))
            torch.testing.assert_close(leaf.grad, expected, rtol=1e-10, atol=1e-12)
        torch.testing.assert_close([leaf.grad for leaf in heads.parameters()], list(plain), rtol=1e-10, atol=1e-12)
    assert torch.equal(weights[0], weights[1])
    assert torch.equal(weights[0], weights[2])
    assert not torch.equal(weights[0], weights[3])
    assert torch.equal(weights[3], weights[4])


def backwards(step: Callable[[], object]) -> Counter[str]:
    """How often each kind of node ran in the backward."""
    with profile(activities=[ProfilerActivity.CPU]) as found:
        step()
    return Counter({event.key: event.count for event in found.key_averages()})


@pytest.mark.parametrize("tasks", [2, 5])
@pytest.mark.parametrize("kind", ["mlp", "transformer", "convolutions"])
def test_step_with_reused_weights_takes_one_backward(kind: str, tasks: int) -> None:
    encoder, heads, x = made(kind, tasks)
    balancer = pt.Balancer(pt.MGDA(), every=3)

    def balanced() -> None:
        balancer.backward(head_losses(heads, encoder(x)))

    def plain() -> None:
        torch.stack([*head_losses(heads, encoder(x)).values()]).sum().backward()

    once = backwards(plain)
    first, *others = (backwards(balanced) for _ in range(3))
    layer = "ConvolutionBackward0" if kind == "convolutions" else "AddmmBackward0"
    assert first[layer] > once[layer] > 0
    for counts in others:
        assert counts[layer] == once[layer]


@pytest.mark.parametrize("python", [False, True])
@pytest.mark.parametrize("kind", ["mlp", "transformer", "convolutions"])
def test_reused_weights_are_not_applied_to_gradients_that_are_not_finite(kind: str, python: bool) -> None:
    """The gradient breaks within the encoder, where the features' gradients do not show it."""
    encoder, heads, x = made(kind, 3)
    balancer = pt.Balancer(pt.MGDA(), every=4)
    balancer.backward(head_losses(heads, encoder(x)))
    encoder.zero_grad()
    heads.zero_grad()
    before = {name: value.clone() for name, value in balancer.state_dict().items()}
    layers = list(encoder.children())
    middle = nn.Sequential(*layers[:2])(x)
    if python:
        middle = with_broken_gradient(middle, float("inf"))
    else:
        root = (0 * middle).sqrt()  # its derivative at zero is infinite
        middle = middle + root - root.detach()
    with pytest.raises(FloatingPointError, match="'t0', 't1', 't2'"):
        balancer.backward(head_losses(heads, nn.Sequential(*layers[2:])(middle)))
    assert all(leaf.grad is None for leaf in [*encoder.parameters(), *heads.parameters()])
    after = balancer.state_dict()
    assert equal_tensors([each.nan_to_num() for each in before.values()], [after[name].nan_to_num() for name in before])
    balancer.backward(head_losses(heads, encoder(x)))
    assert all(leaf.grad is not None and bool(leaf.grad.isfinite().all()) for leaf in encoder.parameters())


@pytest.mark.parametrize("heads", ["own", "weighted"])
@pytest.mark.parametrize("accumulate", [1, 2])
def test_task_apart_from_the_shared_part_is_trained_in_every_step(heads: Any, accumulate: int) -> None:
    """It has no gradient on what is compared, so that its head receives its plain gradient, as in a step with new weights."""
    torch.manual_seed(0)
    encoder, apart, left, right = nn.Linear(4, 8), nn.Linear(4, 1), nn.Linear(8, 1), nn.Linear(8, 1)
    balancer = pt.Balancer(
        pt.IMTLG(), tasks=("left", "right", "apart"), every=3, heads=heads, accumulate=accumulate, shared=encoder
    )
    for _ in range(5):
        apart.zero_grad()
        expected = torch.zeros(1, 4)
        for _ in range(accumulate):
            x = torch.randn(16, 4)
            z, own = encoder(x), (apart(x) - 1).square().mean()
            expected += torch.autograd.grad(own, apart.weight, retain_graph=True)[0]
            losses = {"left": left(z).square().mean(), "right": (right(z) - 3).square().mean(), "apart": own}
            balance = balancer.backward(losses)
        assert apart.weight.grad is not None
        torch.testing.assert_close(apart.weight.grad, expected)
        assert balance.heads is not None
        assert balance.heads[2] == 1
