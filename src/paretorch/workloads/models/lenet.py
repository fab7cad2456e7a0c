"""A LeNet for small images: two convolutions as the encoder, one hidden layer per head."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def encoder(edge: int, channels: tuple[int, int] = (8, 16), features: int = 50) -> nn.Sequential:
    """Conv - ReLU - conv - ReLU - linear - ReLU; images (B, 1, edge, edge) -> features (B, D).

    The convolutions have stride 2 where LeNet pools: on images this small that halves the time and, unlike a pooling of
    two, drops no row of an odd edge.

    Args:
        edge: pixels along one side of the image, at least 4.
        channels: maps of the two convolutions.
        features: D.

    Raises:
        ValueError: the image is too small.

    Example:
        >>> encoder(11)(torch.zeros(2, 1, 11, 11)).shape
        torch.Size([2, 50])
    """
    if edge < 4:
        raise ValueError(f"edge: expected at least 4 pixels, of which two strides leave something, got {edge}")
    first, second = channels
    halved = edge // 2
    quartered = (halved + 1) // 2
    return nn.Sequential(
        nn.Conv2d(1, first, kernel_size=4, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(first, second, kernel_size=3, stride=2, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(second * quartered**2, features),
        nn.ReLU(),
    )


def classifier(features: int = 50, classes: int = 10) -> nn.Sequential:
    """Linear - ReLU - linear; features (B, D) -> scores (B, classes)."""
    return nn.Sequential(nn.Linear(features, features), nn.ReLU(), nn.Linear(features, classes))


class Quantity(nn.Module):
    """A number in its natural unit: linear - ReLU - linear, then ``center + spread * x``; features (B, D) -> (B,).

    Args:
        features: D.
        center: what an output of zero stands for, in the quantity's unit.
        spread: what an output of one adds to it.
    """

    center: Tensor
    spread: Tensor

    def __init__(self, features: int, center: float, spread: float) -> None:
        super().__init__()
        self.layers = classifier(features, classes=1)
        self.register_buffer("center", torch.tensor(center))
        self.register_buffer("spread", torch.tensor(spread))

    def forward(self, features: Tensor) -> Tensor:
        """(B,) quantities, in float32 at least: autocast would round them to multiples of their size / 256."""
        scores: Tensor = self.layers(features).squeeze(1)
        return self.center + self.spread * scores.to(torch.promote_types(scores.dtype, self.center.dtype))
