"""Streams that are read while training runs: by workers, in an order of the seed alone, unreadable samples left out."""

from __future__ import annotations

import os
import time
import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Protocol, Self

import torch
from torch import Tensor
from torch.utils.data import Dataset

from paretorch.workloads.formats.pictures import UnreadableError
from paretorch.workloads.reading.source import DamagedError
from paretorch.workloads.reading.workers import loader
from paretorch.workloads.streams import Loading, Samples

BEARABLE = 0.01  # the share of a stream's samples that may be unreadable
READERS = 8  # processes at most that read one stream, where nothing is said


@dataclass
class Loaded:
    """What a worker hands over: a batch without the samples that could not be read.

    Args:
        inputs: (b, 3, H, W); None where none could be read.
        targets: (b, ...) by task; empty where none could be read.
        unreadable: reason by name.
        seconds: that it took.
        damaged: why reading must stop; empty where it need not.
    """

    inputs: Tensor | None
    targets: Mapping[str, Tensor]
    unreadable: dict[str, str]
    seconds: float
    damaged: str = ""

    def pin_memory(self) -> Loaded:
        """The same in memory from which a device copies without waiting."""
        inputs = None if self.inputs is None else self.inputs.pin_memory()
        return replace(self, inputs=inputs, targets={task: value.pin_memory() for task, value in self.targets.items()})


class Sampler(Protocol):
    """Gives one sample as training or evaluation sees it; can be sent to another process."""

    def sample(self, place: int, order: int | None) -> tuple[Tensor, Mapping[str, Tensor]]:
        """The (3, H, W) image and its targets by task.

        Args:
            place: which sample.
            order: decides, with the place, what is drawn for it; None: nothing is.

        Raises:
            UnreadableError: it cannot be used.
        """
        ...


@dataclass(frozen=True)
class Gathering(Dataset[Loaded]):
    """Batches of the samples at lists of places.

    Args:
        sampler: gives each.
        order: as in :meth:`Sampler.sample`: what is drawn never depends on which worker reads.
    """

    sampler: Sampler
    order: int | None

    def __getitem__(self, places: list[int]) -> Loaded:
        began = time.perf_counter()
        images: list[Tensor] = []
        targets: dict[str, list[Tensor]] = {}
        unreadable: dict[str, str] = {}
        try:
            for place in places:
                try:
                    image, labels = self.sampler.sample(place, self.order)
                except UnreadableError as error:
                    unreadable[error.name] = error.reason
                    continue
                images.append(image.permute(1, 2, 0))
                for task, label in labels.items():
                    targets.setdefault(task, []).append(label)
        except DamagedError as error:
            return Loaded(None, {}, unreadable, time.perf_counter() - began, damaged=str(error))
        if not images:
            return Loaded(None, {}, unreadable, time.perf_counter() - began)
        # colours last, as they lie in memory: copying them apart would take longer than reading a pack
        stacked = torch.stack(images).permute(0, 3, 1, 2)
        labels = {task: torch.stack(each) for task, each in targets.items()}
        return Loaded(stacked, labels, unreadable, time.perf_counter() - began)


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


class ReadStream(ABC):
    """Samples that are read while they are needed.

    The order of the samples and what is drawn for each are functions of ``order`` alone, whatever the number of
    workers, so training from a checkpoint goes on with the batches that it would have seen.

    A sample that cannot be read is left out of its batch, named in a warning and counted; where more than one in a
    hundred of the stream's samples are such, reading stops. Subclasses are dataclasses.

    Attributes:
        workers: processes that read; 0 reads in this one.
        device: where samples are given.
        count: what was met so far.
    """

    workers: int
    device: torch.device
    count: Count

    @property
    @abstractmethod
    def name(self) -> str:
        """What it is called in messages."""

    @property
    @abstractmethod
    def kind(self) -> str:
        """What is read: ``"image files"``, ``"pack"``, ``"arrays"``."""

    @abstractmethod
    def __len__(self) -> int: ...

    def to(self, device: torch.device) -> Self:
        """The same stream, giving its samples on ``device``."""
        return replace(self, device=device)  # type: ignore[type-var]

    @abstractmethod
    def _sampler(self) -> Sampler: ...

    @abstractmethod
    def _samples(self, inputs: Tensor, targets: Mapping[str, Tensor]) -> Samples:
        """The batch on the stream's device, as the workload takes it."""

    def batches(self, size: int, order: int | None) -> Iterator[Samples]:
        """One pass; see :meth:`paretorch.workloads.Stream.batches`.

        Raises:
            ValueError: more than 1 % of the samples cannot be read, or a pack is damaged.
        """
        gathering, chunks = Gathering(self._sampler(), order), plan(len(self), size, order)
        batches = iter(loader(gathering, chunks, self.workers, pin_memory=self.device.type == "cuda"))
        while True:
            began = time.perf_counter()
            batch = next(batches, None)
            self.count.waited += time.perf_counter() - began
            if batch is None:
                return
            self._take_in(batch)
            if batch.inputs is not None:
                yield self._samples(batch.inputs, batch.targets)

    def loading(self) -> Loading:
        """How reading went so far."""
        count = self.count
        return Loading(
            stream=self.name,
            kind=self.kind,
            workers=self.workers,
            samples=count.samples,
            work=count.work,
            waited=count.waited,
            unreadable=dict(sorted(count.unreadable.items())),
        )

    def _take_in(self, batch: Loaded) -> None:
        if batch.damaged:
            raise DamagedError(batch.damaged)
        self.count.work += batch.seconds
        self.count.samples += 0 if batch.inputs is None else len(batch.inputs)
        known = self.count.unreadable
        for name, reason in batch.unreadable.items():
            if name not in known:
                known[name] = reason
                warnings.warn(f"{self.name}: {name} is left out: {reason}", stacklevel=3)
        if len(known) > BEARABLE * len(self):
            shown = "\n".join(f"  {name}: {reason}" for name, reason in list(known.items())[:10])
            raise ValueError(
                f"{self.name}: {len(known)} of {len(self):,} images cannot be read, more than 1 %:\n{shown}\n"
                f"Put these files back, or take them out of the data set; `paretorch data check` finds all of them"
            )


def reading_processes(asked: int | None, *, decodes: bool) -> int:
    """How many processes read a stream: what is asked for, or by the number of cores, 8 at most.

    Args:
        asked: at least 0; None: one for each core but one, or half as many where nothing is decoded.
        decodes: whether what is read must be decoded.
    """
    if asked is not None:
        return asked
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(READERS, max(1, cores - 1) if decodes else (cores - 1) // 2)


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
