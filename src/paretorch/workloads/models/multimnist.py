"""The LeNets of the two published Multi-MNIST protocols, and a vision transformer for comparison."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from paretorch.workloads.models.small_encoders import VisionTransformer

MEAN, SPREAD = 0.1307, 0.3081  # of MNIST's pixels in 0..1
FEATURES = 50
TRANSFORMER, HEADS, LAYERS = 96, 3, 4  # width, attention heads and layers


class PixelScaling(nn.Module):
    """Bytes -> ``(x / 255 - center) / spread``; floats are unchanged.

    Args:
        center: subtracted.
        spread: divided by.
    """

    def __init__(self, center: float = 0.0, spread: float = 1.0) -> None:
        super().__init__()
        self.center, self.spread = center, spread

    def forward(self, images: Tensor) -> Tensor:
        """(B, ...) of the same shape."""
        if images.is_floating_point():
            return images
        return images.to(torch.get_default_dtype()).div_(255).sub_(self.center).div_(self.spread)


def sener_encoder() -> nn.Sequential:
    """Conv 10 x 5 - pool - ReLU - conv 20 x 5 - dropout - pool - ReLU - linear 320-50 - ReLU; (B, 1, 28, 28) -> (B, 50).

    Example:
        >>> sener_encoder()(torch.zeros(2, 1, 28, 28)).shape
        torch.Size([2, 50])
    """
    return nn.Sequential(
        PixelScaling(MEAN, SPREAD),
        nn.Conv2d(1, 10, kernel_size=5),
        nn.MaxPool2d(2),
        nn.ReLU(),
        nn.Conv2d(10, 20, kernel_size=5),
        nn.Dropout2d(),
        nn.MaxPool2d(2),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(320, 50),
        nn.ReLU(),
    )


def pmtl_encoder() -> nn.Sequential:
    """Conv 10 x 9 - ReLU - pool - conv 20 x 5 - ReLU - pool - linear 500-50 - ReLU; (B, 1, 36, 36) -> (B, 50).

    Example:
        >>> pmtl_encoder()(torch.zeros(2, 1, 36, 36)).shape
        torch.Size([2, 50])
    """
    return nn.Sequential(
        PixelScaling(),
        nn.Conv2d(1, 10, kernel_size=9),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(10, 20, kernel_size=5),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(500, 50),
        nn.ReLU(),
    )


def vit_encoder(patch: int) -> nn.Sequential:
    """A vision transformer - mean over the patches - linear 96-50 - ReLU; (B, 1, H, W) -> (B, 50).

    Args:
        patch: pixels along one side of a patch; 4 or 7 divide the images' 28 pixels, 4 or 9 the 36.

    Example:
        >>> vit_encoder(7)(torch.zeros(2, 1, 28, 28)).shape
        torch.Size([2, 50])
    """
    return nn.Sequential(
        PixelScaling(MEAN, SPREAD),
        VisionTransformer(1, TRANSFORMER, HEADS, LAYERS, patch),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(TRANSFORMER, FEATURES),
        nn.ReLU(),
    )
