"""Rendered scenes of solids and planes with exact labels, a substitute for data sets of dense predictions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from paretorch.metrics import F1, Accuracy, BinaryAccuracy, MeanAbsoluteError, MeanAngle, MeanIoU, Metric
from paretorch.metrics.sums import plus, ratio, sum_dtype
from paretorch.workloads.base import MultiTaskModel, Workload, check_fits, check_least
from paretorch.workloads.detection.average_precision import AveragePrecision
from paretorch.workloads.detection.losses import center_loss, object_count
from paretorch.workloads.generated import scene_attributes
from paretorch.workloads.generated.scene_labels import ATTRIBUTES, SceneLabels, image_labels
from paretorch.workloads.generated.scene_layout import CLASSES, KINDS, sample_scenes
from paretorch.workloads.generated.scene_rendering import render
from paretorch.workloads.models.attribute_model import attribute_model
from paretorch.workloads.models.center_head import CenterHead
from paretorch.workloads.models.channels import scaled_channels
from paretorch.workloads.models.encoder_weights import load_encoder_weights
from paretorch.workloads.models.encoders import Encoder, encoder
from paretorch.workloads.models.image_heads import PixelDirections, PixelHead, PixelQuantity, image_classifier
from paretorch.workloads.streams import SPLITS, Splits, Stream, TensorStream, combined_seed

TASKS = ("classification", "segmentation", "depth", "normals", "detection")
VARIANTS = ("dense", "attributes")
DETECTORS = ("box", "centers")
BLOCK = 512  # scenes whose attributes are computed at once, so that depth and normals of all are never in memory
DEPTH = 4.0  # metres: the typical depth
DEPTH_SPREAD = 0.6  # of its logarithm
MOMENTUM = 0.1  # of running statistics: with MobileNetV3's 0.01 they need hundreds of steps to converge


T = TypeVar("T")


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

    The variant ``"attributes"`` has binary tasks alone, such as ``has_sphere``, ``main_left`` and ``light_high``, for studies of
    many tasks. Its correlated and conflicting pairs of tasks are known: see :mod:`.generated.scene_attributes`.

    Args:
        size: pixels along one side of the image.
        depth: whether the task ``depth`` is included.
        normals: whether the task ``normals`` is included.
        detection: whether the task ``detection`` is included.
        detector: of ``detection``: ``"box"``: the box of the largest object; ``"centers"``: boxes and kinds of all visible
            objects, by their centres, with average precision as metric.
        attributes: number of attributes: of ``"dense"`` 0 to 40 tasks ``attribute-01``, ..., none if None; of ``"attributes"``
            the first 1 to 40 of :data:`.scene_attributes.ATTRIBUTES`, all if None.
        objects: number of objects in each scene, besides wall and floor.
        hue_spread: standard deviation of the hues of one kind of object, as a fraction of the colour circle; the mean hues of
            the six kinds are 1/6 apart. 0: the colour determines the kind.
        noise: standard deviation of the camera's noise, relative to the full scale.
        train: number of training images.
        validation: number of validation images.
        test: number of test images.
        encoder: one of :data:`.encoders.NAMES`.
        width: factor on the channels of encoder and heads.
        stride: pixels of the image for one point of the encoder's last map, along one side.
        encoder_weights: ``"torchvision"``, a file, or empty for random ones.
        data_seed: decides the scenes, independently of a run's seed. Each split is drawn from a seed of its own.
        variant: ``"dense"``, or ``"attributes"``, for which ``depth``, ``normals`` and ``detection`` have no effect.

    Example:
        >>> SceneImages(depth=False, normals=False, detection=False).tasks
        ('classification', 'segmentation')
        >>> SceneImages(variant="attributes", attributes=3).tasks
        ('main_near', 'main_small', 'has_sphere')
    """

    title = "rendered solids and planes: class, 8 masks, depth, normals, boxes; or 40 attributes with known relations"

    size: int = 64
    depth: bool = True
    normals: bool = True
    detection: bool = True
    attributes: int | None = None
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
    variant: str = "dense"
    detector: str = "box"

    def __post_init__(self) -> None:
        check_least("scenes", self, {"size": 16, "objects": 1, "train": 1, "validation": 1, "test": 1})
        # the image is drawn in float32
        check_fits(
            "scenes",
            max(self.train, self.validation, self.test),
            3 * 4 * self.size**2,
            "size, train, validation or test",
        )
        if self.variant not in VARIANTS:
            raise ValueError(f"scenes: variant is one of {', '.join(VARIANTS)}, got {self.variant!r}")
        if self.detector not in DETECTORS:
            raise ValueError(f"scenes: detector is one of {', '.join(DETECTORS)}, got {self.detector!r}")
        least = 0 if self.variant == "dense" else 1
        if self.attributes is not None and not least <= self.attributes <= len(ATTRIBUTES):
            raise ValueError(f"scenes: attributes are {least} to {len(ATTRIBUTES)}, got {self.attributes}")
        for name in ("hue_spread", "noise"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"scenes: {name} is 0 or more, got {getattr(self, name)}")

    @property
    def tasks(self) -> tuple[str, ...]:
        """``classification``, ``segmentation`` and the optional tasks; or the attributes."""
        if self.variant == "attributes":
            return scene_attributes.ATTRIBUTES[: self.attributes]
        optional = {"depth": self.depth, "normals": self.normals, "detection": self.detection}
        attributes = (f"attribute-{number + 1:02}" for number in range(self.attributes or 0))
        return (*(task for task in TASKS if optional.get(task, True)), *attributes)

    def data(self) -> Splits:
        """Images (B, 3, size, size) in bytes, and the targets of every task; see :class:`.scene_labels.SceneLabels`.

        The targets of the variant ``"attributes"`` are (B,), 0.0 or 1.0.
        """
        streams: dict[str, tuple[Stream, ...]] = {}
        for split in SPLITS:
            if self.variant == "attributes":
                images, attributes = self._draw(split, _draw_attributes)
                targets = dict(zip(self.tasks, attributes.unbind(dim=1), strict=False))
            else:
                images, labels = self._draw(split, _draw)
                targets = {task: self._target(task, labels) for task in self.tasks}
            streams[split] = (TensorStream(images, targets),)
        facts = {f"images, {split}": getattr(self, split) for split in SPLITS}
        return Splits(streams["train"], streams["validation"], streams["test"], facts)

    def model(self) -> nn.Module:
        """An encoder, classifiers, and heads of four blocks for tasks on pixels; or :func:`.attribute_model.attribute_model`."""
        made = encoder(self.encoder, self.width, self.stride)
        if self.encoder_weights:
            load_encoder_weights(made, self.encoder_weights)
        if self.variant == "attributes":
            model = attribute_model(made, self.tasks, scene_attributes.CONFLICTING)
        else:
            model = MultiTaskModel(made, self._dense_heads(made))
        for module in made.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = MOMENTUM
        return model.to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return, unused-ignore]

    def _dense_heads(self, made: Encoder) -> dict[str, nn.Module]:
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
            elif task == "detection" and self.detector == "centers":
                heads[task] = CenterHead(made.channels, len(KINDS), self.stride, self.width)
            else:
                outputs = {"classification": len(KINDS), "detection": 4}.get(task, 2)
                heads[task] = image_classifier(made.channels, outputs, hidden)
        return heads

    def losses(self, outputs: Mapping[str, Any], targets: Mapping[str, Any]) -> dict[str, Tensor]:
        """Cross-entropy of classes; absolute error of depth in metres and of boxes; one minus the cosine for normals.

        Of the detector ``"centers"`` :func:`.detection.losses.center_loss`.
        """
        if self.variant == "attributes":
            entropy = functional.binary_cross_entropy_with_logits
            return {task: entropy(output, targets[task]) for task, output in outputs.items()}
        losses = {}
        for task, output in outputs.items():
            centers = task == "detection" and self.detector == "centers"
            loss = center_loss(output, targets[task]) if centers else _loss(task, output, targets[task])
            if loss is not None:
                losses[task] = loss
        return losses

    def labelled(self, task: str, target: Any, size: int) -> int | Tensor:
        """All images; the objects of the detector ``"centers"``."""
        return object_count(target) if task == "detection" and self.detector == "centers" else size

    def metrics(self) -> dict[str, tuple[Metric, ...]]:
        """Accuracy, mean IoU, metres, degrees, overlap of boxes or average precision; accuracy and F1 of attributes."""
        if self.variant == "attributes":
            return {task: (BinaryAccuracy(), F1()) for task in self.tasks}
        made = {
            "segmentation": lambda: MaskIoU(len(CLASSES)),
            "depth": lambda: MeanAbsoluteError("m"),
            "normals": NormalError,
            "detection": BoxOverlap,
        }
        found: dict[str, tuple[Metric, ...]] = {task: (made.get(task, Accuracy)(),) for task in self.tasks}
        if "detection" in found and self.detector == "centers":
            found["detection"] = (AveragePrecision(), AveragePrecision((0.5,)))
        return found

    def _draw(self, split: str, draw: Callable[[int, int, int, int, float, float], T]) -> T:
        key = combined_seed(self.data_seed, SPLITS.index(split))
        return draw(key, getattr(self, split), self.size, self.objects, self.hue_spread, self.noise)

    def _target(self, task: str, labels: SceneLabels) -> Tensor:
        if task.startswith("attribute-"):
            return labels.attributes[:, int(task.partition("-")[2]) - 1]
        if task == "detection" and self.detector == "centers":
            return labels.objects
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


@lru_cache(maxsize=6)
def _draw_attributes(
    key: int, count: int, size: int, objects: int, hue_spread: float, noise: float
) -> tuple[Tensor, Tensor]:
    """(n, 3, size, size) images and (n, 40) attributes."""
    scenes = sample_scenes(count, objects, hue_spread, key)
    images, attributes = [], []
    for block, start in enumerate(range(0, count, BLOCK)):
        part = scenes.part(slice(start, start + BLOCK))
        rendered = render(part, size, noise, seed=combined_seed(key, 1, block))
        images.append(rendered.images)
        attributes.append(scene_attributes.scene_attributes(part, rendered).float())
    return torch.cat(images), torch.cat(attributes)
