"""The Gramian and ``.grad`` of a Balancer against explicit gradients, on random graphs and on graphs with known difficulties."""

from __future__ import annotations

import logging
import warnings
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import paretorch as pt
from paretorch.core.balancer import balancer as balancing
from paretorch.core.gradients.graph import task_graph
from paretorch.core.multi_vjp import rules
from random_graphs import ClippedFunction, Graph, LinearFunction, Stop

Losses = dict[str, Tensor]

METHODS = (pt.MGDA(), pt.UPGrad(), pt.CAGrad(), pt.IMTLG(), pt.NashMTL())


def explicit_jacobian(losses: dict[str, Tensor], parameters: Sequence[Tensor]) -> Tensor:
    """(T, P) gradients from one ordinary backward for each task."""
    rows = []
    for loss in losses.values():
        found = torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True)
        rows.append(
            torch.cat(
                [p.new_zeros(p.numel()) if g is None else g.flatten() for p, g in zip(parameters, found, strict=True)]
            )
        )
    return torch.stack(rows)


def reaching_losses(losses: dict[str, Tensor], parameters: Sequence[Tensor]) -> Tensor:
    """(P,) for each parameter the number of losses that reach it."""
    counts = torch.zeros(len(parameters))
    for loss in losses.values():
        graph = task_graph([[loss]])
        leaves = {id(leaf) for leaf in graph.leaves}
        counts += torch.tensor([float(id(parameter) in leaves) for parameter in parameters])
    return counts


def flat_gradients(parameters: Sequence[Tensor]) -> Tensor:
    return torch.cat([p.new_zeros(p.numel()) if p.grad is None else p.grad.flatten() for p in parameters])


def check_graph_step(graph: Graph, balancer: pt.Balancer, late: bool = False) -> None:
    """One step: the Gramian to 1e-10 of its largest entry, the gradient to 1e-9 of its largest term."""
    losses = graph.losses(late)
    everything = explicit_jacobian(losses, graph.parameters)
    counts = reaching_losses(losses, graph.parameters)
    if len(losses) > 1 and not (counts > 1).any():
        return  # without shared parameters the Balancer raises
    before = flat_gradients(graph.parameters)
    with graph.surroundings():
        balance = balancer.backward(losses, retain_graph=graph.context == "retain_graph")
    got = flat_gradients(graph.parameters) - before
    sizes = [parameter.numel() for parameter in graph.parameters]
    shared = torch.cat([torch.full((size,), bool(count > 1)) for size, count in zip(sizes, counts, strict=True)])
    if balance.gramian is not None and len(losses) > 1:
        rows = everything[:, shared]
        expected = rows @ rows.T
        scale = max(float(expected.diagonal().max()), 1e-300)
        assert float((balance.gramian - expected).abs().max()) <= 1e-10 * scale
    assert balance.weights is not None
    weights = balance.weights[:, None].expand(-1, everything.shape[1]).clone()
    weights[:, ~shared] = 1.0 if len(losses) > 1 else weights[:, ~shared]
    expected_gradient = (weights * everything).sum(dim=0)
    size = max(float((weights * everything).abs().max()), float(before.abs().max()), 1e-300)
    assert float((got - expected_gradient).abs().max()) <= 1e-9 * size


def check_random_graphs(seeds: range, monkeypatch: pytest.MonkeyPatch) -> None:
    logging.getLogger("paretorch").setLevel(logging.ERROR)
    try:
        for seed in seeds:
            wide = seed % 4 == 0
            with monkeypatch.context() as patched, warnings.catch_warnings():
                warnings.simplefilter("ignore")
                if not wide:
                    patched.setattr(balancing, "saves_time", lambda trunk, tasks: bool(trunk.linear_uses))
                graph = Graph(seed, wide)
                balancer = pt.Balancer(
                    METHODS[seed % len(METHODS)], tasks=[f"t{t}" for t in range(graph.tasks)], group=None
                )
                try:
                    for step in range(2):
                        if graph.context != "grad exists":
                            for parameter in graph.parameters:
                                parameter.grad = None
                        check_graph_step(graph, balancer, late=graph.late_hook and step == 1)
                except Exception as error:
                    raise AssertionError(
                        f"seed {seed}: {graph.notes}, {graph.context}, late hook: {graph.late_hook}"
                    ) from error
    finally:
        logging.getLogger("paretorch").setLevel(logging.NOTSET)


# --- graphs with known difficulties --------------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def double() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    torch.manual_seed(0)
    yield
    torch.set_default_dtype(torch.float32)


def check_against_explicit_gradients(
    losses_of: Callable[[], Losses], parameters: Iterable[Tensor], balancer: pt.Balancer | None = None
) -> pt.Balance:
    """One step against explicit gradients: the Gramian to 1e-10, the weighted gradient to 1e-9."""
    leaves = list(parameters)
    rows = explicit_jacobian(losses_of(), leaves)
    for leaf in leaves:
        leaf.grad = None
    balance = (balancer or pt.Balancer(pt.MGDA())).backward(losses_of())
    assert balance.gramian is not None
    assert balance.weights is not None
    expected = rows @ rows.T
    assert float((balance.gramian - expected).abs().max() / expected.diagonal().max()) <= 1e-10
    assert float((flat_gradients(leaves) - balance.weights @ rows).abs().max() / rows.abs().max()) <= 1e-9
    return balance


def square_losses(z: Tensor, heads: Sequence[nn.Module]) -> Losses:
    return {f"t{place}": (head(z) - place).square().mean() for place, head in enumerate(heads)}


WIDTH = 64
Step = Callable[[], Tensor]


def two_layers() -> tuple[nn.Module, nn.Module, Tensor]:
    return nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH), torch.randn(4, WIDTH)


@pytest.mark.parametrize("tasks", [2, 3, 7])
@pytest.mark.parametrize(
    "hook", ["scale", "clip always", "clip some", "in place", "log", "node", "node before", "mask"]
)
def test_balancer_hook_in_encoder_applies_to_each_task_gradient(hook: str, tasks: int) -> None:
    """For any number of tasks, also for a hook that is registered after the first step."""
    first, second, x = two_layers()
    heads = [nn.Linear(WIDTH, 2) for _ in range(tasks)]
    weight, bias = second.parameters()
    heads[0].weight.data *= 30.0  # only the gradient of this task is long enough to be clipped

    def losses(hooked: bool) -> Losses:
        transposed = weight.t()
        u = torch.tanh(first(x))
        y = torch.tanh(torch.addmm(bias, u, transposed))
        if hooked:
            match hook:
                case "scale":
                    u.register_hook(lambda g: g * 0.1)
                case "clip always":
                    u.register_hook(lambda g: g * (1e-3 / g.norm()) if g.norm() > 1e-3 else g)
                case "clip some":
                    u.register_hook(lambda g: g * (0.3 / g.norm()) if g.norm() > 0.3 else g)
                case "in place":
                    y.register_hook(lambda g: g.mul_(0.5))
                case "log":
                    u.register_hook(lambda g: print(end=f"{g.norm().item():.0f}"[:0]))
                case "node":
                    y.grad_fn.register_hook(lambda g, _: tuple(None if part is None else part * 0.5 for part in g))  # type: ignore[union-attr]
                case "node before":
                    y.grad_fn.register_prehook(lambda g: tuple(None if part is None else part * 0.5 for part in g))  # type: ignore[union-attr]
                case "mask":
                    transposed.register_hook(lambda g: g * (torch.arange(WIDTH) % 2))
        return square_losses(y, heads)

    parameters = [*first.parameters(), *second.parameters()]
    check_against_explicit_gradients(lambda: losses(True), parameters)
    balancer = pt.Balancer(pt.MGDA())
    check_against_explicit_gradients(lambda: losses(False), parameters, balancer)
    check_against_explicit_gradients(lambda: losses(True), parameters, balancer)
    check_against_explicit_gradients(lambda: losses(False), parameters, balancer)


def test_balancer_hook_with_zero_mean_cotangent_applies() -> None:
    first, second, x = two_layers()

    def losses() -> Losses:
        u = torch.tanh(first(x))
        u.register_hook(lambda g: g * 0.1)
        z = torch.relu(second(u))
        return {"a": z[:, 0].sum(), "b": -z[:, 0].sum(), "c": z[:, 1].sum(), "d": -z[:, 1].sum()}

    check_against_explicit_gradients(losses, [*first.parameters(), *second.parameters()])


def test_balancer_hook_receives_gradients_only() -> None:
    """No backward runs without cotangents, in which a hook would receive None."""
    first, second, x = two_layers()
    heads, kept = [nn.Linear(WIDTH, 2) for _ in range(3)], list[Tensor | None]()
    balancer = pt.Balancer(pt.MGDA())
    for _ in range(3):
        u = torch.tanh(first(x))
        u.register_hook(kept.append)
        balancer.backward(square_losses(torch.relu(second(u)), heads))
    assert all(isinstance(each, Tensor) and bool(each.isfinite().all()) for each in kept)


@pytest.mark.parametrize("pool", [
    lambda z: z.sum(0, keepdim=True), lambda z: z.mean(0, keepdim=True), lambda z: z.t()[:, :1].expand(-1, WIDTH),
    lambda z: z.amax(0), lambda z: z.t() @ z,
])  # fmt: skip
def test_balancer_pooling_over_rows_equals_explicit_gradients(pool: Callable[[Tensor], Tensor]) -> None:
    encoder, x = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.ReLU(), nn.Linear(WIDTH, WIDTH)), torch.randn(10, WIDTH)
    heads = [nn.Linear(WIDTH, 1) for _ in range(4)]
    check_against_explicit_gradients(lambda: square_losses(pool(encoder(x)), heads), encoder.parameters())


def test_balancer_attention_over_rows_equals_explicit_gradients() -> None:
    (q, k, x), v = two_layers(), nn.Linear(WIDTH, WIDTH)
    heads = [nn.Linear(WIDTH, 1) for _ in range(3)]
    check_against_explicit_gradients(
        lambda: square_losses((q(x) @ k(x).t()).softmax(-1) @ v(x), heads),
        [*q.parameters(), *k.parameters(), *v.parameters()],
    )


@pytest.mark.parametrize("method", [pt.UPGrad(), pt.DualProjection()], ids=str)
def test_balancer_zero_weights_give_zero_gradient(method: pt.Method[Any]) -> None:
    encoder, x = nn.Sequential(nn.Linear(256, 256), nn.Tanh(), nn.Linear(256, 256)), torch.randn(4, 256)
    f = encoder(x)[:, 0].sum()
    balance = pt.Balancer(method).backward({"a": f, "b": -1 * f, "c": 1 * f})
    assert balance.weights is not None
    assert balance.weights.tolist() == [0.0, 0.0, 0.0]
    assert all(not bool(parameter.grad.any()) for parameter in encoder.parameters() if parameter.grad is not None)


@pytest.mark.parametrize("method", [pt.UPGrad(), pt.DualProjection()], ids=str)
@pytest.mark.parametrize("hook", [lambda g: g * 0.1, lambda g: g.clamp(min=0)], ids=["scale", "clamp"])
def test_balancer_zero_weights_of_a_gramian_without_a_new_hook_are_not_used(
    hook: Callable[[Tensor], Tensor], method: pt.Method[Any]
) -> None:
    """Opposite gradients have weights of zero; after a hook they have other lengths, or are not opposite any more."""
    first, second, x = two_layers()

    def losses(hooked: bool) -> Losses:
        u = torch.tanh(first(x))
        if hooked:
            u.register_hook(hook)
        z = second(u)
        return {"a": z[:, 0].sum(), "b": -z[:, 0].sum(), "c": z[:, 0].sum()}

    parameters, balancer = [*first.parameters(), *second.parameters()], pt.Balancer(method)
    balance = check_against_explicit_gradients(lambda: losses(False), parameters, balancer)
    assert balance.weights is not None
    assert not balance.weights.any()
    check_against_explicit_gradients(lambda: losses(True), parameters, balancer)


@pytest.mark.parametrize("layout", ["coo", "csr", "features"])
def test_balancer_sparse_factors_equal_explicit_gradients(layout: str) -> None:
    first, second, x = nn.Linear(128, 128), nn.Linear(128, 128), torch.randn(6, 128)
    dense = (torch.rand(6, 6) > 0.5).double() + torch.eye(6)
    heads = [nn.Linear(128, 1) for _ in range(3)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch, about the CSR layout
        adjacency = dense.to_sparse() if layout == "coo" else dense.to_sparse_csr()
        inputs = (x * (x > 1)).to_sparse() if layout == "features" else x

        def losses() -> Losses:
            h = torch.relu(first(inputs))
            return square_losses(torch.relu(second(h if layout == "features" else adjacency @ h)), heads)

        check_against_explicit_gradients(losses, [*first.parameters(), *second.parameters()])


@pytest.mark.parametrize("beta", [1.0, 0.1])
def test_balancer_addmm_with_beta_equals_explicit_gradients(beta: float) -> None:
    layer, x = nn.Linear(WIDTH, WIDTH), torch.randn(4, WIDTH)
    weight, bias = nn.Parameter(torch.randn(WIDTH, WIDTH) / 8), nn.Parameter(torch.randn(WIDTH))
    heads = [nn.Linear(WIDTH, 2) for _ in range(3)]
    check_against_explicit_gradients(
        lambda: square_losses(torch.relu(layer(torch.tanh(torch.addmm(bias, x, weight.t(), beta=beta)))), heads),
        [weight, bias, *layer.parameters()],
    )


@pytest.mark.parametrize("convolution", [
    lambda: nn.Conv2d(4, 4, 3, padding="valid"), lambda: nn.Conv2d(4, 4, 3, padding="same", dilation=2),
    lambda: nn.Conv2d(4, 4, 3, stride=(2, 1), groups=2),
    lambda: nn.ConvTranspose2d(4, 4, 3, dilation=2, output_padding=1),
    lambda: nn.ConvTranspose2d(4, 4, 3, dilation=3, stride=2, output_padding=2, groups=2),
])  # fmt: skip
def test_balancer_convolution_options_equal_explicit_gradients(convolution: Callable[[], nn.Module]) -> None:
    layer, x = convolution(), torch.randn(2, 3, 12, 12)
    first = nn.Conv2d(3, 4, 3)
    size = layer(first(x)).flatten(1).shape[1]
    encoder = nn.Sequential(
        first, nn.ReLU(), layer, nn.ReLU(), nn.Flatten(), nn.Linear(size, 128), nn.ReLU(), nn.Linear(128, 128)
    )
    heads = [nn.Linear(128, 1) for _ in range(3)]
    check_against_explicit_gradients(lambda: square_losses(encoder(x), heads), encoder.parameters())


def test_balancer_dropout_in_checkpoint_equals_explicit_gradients() -> None:
    inner = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.ReLU(), nn.Dropout(0.3), nn.Linear(WIDTH, WIDTH))
    (_, second, x), heads = two_layers(), [nn.Linear(WIDTH, 2) for _ in range(3)]

    def losses() -> Losses:
        torch.manual_seed(1)
        return square_losses(torch.relu(second(checkpoint(inner, x, use_reentrant=False))), heads)

    balancer = pt.Balancer(pt.MGDA())
    for _ in range(2):
        check_against_explicit_gradients(losses, [*inner.parameters(), *second.parameters()], balancer)


@pytest.mark.parametrize("function", [Stop, ClippedFunction, LinearFunction])
def test_balancer_custom_function_equals_explicit_gradients(function: type[torch.autograd.Function]) -> None:
    first, second, x = two_layers()
    heads = [nn.Linear(WIDTH, 2) for _ in range(3)]
    check_against_explicit_gradients(
        lambda: square_losses(torch.relu(first(x) + function.apply(second(x))), heads),
        [*first.parameters(), *second.parameters()],
    )


@pytest.mark.parametrize("tasks", [2, 3])
def test_balancer_supports_anomaly_detection_and_retain_grad(tasks: int) -> None:
    first, second, x = two_layers()
    heads, kept = [nn.Linear(WIDTH, 2) for _ in range(tasks)], list[Tensor]()

    def losses() -> Losses:
        u = torch.tanh(first(x))
        u.retain_grad()
        kept.append(u)
        return square_losses(torch.relu(second(u)), heads)

    with torch.autograd.set_detect_anomaly(True):
        check_against_explicit_gradients(losses, [*first.parameters(), *second.parameters()])
    assert kept[-1].grad is not None
    assert bool(kept[-1].grad.isfinite().all())


@pytest.mark.parametrize("tasks", [2, 3])
def test_balancer_equal_leaf_losses_and_empty_layer_equal_explicit_gradients(tasks: int) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch, about empty weights
        empty = nn.Linear(0, WIDTH)
    second, leaf = nn.Linear(WIDTH, WIDTH), nn.Parameter(torch.tensor(1.5))
    x = torch.randn(4, 0)

    def losses() -> Losses:
        z = second(torch.tanh(empty(x)))
        return {"a": leaf, "b": leaf} | {f"t{t}": (z * leaf - t).square().mean() for t in range(tasks)}

    check_against_explicit_gradients(losses, [leaf, *empty.parameters(), *second.parameters()])


@pytest.mark.parametrize("method", [pt.MGDA(), pt.FAMO(), pt.GradDrop()], ids=str)
@pytest.mark.parametrize("tasks", [1, 2, 3, 7])
@pytest.mark.parametrize("hooked", [False, True])
@pytest.mark.parametrize("wide", [False, True])
def test_balancer_step_frees_all_saved_tensors(wide: bool, hooked: bool, tasks: int, method: pt.Method[Any]) -> None:
    """Tensors of the encoder and the heads are freed while the losses exist, as after a backward of their sum."""
    size, kept = WIDTH if wide else 5, list[weakref.ref[Any]]()

    def recorded(x: Tensor) -> Tensor:
        kept.append(weakref.ref(x.untyped_storage()))
        return x

    class Recorded(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return recorded(torch.tanh(recorded(x * 1.5)))

    encoder = nn.Sequential(nn.Linear(size, size), Recorded(), nn.Linear(size, size), Recorded())
    heads = [nn.Sequential(nn.Linear(size, size), Recorded(), nn.Linear(size, 2)) for _ in range(tasks)]
    balancer = pt.Balancer(method, shared=encoder)
    for _ in range(2):
        kept.clear()
        z = encoder(torch.randn(4, size))
        if hooked:
            z.register_hook(lambda g: g * 0.5)
        losses = square_losses(z, heads)
        del z
        balancer.backward(losses)
        assert sum(each() is not None for each in kept) == 0
        del losses


@pytest.mark.parametrize("tasks", [2, 5])
def test_balancer_retain_graph_keeps_saved_tensors(tasks: int) -> None:
    encoder, x = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.ReLU(), nn.Linear(WIDTH, WIDTH)), torch.randn(4, WIDTH)
    heads = [nn.Linear(WIDTH, 2) for _ in range(tasks)]
    balancer = pt.Balancer(pt.MGDA())
    for _ in range(2):
        z = encoder(x)
        hidden = weakref.ref(z.grad_fn._saved_mat1.untyped_storage())
        losses = square_losses(z, heads)
        balancer.backward(losses, retain_graph=True)
        balancer.backward(losses)
        assert hidden() is None or tasks == 2
        with pytest.raises(RuntimeError, match="second time"):
            torch.autograd.grad(z.sum(), list(encoder.parameters()))


def test_balancer_compiled_encoder_allows_several_batch_sizes() -> None:
    encoder = nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 8), nn.Tanh())
    heads = [nn.Linear(8, 1) for _ in range(3)]
    balancer = pt.Balancer(pt.MGDA(), shared=encoder)
    compiled = torch.compile(encoder, backend="aot_eager")
    for size in (6, 6, 4, 5):
        x = torch.randn(size, 8)
        check_against_explicit_gradients(lambda x=x: square_losses(compiled(x), heads), encoder.parameters(), balancer)  # type: ignore[misc]
    optimizer = pt.MTAdamV2([*encoder.parameters(), *(p for head in heads for p in head.parameters())])
    for size in (6, 3, 7):
        before = [parameter.detach().clone() for parameter in encoder.parameters()]
        optimizer.step(square_losses(compiled(torch.randn(size, 8)), heads))
        assert all(not torch.equal(old, new) for old, new in zip(before, encoder.parameters(), strict=True))


@pytest.mark.parametrize("tasks", [2, 3])
def test_balancer_failing_rule_is_logged_once_and_replaced(
    tasks: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(step: Any) -> Any:
        raise IndexError("out of range")

    monkeypatch.setitem(rules.RULES, "TanhBackward0", (broken, ("result",)))
    first, second, x = two_layers()
    heads = [nn.Linear(WIDTH, 2) for _ in range(tasks)]
    balancer = pt.Balancer(pt.MGDA())
    for _ in range(3):
        check_against_explicit_gradients(
            lambda: square_losses(second(torch.tanh(first(x))), heads),
            [*first.parameters(), *second.parameters()],
            balancer,
        )
    messages = [record.getMessage() for record in caplog.records if record.name == "paretorch"]
    assert sum("TanhBackward0" in each and "IndexError" in each for each in messages) == (1 if tasks > 2 else 0)


def test_balancer_wrong_rule_is_detected_in_any_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """The rule is right in the first step, in which it is compared with autograd, and wrong afterwards."""
    first, second, x = two_layers()
    heads = [nn.Linear(WIDTH, 2) for _ in range(4)]
    parameters = [*first.parameters(), *second.parameters()]
    balancer = pt.Balancer(pt.MGDA())
    check_against_explicit_gradients(lambda: square_losses(second(torch.tanh(first(x))), heads), parameters, balancer)
    rule, saved = rules.RULES["TanhBackward0"]

    def wrong(call: Any) -> Any:
        return rule(call._replace(cotangents=call.result(call.values * 1.001)))

    monkeypatch.setitem(rules.RULES, "TanhBackward0", (wrong, saved))
    check_against_explicit_gradients(lambda: square_losses(second(torch.tanh(first(x))), heads), parameters, balancer)


def test_balancer_recomputed_step_updates_method_state_once() -> None:
    """A hook causes the step to be computed again at the explicit level; the state of the method is updated once."""
    first, second, x = two_layers()
    heads = [nn.Linear(WIDTH, 2) for _ in range(3)]

    def losses(hooked: bool) -> Losses:
        u = torch.tanh(first(x))
        if hooked:
            u.register_hook(lambda g: g * 0.1)
        return square_losses(torch.relu(second(u)), heads)

    for method in (pt.GradNorm(), pt.PCGrad(), pt.CRMOGM(pt.MGDA())):
        fast, plain = pt.Balancer(method), pt.Balancer(method)
        fast.backward(losses(False))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(balancing, "saves_time", lambda trunk, tasks: False)
            plain.backward(losses(False))
            expected = plain.backward(losses(True)).weights
        found = fast.backward(losses(True)).weights
        assert found is not None
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)
        for one, other in zip(fast.runner.state.fields(), plain.runner.state.fields(), strict=True):
            torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)


def test_balancer_sparse_embedding_outside_compared_parameters_stays_sparse() -> None:
    """Of one task, or excluded by shared=."""
    table, encoder, x = nn.Embedding(9, WIDTH, sparse=True), nn.Linear(WIDTH, WIDTH), torch.randn(5, WIDTH)
    index = torch.tensor([0, 3, 3, 8, 1])
    for tasks in (2, 3):
        heads = [nn.Linear(WIDTH, 1) for _ in range(tasks)]
        for shared in (False, True):
            table.weight.grad = None

            def losses(heads: list[nn.Linear] = heads, shared: bool = shared) -> Losses:
                z = encoder(x + table(index)) if shared else encoder(x)
                return square_losses(z, heads) | ({} if shared else {"words": (table(index) - 1).square().mean()})

            balancer = pt.Balancer(pt.MGDA(), shared=encoder)
            balance = check_against_explicit_gradients(losses, encoder.parameters(), balancer)
            assert table.weight.grad is not None
            assert table.weight.grad.is_sparse
            assert balance.weights is not None
            weights = balance.weights if shared else torch.ones(tasks + 1)
            total = sum(w * loss for w, loss in zip(weights, losses().values(), strict=True))
            assert isinstance(total, Tensor)
            (expected,) = torch.autograd.grad(total, [table.weight])
            torch.testing.assert_close(table.weight.grad.to_dense(), expected.to_dense(), rtol=1e-9, atol=1e-12)
    with pytest.raises(ValueError, match="sparse=False"):
        pt.Balancer(pt.MGDA()).backward(
            square_losses(encoder(x + table(index)), [nn.Linear(WIDTH, 1) for _ in range(3)])
        )


# --- random graphs -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("part", range(4))
@pytest.mark.sampled(2)
def test_balancer_random_graphs_equal_explicit_gradients(part: int, monkeypatch: pytest.MonkeyPatch) -> None:
    check_random_graphs(range(part * 60, part * 60 + 60), monkeypatch)


@pytest.mark.long
@pytest.mark.parametrize("part", range(20))
def test_balancer_ten_thousand_random_graphs_equal_explicit_gradients(
    part: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    check_random_graphs(range(1000 + part * 520, 1000 + part * 520 + 520), monkeypatch)
