"""The multi-task attention network (MTAN): each task has attention masks on all maps of a shared SegNet."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from paretorch.workloads.models.segnet import Maps, SegNet, channels, convolution, prediction


class AttentionEncoder(SegNet):
    """The shared part: a SegNet, and the convolutions between the attention masks of successive levels.

    The heads call these convolutions, which are shared by all tasks and come between the tasks' own masks. They belong to the
    encoder because all tasks' losses depend on them: a Balancer with ``shared=encoder`` compares task gradients on them too.

    Args:
        width: factor on the channels.
    """

    def __init__(self, width: float = 1.0) -> None:
        super().__init__(width, maps=True)
        sizes = channels(width)
        coarser = (*sizes[1:], sizes[-1])
        finer = (sizes[0], *sizes[:-1])
        self.down = nn.ModuleList(map(convolution, sizes, coarser))
        self.up = nn.ModuleList(map(convolution, sizes[:-1], finer[:-1]))
        self.up.append(convolution(sizes[-1], sizes[-1]))


class AttentionHead(nn.Module):
    """One task's attention masks for all levels, and its prediction; :class:`.segnet.Maps` -> (B, outputs, H, W).

    At a level of the encoder the mask is computed from the first map of the level and, except at the finest level, from the
    output of the finer level; it multiplies the level's last map, and the product is convolved, pooled and passed to the next
    level. The decoder does the same toward finer levels, with bilinear resizing.

    Args:
        shared: the encoder with the shared convolutions; it is not a submodule.
        outputs: channels of the prediction.
        width: factor on the channels, that of ``shared``.

    Example:
        >>> shared = AttentionEncoder(width=0.125)
        >>> AttentionHead(shared, 13, width=0.125)(shared(torch.zeros(2, 3, 32, 64))).shape
        torch.Size([2, 13, 32, 64])

    References:
        Liu, Johns & Davison, "End-to-End Multi-Task Learning with Attention", CVPR 2019, section 3.2, eq. (1)-(4): there the
        convolution f between two attention modules is "a shared feature extractor" of all tasks.
    """

    def __init__(self, shared: AttentionEncoder, outputs: int, width: float = 1.0) -> None:
        super().__init__()
        self._shared = (shared,)  # in a tuple: not a submodule, its parameters are the encoder's
        sizes = channels(width)
        finer = (sizes[0], *sizes[:-1])
        self.masks = nn.ModuleList(mask(size + size * (level > 0), size) for level, size in enumerate(sizes))
        inputs = (*finer[:-1], sizes[-1])
        self.up_masks = nn.ModuleList(map(mask, map(sum, zip(sizes, inputs, strict=True)), finer))
        self.prediction = prediction(sizes[0], outputs)

    def forward(self, maps: Maps) -> Tensor:
        """The prediction of the task, at the images' resolution."""
        (shared,) = self._shared
        x: Tensor | None = None
        for level, (first, last) in enumerate(zip(maps.encoded, maps.encoded_last, strict=True)):
            maps_in = first if x is None else torch.cat([first, x], dim=1)
            x = functional.max_pool2d(shared.down[level](self.masks[level](maps_in) * last), 2)
        assert x is not None
        for level in reversed(range(len(maps.unpooled))):
            first, last = maps.unpooled[level], maps.decoded_last[level]
            # with aligned corners, as published
            upsampled = functional.interpolate(x, first.shape[-2:], mode="bilinear", align_corners=True)
            upsampled = shared.up[level](upsampled)
            x = self.up_masks[level](torch.cat([first, upsampled], dim=1)) * last
        result: Tensor = self.prediction(x)
        return result


def mask(inputs: int, outputs: int) -> nn.Sequential:
    """Conv 1 x 1 - batch norm - ReLU - conv 1 x 1 - batch norm - sigmoid: a factor in 0..1 for every element of a map."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 1),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
        nn.Conv2d(outputs, outputs, 1),
        nn.BatchNorm2d(outputs),
        nn.Sigmoid(),
    )
