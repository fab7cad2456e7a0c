"""Displacement measured on a subsample: replay of BatchNorm, reliability, refusals."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import paretorch as pt
from paretorch.linesearch.replay.batch_norm import BatchNormReplay, replayable_layers

TASKS = ("a", "b")


class Twice(nn.Module):
    """Calls one layer of every kind of BatchNorm twice."""

    def __init__(self) -> None:
        super().__init__()
        self.maps, self.plain = nn.Conv2d(2, 3, 3, padding=1), nn.BatchNorm2d(3, affine=False)
        self.again = nn.BatchNorm2d(3, track_running_stats=False)
        self.line, self.flat = nn.Linear(48, 5), nn.BatchNorm1d(5, momentum=None)
        self.frozen = nn.BatchNorm1d(5).eval()

    def forward(self, x: Tensor) -> Tensor:
        z = self.again(self.plain(self.maps(x)).relu()) + self.again(x.sum(dim=1, keepdim=True).expand(-1, 3, -1, -1))
        out: Tensor = self.frozen(self.flat(self.line(z.flatten(1))))
        return out


def encoded(seed: int = 0) -> tuple[Twice, Tensor]:
    torch.manual_seed(seed)
    encoder = Twice().double()
    encoder.frozen.eval()
    return encoder, torch.randn(24, 2, 4, 4, dtype=torch.float64)


@pytest.mark.parametrize("graph", [True, False])
def test_batch_norm_replay_gives_a_subsample_the_features_of_the_batch(graph: bool) -> None:
    encoder, x = encoded()
    replay = BatchNormReplay(replayable_layers(encoder))
    with torch.set_grad_enabled(graph), replay.recorded():
        whole = encoder(x)
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    for samples in (3, 10):
        with torch.no_grad(), replay.on_subsample(samples):
            some = encoder(x[:samples])
        assert torch.allclose(some, whole[:samples], rtol=1e-12, atol=1e-12)
        assert not torch.allclose(encoder(x[:samples]), whole[:samples], rtol=1e-2)
        encoder.load_state_dict(before)
    assert all("forward" not in vars(layer) for layer in replayable_layers(encoder))


def test_batch_norm_replay_moves_representative_samples_as_the_batch() -> None:
    encoder, half = encoded()
    x = torch.cat([half, half])
    replay = BatchNormReplay(replayable_layers(encoder))
    with replay.recorded():
        encoder(x)
    with torch.no_grad():
        for leaf in encoder.parameters():
            leaf.add_(torch.randn_like(leaf), alpha=0.05)
        with replay.on_subsample(len(half)):
            some = encoder(half)
        assert torch.allclose(some, encoder(x)[: len(half)], rtol=1e-9, atol=1e-9)


def test_batch_norm_replay_refuses_another_order_of_layers() -> None:
    first, second = nn.BatchNorm1d(3), nn.BatchNorm1d(3)
    replay = BatchNormReplay([first, second])
    x = torch.randn(8, 3)
    with replay.recorded():
        second(first(x))
    with replay.on_subsample(4), pytest.raises(RuntimeError, match="another order than before: use samples=None"):
        first(second(x[:4]))


def test_batch_norm_replay_excludes_compiled_encoders() -> None:
    encoder = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    assert replayable_layers(encoder)
    assert replayable_layers(torch.compile(encoder)) == []  # type: ignore[arg-type]
    assert replayable_layers(nn.Sequential(nn.SyncBatchNorm(3))) == []


def labelled(heads: nn.ModuleDict, targets: dict[str, Tensor]) -> Callable[[Tensor], dict[str, Tensor]]:
    return lambda z: {task: F.cross_entropy(heads[task](z), targets[task]) for task in TASKS}


@pytest.mark.parametrize("seed", [2, 4, 9])
def test_network_with_batch_norm_is_trained_with_misleading_subsamples(seed: int) -> None:
    """On one batch of random labels, secants of a subsample become wrong: the search measures them again."""
    torch.manual_seed(seed)
    encoder = nn.Sequential(
        nn.Conv2d(1, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 8, 3), nn.BatchNorm2d(8), nn.ReLU(),
        nn.Flatten(), nn.Linear(72, 16), nn.ReLU(),
    )  # fmt: skip
    heads = nn.ModuleDict({task: nn.Linear(16, 4) for task in TASKS})
    x, targets = torch.rand(96, 1, 12, 12), {task: torch.randint(4, (96,)) for task in TASKS}
    search = pt.FastBacktracking(encoder, heads, pt.MGDA(), samples=32)
    steps = [search.step(x, labelled(heads, targets)) for _ in range(50)]
    assert sum(step.accepted for step in steps) >= 49
    assert all(float(steps[-1].losses[task]) < 0.7 * float(steps[0].losses[task]) for task in TASKS)


def test_subsample_is_unreliable_where_samples_move_independently() -> None:
    torch.manual_seed(0)
    heads = nn.ModuleDict({task: nn.Linear(8, 3) for task in TASKS}).requires_grad_(False)
    targets = {task: torch.randint(3, (64,)) for task in TASKS}
    own = pt.FastBacktracking(nn.Embedding(64, 8), heads, pt.MGDA())
    own.step(torch.arange(64), labelled(heads, targets))
    assert not own.fast.encoder.subsample_reliable
    again = pt.FastBacktracking(nn.Embedding(64, 8), heads, pt.MGDA())
    again.load_state_dict(own.state_dict())
    assert not again.fast.encoder.subsample_reliable
    x = torch.randn(1, 6) + 0.1 * torch.randn(64, 6)
    alike = pt.FastBacktracking(nn.Linear(6, 8), heads, pt.MGDA())
    alike.step(x, labelled(heads, targets))
    assert alike.fast.encoder.subsample_reliable
