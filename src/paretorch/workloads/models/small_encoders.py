"""Small image encoders without pretrained weights: strided convolutions, and a vision transformer."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from paretorch.workloads.models.channels import scaled_channels

CHANNELS, MOST_CHANNELS = 32, 256  # of the first convolution and of the last ones, at width 1
TRANSFORMER, HEADS, LAYERS = 192, 3, 4  # width, attention heads and layers of the vision transformer, at width 1
WAVELENGTH = 10_000.0  # the longest one of the positions' sines is 2 pi times this number of patches


def convnet(width: float, stride: int) -> tuple[nn.Module, int]:
    """A convolution of stride 2 for each halving, with twice as many channels each, and one of stride 1.

    Each is a convolution of 3 x 3 points, a batch norm and a ReLU. On 32 x 32 pixels it is several times faster than a ResNet.

    Args:
        width: factor on the channels, 32, 64, 128, 256, 256.
        stride: pixels of the image for one point of the output, along one side: a power of two.

    Returns:
        The layers, and the number of channels of their output.
    """
    layers, channels = nn.Sequential(), 3
    steps = [2] * round(math.log2(stride)) + [1]
    for index, step in enumerate(steps):
        wider = CHANNELS * 2**index if step == 2 else MOST_CHANNELS
        after = scaled_channels(min(wider, MOST_CHANNELS), width) if step == 2 else channels
        layers.append(nn.Conv2d(channels, after, 3, stride=step, padding=1, bias=False))
        layers.append(nn.BatchNorm2d(after))
        layers.append(nn.ReLU())
        channels = after
    return layers, channels


def vit(width: float, stride: int) -> tuple[nn.Module, int]:
    """A vision transformer of 192 channels, 3 heads and 4 layers at width 1, whose patches have ``stride`` pixels along a side.

    Args:
        width: factor on the channels; rounded to multiples of 12.
        stride: pixels along one side of a patch.

    Returns:
        The layers, and the number of channels of their output.
    """
    unit = 4 * HEADS  # the positions take a quarter of the channels each, the heads a third
    channels = max(unit, round(TRANSFORMER * width / unit) * unit)
    return VisionTransformer(3, channels, HEADS, LAYERS, stride), channels


class VisionTransformer(nn.Module):
    """Patches -> linear -> positions -> layers of attention and MLP -> layer norm, as a map of one point for each patch.

    There is no class token: heads use the mean over the map. Positions are fixed sines and cosines in two dimensions, so images
    may have any size; they are padded with zeros to a multiple of the patch.

    Args:
        inputs: channels of the images.
        channels: D, a multiple of 4 and of ``heads``.
        heads: of the attention.
        layers: number of layers.
        patch: pixels along one side of a patch.

    Raises:
        ValueError: the channels are not a multiple of both.

    Example:
        >>> VisionTransformer(1, 24, heads=3, layers=2, patch=7)(torch.zeros(2, 1, 28, 28)).shape
        torch.Size([2, 24, 4, 4])

    References:
        Dosovitskiy et al., ICLR 2021 (vision transformer); positions and the mean instead of a class token as Beyer,
        Zhai & Kolesnikov, "Better plain ViT baselines for ImageNet-1k", 2022.
    """

    def __init__(self, inputs: int, channels: int, heads: int, layers: int, patch: int) -> None:
        super().__init__()
        if channels % 4 or channels % heads:
            raise ValueError(f"channels: expected a multiple of 4 and of the {heads} heads, got {channels}")
        self.patch = patch
        self.patches = nn.Conv2d(inputs, channels, patch, stride=patch)
        self.layers = nn.Sequential(*(TransformerLayer(channels, heads) for _ in range(layers)))
        self.norm = nn.LayerNorm(channels)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)

    def forward(self, images: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, D, ceil(H / patch), ceil(W / patch))."""
        below, right = (-edge % self.patch for edge in images.shape[2:])
        if below or right:
            images = functional.pad(images, (0, right, 0, below))
        embedded: Tensor = self.patches(images)
        rows, columns = embedded.shape[2:]
        tokens = embedded.flatten(2).mT + positions(rows, columns, embedded.shape[1]).to(embedded)
        result: Tensor = self.norm(self.layers(tokens))
        return result.mT.reshape(-1, result.shape[2], rows, columns)


class TransformerLayer(nn.Module):
    """x + attention(norm x), then x + MLP(norm x); (B, N, D) -> (B, N, D).

    Args:
        channels: D.
        heads: of the attention.
    """

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm, self.second_norm = nn.LayerNorm(channels), nn.LayerNorm(channels)
        self.projection, self.output = nn.Linear(channels, 3 * channels), nn.Linear(channels, channels)
        self.perceptron = nn.Sequential(nn.Linear(channels, 4 * channels), nn.GELU(), nn.Linear(4 * channels, channels))

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, N, D) of the same shape."""
        parts = self.projection(self.norm(tokens)).unflatten(2, (3, self.heads, -1))  # (B, N, 3, heads, D / heads)
        query, key, value = parts.transpose(1, 3).unbind(dim=2)
        attended = functional.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)
        tokens = tokens + self.output(attended)
        result: Tensor = tokens + self.perceptron(self.second_norm(tokens))
        return result


def positions(rows: int, columns: int, channels: int) -> Tensor:
    """(rows columns, channels) sines and cosines of the column and of the row of each patch.

    Args:
        rows: of patches.
        columns: of patches.
        channels: a multiple of 4.

    Example:
        >>> positions(1, 2, 4)
        tensor([[0.0000, 1.0000, 0.0000, 1.0000],
                [0.8415, 0.5403, 0.0000, 1.0000]])
    """
    down, right = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
    quarter = channels // 4
    frequencies = WAVELENGTH ** -(torch.arange(quarter) / max(1, quarter - 1))
    angles = [place.flatten()[:, None] * frequencies for place in (right, down)]
    return torch.cat([part for angle in angles for part in (angle.sin(), angle.cos())], dim=1)
