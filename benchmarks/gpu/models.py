"""The models of the measurements, in plain torch: encoders of published sizes, and one linear head for each task."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

CLASSES = 10


class Size(NamedTuple):
    """The sizes of a model: as published, or tiny ones for a run without a GPU."""

    batch: int
    sizes: tuple[int, ...]


class Kind(NamedTuple):
    """How a model is made, and its sizes."""

    make: Callable[..., tuple[nn.Module, int, Tensor]]  # of batch and sizes: the encoder, its width, and its input
    published: Size
    tiny: Size


@dataclass
class Case:
    """A model on its device with a batch of data."""

    encoder: nn.Module
    heads: nn.ModuleDict
    inputs: Tensor
    targets: dict[str, Tensor]

    @property
    def tasks(self) -> tuple[str, ...]:
        return tuple(self.heads)

    @property
    def parameters(self) -> list[nn.Parameter]:
        return [*self.encoder.parameters(), *self.heads.parameters()]

    def losses(self, branch: dict[str, Tensor]) -> dict[str, Tensor]:
        return {
            task: functional.cross_entropy(head(branch[task]).float(), self.targets[task])
            for task, head in self.heads.items()
        }


def cnn(batch: int, size: int) -> tuple[nn.Module, int, Tensor]:
    """A LeNet-like network on images of one channel."""
    side = ((size - 4) // 2 - 4) // 2
    encoder = nn.Sequential(
        nn.Conv2d(1, 10, 5), nn.MaxPool2d(2), nn.ReLU(), nn.Conv2d(10, 20, 5), nn.MaxPool2d(2), nn.ReLU(),
        nn.Flatten(), nn.Linear(20 * side**2, 50), nn.ReLU(),
    )  # fmt: skip
    return encoder, 50, torch.randn(batch, 1, size, size)


def mlp(batch: int, inputs: int, width: int) -> tuple[nn.Module, int, Tensor]:
    """Two linear layers, the second of two thirds of the width."""
    last = width * 2 // 3
    encoder = nn.Sequential(nn.Linear(inputs, width), nn.ReLU(), nn.Linear(width, last), nn.ReLU())
    return encoder, last, torch.randn(batch, inputs)


class Bottleneck(nn.Module):
    """The block of ResNet-50: convolutions of 1, 3 and 1, and a shortcut."""

    def __init__(self, width: int, inner: int, stride: int) -> None:
        super().__init__()
        out = 4 * inner
        self.path = nn.Sequential(
            nn.Conv2d(width, inner, 1, bias=False), nn.BatchNorm2d(inner), nn.ReLU(),
            nn.Conv2d(inner, inner, 3, stride, 1, bias=False), nn.BatchNorm2d(inner), nn.ReLU(),
            nn.Conv2d(inner, out, 1, bias=False), nn.BatchNorm2d(out),
        )  # fmt: skip
        same = stride == 1 and width == out
        shortcut = nn.Sequential(nn.Conv2d(width, out, 1, stride, bias=False), nn.BatchNorm2d(out))
        self.shortcut = nn.Identity() if same else shortcut

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(self.path(x) + self.shortcut(x))


def resnet(batch: int, size: int, width: int, *blocks: int) -> tuple[nn.Module, int, Tensor]:
    """ResNet with bottleneck blocks: 64 channels and (3, 4, 6, 3) blocks are ResNet-50."""
    layers: list[nn.Module] = [
        nn.Conv2d(3, width, 7, 2, 3, bias=False), nn.BatchNorm2d(width), nn.ReLU(), nn.MaxPool2d(3, 2, 1),
    ]  # fmt: skip
    channels = width
    for stage, count in enumerate(blocks):
        inner = width * 2**stage
        for block in range(count):
            layers.append(Bottleneck(channels, inner, 2 if stage and not block else 1))
            channels = 4 * inner
    encoder = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return encoder, channels, torch.randn(batch, 3, size, size)


class Attention(nn.Module):
    """Self-attention with one projection for queries, keys and values."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads, self.packed, self.out = heads, nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        batch, length, width = x.shape
        parts = self.packed(x).view(batch, length, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(parts[0], parts[1], parts[2])
        result: Tensor = self.out(mixed.transpose(1, 2).reshape(batch, length, width))
        return result


class Block(nn.Module):
    """A transformer block, with normalization before its parts (ViT) or after them (BERT)."""

    def __init__(self, width: int, heads: int, norm_first: bool) -> None:
        super().__init__()
        self.norm_first = norm_first
        self.attention = Attention(width, heads)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
        self.norms = nn.ModuleList([nn.LayerNorm(width), nn.LayerNorm(width)])

    def forward(self, x: Tensor) -> Tensor:
        first, second = self.norms
        if self.norm_first:
            x = x + self.attention(first(x))
            return x + self.mlp(second(x))
        x = first(x + self.attention(x))
        result: Tensor = second(x + self.mlp(x))
        return result


class Transformer(nn.Module):
    """Embedded tokens with positions through blocks, to the first token (BERT) or the mean over tokens (ViT)."""

    def __init__(self, embed: nn.Module, length: int, width: int, heads: int, depth: int, norm_first: bool) -> None:
        super().__init__()
        self.embed, self.norm_first = embed, norm_first
        self.positions = nn.Parameter(0.02 * torch.randn(1, length, width))
        self.blocks = nn.Sequential(*(Block(width, heads, norm_first) for _ in range(depth)))
        self.norm = nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.norm(self.blocks(self.embed(x) + self.positions))
        result: Tensor = tokens.mean(dim=1) if self.norm_first else tokens[:, 0]
        return result


class Patches(nn.Module):
    """Images to a token for each patch."""

    def __init__(self, patch: int, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, width, patch, patch)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.conv(x).flatten(2).transpose(1, 2)
        return result


def vit(batch: int, size: int, patch: int, width: int, heads: int, depth: int) -> tuple[nn.Module, int, Tensor]:
    """A vision transformer: 224, 16, 768, 12, 12 is ViT-B/16."""
    length = (size // patch) ** 2
    encoder = Transformer(Patches(patch, width), length, width, heads, depth, norm_first=True)
    return encoder, width, torch.randn(batch, 3, size, size)


def bert(batch: int, length: int, words: int, width: int, heads: int, depth: int) -> tuple[nn.Module, int, Tensor]:
    """A text encoder: 30522 words, 768, 12, 12 is BERT-base."""
    encoder = Transformer(nn.Embedding(words, width), length, width, heads, depth, norm_first=False)
    return encoder, width, torch.randint(words, (batch, length))


KINDS: dict[str, Kind] = {
    "cnn": Kind(cnn, Size(256, (28,)), Size(8, (28,))),
    "mlp": Kind(mlp, Size(256, (784, 768)), Size(8, (12, 24))),
    "resnet-50": Kind(resnet, Size(64, (224, 64, 3, 4, 6, 3)), Size(4, (32, 4, 1, 1))),
    "vit-b": Kind(vit, Size(32, (224, 16, 768, 12, 12)), Size(4, (8, 4, 8, 2, 1))),
    "bert-base": Kind(bert, Size(16, (128, 30522, 768, 12, 12)), Size(4, (6, 20, 8, 2, 1))),
}


def made(kind: str, tasks: int, device: torch.device, tiny: bool) -> Case:
    """A model with so many tasks, and its data, on a device."""
    torch.manual_seed(0)
    size = KINDS[kind].tiny if tiny else KINDS[kind].published
    encoder, width, inputs = KINDS[kind].make(size.batch, *size.sizes)
    heads = nn.ModuleDict({f"t{task}": nn.Linear(width, CLASSES) for task in range(tasks)})
    targets = {task: torch.randint(CLASSES, (size.batch,)).to(device) for task in heads}
    return Case(encoder.to(device), heads.to(device), inputs.to(device), targets)
