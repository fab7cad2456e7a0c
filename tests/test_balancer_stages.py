"""The Balancer computes the gradients of deep graphs stage by stage: equal gradients, in less memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations
from torch.utils.checkpoint import checkpoint

import paretorch as pt
from paretorch.core.gradients.graph import task_graph
from paretorch.core.gradients.stages import backward_stages

TASKS = ("a", "b", "c", "d")


class Block(nn.Module):
    """A residual block; ``inner`` may be shared with another one."""

    def __init__(self, width: int, inner: nn.Module | None = None) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.inner = inner or nn.Sequential(nn.Linear(width, 3 * width), nn.Tanh(), nn.Linear(3 * width, width))

    def forward(self, inputs: Tensor) -> Tensor:
        output: Tensor = inputs + self.inner(self.norm(inputs))
        return output


class Deep(nn.Module):
    """Residual blocks of which the second and the fourth share their weights, and a head for each task."""

    def __init__(
        self, wrap: Callable[[nn.Module, Tensor], Tensor] = lambda block, x: block(x), width: int = 48
    ) -> None:
        super().__init__()
        blocks = [Block(width) for _ in range(8)]
        blocks[3] = Block(width, blocks[1].inner)
        self.blocks = nn.ModuleList(blocks)
        self.heads = nn.ModuleDict({task: nn.Linear(width, 2) for task in TASKS})
        self.wrap = wrap

    def forward(self, inputs: Tensor) -> dict[str, Tensor]:
        for block in self.blocks:
            inputs = self.wrap(block, inputs)
        return {task: (head(inputs) - 1).square().mean() for task, head in self.heads.items()}


def gradients_of(model: nn.Module, inputs: Tensor, method: pt.Method[Any] | None = None) -> dict[str, Tensor]:
    balancer = pt.Balancer(method or pt.UPGrad())
    model.zero_grad()
    balancer.backward(model(inputs))
    return {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}


def expected(model: Deep, inputs: Tensor) -> dict[str, Tensor]:
    """UPGrad's gradient from the rows of one whole backward for each task."""
    losses = model(inputs)
    shared = {name: each for name, each in model.named_parameters() if not name.startswith("heads")}
    rows = [torch.autograd.grad(loss, list(shared.values()), retain_graph=True) for loss in losses.values()]
    jacobian = torch.stack([torch.cat([part.reshape(-1) for part in row]) for row in rows])
    weights = pt.weights(pt.UPGrad(), gramian=jacobian @ jacobian.T)
    # the Balancer's weights have the sum T
    combined = (len(TASKS) * weights.to(jacobian) @ jacobian).split([each.numel() for each in shared.values()])
    return {name: part.view(each.shape) for (name, each), part in zip(shared.items(), combined, strict=True)}


def count_of_stages(model: nn.Module, inputs: Tensor) -> int:
    losses = model(inputs)
    graph = task_graph([[loss] for loss in losses.values()])
    return len(backward_stages(graph, list(model.parameters()), len(losses)))


def checkpointed(block: nn.Module, inputs: Tensor) -> Tensor:
    output: Tensor = checkpoint(block, inputs, use_reentrant=False)
    return output


def hooked(block: nn.Module, inputs: Tensor) -> Tensor:
    output: Tensor = block(inputs)
    output.register_hook(lambda gradient: 1.5 * gradient)
    return output


@pytest.mark.parametrize(
    "wrap", [lambda block, x: block(x), checkpointed, hooked], ids=["plain", "checkpoint", "hooks"]
)
def test_balancer_stages_equal_whole_backwards(wrap: Callable[[nn.Module, Tensor], Tensor]) -> None:
    torch.manual_seed(3)
    model, inputs = Deep(wrap).double(), torch.randn(60, 48, dtype=torch.float64)
    found, right = gradients_of(model, inputs), expected(model, inputs)
    for name, value in right.items():
        torch.testing.assert_close(found[name], value, rtol=1e-9, atol=1e-12)


def test_balancer_stages_cut_deep_graphs_between_blocks() -> None:
    torch.manual_seed(1)
    assert count_of_stages(Deep(), torch.randn(60, 48)) >= 3
    # the cut of a block with a hook at its output would apply the hook twice
    assert count_of_stages(Deep(hooked), torch.randn(60, 48)) >= 1


def test_balancer_stages_with_computed_weights_and_autocast() -> None:
    torch.manual_seed(5)
    model = Deep()
    for block in list(model.blocks)[4:]:
        assert isinstance(block, Block)
        assert isinstance(block.inner, nn.Sequential)
        parametrizations.weight_norm(block.inner[0])
    model, inputs = model.double(), torch.randn(60, 48, dtype=torch.float64)
    assert count_of_stages(model, inputs) >= 3
    found, right = gradients_of(model, inputs), expected(model, inputs)
    for name, value in right.items():
        torch.testing.assert_close(found[name], value, rtol=1e-9, atol=1e-12)
    lower = Deep()
    with torch.autocast("cpu", torch.bfloat16):
        losses = lower(inputs.float())
    pt.Balancer(pt.UPGrad()).backward(losses)
    assert all(parameter.grad is not None for parameter in lower.parameters())


def test_balancer_stages_of_a_task_without_a_path_to_the_first_blocks() -> None:
    torch.manual_seed(7)
    model, inputs = Deep().double(), torch.randn(60, 48, dtype=torch.float64)

    def losses() -> dict[str, Tensor]:
        values = inputs
        for number, block in enumerate(model.blocks):
            if number == 4:
                cut = values.detach()
                for later in list(model.blocks)[4:]:
                    cut = later(cut)
            values = block(values)
        return {task: head(cut if task == "d" else values).square().mean() for task, head in model.heads.items()}

    model.zero_grad()
    pt.Balancer(pt.Static(dict(zip(TASKS, (1.0, 2.0, 3.0, 4.0), strict=True)))).backward(losses())
    found = {name: parameter.grad for name, parameter in model.named_parameters()}
    model.zero_grad()
    pt.Balancer(pt.MGDA()).backward(losses())
    assert all(parameter.grad is not None for parameter in model.parameters())
    model.zero_grad()
    each = losses()
    torch.stack(
        [weight * loss for weight, loss in zip((1.0, 2.0, 3.0, 4.0), each.values(), strict=True)]
    ).sum().backward()
    for name, parameter in model.named_parameters():
        if not name.startswith("heads"):
            torch.testing.assert_close(found[name], parameter.grad)


@pytest.mark.parametrize("method", [pt.GradDrop(), pt.PCGrad()], ids=["rows", "gramian"])
def test_balancer_stages_keep_a_graph_that_is_retained(method: pt.Method[Any]) -> None:
    torch.manual_seed(11)
    model, inputs = Deep().double(), torch.randn(60, 48, dtype=torch.float64)
    losses = model(inputs)
    balancer = pt.Balancer(method)
    balancer.backward(losses, retain_graph=True)
    model.zero_grad()
    balancer.backward(losses)
    with pytest.raises(RuntimeError, match="second time"):
        losses["a"].backward()


def peak_of(step: Callable[[], object]) -> int:
    """Bytes of tensors at the peak of a step, above those before it."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profiler:
        step()
    events = profiler.profiler.kineto_results.events()
    current = peak = 0
    for event in sorted((event for event in events if event.name() == "[memory]"), key=lambda event: event.start_ns()):
        current += event.nbytes()
        peak = max(peak, current)
    return peak


def test_balancer_stages_need_less_memory_than_whole_backwards() -> None:
    torch.manual_seed(13)
    model, inputs = Deep(width=96), torch.randn(900, 96)
    heads = {f"t{task}": nn.Linear(96, 2) for task in range(12)}
    shared = list(model.blocks.parameters())

    def losses() -> dict[str, Tensor]:
        values = inputs
        for block in model.blocks:
            values = block(values)
        return {task: head(values).square().mean() for task, head in heads.items()}

    def whole() -> None:
        values = list(losses().values())
        rows = [torch.autograd.grad(loss, shared, retain_graph=loss is not values[-1]) for loss in values]
        assert len(rows) == 12

    def step() -> None:
        balancer.backward(losses())
        model.zero_grad()

    balancer = pt.Balancer(pt.UPGrad())
    step()
    assert peak_of(step) < 0.9 * peak_of(whole)
