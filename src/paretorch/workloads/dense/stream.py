"""A stream of scenes whose pixels are labelled for several tasks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from paretorch.workloads.dense.labels import Augmentation, Scene, augmented
from paretorch.workloads.reading.stream import Count, ReadStream
from paretorch.workloads.streams import Samples, mixed


class SceneReader(Protocol):
    """Gives the scenes of a selection, all of one size; can be sent to another process."""

    @property
    def names(self) -> tuple[str, ...]:
        """The selection."""
        ...

    @property
    def tasks(self) -> tuple[str, ...]:
        """What each scene is labelled for."""
        ...

    @property
    def kind(self) -> str:
        """``"arrays"`` or ``"image files"``."""
        ...

    def read(self, place: int) -> Scene:
        """One scene.

        Raises:
            UnreadableError: it cannot be used.
        """
        ...


@dataclass(frozen=True)
class Drawing:
    """Reads scenes and draws a version of each.

    Args:
        reader: of scenes.
        how: a scene is varied.
    """

    reader: SceneReader
    how: Augmentation

    def sample(self, place: int, order: int | None) -> tuple[Tensor, Mapping[str, Tensor]]:
        """The image, (3, H, W), and the labels by task."""
        scene = self.reader.read(place)
        if order is not None:
            scene = augmented(scene, self.how, torch.Generator().manual_seed(mixed(order, place)))
        return scene.image, scene.labels


@dataclass(frozen=True)
class DenseStream(ReadStream):
    """Scenes that are read while they are needed; see :class:`.read_stream.ReadStream`.

    Args:
        title: of the data set and the split, for messages.
        reader: of scenes.
        augmentation: how training scenes are varied.
        workers: processes that read; 0 reads in this one.
        device: where samples are given.
        count: what was met so far.
    """

    title: str
    reader: SceneReader
    augmentation: Augmentation = "none"
    workers: int = 0
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    count: Count = field(default_factory=Count)

    @property
    def tasks(self) -> tuple[str, ...]:
        """All that the scenes are labelled for."""
        return self.reader.tasks

    @property
    def name(self) -> str:
        """Data set and split."""
        return self.title

    @property
    def kind(self) -> str:
        """``"arrays"`` or ``"image files"``."""
        return self.reader.kind

    def __len__(self) -> int:
        return len(self.reader.names)

    def _sampler(self) -> Drawing:
        return Drawing(self.reader, self.augmentation)

    def _samples(self, inputs: Tensor, targets: Mapping[str, Tensor]) -> Samples:
        there = {task: target.to(self.device, non_blocking=True) for task, target in targets.items()}
        return Samples(inputs.to(self.device, non_blocking=True), there, len(inputs))
