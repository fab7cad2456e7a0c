"""Image encoders at any width and stride: four of torchvision, and small ones without pretrained weights."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from paretorch.extras import extra
from paretorch.workloads.models import small_encoders
from paretorch.workloads.models.channels import scaled_channels

# of ImageNet's pixels, in 0..1, by colour, with which torchvision's weights were trained
MEAN = (0.485, 0.456, 0.406)
SPREAD = (0.229, 0.224, 0.225)
STRIDES = (32, 16, 8, 4, 2)


class Encoder(nn.Module):
    """Images -> the last feature map, without the classifier.

    Args:
        name: one of :data:`NAMES`.
        features: the layers.
        channels: D, channels of the output.
        stride: pixels of the input for one point of the output, along one side.
    """

    mean: Tensor
    spread: Tensor

    def __init__(self, name: str, features: nn.Module, channels: int, stride: int) -> None:
        super().__init__()
        self.name, self.channels, self.stride = name, channels, stride
        self.features = features
        self.has_batch_norm = any(isinstance(module, nn.BatchNorm2d) for module in features.modules())
        self.register_buffer("mean", torch.tensor(MEAN).view(3, 1, 1), persistent=False)
        self.register_buffer("spread", torch.tensor(SPREAD).view(3, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, D, H / stride, W / stride).

        Args:
            images: bytes, which are normalised here, or normalised floats.

        Raises:
            ValueError: in training, the batch is one image whose last feature map has one point: batch norm cannot be
                computed.
        """
        points = images.shape[0] * math.prod(math.ceil(edge / self.stride) for edge in images.shape[2:])
        if self.training and self.has_batch_norm and points < 2:
            raise ValueError(
                f"batch norm cannot be trained on {points} image of {images.shape[2]} x {images.shape[3]} pixels, which "
                f"{self.name} reduces to one point at stride {self.stride}: use a batch size of 2 or more, larger images, "
                "or a smaller stride"
            )
        if not images.is_floating_point():
            images = images.to(self.mean.dtype).div_(255).sub_(self.mean).div_(self.spread)
        result: Tensor = self.features(images)
        return result


def mobilenet_v3_large(width: float) -> tuple[nn.Module, int]:
    """Howard et al., ICCV 2019."""
    from torchvision.models import mobilenet_v3_large as build

    features: nn.Sequential = build(width_mult=width).features
    last: Any = features[-1]
    return features, int(last[0].out_channels)


def efficientnet_b0(width: float) -> tuple[nn.Module, int]:
    """Tan & Le, ICML 2019, table 1; torchvision's own function has no argument for the width."""
    from torchvision.models.efficientnet import EfficientNet, MBConvConfig

    # expansion, kernel, stride, channels in, channels out, layers
    stages = (
        (1, 3, 1, 32, 16, 1),
        (6, 3, 2, 16, 24, 2),
        (6, 5, 2, 24, 40, 2),
        (6, 3, 2, 40, 80, 3),
        (6, 5, 1, 80, 112, 3),
        (6, 5, 2, 112, 192, 4),
        (6, 3, 1, 192, 320, 1),
    )
    settings = [MBConvConfig(*stage, width_mult=width, depth_mult=1.0) for stage in stages]
    features: nn.Sequential = EfficientNet(settings, dropout=0.2).features
    last: Any = features[-1]
    return features, int(last[0].out_channels)


def resnet18(width: float) -> tuple[nn.Module, int]:
    """He et al., CVPR 2016."""
    return _resnet("BasicBlock", (2, 2, 2, 2), width)


def resnet50(width: float) -> tuple[nn.Module, int]:
    """He et al., CVPR 2016, with the stride in the 3 x 3 convolution, as in torchvision."""
    return _resnet("Bottleneck", (3, 4, 6, 3), width)


def _resnet(kind: str, layers: tuple[int, ...], width: float) -> tuple[nn.Module, int]:
    """ResNet of torchvision's blocks at any width; its own class is fixed to 64 channels."""
    import torchvision.models.resnet as parts

    block = getattr(parts, kind)
    base = scaled_channels(64, width)
    found = nn.Sequential()
    found.add_module("conv1", nn.Conv2d(3, base, 7, stride=2, padding=3, bias=False))
    found.add_module("bn1", nn.BatchNorm2d(base))
    found.add_module("relu", nn.ReLU(inplace=True))
    found.add_module("maxpool", nn.MaxPool2d(3, stride=2, padding=1))
    channels = base
    for stage, count in enumerate(layers):
        planes, stride = base * 2**stage, 1 if stage == 0 else 2
        blocks = []
        for index in range(count):
            step, shortcut = stride if index == 0 else 1, None
            if step > 1 or channels != planes * block.expansion:
                shortcut = nn.Sequential(
                    nn.Conv2d(channels, planes * block.expansion, 1, stride=step, bias=False),
                    nn.BatchNorm2d(planes * block.expansion),
                )
            blocks.append(block(channels, planes, step, shortcut))
            channels = planes * block.expansion
        found.add_module(f"layer{stage + 1}", nn.Sequential(*blocks))
    for module in found.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    return found, channels


# by the name of torchvision's function, whose weights can be loaded at width 1: width -> layers, channels of their output
ENCODERS: dict[str, Callable[[float], tuple[nn.Module, int]]] = {
    "mobilenet_v3_large": mobilenet_v3_large,
    "resnet18": resnet18,
    "resnet50": resnet50,
    "efficientnet_b0": efficientnet_b0,
}


def resnet18_cifar(width: float, stride: int) -> tuple[nn.Module, int]:
    """ResNet-18 for small images: a first convolution of 3 x 3 points instead of 7 x 7, and no pooling; of stride 8 as published.

    References:
        He et al., CVPR 2016, section 4.2; on faces of 64 x 64 pixels Sener & Koltun, NeurIPS 2018.
    """
    features, channels = resnet18(width)
    base = scaled_channels(64, width)
    features.conv1 = nn.Conv2d(3, base, 3, stride=2 if stride >= 16 else 1, padding=1, bias=False)
    nn.init.kaiming_normal_(features.conv1.weight, mode="fan_out", nonlinearity="relu")
    features.maxpool = nn.MaxPool2d(2) if stride >= 32 else nn.Identity()
    if stride < 8:
        _keep_resolution(features, last=round(math.log2(8 // stride)))
    return features, channels


# without pretrained weights: width, stride -> layers, channels of their output
SMALL_ENCODERS: dict[str, Callable[[float, int], tuple[nn.Module, int]]] = {
    "convnet": small_encoders.convnet,
    "vit": small_encoders.vit,
    "resnet18_cifar": resnet18_cifar,
}
NAMES = (*ENCODERS, *SMALL_ENCODERS)


def encoder(name: str = "mobilenet_v3_large", width: float = 1.0, stride: int = 32) -> Encoder:
    """The encoder ``name`` with random weights.

    Args:
        name: one of :data:`NAMES`.
        width: factor on the channels; rounded to multiples of 8, of ``"vit"`` to multiples of 12.
        stride: 32 as published, or 16, 8, 4, 2 for small images: the last layers of torchvision's encoders that halve the
            resolution then have stride 1. Their weights are the same. Of ``"vit"`` it is the edge of a patch.

    Raises:
        ValueError: the name, width or stride is invalid.
        ModuleNotFoundError: torchvision is not installed; ``"convnet"`` and ``"vit"`` do not need it.

    Example:
        >>> encoder("resnet18", width=0.25, stride=16)(torch.zeros(2, 3, 64, 64)).shape
        torch.Size([2, 128, 4, 4])
        >>> encoder("vit", stride=8)(torch.zeros(2, 3, 64, 64)).shape
        torch.Size([2, 192, 8, 8])
    """
    if name not in NAMES:
        raise ValueError(f"encoder is one of {', '.join(NAMES)}, got {name!r}")
    if not (math.isfinite(width) and width > 0):
        raise ValueError(f"width is a factor above 0, got {width}")
    if stride not in STRIDES:
        raise ValueError(f"stride is one of {STRIDES}, got {stride}")
    with extra("studies"):
        if name in SMALL_ENCODERS:
            features, channels = SMALL_ENCODERS[name](width, stride)
            return Encoder(name, features, channels, stride)
        features, channels = ENCODERS[name](width)
    _keep_resolution(features, last=STRIDES.index(stride))
    return Encoder(name, features, channels, stride)


def _keep_resolution(features: nn.Module, last: int) -> None:
    """Sets the stride of the ``last`` stages that halve the resolution to 1."""
    halving: dict[str, list[nn.Conv2d | nn.MaxPool2d]] = {}
    for name, module in features.named_modules():
        if isinstance(module, nn.Conv2d | nn.MaxPool2d) and module.stride in (2, (2, 2)):
            halving.setdefault(name.partition(".")[0], []).append(module)
    stages = list(halving)
    for stage in stages[len(stages) - last :]:
        for module in halving[stage]:
            module.stride = (1, 1)
