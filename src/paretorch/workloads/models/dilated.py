"""A dilated ResNet-50, whose output has an eighth of the image's resolution, and heads with several dilation rates."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from paretorch.extras import extra
from paretorch.workloads.models.channels import scaled_channels
from paretorch.workloads.models.encoders import Encoder, encoder

STRIDE = 8
RATES = (12, 24, 36)  # of the head's dilated convolutions


class DilatedResNet(Encoder):
    """Images in 0..1 -> (B, 2048 width, H / 8, W / 8): ResNet-50 whose last two stages dilate instead of halving.

    Images are normalised with the statistics of ImageNet. Layers have the names and shapes of torchvision's, so that its weights
    can be loaded at width 1.

    Args:
        width: factor on the channels; rounded to multiples of 8.

    Example:
        >>> import torch
        >>> DilatedResNet(width=0.125)(torch.zeros(2, 3, 64, 96)).shape
        torch.Size([2, 256, 8, 12])

    References:
        Yu, Koltun & Funkhouser, "Dilated Residual Networks", CVPR 2017, section 2; He et al., CVPR 2016. As in torchvision, the
        first block of a dilated stage keeps the dilation of the stage before.
    """

    def __init__(self, width: float = 1.0) -> None:
        made = encoder("resnet50", width, STRIDE)
        super().__init__(made.name, made.features, made.channels, STRIDE)
        dilation = 1
        for stage in (self.features.layer3, self.features.layer4):
            for block in stage:  # type: ignore[union-attr]
                block.conv2.dilation = block.conv2.padding = (dilation, dilation)
                if block is stage[0]:  # type: ignore[index]
                    dilation *= 2

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W), in 0..1 or bytes -> (B, D, H / 8, W / 8)."""
        if images.is_floating_point():
            images = (images - self.mean) / self.spread
        return super().forward(images)


class DilatedHead(nn.Module):
    """Parallel dilated convolutions of several rates, and a prediction; (B, D, h, w) -> (B, outputs, 8 h, 8 w).

    At width 1 these are the layers of torchvision's ``DeepLabHead``; the scores are resized bilinearly.

    Args:
        features: D.
        outputs: channels of the prediction.
        width: factor on the 256 channels.

    Example:
        >>> import torch
        >>> DilatedHead(32, 13, width=0.125)(torch.zeros(2, 32, 8, 12)).shape
        torch.Size([2, 13, 64, 96])

    References:
        Chen et al., "Rethinking Atrous Convolution", arXiv 2017, figure 5.
    """

    def __init__(self, features: int, outputs: int, width: float = 1.0) -> None:
        super().__init__()
        with extra("studies"):
            from torchvision.models.segmentation.deeplabv3 import ASPP
        hidden = scaled_channels(256, width)
        self.scores = nn.Sequential(
            ASPP(features, list(RATES), hidden),
            nn.Conv2d(hidden, hidden, 3, padding=1, bias=False),
            nn.BatchNorm2d(hidden),
            nn.ReLU(),
            nn.Conv2d(hidden, outputs, 1),
        )

    def forward(self, features: Tensor) -> Tensor:
        """The prediction at the images' resolution.

        Raises:
            ValueError: in training, the batch has one image: the branch of the map's mean cannot be normalised over one value.
        """
        if self.training and len(features) < 2:
            raise ValueError("batch norm cannot be trained on the mean of one image: use a batch size of 2 or more")
        scores: Tensor = self.scores(features)
        return functional.interpolate(scores, scale_factor=STRIDE, mode="bilinear", align_corners=False)
