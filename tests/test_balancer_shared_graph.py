"""The Gramian and gradient from the shared graph against explicit ones, for every kind of layer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

import paretorch as pt
from paretorch.core.balancer import balancer as balancing
from paretorch.core.gradients.graph import task_graph
from paretorch.core.multi_vjp import find_shared_graph, saves_time
from paretorch.core.multi_vjp.linear_layers import (
    LinearUse,
    cost_from_gradients,
    cost_from_inputs,
    linear_uses,
    parameter_products,
)
from small_models import head_losses

Losses = dict[str, Tensor]


class Product(nn.Module):
    """A product whose second factor is the weight."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(6, 6))

    def forward(self, x: Tensor) -> Tensor:
        return torch.sin(x @ self.weight)


class TiedLayers(nn.Module):
    """One weight in two layers, and its transpose."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(6, 6))

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(torch.tanh(F.linear(x, self.weight)), self.weight.T)


class Indices(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return (x * 10).long() % 5


class LSTMEncoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.LSTM(2, 6, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.inner(x.view(-1, 3, 2))[0][:, -1]
        return result


class Arithmetic(nn.Module):
    """Broadcast factors and terms, means, softmax, and a function of a weight."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.factor, self.shift = nn.Linear(6, 6), nn.Parameter(torch.rand(6)), nn.Parameter(torch.rand(1))

    def forward(self, x: Tensor) -> Tensor:
        z = self.inner(x) * self.factor - self.shift
        z = torch.sin(z) / (2 + self.factor.exp()) + z.softmax(dim=-1) - z.mean(dim=1, keepdim=True)
        result: Tensor = (z.view(-1, 2, 3).transpose(1, 2).flatten(1) * 2) @ self.inner.weight.cos()
        return result


class Residual(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = x + self.inner(x)
        return result


class Checkpointed(Residual):
    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = checkpoint(self.inner, x, use_reentrant=False)
        return result


def repeated_layer() -> nn.Module:
    layer = nn.Linear(6, 6)
    return nn.Sequential(layer, nn.Tanh(), layer)


ENCODERS: dict[str, Callable[[], nn.Module]] = {
    "mlp": lambda: nn.Sequential(nn.Linear(6, 9), nn.ReLU(), nn.Linear(9, 6), nn.Tanh()),
    "wide": lambda: nn.Sequential(nn.Linear(6, 40), nn.GELU(), nn.Linear(40, 6)),
    "without bias": lambda: nn.Sequential(nn.Linear(6, 6, bias=False), nn.Sigmoid(), nn.Linear(6, 6, bias=False)),
    "in place": lambda: nn.Sequential(nn.Linear(6, 6), nn.ReLU(inplace=True), nn.Linear(6, 6)),
    "used twice": repeated_layer,
    "product": Product,
    "tied": TiedLayers,
    "norm": lambda: nn.Sequential(nn.Linear(6, 6), nn.LayerNorm(6), nn.Linear(6, 6), nn.BatchNorm1d(6)),
    "residual": lambda: Residual(nn.Sequential(nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 6))),
    "checkpointed": lambda: nn.Sequential(Checkpointed(nn.Sequential(nn.Linear(6, 6), nn.Tanh())), nn.Linear(6, 6)),
    "weight norm": lambda: nn.utils.parametrizations.weight_norm(nn.Linear(6, 6)),
    "dropout": lambda: nn.Sequential(nn.Linear(6, 6), nn.Dropout(0.5), nn.Linear(6, 6)),
    "convolution": lambda: nn.Sequential(
        nn.Unflatten(1, (1, 6)), nn.Conv1d(1, 3, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(18, 6)
    ),
    "sequence": lambda: nn.Sequential(nn.Unflatten(1, (3, 2)), nn.Linear(2, 4), nn.Tanh(), nn.Flatten(), nn.Linear(12, 6)),
    "convolutions": lambda: nn.Sequential(
        nn.Unflatten(1, (1, 2, 3)), nn.Conv2d(1, 4, 3, padding=2), nn.MaxPool2d(2), nn.ReLU(),
        nn.Conv2d(4, 6, (1, 2), stride=(2, 1), dilation=(1, 2), groups=2, padding=(0, 1)), nn.GroupNorm(3, 6),
        nn.ConvTranspose2d(6, 2, 2, stride=2, output_padding=1), nn.LeakyReLU(), nn.AvgPool2d(2), nn.Flatten(), nn.LazyLinear(6),
    ),
    "3-D convolution": lambda: nn.Sequential(
        nn.Unflatten(1, (1, 1, 2, 3)), nn.Conv3d(1, 3, (1, 2, 2)), nn.SiLU(), nn.ConvTranspose3d(3, 1, 2), nn.Flatten(),
        nn.Linear(12, 6),
    ),
    "transposed 1-D": lambda: nn.Sequential(
        nn.Unflatten(1, (2, 3)), nn.ConvTranspose1d(2, 4, 3, stride=2, groups=2), nn.Hardtanh(), nn.Flatten(), nn.Linear(28, 6)
    ),
    "padding modes": lambda: nn.Sequential(
        nn.Unflatten(1, (1, 6)), nn.Conv1d(1, 2, 3, padding=1, padding_mode="circular"),
        nn.Conv1d(2, 2, 3, padding="same", padding_mode="reflect"), nn.Flatten(), nn.Linear(12, 6),
    ),
    "embedding": lambda: nn.Sequential(Indices(), nn.Embedding(5, 3), nn.Flatten(), nn.Linear(18, 6)),
    "recurrent": lambda: LSTMEncoder(),
    "fixed norm": lambda: nn.Sequential(nn.Linear(6, 6), nn.BatchNorm1d(6).eval(), nn.Softplus(), nn.Linear(6, 6)),
    "arithmetic": Arithmetic,
    "attention": lambda: nn.Sequential(
        nn.Unflatten(1, (3, 2)),
        nn.TransformerEncoderLayer(2, 1, 4, dropout=0.0, batch_first=True),
        nn.Flatten(),
    ),
}  # fmt: skip


def make_encoder_and_heads(
    kind: str, tasks: int, dtype: torch.dtype = torch.float64
) -> tuple[nn.Module, nn.ModuleDict, Tensor]:
    torch.manual_seed(0)
    heads = nn.ModuleDict({f"t{task}": nn.Linear(6, 2) for task in range(tasks)})
    return ENCODERS[kind]().to(dtype), heads.to(dtype), torch.randn(5, 6, dtype=dtype)


def explicit_gramian(losses: Losses, parameters: Sequence[Tensor]) -> Tensor:
    """(T, T) inner products of explicit gradients."""
    rows = []
    for loss in losses.values():
        found = torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True)
        rows.append(
            torch.cat(
                [
                    torch.zeros(p.numel()).to(p) if g is None else g.flatten()
                    for p, g in zip(parameters, found, strict=True)
                ]
            )
        )
    matrix = torch.stack(rows).double()
    return matrix @ matrix.T


def check_gramian(losses: Losses, parameters: Sequence[Tensor]) -> None:
    """The Gramian of a Balancer's step is that of explicit gradients."""
    expected = explicit_gramian(losses, parameters)
    gramian = pt.Balancer(pt.MGDA()).backward(losses).gramian
    assert gramian is not None
    torch.testing.assert_close(gramian, expected, rtol=1e-10, atol=1e-12)


@pytest.fixture
def rules_always_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small models use the levels that save time on large ones."""
    monkeypatch.setattr(balancing, "saves_time", lambda shared_graph, tasks: True)


@pytest.mark.usefixtures("rules_always_used")
@pytest.mark.parametrize("tasks", [2, 5])
@pytest.mark.parametrize("kind", ENCODERS)
def test_shared_graph_gramian_and_gradient_equal_explicit_ones(kind: str, tasks: int) -> None:
    encoder, heads, x = make_encoder_and_heads(kind, tasks)
    torch.manual_seed(1)
    losses = head_losses(heads, encoder(x))
    parameters = list(encoder.parameters())
    expected = explicit_gramian(losses, parameters)
    balancer = pt.Balancer(pt.UPGrad())
    balance = balancer.backward(losses, retain_graph=True)
    assert balance.gramian is not None
    assert balance.weights is not None
    size = expected.diagonal().sqrt()
    assert ((balance.gramian - expected).abs() / size[:, None] / size[None, :]).max() <= 1e-10
    own = [parameter for head in heads.values() for parameter in head.parameters()]
    weighted = sum(weight * loss for weight, loss in zip(balance.weights, losses.values(), strict=True))
    assert isinstance(weighted, Tensor)
    for parameter, gradient in zip(
        parameters, torch.autograd.grad(weighted, parameters, retain_graph=True), strict=True
    ):
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-10, atol=1e-14)
    for parameter, gradient in zip(
        own, torch.autograd.grad(torch.stack(list(losses.values())).sum(), own), strict=True
    ):
        torch.testing.assert_close(parameter.grad, gradient)


@pytest.mark.usefixtures("rules_always_used")
@pytest.mark.parametrize("kind", ENCODERS)
def test_shared_graph_gramian_is_accurate_in_float32(kind: str) -> None:
    encoder, heads, x = make_encoder_and_heads(kind, 3, torch.float32)
    balancer = pt.Balancer(pt.UPGrad())
    for _ in range(2):  # the first step checks the rules against autograd, the second uses them
        losses = head_losses(heads, encoder(x))
        expected = explicit_gramian(losses, list(encoder.parameters()))
        gramian = balancer.backward(losses).gramian
        assert gramian is not None
        size = expected.diagonal().sqrt()
        assert ((gramian - expected).abs() / size[:, None] / size[None, :]).max() <= 1e-4


@pytest.mark.usefixtures("rules_always_used")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("scale", [1e-12, 1.0, 1e12])
def test_shared_graph_gramian_is_finite_for_extreme_scales(dtype: torch.dtype, scale: float) -> None:
    encoder, heads, x = make_encoder_and_heads("mlp", 3, dtype)
    losses = {name: loss * scale for name, loss in head_losses(heads, encoder(x)).items()}
    expected = explicit_gramian({name: loss.double() for name, loss in losses.items()}, list(encoder.parameters()))
    gramian = pt.Balancer(pt.MGDA()).backward(losses).gramian
    assert gramian is not None
    size = expected.diagonal().sqrt()
    assert ((gramian - expected).abs() / size[:, None] / size[None, :]).max() <= (
        1e-4 if dtype == torch.float32 else 5e-2
    )


@pytest.mark.usefixtures("rules_always_used")
def test_shared_graph_handles_absent_zero_and_nonfinite_tasks() -> None:
    encoder, heads, x = make_encoder_and_heads("mlp", 4)
    losses = head_losses(heads, encoder(x))
    losses["t1"] = losses["t1"] * 0
    del losses["t2"]
    balance = pt.Balancer(pt.MGDA(), tasks=tuple(heads)).backward(losses)
    assert balance.present is not None
    assert balance.present.tolist() == [True, False, False, True]
    encoder.zero_grad()
    losses = head_losses(heads, encoder(x))
    losses["t1"] = losses["t1"] * torch.nan
    with pytest.raises(FloatingPointError, match="t1"):
        pt.Balancer(pt.MGDA()).backward(losses, retain_graph=True)
    assert all(parameter.grad is None for parameter in encoder.parameters())
    balance = pt.Balancer(pt.MGDA(), nonfinite="skip").backward(losses)
    assert balance.present is not None
    assert balance.present.tolist() == [True, False, True, True]
    assert all(bool(p.grad.isfinite().all()) for p in encoder.parameters() if p.grad is not None)


@pytest.mark.usefixtures("rules_always_used")
def test_shared_graph_layer_used_by_a_head_is_compared_as_a_whole() -> None:
    """Part of its gradient does not come through the features; the whole gradient is compared."""
    encoder, heads, x = make_encoder_and_heads("mlp", 2)
    first = encoder[0]  # type: ignore[index]
    losses = head_losses(heads, encoder(x))
    losses["t1"] = losses["t1"] + first(x.flip(0)).square().mean()
    check_gramian(losses, list(encoder.parameters()))


@pytest.mark.usefixtures("rules_always_used")
def test_shared_graph_nested_entries_are_counted_once() -> None:
    """One task enters above another; its contribution through the upper features is counted once."""
    encoder, heads, x = make_encoder_and_heads("mlp", 3)
    lower = encoder[1](encoder[0](x))  # type: ignore[index]
    upper = encoder[2](lower)  # type: ignore[index]
    losses = {name: head(upper).square().mean() for name, head in heads.items()}
    losses["t1"] = losses["t1"] + lower.exp().mean()
    losses["t2"] = lower.square().mean()
    check_gramian(losses, list(encoder.parameters()))


@pytest.mark.usefixtures("rules_always_used")
def test_shared_graph_accepts_several_feature_tensors() -> None:
    encoder, heads, x = make_encoder_and_heads("mlp", 3)
    other = nn.Linear(6, 6).double()
    first, second = encoder(x), torch.tanh(other(x))
    losses = {name: head(first).square().mean() for name, head in heads.items()}
    losses["t1"] = losses["t1"] + (first * second).mean()
    losses["t2"] = heads["t2"](second).exp().mean()
    check_gramian(losses, [*encoder.parameters(), *other.parameters()])


@pytest.mark.usefixtures("rules_always_used")
def test_shared_graph_accepts_equal_losses_and_shared_heads() -> None:
    encoder, heads, x = make_encoder_and_heads("mlp", 2)
    losses = head_losses(heads, encoder(x))
    losses["t2"] = losses["t0"]
    parameters = [*encoder.parameters(), *heads["t0"].parameters()]
    check_gramian(losses, parameters)


@pytest.mark.usefixtures("rules_always_used")
def test_shared_graph_parameter_hooks_run_once_and_gradients_accumulate() -> None:
    encoder, heads, x = make_encoder_and_heads("norm", 3)
    fired: list[str] = []
    for name, parameter in encoder.named_parameters():
        parameter.register_post_accumulate_grad_hook(lambda _, name=name: fired.append(name))
    balancer = pt.Balancer(pt.UPGrad())
    balancer.backward(head_losses(heads, encoder(x)))
    assert sorted(fired) == sorted(name for name, _ in encoder.named_parameters())
    once = [p.grad.clone() for p in encoder.parameters() if p.grad is not None]
    encoder.eval()
    balancer.backward(head_losses(heads, encoder(x)))
    assert all(
        not torch.equal(p.grad, g) for p, g in zip(encoder.parameters(), once, strict=True) if p.grad is not None
    )


@pytest.mark.usefixtures("rules_always_used")
def test_shared_graph_compares_given_leaves_only() -> None:
    encoder, heads, x = make_encoder_and_heads("wide", 2)
    last = encoder[2]  # type: ignore[index]
    losses = head_losses(heads, encoder(x))
    expected = explicit_gramian(losses, list(last.parameters()))
    balance = pt.Balancer(pt.UPGrad(), shared=last).backward(losses, retain_graph=True)
    assert balance.gramian is not None
    assert balance.weights is not None
    torch.testing.assert_close(balance.gramian, expected, rtol=1e-10, atol=1e-12)
    weighted = sum(weight * loss for weight, loss in zip(balance.weights, losses.values(), strict=True))
    assert isinstance(weighted, Tensor)
    first = encoder[0].weight  # type: ignore[index]
    torch.testing.assert_close(first.grad, torch.autograd.grad(weighted, first)[0])


@pytest.mark.parametrize(("rows", "n", "m"), [(4, 30, 20), (50, 3, 2)])
def test_parameter_products_are_equal_for_both_costs(rows: int, n: int, m: int) -> None:
    layer = nn.Linear(n, m, bias=False).double()
    x, gradients = torch.randn(rows, n).double(), torch.randn(3, rows, m).double()
    out = layer(x)
    assert (cost_from_inputs(3, rows, n, m) <= cost_from_gradients(3, rows, n, m)) == (rows == 4)
    explicit = (gradients.transpose(1, 2) @ x).flatten(1)
    found = parameter_products(LinearUse(layer.weight, [out.grad_fn], bias=False), gradients, [None])
    torch.testing.assert_close(found, explicit @ explicit.T)


def test_linear_uses_exclude_tied_and_normalized_weights() -> None:
    """For networks with linear layers only, and for networks that use a weight in another way."""
    counts = {}
    for kind in ("mlp", "used twice", "product", "tied", "weight norm", "norm"):
        encoder, heads, x = make_encoder_and_heads(kind, 2)
        graph = task_graph([[loss] for loss in head_losses(heads, encoder(x)).values()])
        linear, direct = linear_uses(graph, list(encoder.parameters()))
        counts[kind] = (len(linear), len(direct))
    assert counts == {
        "mlp": (4, 0), "used twice": (2, 0), "product": (0, 1), "tied": (0, 1), "weight norm": (1, 2), "norm": (4, 4),
    }  # fmt: skip


def test_shared_graph_saves_time_for_many_tasks_and_wide_layers_only() -> None:
    def is_faster(widths: tuple[int, ...], tasks: int, batch: int) -> bool:
        encoder = nn.Sequential(*(nn.Linear(a, b) for a, b in pairwise(widths)))
        z = encoder(torch.randn(batch, widths[0]))
        graph = task_graph([[z.square().mean() * (task + 1)] for task in range(tasks)])
        shared_graph = find_shared_graph(graph, list(encoder.parameters()))
        assert shared_graph is not None
        return saves_time(shared_graph, tasks)

    assert is_faster((784, 768, 512), 10, 64)
    assert not is_faster((784, 768, 512), 2, 64)
    assert not is_faster((8, 8), 10, 512)
