"""The option samples= of a Balancer: the Gramian from a random subset of the batch."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn

import paretorch as pt
from paretorch.core.method.runner import step_generator
from paretorch.core.multi_vjp.levels import Level
from paretorch.core.multi_vjp.rule_errors import NoRuleError
from paretorch.core.multi_vjp.sample_subset import SampleDim, SampleSubset
from small_models import head_losses
from tensors import equal_tensors

BATCH, TASKS = 12, 3
Encoder = Callable[[], nn.Module]


class Transposed(nn.Module):
    """Exchanges the first two dimensions."""

    def forward(self, x: Tensor) -> Tensor:
        return x.transpose(0, 1)


class Padded(nn.Module):
    """Attention that leaves out the last of three tokens in some of the samples."""

    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(2, 1, 4, dropout=0.1, batch_first=True)
        self.layers = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)

    def forward(self, x: Tensor) -> Tensor:
        padding = torch.zeros(len(x), 3, dtype=torch.bool)
        padding[::3, -1] = True
        tokens: Tensor = self.layers(x, src_key_padding_mask=padding)
        return tokens


class Tokens(nn.Module):
    """(B, 6) numbers to (B, 6, 4): a row of a table by the sign of each, and a position."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.positions = nn.Embedding(3, 4, padding_idx=2), nn.Parameter(torch.randn(6, 4))

    def forward(self, x: Tensor) -> Tensor:
        rows: Tensor = self.table((x > 0).long() + (x > 1).long())
        return rows + self.positions


class Parts(nn.Module):
    """(B, 12) to (B, 4): queries, keys and values in one tensor, as in fused attention; one part is not used."""

    def forward(self, x: Tensor) -> Tensor:
        one, two, _ = x.unflatten(1, (3, 4)).unbind(1)
        three, four = x.chunk(2, dim=-1)
        five, six = x.split([4, 8], dim=1)
        mixed: Tensor = one * two + three[:, :4] * five - four[:, 1:5] * six[:, 2:6]
        return mixed


class PartsOfFirst(nn.Module):
    """(6, B, 4) to (B, 8): parts of a sequence whose samples are in the second dimension."""

    def forward(self, x: Tensor) -> Tensor:
        first, last = x.split(4)
        mixed = torch.cat([first, last]).permute(1, 0, 2).flatten(1).unflatten(1, (6, 4))
        return torch.cat([first.unbind()[1], last[0]], dim=1) * torch.cat([mixed.mean(1), x.sum(0)], dim=1)


class Pieces(nn.Module):
    """Root mean square normalization, and entries that are chosen by masks."""

    def forward(self, x: Tensor) -> Tensor:
        scaled = x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-3)
        kept = scaled.masked_fill(x > 1.5, 0.0)
        return torch.where(x > 0, kept, (kept.square() + 1).sqrt())


class Shifted(nn.Module):
    """Every sample plus the one before it."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x[:1], x[1:] + x[:-1]])


class RandomLayers(nn.Module):
    """Layers that process samples independently, each with the dimensions in a random order and partly flattened."""

    def __init__(self, seed: int, depth: int = 5) -> None:
        super().__init__()
        draw = torch.Generator().manual_seed(seed)
        self.orders = [torch.randperm(3, generator=draw).tolist() for _ in range(depth)]
        self.kinds = torch.randint(6, (depth,), generator=draw).tolist()
        self.cuts = torch.randint(1, 3, (depth,), generator=draw).tolist()
        self.linear = nn.ModuleList([nn.Linear(4, 4) for _ in range(depth)])
        self.norms = nn.ModuleList([nn.LayerNorm(4) for _ in range(depth)])

    def forward(self, x: Tensor) -> Tensor:
        x = x.unflatten(1, (4, 4))[:, :, :4]
        for order, kind, cut, linear, norm in zip(
            self.orders, self.kinds, self.cuts, self.linear, self.norms, strict=True
        ):
            back = sorted(range(3), key=order.__getitem__)
            sizes = [x.shape[dim] for dim in order]
            if order[2] != 0:  # the samples are not the last dimension, along which layers work
                moved = x.permute(order)
                rows = [moved.reshape(-1, sizes[2]), moved.reshape(sizes[0], -1, sizes[2]), moved][
                    cut % 3 if kind else 0
                ]
                x = x + self.applied(kind, rows, linear, norm).reshape(sizes).permute(back)
            elif kind % 2:
                x = (x.permute(order).reshape(sizes[0] * sizes[1], sizes[2]).t() * 1.5).t().reshape(sizes).permute(back)
            else:
                x = torch.stack([part.tanh() for part in x.permute(order).unbind(cut % 2)], cut % 2).permute(back)
        return x.flatten(1)[:, 2:8]

    def applied(self, kind: int, rows: Tensor, linear: nn.Module, norm: nn.Module) -> Tensor:
        """One layer along the last dimension of four entries."""
        if kind == 0:
            return torch.cat(linear(rows).split([1, 3], dim=-1)[::-1], dim=-1)
        if kind == 1:
            return cast(Tensor, norm(linear(rows)))
        if kind == 2:
            return rows.softmax(-1) * rows.mean(-1, keepdim=True)
        if kind == 3:
            one, two = rows.chunk(2, dim=-1)
            return torch.cat([one * two, two - one], dim=-1)
        if kind == 4:
            return cast(Tensor, linear(rows.transpose(-1, -2).transpose(-1, -2).contiguous()))
        return torch.stack(linear(rows).unbind(-1)[::-1], dim=-1)


# Whether the samples that were not drawn cost nothing in it, and the encoder.
ENCODERS: dict[str, tuple[bool, Encoder]] = {
    "mlp": (True, lambda: nn.Sequential(nn.Linear(6, 9), nn.ReLU(), nn.Linear(9, 6), nn.Tanh())),
    "used twice": (True, lambda: nn.Sequential(*[nn.Linear(6, 6)] * 2, nn.GELU())),
    "sequence": (
        True,
        lambda: nn.Sequential(nn.Unflatten(1, (3, 2)), nn.Linear(2, 4), nn.LayerNorm(4), nn.Flatten(), nn.Linear(12, 6)),
    ),
    "convolutions": (
        True,
        lambda: nn.Sequential(
            nn.Unflatten(1, (1, 2, 3)), nn.Conv2d(1, 4, 2, padding=1), nn.GroupNorm(2, 4), nn.MaxPool2d(2), nn.ReLU(),
            nn.ConvTranspose2d(4, 2, 2), nn.Flatten(), nn.LazyLinear(6),
        ),
    ),
    "fixed norm": (True, lambda: nn.Sequential(nn.Linear(6, 6), nn.BatchNorm1d(6).eval(), nn.Sigmoid())),
    "weight norm": (False, lambda: nn.utils.parametrizations.weight_norm(nn.Linear(6, 6))),
    "norm of the batch": (False, lambda: nn.Sequential(nn.Linear(6, 6), nn.BatchNorm1d(6), nn.Linear(6, 6))),
    "attention": (
        True,
        lambda: nn.Sequential(
            nn.Unflatten(1, (3, 2)), nn.TransformerEncoderLayer(2, 1, 4, dropout=0.0, batch_first=True), nn.Flatten()
        ),
    ),
    "attention, sequence first": (
        True,
        lambda: nn.Sequential(
            nn.Unflatten(1, (3, 2)), Transposed(), nn.TransformerEncoderLayer(2, 2, 4, dropout=0.0), Transposed(), nn.Flatten()
        ),
    ),
    "attention with padding and dropout": (
        True,
        lambda: nn.Sequential(nn.Unflatten(1, (3, 2)), Padded(), nn.Flatten()),
    ),
    "tokens": (True, lambda: nn.Sequential(Tokens(), nn.Linear(4, 2), nn.Flatten(), nn.Linear(12, 6))),
    "parts": (True, lambda: nn.Sequential(nn.Linear(6, 12), Parts(), nn.Linear(4, 6))),
    "parts of the sequence": (
        True,
        lambda: nn.Sequential(nn.Linear(6, 24), nn.Unflatten(1, (6, 4)), Transposed(), PartsOfFirst(), nn.Linear(8, 6)),
    ),
    "pieces": (True, lambda: nn.Sequential(nn.Linear(6, 6), Pieces(), nn.Hardswish(), nn.Linear(6, 6), nn.Hardsigmoid())),
    "adaptive pool": (
        True,
        lambda: nn.Sequential(
            nn.Unflatten(1, (1, 2, 3)), nn.Conv2d(1, 6, 2, padding=1), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(24, 6)
        ),
    ),
    "along the samples": (False, lambda: nn.Sequential(nn.Linear(6, 6), Shifted(), nn.Linear(6, 6))),
}  # fmt: skip


def make_sampled_model(kind: str, dtype: torch.dtype = torch.float64) -> tuple[nn.Module, nn.ModuleDict, Tensor]:
    torch.manual_seed(0)
    encoder, x = ENCODERS[kind][1](), torch.randn(BATCH, 6)
    with torch.no_grad():
        copy.deepcopy(encoder)(x) if kind != "convolutions" else encoder(x)
    heads = nn.ModuleDict({f"t{task}": nn.Linear(6, 2) for task in range(TASKS)})
    return encoder.to(dtype), heads.to(dtype), x.to(dtype)


def jacobian_of_samples(losses: dict[str, Tensor], z: Tensor, parameters: Sequence[Tensor], index: Tensor) -> Tensor:
    """(T, P) the contributions of the given rows of the features to the gradients, times B / S."""
    mask = torch.zeros(len(z), 1, dtype=z.dtype)
    mask[index] = len(z) / len(index)
    rows = []
    for loss in losses.values():
        (cotangent,) = torch.autograd.grad(loss, z, retain_graph=True)
        rows.append(torch.autograd.grad(z, parameters, cotangent * mask, retain_graph=True))
    return torch.stack([torch.cat([part.flatten() for part in row]) for row in rows])


@pytest.mark.filterwarnings("ignore:samples=5 saves no time")
@pytest.mark.parametrize("kind", ENCODERS)
def test_samples_give_gramian_of_subset_and_gradient_of_batch(kind: str) -> None:
    encoder, heads, x = make_sampled_model(kind)
    balancer = pt.Balancer(pt.UPGrad(), samples=5, seed=3)
    for step in range(3):
        encoder.zero_grad()
        z = encoder(x)
        losses = head_losses(heads, z)
        parameters = list(encoder.parameters())
        saves_time = ENCODERS[kind][0]
        index = torch.randperm(BATCH, generator=step_generator(~3, step))[: 5 if saves_time else BATCH]
        expected = jacobian_of_samples(losses, z, parameters, index)
        whole = jacobian_of_samples(losses, z, parameters, torch.arange(BATCH))
        balance = balancer.backward(losses)
        torch.testing.assert_close(balance.gramian, expected @ expected.T, rtol=1e-9, atol=1e-13)
        assert balance.weights is not None
        received = torch.cat([cast(Tensor, parameter.grad).flatten() for parameter in parameters])
        torch.testing.assert_close(received, balance.weights @ whole, rtol=1e-9, atol=1e-13)


@pytest.mark.parametrize("seed", range(24))
def test_samples_of_random_layers(seed: int) -> None:
    torch.manual_seed(seed)
    encoder = nn.Sequential(nn.Linear(6, 16), RandomLayers(seed), nn.Linear(6, 6)).double()
    heads = nn.ModuleDict({f"t{task}": nn.Linear(6, 2) for task in range(TASKS)}).double()
    z = encoder(torch.randn(BATCH, 6, dtype=torch.float64))
    losses = head_losses(heads, z)
    used = torch.autograd.grad(z.sum(), list(encoder.parameters()), retain_graph=True, allow_unused=True)
    parameters = [leaf for leaf, part in zip(encoder.parameters(), used, strict=True) if part is not None]
    index = torch.randperm(BATCH, generator=step_generator(~seed, 0))[:5]
    expected = jacobian_of_samples(losses, z, parameters, index)
    gramian = pt.Balancer(pt.MGDA(), samples=5, seed=seed).backward(losses).gramian  # a warning would be an error
    torch.testing.assert_close(gramian, expected @ expected.T, rtol=1e-9, atol=1e-13)


@pytest.mark.parametrize("kind", ENCODERS)
def test_samples_warn_where_they_save_no_time(kind: str, recwarn: pytest.WarningsRecorder) -> None:
    encoder, heads, x = make_sampled_model(kind)
    balancer = pt.Balancer(pt.MGDA(), samples=5)
    for _ in range(2):
        balancer.backward(head_losses(heads, encoder(x)))
    messages = [str(warning.message) for warning in recwarn if "saves no time" in str(warning.message)]
    assert len(messages) == (0 if ENCODERS[kind][0] else 1)


@pytest.mark.parametrize("samples", [BATCH, BATCH + 5])
def test_samples_of_whole_batch_give_exact_gramian(samples: int) -> None:
    encoder, heads, x = make_sampled_model("mlp")
    exact = pt.Balancer(pt.UPGrad()).backward(head_losses(heads, encoder(x))).gramian
    drawn = pt.Balancer(pt.UPGrad(), samples=samples).backward(head_losses(heads, encoder(x))).gramian
    assert exact is not None
    assert drawn is not None
    assert torch.equal(drawn, exact)  # by the same computation, at its cost


def test_samples_give_unbiased_gradients() -> None:
    """Over all draws of one sample, the mean gradient is that of the batch, and the Gramians have the expected mean."""
    encoder, heads, x = make_sampled_model("mlp")
    z = encoder(x)
    losses, parameters = head_losses(heads, z), list(encoder.parameters())
    each = [jacobian_of_samples(losses, z, parameters, torch.tensor([sample])) for sample in range(BATCH)]
    whole = jacobian_of_samples(losses, z, parameters, torch.arange(BATCH))
    torch.testing.assert_close(torch.stack(each).mean(dim=0), whole)
    found: dict[tuple[float, ...], Tensor] = {}
    for seed in range(200):
        gramian = pt.Balancer(pt.MGDA(), samples=1, seed=seed).backward(losses, retain_graph=True).gramian
        assert gramian is not None
        found.setdefault(tuple(gramian.diagonal().round(decimals=9).tolist()), gramian)
    assert len(found) == BATCH
    expected = sum((row @ row.T for row in each), start=torch.zeros(TASKS, TASKS, dtype=torch.float64)) / BATCH
    torch.testing.assert_close(torch.stack(list(found.values())).mean(dim=0), expected, rtol=1e-9, atol=1e-12)


def test_samples_are_a_function_of_seed_and_step() -> None:
    encoder, heads, x = make_sampled_model("mlp")

    def gramians(balancer: pt.Balancer, steps: int) -> list[Tensor]:
        found = [balancer.backward(head_losses(heads, encoder(x))).gramian for _ in range(steps)]
        return [gramian for gramian in found if gramian is not None]

    one, two, other = (pt.Balancer(pt.MGDA(), samples=4, seed=seed) for seed in (1, 1, 2))
    first = gramians(one, 4)
    assert equal_tensors(first, gramians(two, 4))
    assert not torch.equal(first[0], gramians(other, 1)[0])
    assert not torch.equal(first[0], first[1])
    resumed = pt.Balancer(pt.MGDA(), samples=4, seed=1)
    resumed.load_state_dict(one.state_dict())
    assert torch.equal(gramians(resumed, 1)[0], gramians(one, 1)[0])
    assert torch.equal(gramians(copy.deepcopy(one), 1)[0], gramians(one, 1)[0])


def test_samples_allow_new_tasks_and_are_exact_for_one_task() -> None:
    encoder, heads, x = make_sampled_model("mlp")
    balancer = pt.Balancer(pt.MGDA(), samples=4, shared=encoder)
    losses = head_losses(heads, encoder(x))
    alone = balancer.backward({"t0": losses["t0"]}, retain_graph=True).gramian
    parameters = list(encoder.parameters())
    square = sum(g.square().sum() for g in torch.autograd.grad(losses["t0"], parameters, retain_graph=True))
    torch.testing.assert_close(alone, cast(Tensor, square).view(1, 1))
    assert balancer.backward(losses).tasks == ("t0", "t1", "t2")
    assert int(balancer.steps) == 2


def test_samples_keep_tasks_with_few_labels_present() -> None:
    encoder, heads, x = make_sampled_model("mlp")
    balancer = pt.Balancer(pt.UPGrad(), samples=2)
    for _ in range(6):
        z = encoder(x)
        losses = head_losses(heads, z)
        losses["t1"] = heads["t1"](z[7:8]).square().mean()  # one sample has a label
        losses["t2"] = losses["t2"] * 0
        balance = balancer.backward(losses)
        assert balance.present is not None
        assert balance.present.tolist() == [True, True, False]


def test_samples_detect_nonfinite_gradients_outside_subset() -> None:
    encoder, heads, x = make_sampled_model("mlp")
    for seed in range(4):
        z = encoder(x)
        losses = head_losses(heads, z)
        losses["t1"] = losses["t1"] + (z[3] - z[3].detach()).abs().sqrt().sum() * 0  # a finite loss, gradients nan
        with pytest.raises(FloatingPointError, match="t1"):
            pt.Balancer(pt.MGDA(), samples=2, seed=seed).backward(losses)
        assert all(parameter.grad is None for parameter in encoder.parameters())


@pytest.mark.parametrize("samples", [3, None])
@pytest.mark.parametrize("tasks", [TASKS, 40])
def test_gradient_that_breaks_within_the_encoder_is_named_and_the_next_step_is_as_before(
    samples: int | None, tasks: int
) -> None:
    """It breaks in a sample that is not drawn, so that neither the features nor the Gramian show it."""
    torch.manual_seed(0)
    first, second = nn.Linear(6, 40).double(), nn.Linear(40, 6).double()
    heads = nn.ModuleDict({f"t{task}": nn.Linear(6, 2) for task in range(tasks)}).double()
    x = torch.randn(BATCH, 6, dtype=torch.float64)
    balancer = pt.Balancer(pt.UPGrad(), samples=samples)

    def losses(broken: int | None) -> dict[str, Tensor]:
        middle = first(x)
        if broken is not None:
            mark = torch.zeros(BATCH, 1, dtype=x.dtype)
            mark[broken] = 1
            root = (1 - mark + 0 * middle).sqrt()  # its derivative is infinite in one row
            middle = middle + root - root.detach()
        return head_losses(heads, second(middle.tanh()))

    for step in range(3):
        drawn = torch.randperm(BATCH, generator=step_generator(~0, step))[:3].tolist()
        broken = next(sample for sample in range(BATCH) if sample not in drawn)
        with pytest.raises(FloatingPointError, match="'t0', 't1', 't2'"):
            balancer.backward(losses(broken))
        assert all(leaf.grad is None for leaf in [*first.parameters(), *second.parameters(), *heads.parameters()])
        balancer.backward(losses(None))
        assert all(bool(cast(Tensor, leaf.grad).isfinite().all()) for leaf in first.parameters())
        for module in (first, second, heads):
            module.zero_grad()
    levels = {known.level for known in balancer._levels.levels.values()}
    assert levels <= {Level.RULES}  # one bad batch does not make later steps slower


def test_samples_are_exact_where_tasks_have_own_inputs() -> None:
    """The Gramian is then computed from all samples, and a warning reports that no time is saved."""
    encoder, heads, x = make_sampled_model("mlp")
    losses = {name: heads[name](encoder(x[place:])).square().mean() for place, name in enumerate(heads)}
    exact = pt.Balancer(pt.MGDA()).backward(losses, retain_graph=True).gramian
    with pytest.warns(UserWarning, match="each task has inputs of its own"):
        drawn = pt.Balancer(pt.MGDA(), samples=3).backward(losses).gramian
    torch.testing.assert_close(drawn, exact, rtol=1e-12, atol=1e-14)


def test_samples_are_drawn_for_each_batch_size() -> None:
    """Each task uses features of two batches of unlike size, through the same parameters."""
    encoder, heads, x = make_sampled_model("mlp")
    first, second = encoder(x), encoder(x[:8] * 2)
    losses = {
        name: head(first).square().mean() + head(second).exp().mean() * (place + 1)
        for place, (name, head) in enumerate(heads.items())
    }
    parameters, rows = list(encoder.parameters()), []
    generator = step_generator(~0, 0)
    index = {size: torch.randperm(size, generator=generator)[:3] for size in (BATCH, 8)}
    for loss in losses.values():
        found = torch.autograd.grad(loss, (first, second), retain_graph=True)
        masked = []
        for cotangent in found:
            mask = torch.zeros(len(cotangent), 1, dtype=x.dtype)
            mask[index[len(cotangent)]] = len(cotangent) / 3
            masked.append(cotangent * mask)
        back = torch.autograd.grad((first, second), parameters, masked, retain_graph=True)
        rows.append(torch.cat([part.flatten() for part in back]))
    matrix = torch.stack(rows)
    balance = pt.Balancer(pt.MGDA(), samples=3).backward(losses)
    torch.testing.assert_close(balance.gramian, matrix @ matrix.T, rtol=1e-9, atol=1e-13)


def test_samples_are_all_used_where_batches_of_several_sizes_meet() -> None:
    encoder, heads, x = make_sampled_model("mlp")
    other = nn.Linear(6, 6).double()
    whole = encoder(x)
    first, second = whole.tanh(), other(whole[:8])
    losses = {
        "t0": heads["t0"](first).square().mean() + heads["t0"](second).exp().mean(),
        "t1": heads["t1"](first).exp().mean() + second.square().mean(),
    }
    exact = pt.Balancer(pt.MGDA(), shared=encoder).backward(losses, retain_graph=True)
    received = [parameter.grad.clone() for parameter in encoder.parameters() if parameter.grad is not None]
    encoder.zero_grad()
    with pytest.warns(UserWarning, match="saves no time"):
        balance = pt.Balancer(pt.MGDA(), samples=3, shared=encoder).backward(losses)
    torch.testing.assert_close(balance.gramian, exact.gramian, rtol=1e-9, atol=1e-13)
    torch.testing.assert_close([parameter.grad for parameter in encoder.parameters()], received, rtol=1e-9, atol=1e-13)


def test_samples_weights_are_reused_between_draws() -> None:
    encoder, heads, x = make_sampled_model("mlp")
    balancer = pt.Balancer(pt.MGDA(), samples=4, every=3)
    weights = [balancer.backward(head_losses(heads, encoder(x))).weights for _ in range(4)]
    assert weights[0] is not None
    assert torch.equal(weights[0], cast(Tensor, weights[2]))
    assert not torch.equal(weights[0], cast(Tensor, weights[3]))


@pytest.mark.parametrize("samples", [0, -1, 2.0, True, "64"])
def test_samples_option_rejects_other_values(samples: object) -> None:
    with pytest.raises(ValueError, match="samples is a whole number of at least 1"):
        pt.Balancer(pt.MGDA(), samples=cast(Any, samples))


@pytest.mark.parametrize("method", [pt.Equal(), pt.GradDrop(), pt.MoDo()], ids=repr)
def test_samples_option_rejects_methods_without_gramian(method: pt.Method[Any]) -> None:
    with pytest.raises(ValueError, match="leave it out"):
        pt.Balancer(method, samples=8)


def test_samples_reject_nested_features_and_scalars() -> None:
    encoder, heads, x = make_sampled_model("mlp")
    low = cast(nn.Sequential, encoder)[0](x)
    deep = cast(nn.Sequential, encoder)[1:](low)
    losses = {"t0": low.square().mean(), "t1": heads["t1"](deep).square().mean(), "t2": heads["t2"](deep).exp().mean()}
    with pytest.raises(ValueError, match="uses an intermediate tensor of what another task uses as a whole"):
        pt.Balancer(pt.MGDA(), samples=4).backward(losses)
    scale = encoder(x).mean()
    with pytest.raises(ValueError, match="a single number: leave samples out"):
        pt.Balancer(pt.MGDA(), samples=4).backward({"t0": scale * 2, "t1": scale.square()})


def test_samples_reject_hooks_on_features_and_apply_inner_hooks() -> None:
    encoder, heads, x = make_sampled_model("mlp")
    z = encoder(x)
    z.register_hook(lambda gradient: gradient * 0.5)
    with pytest.raises(ValueError, match="a hook changes gradients"):
        pt.Balancer(pt.MGDA(), samples=4).backward(head_losses(heads, z))
    first, last = cast(nn.Sequential, encoder)[0], cast(nn.Sequential, encoder)[1:]
    low = first(x)
    low.register_hook(lambda gradient: gradient * 0.5)
    z = last(low)
    losses = head_losses(heads, z)
    expected = jacobian_of_samples(losses, z, list(encoder.parameters()), torch.arange(BATCH))
    with pytest.warns(UserWarning, match="saves no time"):
        gramian = pt.Balancer(pt.MGDA(), samples=4).backward(losses).gramian
    torch.testing.assert_close(gramian, expected @ expected.T, rtol=1e-9, atol=1e-13)


def test_sample_dim_selects_all_rows_of_a_sample() -> None:
    rows = SampleSubset(torch.tensor([0, 2]), 3)
    assert SampleDim(rows).select(torch.arange(6)).tolist() == [0, 1, 4, 5]
    assert SampleDim(rows, outer=2).select(torch.arange(6)).tolist() == [0, 2, 3, 5]
    assert SampleDim(rows, dim=1).select(torch.arange(6).view(2, 3)).tolist() == [[0, 2], [3, 5]]
    assert rows.mask(torch.ones(1, 6)).tolist() == [[1.5, 1.5, 0, 0, 1.5, 1.5]]
    with pytest.raises(NoRuleError, match="4 rows do not belong to 3 samples"):
        SampleDim(rows).select(torch.arange(4))


@pytest.mark.parametrize("old", [(3, 4, 2), (4, 3, 2), (2, 2, 3, 2), (12, 2), (6, 4)])
def test_sample_dim_follows_reshapes(old: tuple[int, ...]) -> None:
    """Selected entries stay the same entries, wherever the dimension of the samples goes."""
    subset = SampleSubset(torch.tensor([0, 2]), 3)
    tensor = torch.arange(24).view(old)
    starts = [
        SampleDim(subset, dim, outer) for dim, size in enumerate(old) for outer in (1, 2, 4) if size % (3 * outer) == 0
    ]
    assert starts
    for start in starts:
        for new in ((24,), (3, 8), (12, 2), (4, 6), (2, 6, 2), (4, 3, 2), (1, 24, 1)):
            try:
                found = start.reshaped(old, new)
            except NoRuleError:
                continue
            assert found.select(tensor.view(new)).flatten().tolist() == start.select(tensor).flatten().tolist()
            assert found.of_subset(new) == list(found.select(tensor.view(new)).shape)
            assert found.of_batch(found.of_subset(new)) == list(new)
    assert SampleDim(subset, 1).reshaped((4, 3, 2), (12, 2)) == SampleDim(subset, 0, outer=4)
    with pytest.raises(NoRuleError, match="distributes the samples over several dimensions"):
        SampleDim(subset, 0, outer=2).reshaped((6, 4), (8, 3))
