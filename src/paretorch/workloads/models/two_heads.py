"""The model of the optimizer study: an image encoder, a classifier, a segmentation head and, optionally, one for objects."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from paretorch.workloads.base import MultiTaskModel
from paretorch.workloads.models.center_head import CenterHead
from paretorch.workloads.models.channels import scaled_channels
from paretorch.workloads.models.encoder_weights import load_encoder_weights
from paretorch.workloads.models.encoders import encoder
from paretorch.workloads.models.image_heads import PixelHead, image_classifier


def classification_and_segmentation(
    classes: int,
    masks: int,
    edge: int,
    *,
    name: str = "mobilenet_v3_large",
    width: float = 1.0,
    stride: int = 32,
    decoder: str = "narrow",
    weights: str | Path = "",
    objects: int = 0,
) -> MultiTaskModel:
    """One encoder and the two heads of the protocol; a third one for objects is not part of it.

    The defaults with 100 classes and 21 masks give 6,116,329 parameters, 2,971,952 of them in the encoder.

    Args:
        classes: number of classes of an image.
        masks: number of classes of a pixel.
        edge: pixels along one side of an image.
        name: of the encoder, one of :data:`.encoders.NAMES`.
        width: factor on the channels of encoder and heads.
        stride: of the encoder: 32 as published, a smaller one for small images.
        decoder: ``"narrow"`` or ``"wide"``.
        weights: of the encoder: ``"torchvision"``, a file, or empty for random ones.
        objects: number of classes of the third head, ``detection``; 0 without it.

    Example:
        >>> import torch
        >>> model = classification_and_segmentation(5, 8, edge=64, width=0.35)
        >>> {task: tuple(output.shape) for task, output in model(torch.zeros(2, 3, 64, 64)).items()}
        {'classification': (2, 5), 'segmentation': (2, 8, 64, 64)}
    """
    made = encoder(name, width, stride)
    heads: dict[str, nn.Module] = {
        "classification": image_classifier(made.channels, classes, scaled_channels(512, width)),
        "segmentation": PixelHead(made.channels, masks, stride, decoder, width, edge),
    }
    if objects:
        heads["detection"] = CenterHead(made.channels, objects, stride, width)
    if weights:
        load_encoder_weights(made, weights)
    return MultiTaskModel(made, heads)
