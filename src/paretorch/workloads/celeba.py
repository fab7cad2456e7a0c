"""CelebA as forty binary tasks, from the published folders."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from torch import Tensor, nn
from torch.nn import functional

from paretorch.metrics import F1, ErrorRate, Metric
from paretorch.workloads.base import MultiTaskModel, Workload, check_least
from paretorch.workloads.checks.data_report import DataReport, Progress
from paretorch.workloads.checks.scene_reports import report_faces
from paretorch.workloads.formats import celeba
from paretorch.workloads.loading.image_samplers import AttributeSampler
from paretorch.workloads.loading.read_stream import ReadStream, worker_count
from paretorch.workloads.models.encoders import encoder
from paretorch.workloads.streams import Plain, Splits


@dataclass(frozen=True)
class CelebA(Workload):
    """Forty binary attributes of a face; the loss is the binary cross-entropy.

    Splits are the published ones. Photographs of 178 x 218 pixels are resized as a whole to a square, without augmentation.

    Args:
        root: the folder in which a folder ``celeba`` is searched for.
        celeba: its own folder, if not empty.
        train: number of training faces, the first of the list; all if None.
        validation: number of validation faces; all if None.
        test: number of test faces; all if None.
        size: pixels along one side.
        encoder: of :data:`~.models.encoders.NAMES`.
        width: factor on the channels of the encoder.
        stride: of the encoder: 32 as published for large images, which leaves 2 x 2 points here; a smaller one keeps more.
        points: along one side of the averaged map that the heads receive. The network of Sener & Koltun's program is
            ``encoder="resnet18_cifar", stride=8, points=2``, which gives the heads 2,048 features.
        workers: processes that read; by the number of cores if None. It does not affect the results.

    Example:
        >>> len(CelebA().tasks), CelebA().tasks[31]
        (40, 'Smiling')

    References:
        Liu et al., "Deep learning face attributes in the wild", ICCV 2015; as forty tasks Sener & Koltun, NeurIPS 2018,
        section 5.2, who report the error in per cent. Their head has two scores and a softmax, of which only the difference
        matters; here it is one score and a sigmoid.
    """

    title = "faces (CelebA): forty binary attributes on a ResNet-18, from the published images"
    files: ClassVar[str] = celeba.CELEBA.description
    protocol: ClassVar[Mapping[str, Plain]] = {
        "optimizer": "Adam",
        "optimizer_options": {"lr": 5e-4},
        "epochs": 100,
        "batch_size": 256,
        "schedule": "step(0.85, 10)",
    }
    later_protocol: ClassVar[Mapping[str, Plain]] = {  # of papers since 2022
        "optimizer": "Adam",
        "optimizer_options": {"lr": 3e-4},
        "epochs": 15,
        "batch_size": 256,
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
    points: int = 1
    workers: int | None = None

    def __post_init__(self) -> None:
        check_least("celeba", self, dict.fromkeys(celeba.PUBLISHED, 1), "face, or None for all")
        check_least("celeba", self, {"size": 16}, "pixels")
        check_least("celeba", self, {"points": 1}, "point")
        check_least("celeba", self, {"workers": 0})

    @property
    def tasks(self) -> tuple[str, ...]:
        """The forty attributes."""
        return celeba.ATTRIBUTES

    def require(self) -> None:
        """Checks that the files exist."""
        celeba.find_celeba(Path(self.root), self.celeba)

    def data(self) -> Splits:
        """One stream of (B, 3, size, size) images, bytes, and for each attribute (B,) labels 0 or 1.

        Raises:
            FileNotFoundError: the files are missing.
            ValueError: a list is damaged, or has fewer faces than the options require.
        """
        folder = celeba.find_celeba(Path(self.root), self.celeba)
        streams: dict[str, ReadStream] = {}
        facts: dict[str, Plain] = {}
        for split, faces in celeba.read_faces(folder).items():
            available = len(faces.names)
            count: int = available if getattr(self, split) is None else getattr(self, split)
            if not available:
                raise ValueError(
                    f"celeba: {folder} has no faces for {split}: expected lines that end in "
                    f"{list(celeba.PUBLISHED).index(split)} in {celeba.PARTITION}; unpack Eval again"
                )
            if count > available:
                raise ValueError(
                    f"celeba: {folder} has {available:,} faces for {split}, the options require {count:,}: reduce {split} to "
                    f"{available}, or omit it for all"
                )
            faces = faces.first(count)
            sampler = AttributeSampler(celeba.ATTRIBUTES, faces.image, faces.attributes, self.size)
            streams[split] = ReadStream(f"celeba, {split}", sampler, worker_count(self.workers, sampler.kind))
            facts[f"images, {split}"] = count
        return Splits((streams["train"],), (streams["validation"],), (streams["test"],), facts)

    def model(self) -> nn.Module:
        """The encoder's last map, averaged: features (B, 512 points^2) at width 1; a linear head for each attribute."""
        made = encoder(self.encoder, self.width, self.stride)
        pooled = nn.Sequential(made, nn.AdaptiveAvgPool2d(self.points), nn.Flatten())
        features = made.channels * self.points**2
        heads = {task: nn.Sequential(nn.Linear(features, 1), nn.Flatten(0)) for task in self.tasks}
        return MultiTaskModel(pooled, heads)

    def losses(self, outputs: Mapping[str, Any], targets: Mapping[str, Any]) -> dict[str, Tensor]:
        """Binary cross-entropy."""
        return {
            task: functional.binary_cross_entropy_with_logits(output, targets[task]) for task, output in outputs.items()
        }

    def metrics(self) -> dict[str, tuple[Metric, ...]]:
        """Error in per cent and F1 of each attribute."""
        return {task: (ErrorRate(), F1()) for task in self.tasks}

    def check_data(self, *, images: int | None = None, progress: Progress | None = None) -> list[DataReport]:
        """The report on the files below the root."""
        report = report_faces(self.root, self.celeba, images, progress)
        report.attempt(self.data)
        return [report]
