"""CIFAR-10 as ten binary tasks, from the published binary files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from paretorch.metrics import F1, BinaryAccuracy, Metric
from paretorch.workloads.base import MultiTaskModel, Workload, check_least
from paretorch.workloads.checks.data_report import DataReport, Progress, report_counts
from paretorch.workloads.formats import cifar
from paretorch.workloads.models.channels import scaled_channels
from paretorch.workloads.models.encoders import encoder
from paretorch.workloads.streams import SPLITS, Plain, Splits, TensorStream

HELD_OUT = 10  # one of so many training images is for validation


@dataclass(frozen=True)
class Cifar10(Workload):
    """Ten binary tasks on colour images of 32 x 32 pixels; the loss is the binary cross-entropy.

    The published test images are the test set; a tenth of the training images, drawn by ``data_seed``, is for validation.
    Images are not augmented.

    Args:
        root: the folder in which ``cifar-10-batches-bin`` is searched for.
        cifar: its own folder, if not empty.
        train: number of training images; all that are not held out if None.
        validation: number of validation images; all that are held out if None.
        test: number of test images; all if None.
        encoder: of :data:`~.models.encoders.NAMES`.
        width: factor on the channels of the encoder and of the heads.
        stride: of the encoder: 32 as published for large images, which leaves one point here; a smaller one keeps more.
        data_seed: decides which images are for validation, independently of a run's seed.

    Example:
        >>> Cifar10().tasks[:2]
        ('airplane', 'automobile')

    References:
        Filatov & Merkulov, "Fast line search for multi-task learning", 2021: ResNet-18, heads 512-256-1. They select on the
        test set, this class on held-out training images.
    """

    title = "CIFAR-10 as ten binary tasks on a ResNet-18, read from the binary files"
    files: ClassVar[str] = f"{cifar.CIFAR.description}. The pickled version is never opened"

    root: str = "data"
    cifar: str = ""
    train: int | None = None
    validation: int | None = None
    test: int | None = None
    encoder: str = "resnet18"
    width: float = 1.0
    stride: int = 32
    data_seed: int = 0

    def __post_init__(self) -> None:
        check_least("cifar10", self, dict.fromkeys(SPLITS, 1), "image, or None for all")

    @property
    def tasks(self) -> tuple[str, ...]:
        """The ten classes."""
        return cifar.CLASSES

    def require(self) -> None:
        """Checks that the files exist."""
        self._folder()

    def data(self) -> Splits:
        """One stream of (B, 3, 32, 32) images, bytes, and for each class (B,) labels 0 or 1.

        Raises:
            FileNotFoundError: the files are missing.
            ValueError: a file is damaged, or there are fewer images than the options require.
        """
        folder = self._folder()
        images, classes = cifar.read_cifar(folder, "train")
        order = torch.randperm(len(images), generator=torch.Generator().manual_seed(self.data_seed))
        held_out = max(1, len(images) // HELD_OUT)
        test, test_classes = cifar.read_cifar(folder, "test")
        found = {
            "train": (images, classes, order[held_out:]),
            "validation": (images, classes, order[:held_out]),
            "test": (test, test_classes, torch.arange(len(test))),
        }
        streams: dict[str, TensorStream] = {}
        facts: dict[str, Plain] = {}
        for split, (pixels, labels, index) in found.items():
            count: int = len(index) if getattr(self, split) is None else getattr(self, split)
            if not 1 <= count <= len(index):
                raise ValueError(
                    f"cifar10: {folder} has {len(index):,} images for {split}, the options require {count:,}"
                )
            index = index[:count].sort().values
            targets = {task: (labels[index] == label).float() for label, task in enumerate(self.tasks)}
            streams[split] = TensorStream(pixels[index], targets)
            facts[f"images, {split}"] = count
        return Splits((streams["train"],), (streams["validation"],), (streams["test"],), facts)

    def model(self) -> nn.Module:
        """The encoder's last map, averaged: features (B, 512) at width 1; a head of one hidden layer for each class."""
        made = encoder(self.encoder, self.width, self.stride)
        pooled = nn.Sequential(made, nn.AdaptiveAvgPool2d(1), nn.Flatten())
        hidden = scaled_channels(256, self.width)
        heads = {
            task: nn.Sequential(nn.Linear(made.channels, hidden), nn.ReLU(), nn.Linear(hidden, 1), nn.Flatten(0))
            for task in self.tasks
        }
        return MultiTaskModel(pooled, heads)

    def losses(self, outputs: Mapping[str, Any], targets: Mapping[str, Any]) -> dict[str, Tensor]:
        """Binary cross-entropy."""
        return {
            task: functional.binary_cross_entropy_with_logits(output, targets[task]) for task, output in outputs.items()
        }

    def metrics(self) -> dict[str, tuple[Metric, ...]]:
        """Accuracy and F1 of each class."""
        return {task: (BinaryAccuracy(), F1()) for task in self.tasks}

    def check_data(self, *, images: int | None = None, progress: Progress | None = None) -> list[DataReport]:
        """The report on the files below the root; whole files are read whatever ``images`` is."""
        del images
        read, published, cure = cifar.read_cifar, cifar.PUBLISHED, "unpack them again"
        return [report_counts(cifar.CIFAR, self.root, self._folder, read, published, "images", cure, progress)]

    def _folder(self) -> Path:
        return cifar.find_cifar(Path(self.root), self.cifar)
