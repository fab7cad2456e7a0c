"""Rendered scenes of solids and planes with exact labels, a substitute for data sets of dense predictions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from paretorch.metrics import Accuracy, MeanAbsoluteError, MeanAngle, MeanIoU, Metric
from paretorch.metrics.sums import plus, ratio, sum_dtype
from paretorch.workloads.base import MultiTaskModel, Workload, check_least
from paretorch.workloads.generated.scene_labels import ATTRIBUTES, SceneLabels, image_labels
from paretorch.workloads.generated.scene_layout import CLASSES, KINDS, sample_scenes
from paretorch.workloads.generated.scene_rendering import render
from paretorch.workloads.models.channels import scaled_channels
from paretorch.workloads.models.encoder_weights import load_encoder_weights
from paretorch.workloads.models.encoders import encoder
from paretorch.workloads.models.image_heads import PixelDirections, PixelHead, PixelQuantity, image_classifier
from paretorch.workloads.streams import SPLITS, Splits, Stream, TensorStream, combined_seed

TASKS = ("classification", "segmentation", "depth", "normals", "detection")
DEPTH = 4.0  # metres: the typical depth
DEPTH_SPREAD = 0.6  # of its logarithm
MOMENTUM = 0.1  # of running statistics: with MobileNetV3's 0.01 they need hundreds of steps to converge


class MaskIoU(MeanIoU):
    """Mean IoU of masks of bytes."""

    def update(self, output: Tensor, target: Tensor) -> None:
        """Adds (B, C, H, W) scores and (B, H, W) classes."""
        super().update(output, target.long())


class NormalError(MeanAngle):
    """Mean angle between the predicted normals and the true ones."""

    name = "angle"


class BoxOverlap(Metric):
    """Mean intersection over union of the predicted box and the true one."""

    name = "box IoU"
    higher_is_better = True

    def __init__(self) -> None:
        self.total: Tensor | None = None
        self.images = 0

    def update(self, output: Tensor, target: Tensor) -> None:
        """Adds (B, 4) boxes: left, top, right, bottom."""
        sides = (torch.minimum(output[:, 2:], target[:, 2:]) - torch.maximum(output[:, :2], target[:, :2])).clamp_min(0)
        common = sides.prod(dim=1)
        areas = [(box[:, 2:] - box[:, :2]).clamp_min(0).prod(dim=1) for box in (output, target)]
        overlap = (common / (areas[0] + areas[1] - common)).sum()
        self.total = plus(self.total, overlap.to(sum_dtype(overlap)))
        self.images += len(target)

    def compute(self) -> float:
        """Summed overlap over images."""
        return ratio(self.total, self.images)


@dataclass(frozen=True)
class SceneImages(Workload):
    """Class and box of the largest object of a rendered scene, and class, depth and normal of each pixel.

    A scene has a floor, a wall and a few objects of six kinds, scaled and rotated: spheres, cubes, cylinders, cones, discs and
    boards. It is ray-traced, so every label is exact: the class is the kind of the object with most pixels, the segmentation has
    eight classes (wall, floor and the six kinds), the depth is in metres along the camera's axis, normals are unit vectors to
    the right, down and ahead, and the box is that of the largest object, relative to the image. Each attribute is a binary task.

    Args:
        size: pixels along one side of the image.
        depth: whether the task ``depth`` is included.
        normals: whether the task ``normals`` is included.
        detection: whether the task ``detection``, the box, is included.
        attributes: number of tasks ``attribute-01``, ..., 0 to 40.
        objects: number of objects in each scene, besides wall and floor.
        hue_spread: standard deviation of the hues of one kind of object, as a fraction of the colour circle; the mean hues of
            the six kinds are 1/6 apart. 0: the colour determines the kind.
        noise: standard deviation of the camera's noise, relative to the full scale.
        train: number of training images.
        validation: number of validation images.
        test: number of test images.
        encoder: one of :data:`.encoders.ENCODERS`.
        width: factor on the channels of encoder and heads.
        stride: pixels of the image for one point of the encoder's last map, along one side.
        encoder_weights: ``"torchvision"``, a file, or empty for random ones.
        data_seed: decides the scenes, independently of a run's seed. Each split is drawn from a seed of its own.

    Example:
        >>> SceneImages(depth=False, normals=False, detection=False).tasks
        ('classification', 'segmentation')
    """

    title = "rendered solids and planes: class, 8 masks, depth, normals, a box and up to 40 attributes, all exact"

    size: int = 64
    depth: bool = True
    normals: bool = True
    detection: bool = True
    attributes: int = 0
    objects: int = 4
    hue_spread: float = 0.1
    noise: float = 0.02
    train: int = 3_000
    validation: int = 500
    test: int = 500
    encoder: str = "mobilenet_v3_large"
    width: float = 0.35
    stride: int = 16
    encoder_weights: str = ""
    data_seed: int = 0

    def __post_init__(self) -> None:
        check_least("scenes", self, {"size": 16, "objects": 1, "train": 1, "validation": 1, "test": 1})
        if not 0 <= self.attributes <= len(ATTRIBUTES):
            raise ValueError(f"scenes: attributes are 0 to {len(ATTRIBUTES)}, got {self.attributes}")
        for name in ("hue_spread", "noise"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"scenes: {name} is 0 or more, got {getattr(self, name)}")

    @property
    def tasks(self) -> tuple[str, ...]:
        """``classification``, ``segmentation`` and the optional tasks."""
        optional = {"depth": self.depth, "normals": self.normals, "detection": self.detection}
        attributes = (f"attribute-{number + 1:02}" for number in range(self.attributes))
        return (*(task for task in TASKS if optional.get(task, True)), *attributes)

    def data(self) -> Splits:
        """Images (B, 3, size, size) in bytes, and the targets of every task; see :class:`.scene_labels.SceneLabels`."""
        streams: dict[str, tuple[Stream, ...]] = {}
        for split in SPLITS:
            images, labels = self._images(split)
            targets = {task: self._target(task, labels) for task in self.tasks}
            streams[split] = (TensorStream(images, targets),)
        facts = {f"images, {split}": getattr(self, split) for split in SPLITS}
        return Splits(streams["train"], streams["validation"], streams["test"], facts)

    def model(self) -> nn.Module:
        """An encoder of torchvision, classifiers, and heads of four blocks for tasks on pixels."""
        made = encoder(self.encoder, self.width, self.stride)
        hidden = scaled_channels(512, self.width)

        def pixels(outputs: int) -> PixelHead:
            return PixelHead(made.channels, outputs, self.stride, width=self.width, edge=self.size)

        heads: dict[str, nn.Module] = {}
        for task in self.tasks:
            if task == "segmentation":
                heads[task] = pixels(len(CLASSES))
            elif task == "depth":
                heads[task] = PixelQuantity(pixels(1), DEPTH, DEPTH_SPREAD)
            elif task == "normals":
                heads[task] = PixelDirections(pixels(3))
            else:
                outputs = {"classification": len(KINDS), "detection": 4}.get(task, 2)
                heads[task] = image_classifier(made.channels, outputs, hidden)
        if self.encoder_weights:
            load_encoder_weights(made, self.encoder_weights)
        for module in made.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = MOMENTUM
        model = MultiTaskModel(made, heads)
        return model.to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return, unused-ignore]

    def losses(self, outputs: Mapping[str, Any], targets: Mapping[str, Any]) -> dict[str, Tensor]:
        """Cross-entropy of classes; absolute error of depth in metres and of boxes; one minus the cosine for normals."""
        return {task: _loss(task, output, targets[task]) for task, output in outputs.items()}

    def metrics(self) -> dict[str, tuple[Metric, ...]]:
        """Accuracy, mean IoU, metres, degrees, overlap of boxes."""
        made = {
            "segmentation": lambda: MaskIoU(len(CLASSES)),
            "depth": lambda: MeanAbsoluteError("m"),
            "normals": NormalError,
            "detection": BoxOverlap,
        }
        return {task: (made.get(task, Accuracy)(),) for task in self.tasks}

    def _images(self, split: str) -> tuple[Tensor, SceneLabels]:
        key = combined_seed(self.data_seed, SPLITS.index(split))
        return _draw(key, getattr(self, split), self.size, self.objects, self.hue_spread, self.noise)

    def _target(self, task: str, labels: SceneLabels) -> Tensor:
        if task.startswith("attribute-"):
            return labels.attributes[:, int(task.partition("-")[2]) - 1]
        target: Tensor = getattr(labels, task)
        return target


def _loss(task: str, output: Tensor, target: Tensor) -> Tensor:
    if task in ("depth", "detection"):
        return functional.l1_loss(output, target)
    if task == "normals":
        return 1 - functional.cosine_similarity(output, target.to(output.dtype), dim=1).mean()
    return functional.cross_entropy(output, target.long())


@lru_cache(maxsize=6)
def _draw(key: int, count: int, size: int, objects: int, hue_spread: float, noise: float) -> tuple[Tensor, SceneLabels]:
    rendered = render(sample_scenes(count, objects, hue_spread, key), size, noise, seed=combined_seed(key, 1))
    return rendered.images, image_labels(rendered)
