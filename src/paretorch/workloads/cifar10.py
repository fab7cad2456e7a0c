"""CIFAR-10 as ten tasks: is it an airplane, is it an automobile, ...; from the published binary files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from paretorch.workloads.base import MultiTaskModel, Workload
from paretorch.workloads.checks.checkup import Checkup, Tell, check_counts
from paretorch.workloads.formats import cifar
from paretorch.workloads.metrics import F1, Detected, Metric
from paretorch.workloads.models.encoders import encoder
from paretorch.workloads.streams import Plain, Splits, TensorStream

SPLITS = ("train", "validation", "test")
HELD_OUT = 10  # of the published training images, one in so many is for validation


class Score(nn.Sequential):
    """Linear - ReLU - linear to one number; features (B, D) -> (B,).

    Args:
        features: D.
        hidden: units of the hidden layer.
    """

    def __init__(self, features: int, hidden: int) -> None:
        super().__init__(nn.Linear(features, hidden), nn.ReLU(), nn.Linear(hidden, 1), nn.Flatten(0))


@dataclass(frozen=True)
class Cifar10(Workload):
    """Ten binary tasks on one image of 32 x 32 colours; the loss is the binary cross-entropy.

    The published test images are the test set; of the training images a tenth, drawn by ``data_seed``, is for validation.
    Images are not augmented.

    Args:
        root: the folder in which ``cifar-10-batches-bin`` is looked for.
        cifar: its folder, where it lies elsewhere.
        train: images to train on; all that are not held out where it is None.
        validation: images to select on; all held out.
        test: images to report on; all.
        encoder: of :data:`~.models.encoders.ENCODERS`.
        width: factor on the channels of the encoder and of the heads.
        stride: of the encoder: 32 as published for large images, which leaves one point here; less keeps more.
        data_seed: decides which images are for validation; a run's seed does not.

    Example:
        >>> Cifar10().tasks[:2]
        ('airplane', 'automobile')

    References:
        Filatov & Merkulov, "Fast line search for multi-task learning", 2021: ResNet-18, heads 512-256-1. They select on the
        test set, we on held-out training images.
    """

    title = "CIFAR-10 as ten binary tasks on a ResNet-18, read from the binary files"
    files: ClassVar[str] = f"{cifar.FORM}\n{cifar.SOURCE}. The pickled version is never opened"

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
        for name in SPLITS:
            if (count := getattr(self, name)) is not None and count < 1:
                raise ValueError(f"cifar10: {name} is at least 1 image, or None for all, got {count}")

    @property
    def tasks(self) -> tuple[str, ...]:
        """The ten classes."""
        return cifar.CLASSES

    def require(self) -> None:
        """Fails where the files are not there."""
        cifar.find_cifar(Path(self.root), self.cifar)

    def data(self) -> Splits:
        """One stream of (B, 3, 32, 32) images, bytes, and for each class (B,) truths, 0 or 1.

        Raises:
            FileNotFoundError: the files are not there.
            ValueError: a file is damaged, or there are fewer images than asked for.
        """
        folder = cifar.find_cifar(Path(self.root), self.cifar)
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
        for name, (pictures, truth, index) in found.items():
            asked = len(index) if getattr(self, name) is None else getattr(self, name)
            if not 1 <= asked <= len(index):
                raise ValueError(f"cifar10: {folder} has {len(index):,} images for {name}, asked for are {asked:,}")
            index = index[:asked].sort().values
            shown = {task: (truth[index] == place).float() for place, task in enumerate(self.tasks)}
            streams[name] = TensorStream(pictures[index], shown)
            facts[f"images, {name}"] = asked
        return Splits((streams["train"],), (streams["validation"],), (streams["test"],), facts)

    def model(self) -> nn.Module:
        """The encoder's last map, averaged: features (B, 512) at width 1; a head of one hidden layer for each class."""
        made = encoder(self.encoder, self.width, self.stride)
        hidden = max(8, round(256 * self.width / 8) * 8)
        pooled = nn.Sequential(made, nn.AdaptiveAvgPool2d(1), nn.Flatten())
        return MultiTaskModel(pooled, {task: Score(made.channels, hidden) for task in self.tasks})

    def losses(self, outputs: Mapping[str, Any], targets: Mapping[str, Any]) -> dict[str, Tensor]:
        """Binary cross-entropy."""
        return {
            task: functional.binary_cross_entropy_with_logits(output, targets[task]) for task, output in outputs.items()
        }

    def metrics(self) -> dict[str, tuple[Metric, ...]]:
        """Accuracy and F1 of each class."""
        return {task: (Detected(), F1()) for task in self.tasks}

    def checkup(self, *, images: int | None = None, tell: Tell | None = None) -> list[Checkup]:
        """What lies below the root, and whether it can be read; files are read whole, whatever ``images`` says."""
        del images
        return [
            check_counts(
                "CIFAR-10",
                f"below {self.root}:\n{cifar.FORM}",
                lambda: cifar.find_cifar(Path(self.root), self.cifar),
                lambda folder, split: len(cifar.read_cifar(folder, split)[1]),
                cifar.PUBLISHED,
                ("images", "unpack them again"),
                tell,
            )
        ]
