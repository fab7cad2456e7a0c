"""CelebA as forty tasks: is the face smiling, does it wear a hat, ...; from the published folders."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from torch import Tensor, nn
from torch.nn import functional

from paretorch.workloads.base import MultiTaskModel, Workload
from paretorch.workloads.checks.checkup import Checkup, Tell, training_refuses
from paretorch.workloads.formats import celeba
from paretorch.workloads.metrics import F1, Detected, Metric
from paretorch.workloads.models.encoders import encoder
from paretorch.workloads.reading.stream import reading_processes
from paretorch.workloads.streams import Plain, Splits


class ErrorRate(Detected):
    """The share of faces of which a task says wrong whether they have its attribute, in per cent.

    Example:
        >>> import torch
        >>> metric = ErrorRate()
        >>> metric.update(torch.tensor([2.0, -1.0, 3.0, -1.0]), torch.tensor([1.0, 0.0, 0.0, 0.0]))
        >>> metric.compute()
        25.0
    """

    name = "error"
    unit = "%"
    higher_is_better = False

    def compute(self) -> float:
        """Wrong over all, times 100; nan where nothing was taken in."""
        return 100 * (1 - super().compute())


@dataclass(frozen=True)
class CelebA(Workload):
    """Forty binary attributes of a face; the loss is the binary cross-entropy.

    Splits are the published ones. Photographs of 178 x 218 pixels are squeezed, whole, to a square; nothing is drawn at random.

    Args:
        root: the folder in which a folder ``celeba`` is looked for.
        celeba: its folder, where it lies elsewhere.
        train: faces to train on, the first so many of the list; all where it is None.
        validation: faces to select on; all.
        test: faces to report on; all.
        size: pixels along one side.
        encoder: of :data:`~.models.encoders.ENCODERS`.
        width: factor on the channels of the encoder.
        stride: of the encoder: 32 as published for large images, which leaves 2 x 2 points here; less keeps more.
        workers: processes that read; by the number of cores where it is None. It changes no number.

    Example:
        >>> len(CelebA().tasks), CelebA().tasks[31]
        (40, 'Smiling')

    References:
        Liu et al., "Deep learning face attributes in the wild", ICCV 2015; as forty tasks Sener & Koltun, NeurIPS 2018,
        section 5.2, who report the error in per cent.
    """

    title = "faces (CelebA): forty binary attributes on a ResNet-18, from the published images"
    files: ClassVar[str] = f"{celeba.FORM}\n{celeba.SOURCE}"
    protocol: ClassVar[Mapping[str, Plain]] = {
        "optimizer": "Adam",
        "optimizer_options": {"lr": 5e-4},
        "batch_size": 256,
        "schedule": "step(0.85, 10)",
    }

    root: str = "data"
    celeba: str = ""
    train: int | None = None
    validation: int | None = None
    test: int | None = None
    size: int = 64
    encoder: str = "resnet18"
    width: float = 1.0
    stride: int = 32
    workers: int | None = None

    def __post_init__(self) -> None:
        for name in celeba.SPLITS:
            if (count := getattr(self, name)) is not None and count < 1:
                raise ValueError(f"celeba: {name} is at least 1 face, or None for all, got {count}")
        if self.size < 16:
            raise ValueError(f"celeba: size is at least 16 pixels, got {self.size}")
        if self.workers is not None and self.workers < 0:
            raise ValueError(f"celeba: workers is at least 0, got {self.workers}")

    @property
    def tasks(self) -> tuple[str, ...]:
        """The forty attributes."""
        return celeba.ATTRIBUTES

    def require(self) -> None:
        """Fails where the files are not there."""
        celeba.find_celeba(Path(self.root), self.celeba)

    def data(self) -> Splits:
        """One stream of (B, 3, size, size) images, bytes, and for each attribute (B,) truths, 0 or 1.

        Raises:
            FileNotFoundError: the files are not there.
            ValueError: a list is damaged, or there are fewer faces than asked for.
        """
        folder = celeba.find_celeba(Path(self.root), self.celeba)
        streams: dict[str, celeba.FaceStream] = {}
        facts: dict[str, Plain] = {}
        workers = reading_processes(self.workers, decodes=True)
        for split, faces in celeba.read_faces(folder).items():
            asked = len(faces.names) if getattr(self, split) is None else getattr(self, split)
            if not faces.names:
                raise ValueError(
                    f"celeba: {folder} has no faces for {split}: expected lines that end in {celeba.SPLITS.index(split)} in "
                    f"{celeba.PARTITION}; unpack Eval again"
                )
            if asked > len(faces.names):
                raise ValueError(
                    f"celeba: {folder} has {len(faces.names):,} faces for {split}, asked for are {asked:,}: ask for fewer "
                    f"({split}={len(faces.names)}), or leave {split} out for all"
                )
            streams[split] = celeba.FaceStream(split, faces.first(asked), self.size, workers)
            facts[f"images, {split}"] = asked
        return Splits((streams["train"],), (streams["validation"],), (streams["test"],), facts)

    def model(self) -> nn.Module:
        """The encoder's last map, averaged: features (B, 512) at width 1; a linear head for each attribute."""
        made = encoder(self.encoder, self.width, self.stride)
        pooled = nn.Sequential(made, nn.AdaptiveAvgPool2d(1), nn.Flatten())
        heads = {task: nn.Sequential(nn.Linear(made.channels, 1), nn.Flatten(0)) for task in self.tasks}
        return MultiTaskModel(pooled, heads)

    def losses(self, outputs: Mapping[str, Any], targets: Mapping[str, Any]) -> dict[str, Tensor]:
        """Binary cross-entropy."""
        return {
            task: functional.binary_cross_entropy_with_logits(output, targets[task]) for task, output in outputs.items()
        }

    def metrics(self) -> dict[str, tuple[Metric, ...]]:
        """Error in per cent and F1 of each attribute."""
        return {task: (ErrorRate(), F1()) for task in self.tasks}

    def checkup(self, *, images: int | None = None, tell: Tell | None = None) -> list[Checkup]:
        """What lies below the root, and which photographs cannot be read."""
        report = celeba.checked_faces(self.root, self.celeba, images, tell)
        return [training_refuses(report, self.data)]
