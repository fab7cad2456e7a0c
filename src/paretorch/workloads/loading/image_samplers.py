"""Samplers of images for streams: crops of stored squares, and whole photographs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from paretorch.workloads.loading.image_crops import (
    Augmentation,
    boxes_within,
    centre_window,
    cut,
    random_window,
    resized,
)
from paretorch.workloads.loading.image_source import SquareReader
from paretorch.workloads.streams import combined_seed


@dataclass(frozen=True)
class SquareSampler:
    """Stored squares of one task, cropped to the network's size.

    Inputs are (B, 3, size, size) bytes, which the encoder normalises; classes (B,), masks (B, size, size) with -1 for ignored
    pixels.

    Args:
        task: of the labels.
        reader: of stored squares.
        size: pixels along one side of the network's input.
        augmentation: how training images are drawn from the stored squares.
        objects: (k, 5) class and box of the objects of each square, relative to it; for a second task, ``"detection"``, whose
            targets are (B, K, 5) for the largest number K; empty without that task.
    """

    task: str
    reader: SquareReader
    size: int
    augmentation: Augmentation = "crop"
    objects: Sequence[Tensor] = ()

    @property
    def tasks(self) -> tuple[str, ...]:
        """The task, and ``"detection"`` if there are boxes."""
        return (self.task, "detection") if len(self.objects) else (self.task,)

    @property
    def kind(self) -> str:
        """``"image files"`` or ``"pack"``."""
        return self.reader.kind

    def __len__(self) -> int:
        return len(self.reader.items)

    def sample(self, index: int, order: int | None) -> tuple[Tensor, Mapping[str, Tensor]]:
        """The image, (3, size, size) bytes; its class, (), or mask, (size, size) bytes; its objects (K, 5)."""
        square, label = self.reader.read(index)
        image, mask = square.permute(2, 0, 1), label if label.ndim else None
        edge = image.shape[1]
        if order is None:
            window = centre_window(edge, self.size)
        else:
            generator = torch.Generator().manual_seed(combined_seed(order, index))
            window = random_window(edge, self.size, self.augmentation, generator)
        image, crop = cut(image, mask, window, self.size)
        labels = {self.task: label if crop is None else crop}
        if len(self.objects):
            found = boxes_within(self.objects[index], window, edge, edge)
            unused = found.new_tensor([-1.0, 0, 0, 0, 0]).expand(self.most_objects - len(found), 5)
            labels["detection"] = torch.cat([found, unused])
        return image, labels

    @cached_property
    def most_objects(self) -> int:
        """K, the largest number of objects of an image, at least 1."""
        return max(1, *map(len, self.objects))

    def targets(self, labels: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """int64 classes, or masks in which 255, as a signed byte, is -1; objects as they are."""
        label = labels[self.task]
        return {**labels, self.task: label.view(torch.int8).long() if label.dtype == torch.uint8 else label}


@dataclass(frozen=True)
class AttributeSampler:
    """Photographs with binary attributes, resized as a whole to a square without keeping the aspect ratio.

    Args:
        tasks: (T,) names of the attributes.
        read: index -> (3, H, W) bytes.
        attributes: (N, T) bool.
        size: pixels along one side of the network's input.
    """

    tasks: tuple[str, ...]
    read: Callable[[int], Tensor]
    attributes: Tensor
    size: int
    kind: str = "image files"

    def __len__(self) -> int:
        return len(self.attributes)

    def sample(self, index: int, order: int | None) -> tuple[Tensor, Mapping[str, Tensor]]:
        """The image, (3, size, size) bytes, and its attributes, (T,) numbers 0 or 1; nothing is drawn."""
        del order
        return resized(self.read(index), self.size), {"attributes": self.attributes[index].float()}

    def targets(self, labels: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """(B,) for each attribute."""
        return dict(zip(self.tasks, labels["attributes"].unbind(dim=1), strict=True))
