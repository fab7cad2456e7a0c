"""Sampler of scenes whose pixels are labelled for several tasks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from paretorch.workloads.dense.labels import Augmentation, LabelledScene, augmented
from paretorch.workloads.streams import combined_seed


class SceneReader(Protocol):
    """A reader of selected scenes, all of one size; it can be pickled."""

    @property
    def names(self) -> tuple[str, ...]:
        """The selection."""
        ...

    @property
    def tasks(self) -> tuple[str, ...]:
        """The tasks of each scene's labels."""
        ...

    @property
    def kind(self) -> str:
        """``"arrays"`` or ``"image files"``."""
        ...

    def read(self, index: int) -> LabelledScene:
        """One scene.

        Raises:
            UnreadableError: the scene cannot be read.
        """
        ...


@dataclass(frozen=True)
class SceneSampler:
    """Scenes as they are read, augmented in training.

    Args:
        reader: of scenes.
        augmentation: of training scenes.
    """

    reader: SceneReader
    augmentation: Augmentation = "none"

    @property
    def tasks(self) -> tuple[str, ...]:
        """The tasks of the labels."""
        return self.reader.tasks

    @property
    def kind(self) -> str:
        """``"arrays"`` or ``"image files"``."""
        return self.reader.kind

    def __len__(self) -> int:
        return len(self.reader.names)

    def sample(self, index: int, order: int | None) -> tuple[Tensor, Mapping[str, Tensor]]:
        """The image, (3, H, W), and the labels by task."""
        scene = self.reader.read(index)
        if order is not None:
            generator = torch.Generator().manual_seed(combined_seed(order, index))
            scene = augmented(scene, self.augmentation, generator)
        return scene.image, scene.labels

    def targets(self, labels: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """The labels themselves."""
        return labels
