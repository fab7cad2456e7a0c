"""Heads on a feature map, for a class of the image or values at each pixel."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from paretorch.workloads.models.channels import scaled_channels

CHANNELS: dict[str, tuple[int, ...]] = {"narrow": (256, 128, 64, 32), "wide": (512, 256, 128, 64, 32)}


def image_classifier(features: int, classes: int, hidden: int = 512, dropout: float = 0.3) -> nn.Sequential:
    """Mean over the map - linear - ReLU - dropout - linear; (B, D, h, w) -> scores (B, classes).

    Args:
        features: D.
        classes: number of scores.
        hidden: units of the hidden layer.
        dropout: probability.

    Example:
        >>> import torch
        >>> image_classifier(16, 5)(torch.zeros(2, 16, 4, 4)).shape
        torch.Size([2, 5])
    """
    return nn.Sequential(
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(features, hidden),
        nn.ReLU(),
        nn.Dropout(dropout),
        nn.Linear(hidden, classes),
    )


class PixelHead(nn.Module):
    """Blocks of conv 3 x 3 - batch norm - ReLU - upsampling by 2, to the image's resolution, and conv 1 x 1.

    Args:
        features: D, channels of the map.
        outputs: channels of the result.
        stride: pixels of the image for one point of the map, along one side: a power of two.
        decoder: ``"narrow"``: four blocks, 256-128-64-32; ``"wide"``: five, 512-256-128-64-32.
        width: factor on those; rounded to multiples of 8.
        edge: pixels along one side of the image; needed if it is not a multiple of the stride, so that the output is cropped.

    Raises:
        ValueError: the decoder is unknown, or the stride is not a power of two.

    Example:
        >>> import torch
        >>> PixelHead(16, 8, stride=16)(torch.zeros(2, 16, 4, 4)).shape
        torch.Size([2, 8, 64, 64])
    """

    def __init__(
        self,
        features: int,
        outputs: int,
        stride: int = 32,
        decoder: str = "narrow",
        width: float = 1.0,
        edge: int | None = None,
    ) -> None:
        super().__init__()
        if decoder not in CHANNELS:
            raise ValueError(f"decoder is one of {', '.join(CHANNELS)}, got {decoder!r}")
        doublings = round(math.log2(stride)) if stride >= 1 else -1
        if stride != 2**doublings:
            raise ValueError(f"stride is a power of two, got {stride}")
        blocks = []
        for index, published in enumerate(CHANNELS[decoder]):
            channels = scaled_channels(published, width)
            blocks.append(
                nn.Sequential(nn.Conv2d(features, channels, 3, padding=1), nn.BatchNorm2d(channels), nn.ReLU())
            )
            if index < doublings:
                blocks[-1].append(nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False))
            features = channels
        self.blocks = nn.Sequential(*blocks)
        self.left_over = 2 ** max(0, doublings - len(blocks))
        self.edge = edge
        self.scores = nn.Conv2d(features, outputs, 1)

    def forward(self, features: Tensor) -> Tensor:
        """(B, D, h, w) -> (B, outputs, h stride, w stride), or (B, outputs, edge, edge)."""
        # a 1 x 1 convolution and an interpolation commute: scores have fewer channels, so they are computed first
        scores: Tensor = self.scores(self.blocks(features))
        if self.left_over > 1:
            scores = functional.interpolate(scores, scale_factor=self.left_over, mode="bilinear", align_corners=False)
        return scores if self.edge is None else scores[..., : self.edge, : self.edge]


class PixelQuantity(nn.Module):
    """A positive value at each pixel: ``center exp(spread x)``; (B, D, h, w) -> (B, H, W).

    Args:
        pixels: features -> x, one channel.
        center: value for x = 0, in the unit of the quantity, above 0.
        spread: difference of the value's logarithm between x = 0 and x = 1.
    """

    center: Tensor

    def __init__(self, pixels: PixelHead, center: float, spread: float) -> None:
        super().__init__()
        self.pixels, self.spread = pixels, spread
        self.register_buffer("center", torch.tensor(center))

    def forward(self, features: Tensor) -> Tensor:
        """(B, H, W), in float32 at least."""
        raw: Tensor = self.pixels(features).squeeze(1)
        return self.center * torch.exp(
            (raw.to(torch.promote_types(raw.dtype, self.center.dtype)) * self.spread).clamp(-5, 5)
        )


class PixelDirections(nn.Module):
    """A unit vector at each pixel; (B, D, h, w) -> (B, 3, H, W).

    Args:
        pixels: features -> vectors of any length, three channels.
    """

    def __init__(self, pixels: PixelHead) -> None:
        super().__init__()
        self.pixels = pixels

    def forward(self, features: Tensor) -> Tensor:
        """(B, 3, H, W)."""
        return functional.normalize(self.pixels(features), dim=1, eps=1e-6)
