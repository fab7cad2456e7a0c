"""A stream over files or a pack: squares are read by workers and cut at random."""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from paretorch.workloads.data.geometry import Augmentation, augmented, centred
from paretorch.workloads.data.pictures import UnreadableError
from paretorch.workloads.data.reading import DamagedError, Reader
from paretorch.workloads.streams import Loading, Samples, mixed

BEARABLE = 0.01  # the share of a stream's images that may be unreadable


@dataclass
class Loaded:
    """What a worker hands over: a batch without the images that could not be read.

    Args:
        images: (b, 3, size, size) uint8; None where none could be read.
        labels: (b,) int64, or (b, size, size) uint8 masks.
        unreadable: reason by name.
        seconds: that it took.
        damaged: why reading must stop; empty where it need not.
    """

    images: Tensor | None
    labels: Tensor | None
    unreadable: dict[str, str]
    seconds: float
    damaged: str = ""

    def pin_memory(self) -> Loaded:
        """The same in memory from which a device copies without waiting."""
        pinned = [None if tensor is None else tensor.pin_memory() for tensor in (self.images, self.labels)]
        return replace(self, images=pinned[0], labels=pinned[1])


@dataclass(frozen=True)
class Cutting(Dataset[Loaded]):
    """Reads the images of a list of places and cuts them to the network's size.

    Args:
        reader: of stored squares.
        size: pixels along one side.
        kind: how to draw the part; the middle where ``order`` is None.
        order: decides, with an image's place, what is drawn for it: never which worker reads it.
    """

    reader: Reader
    size: int
    kind: Augmentation
    order: int | None

    def __getitem__(self, places: list[int]) -> Loaded:
        began = time.perf_counter()
        images, labels, unreadable = [], [], {}
        try:
            for place in places:
                try:
                    square, label = self.reader.read(place)
                except UnreadableError as error:
                    unreadable[error.name] = error.reason
                    continue
                image, label = self._cut(square.permute(2, 0, 1), label, place)
                images.append(image.permute(1, 2, 0))
                labels.append(label)
        except DamagedError as error:
            return Loaded(None, None, unreadable, time.perf_counter() - began, damaged=str(error))
        if not images:
            return Loaded(None, None, unreadable, time.perf_counter() - began)
        # colours last, as they lie in memory: copying them apart would take longer than reading a pack
        stacked = torch.stack(images).permute(0, 3, 1, 2)
        return Loaded(stacked, torch.stack(labels), unreadable, time.perf_counter() - began)

    def _cut(self, image: Tensor, label: Tensor, place: int) -> tuple[Tensor, Tensor]:
        mask = label if label.ndim else None
        if self.order is None:
            image, cut = centred(image, mask, self.size)
        else:
            generator = torch.Generator().manual_seed(mixed(self.order, place))
            image, cut = augmented(image, mask, self.size, self.kind, generator)
        return image, label if cut is None else cut


@dataclass
class Count:
    """What a stream has met so far, kept by all its copies.

    Args:
        unreadable: reason by name.
        samples: read.
        work: seconds that reading took, summed over workers.
        waited: seconds for which the reader of the stream waited.
    """

    unreadable: dict[str, str] = field(default_factory=dict)
    samples: int = 0
    work: float = 0.0
    waited: float = 0.0


@dataclass(frozen=True)
class FileStream:
    """Samples of one task that are read while they are needed.

    The order of the samples and what is drawn for each are functions of ``order`` alone, whatever the number of
    workers, so training from a checkpoint goes on with the batches that it would have seen.

    An image that cannot be read is left out of its batch, named in a warning and counted; where more than one in a
    hundred of the stream's images are such, reading stops.

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

    def __len__(self) -> int:
        return len(self.reader.items)

    def to(self, device: torch.device) -> FileStream:
        """The same stream, giving its samples on ``device``."""
        return replace(self, device=device)

    def batches(self, size: int, order: int | None) -> Iterator[Samples]:
        """One pass; see :meth:`paretorch.workloads.Stream.batches`.

        Inputs are (B, 3, size, size) bytes, which the encoder normalises; classes (B,), masks (B, size, size) with -1
        where they are ignored.

        Raises:
            ValueError: more than 1 % of the images cannot be read, or a pack is damaged.
        """
        loader = DataLoader(
            Cutting(self.reader, self.size, self.augmentation, order),
            sampler=plan(len(self), size, order),
            batch_size=None,
            num_workers=self.workers,
            collate_fn=_as_it_is,
            pin_memory=self.device.type == "cuda",
            generator=torch.Generator().manual_seed(0),  # else it would draw from the run's own random numbers
        )
        batches = iter(loader)
        while True:
            began = time.perf_counter()
            batch = next(batches, None)
            self.count.waited += time.perf_counter() - began
            if batch is None:
                return
            self._take_in(batch)
            if batch.images is not None and batch.labels is not None:
                yield self._samples(batch.images, batch.labels)

    def loading(self) -> Loading:
        """How reading went so far."""
        count = self.count
        return Loading(
            stream=f"{self.task}, {self.split}",
            kind=self.reader.kind,
            workers=self.workers,
            samples=count.samples,
            work=count.work,
            waited=count.waited,
            unreadable=dict(sorted(count.unreadable.items())),
        )

    def _samples(self, images: Tensor, labels: Tensor) -> Samples:
        inputs = images.to(self.device, non_blocking=True)
        target = labels.to(self.device, non_blocking=True)
        if target.dtype == torch.uint8:
            target = target.view(torch.int8).long()  # as a signed byte, 255 is -1
        return Samples(inputs, {self.task: target}, len(images))

    def _take_in(self, batch: Loaded) -> None:
        if batch.damaged:
            raise DamagedError(batch.damaged)
        self.count.work += batch.seconds
        self.count.samples += 0 if batch.images is None else len(batch.images)
        known = self.count.unreadable
        for name, reason in batch.unreadable.items():
            if name not in known:
                known[name] = reason
                warnings.warn(f"{self.task}, {self.split}: {name} is left out: {reason}", stacklevel=3)
        if len(known) > BEARABLE * len(self):
            shown = "\n".join(f"  {name}: {reason}" for name, reason in list(known.items())[:10])
            raise ValueError(
                f"{self.task}, {self.split}: {len(known)} of {len(self):,} images cannot be read, more than 1 %:\n{shown}\n"
                f"Put these files back, or take them out of the data set; `paretorch data check` finds all of them"
            )


def plan(length: int, size: int, order: int | None) -> list[list[int]]:
    """The places of each batch of one pass, as :meth:`paretorch.workloads.Stream.batches` promises.

    Example:
        >>> plan(5, 2, None)
        [[0, 1], [2, 3], [4]]
        >>> [len(batch) for batch in plan(5, 2, 7)]
        [2, 2]
    """
    if order is None:
        places, end = list(range(length)), length
    else:
        places = torch.randperm(length, generator=torch.Generator().manual_seed(order)).tolist()
        end = max(1, length // size) * size
    return [places[start : start + size] for start in range(0, end, size)]


def _as_it_is(batch: Any) -> Any:
    return batch
