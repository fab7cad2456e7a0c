"""A head for the centres of objects: class scores, size and position at each point of a map."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from paretorch.workloads.detection.boxes import BOX
from paretorch.workloads.models.channels import scaled_channels

STRIDE = 4  # pixels of the image for one point of the head's map, along one side
CHANNELS = (128, 64, 64)  # of its blocks; the last is repeated
PRIOR = 0.1  # initial probability of a centre at each point, which keeps the first focal losses small


class CenterHead(nn.Module):
    """Blocks of conv 3 x 3 - batch norm - ReLU - upsampling by 2 up to stride 4, and conv 1 x 1.

    Args:
        features: D, channels of the map.
        classes: C.
        stride: pixels of the image for one point of the map, a power of two; the output has the smaller one of it and 4.
        width: factor on the channels; rounded to multiples of 8.

    Example:
        >>> CenterHead(16, 6, stride=16)(torch.zeros(2, 16, 4, 4)).shape
        torch.Size([2, 10, 16, 16])

    References:
        Zhou, Wang & Krähenbühl, "Objects as points", 2019; one head for all three maps, instead of three.
    """

    def __init__(self, features: int, classes: int, stride: int, width: float = 1.0) -> None:
        super().__init__()
        doublings = max(0, round(math.log2(stride / STRIDE)))
        blocks = nn.Sequential()
        for index in range(doublings + 1):
            channels = scaled_channels(CHANNELS[min(index, len(CHANNELS) - 1)], width)
            blocks.append(nn.Conv2d(features, channels, 3, padding=1))
            blocks.append(nn.BatchNorm2d(channels))
            blocks.append(nn.ReLU())
            if index < doublings:
                blocks.append(nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False))
            features = channels
        self.blocks, self.maps = blocks, nn.Conv2d(features, classes + BOX, 1)
        with torch.no_grad():
            assert self.maps.bias is not None
            self.maps.bias[:classes] = math.log(PRIOR / (1 - PRIOR))

    def forward(self, features: Tensor) -> Tensor:
        """(B, D, h, w) -> (B, C + 4, h', w')."""
        result: Tensor = self.maps(self.blocks(features))
        return result
