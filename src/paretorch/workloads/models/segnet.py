"""SegNet: an encoder with five poolings and a decoder that unpools with the encoder's indices."""

from __future__ import annotations

import math
from typing import NamedTuple

from torch import Tensor, nn
from torch.nn import functional

from paretorch.workloads.models.channels import scaled_channels

FILTERS = (64, 128, 256, 512, 512)
LEAST = 2 ** len(FILTERS)  # pixels along one side that the poolings reduce to one


class Maps(NamedTuple):
    """The feature maps of one forward pass, finest first: level i has half the resolution of level i - 1.

    Args:
        encoded: (B, C_i, H_i, W_i) after the encoder's first convolution of each level.
        encoded_last: (B, C_i, H_i, W_i) after its last, before the pooling.
        unpooled: (B, C_i, H_i, W_i) input of each level of the decoder.
        decoded_last: (B, C_{i-1}, H_i, W_i) its output; C_0 at the finest level.
    """

    encoded: tuple[Tensor, ...]
    encoded_last: tuple[Tensor, ...]
    unpooled: tuple[Tensor, ...]
    decoded_last: tuple[Tensor, ...]


def channels(width: float) -> tuple[int, ...]:
    """The channels of the five levels: 64, 128, 256, 512, 512 times the width, rounded to multiples of 8.

    Raises:
        ValueError: the width is not above 0.

    Example:
        >>> channels(0.25)
        (16, 32, 64, 128, 128)
    """
    if not (math.isfinite(width) and width > 0):
        raise ValueError(f"width is a factor above 0, got {width}")
    return tuple(scaled_channels(published, width) for published in FILTERS)


def convolution(inputs: int, outputs: int) -> nn.Sequential:
    """Conv 3 x 3 - batch norm - ReLU."""
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True))


def prediction(inputs: int, outputs: int) -> nn.Sequential:
    """Conv 3 x 3 - conv 1 x 1 without a nonlinearity between them, as published."""
    return nn.Sequential(nn.Conv2d(inputs, inputs, 3, padding=1), nn.Conv2d(inputs, outputs, 1))


class SegNet(nn.Module):
    """Images (B, 3, H, W) -> :class:`Maps`, or the finest decoded map alone.

    Each level has a first convolution, which changes the number of channels, and one more or, in the three coarse levels, two
    more; all are 3 x 3 with batch norm and ReLU. The decoder has the same number.

    Args:
        width: factor on the channels.
        maps: whether all maps are returned; otherwise the finest decoded one, (B, C_0, H, W).

    Example:
        >>> import torch
        >>> SegNet(width=0.125, maps=False)(torch.zeros(2, 3, 32, 64)).shape
        torch.Size([2, 8, 32, 64])

    References:
        Badrinarayanan et al., "SegNet", TPAMI 2017; layers and channels as Liu, Johns & Davison, CVPR 2019, use them.
    """

    def __init__(self, width: float = 1.0, maps: bool = True) -> None:
        super().__init__()
        sizes = channels(width)
        finer = (sizes[0], *sizes[:-1])  # the output of each level of the decoder
        deep = [level >= 2 for level in range(len(sizes))]
        self.maps = maps
        self.first = nn.ModuleList(map(convolution, (3, *sizes[:-1]), sizes))
        self.more = nn.ModuleList(map(_more, sizes, deep))
        self.up_first = nn.ModuleList(map(convolution, sizes, finer))
        self.up_more = nn.ModuleList(map(_more, finer, deep))

    def forward(self, images: Tensor) -> Maps | Tensor:
        """The maps of the images.

        Args:
            images: (B, 3, H, W), in 0..1.

        Raises:
            ValueError: the images are too small for five poolings.
        """
        if min(images.shape[-2:]) < LEAST:
            raise ValueError(
                f"SegNet pools five times: expected images of at least {LEAST} x {LEAST} pixels, got "
                f"{images.shape[-2]} x {images.shape[-1]}"
            )
        encoded, last, indices = [], [], []
        x = images
        for first, more in zip(self.first, self.more, strict=True):
            encoded.append(first(x))
            last.append(more(encoded[-1]))
            x, index = functional.max_pool2d(last[-1], 2, return_indices=True)
            indices.append(index)
        unpooled, decoded = [], []
        for level in reversed(range(len(indices))):
            unpooled.append(functional.max_unpool2d(x, indices[level], (2, 2), output_size=last[level].shape[-2:]))
            x = self.up_more[level](self.up_first[level](unpooled[-1]))
            decoded.append(x)
        if not self.maps:
            return x
        return Maps(tuple(encoded), tuple(last), tuple(reversed(unpooled)), tuple(reversed(decoded)))


def initialise_weights(model: nn.Module) -> None:
    """Draws the convolutions' weights as published: Xavier normal (Glorot & Bengio, 2010), biases zero."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.xavier_normal_(module.weight)
            assert module.bias is not None
            nn.init.zeros_(module.bias)


def _more(size: int, deep: bool) -> nn.Sequential:
    return nn.Sequential(*(convolution(size, size) for _ in range(2 if deep else 1)))
