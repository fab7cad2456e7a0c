"""A stream over image files or a pack, for one task: squares are read by workers and cut at random."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from paretorch.workloads.reading.geometry import Augmentation, augmented, centred
from paretorch.workloads.reading.source import Reader
from paretorch.workloads.reading.stream import Count, ReadStream
from paretorch.workloads.streams import Samples, mixed


@dataclass(frozen=True)
class Cutting:
    """Reads images and cuts them to the network's size.

    Args:
        task: what the labels are for.
        reader: of stored squares.
        size: pixels along one side.
        kind: how to draw the part; the middle where nothing is drawn.
    """

    task: str
    reader: Reader
    size: int
    kind: Augmentation

    def sample(self, place: int, order: int | None) -> tuple[Tensor, Mapping[str, Tensor]]:
        """The image, (3, size, size) bytes; its class, (), or mask, (size, size) bytes."""
        square, label = self.reader.read(place)
        image, mask = square.permute(2, 0, 1), label if label.ndim else None
        if order is None:
            image, cut = centred(image, mask, self.size)
        else:
            generator = torch.Generator().manual_seed(mixed(order, place))
            image, cut = augmented(image, mask, self.size, self.kind, generator)
        return image, {self.task: label if cut is None else cut}


@dataclass(frozen=True)
class FileStream(ReadStream):
    """Samples of one task that are read while they are needed; see :class:`.read_stream.ReadStream`.

    Inputs are (B, 3, size, size) bytes, which the encoder normalises; classes (B,), masks (B, size, size) with -1
    where they are ignored.

    Args:
        task: what the labels are for.
        split: ``"train"``, ``"validation"`` or ``"test"``, for messages.
        reader: of stored squares.
        size: pixels along one side of the network's input.
        augmentation: how training images are drawn from the stored squares.
        workers: processes that read; 0 reads in this one.
        device: where samples are given.
        count: what was met so far.
    """

    task: str
    split: str
    reader: Reader
    size: int
    augmentation: Augmentation = "crop"
    workers: int = 0
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    count: Count = field(default_factory=Count)

    @property
    def tasks(self) -> tuple[str, ...]:
        """The one task."""
        return (self.task,)

    @property
    def name(self) -> str:
        """Task and split."""
        return f"{self.task}, {self.split}"

    @property
    def kind(self) -> str:
        """``"image files"`` or ``"pack"``."""
        return self.reader.kind

    def __len__(self) -> int:
        return len(self.reader.items)

    def _sampler(self) -> Cutting:
        return Cutting(self.task, self.reader, self.size, self.augmentation)

    def _samples(self, inputs: Tensor, targets: Mapping[str, Tensor]) -> Samples:
        target = targets[self.task].to(self.device, non_blocking=True)
        if target.dtype == torch.uint8:
            target = target.view(torch.int8).long()  # as a signed byte, 255 is -1
        return Samples(inputs.to(self.device, non_blocking=True), {self.task: target}, len(inputs))
