"""A sampler of whole photographs with a class each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from paretorch.workloads.loading.image_crops import resized


@dataclass(frozen=True)
class ClassSampler:
    """Photographs with a class, resized as a whole to a square without keeping the aspect ratio; nothing is drawn.

    Args:
        task: of the classes.
        read: index -> (3, H, W) bytes.
        classes: (N,) int64.
        size: pixels along one side of the network's input.
    """

    task: str
    read: Callable[[int], Tensor]
    classes: Tensor
    size: int
    kind: str = "image files"

    @property
    def tasks(self) -> tuple[str, ...]:
        """The one task."""
        return (self.task,)

    def __len__(self) -> int:
        return len(self.classes)

    def sample(self, index: int, order: int | None) -> tuple[Tensor, Mapping[str, Tensor]]:
        """The image, (3, size, size) bytes, and its class, ()."""
        del order
        return resized(self.read(index), self.size), {self.task: self.classes[index]}

    def targets(self, labels: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """(B,) int64 classes."""
        return {self.task: labels[self.task].to(torch.int64)}
