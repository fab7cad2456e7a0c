"""A LeNet for small images, with two convolutions in the encoder and a hidden layer in each head."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def encoder(edge: int, channels: tuple[int, int] = (8, 16), features: int = 50) -> nn.Sequential:
    """Conv - ReLU - conv - ReLU - linear - ReLU; images (B, 1, edge, edge) -> features (B, D).

    The convolutions have stride 2 instead of LeNet's pooling, which halves the time on small images and, unlike pooling, uses
    every row of an odd edge.

    Args:
        edge: pixels along one side of the image, at least 4.
        channels: of the two convolutions.
        features: D.

    Raises:
        ValueError: the image is too small.

    Example:
        >>> encoder(11)(torch.zeros(2, 1, 11, 11)).shape
        torch.Size([2, 50])
    """
    if edge < 4:
        raise ValueError(f"edge: expected at least 4 pixels for two convolutions of stride 2, got {edge}")
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
    """A head for a quantity: linear - ReLU - linear, then ``center + spread * x``; features (B, D) -> (B,).

    Args:
        features: D.
        center: value for x = 0, in the unit of the quantity.
        spread: difference of the value between x = 0 and x = 1.
    """

    center: Tensor
    spread: Tensor

    def __init__(self, features: int, center: float, spread: float) -> None:
        super().__init__()
        self.layers = classifier(features, classes=1)
        self.register_buffer("center", torch.tensor(center))
        self.register_buffer("spread", torch.tensor(spread))

    def forward(self, features: Tensor) -> Tensor:
        """(B,) quantities, in float32 at least: autocast would round them to 8 significant bits."""
        scores: Tensor = self.layers(features).squeeze(1)
        return self.center + self.spread * scores.to(torch.promote_types(scores.dtype, self.center.dtype))
