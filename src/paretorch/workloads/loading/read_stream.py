"""Streams whose samples are read from files during training."""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Protocol

import torch
from torch import Tensor
from torch.utils.data import Dataset

from paretorch.workloads.loading.unreadable import DamagedError, UnreadableError, check_unreadable
from paretorch.workloads.loading.workers import batch_indices, data_loader
from paretorch.workloads.streams import LoadingStatistics, Samples

MAX_WORKERS = 8  # processes that read one stream by default


class Sampler(Protocol):
    """A source of single samples; it can be pickled."""

    @property
    def tasks(self) -> tuple[str, ...]:
        """The tasks of a sample's targets."""
        ...

    @property
    def kind(self) -> str:
        """What is read: ``"image files"``, ``"pack"`` or ``"arrays"``."""
        ...

    def __len__(self) -> int: ...

    def sample(self, index: int, order: int | None) -> tuple[Tensor, Mapping[str, Tensor]]:
        """The (3, H, W) image of one sample and its labels by name.

        Args:
            index: of the sample.
            order: the seed that, with the index, decides random draws; None: nothing is drawn.

        Raises:
            UnreadableError: the sample cannot be read.
        """
        ...

    def targets(self, labels: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """(B, ...) targets by task from stacked labels, on the device of the labels."""
        ...


@dataclass
class LoadedBatch:
    """The result of a worker: a batch without its unreadable samples.

    Args:
        inputs: (b, 3, H, W); None if no sample could be read.
        labels: (b, ...) by name; empty if no sample could be read.
        unreadable: reasons by name.
        seconds: time of reading.
        damage: why the stream cannot be read any further; empty otherwise.
    """

    inputs: Tensor | None
    labels: Mapping[str, Tensor]
    unreadable: dict[str, str]
    seconds: float
    damage: str = ""

    def pin_memory(self) -> LoadedBatch:
        """The batch in page-locked memory."""
        inputs = None if self.inputs is None else self.inputs.pin_memory()
        return replace(self, inputs=inputs, labels={name: value.pin_memory() for name, value in self.labels.items()})


@dataclass(frozen=True)
class BatchDataset(Dataset[LoadedBatch]):
    """Batches by lists of indices.

    Args:
        sampler: of single samples.
        order: as in :meth:`Sampler.sample`; random draws do not depend on the worker.
    """

    sampler: Sampler
    order: int | None

    def __getitem__(self, indices: list[int]) -> LoadedBatch:
        began = time.perf_counter()
        images: list[Tensor] = []
        labels: dict[str, list[Tensor]] = {}
        unreadable: dict[str, str] = {}
        try:
            for index in indices:
                try:
                    image, found = self.sampler.sample(index, self.order)
                except UnreadableError as error:
                    unreadable[error.name] = error.reason
                    continue
                images.append(image.permute(1, 2, 0))
                for name, label in found.items():
                    labels.setdefault(name, []).append(label)
        except DamagedError as error:
            return LoadedBatch(None, {}, unreadable, time.perf_counter() - began, damage=str(error))
        if not images:
            return LoadedBatch(None, {}, unreadable, time.perf_counter() - began)
        # channels last, as stored: a copy in another order would take longer than reading a pack
        stacked = torch.stack(images).permute(0, 3, 1, 2)
        joined = {name: torch.stack(each) for name, each in labels.items()}
        return LoadedBatch(stacked, joined, unreadable, time.perf_counter() - began)


@dataclass
class LoadingCounts:
    """Counts of a stream, shared by its copies on other devices.

    Args:
        unreadable: reasons by name.
        samples: number of samples read.
        work: seconds of reading, summed over workers.
        waited: seconds for which the consumer of the stream waited.
    """

    unreadable: dict[str, str] = field(default_factory=dict)
    samples: int = 0
    work: float = 0.0
    waited: float = 0.0


@dataclass(frozen=True)
class ReadStream:
    """Samples that are read from files when they are needed.

    The order of the samples and all random draws depend on ``order`` alone, not on the number of workers, so training that
    resumes from a checkpoint receives the same batches.

    An unreadable sample is omitted from its batch, named in a warning and counted; if more than 1 % of the samples are
    unreadable, reading stops.

    Args:
        name: for messages.
        sampler: of single samples.
        workers: processes that read; 0: the calling process reads.
        device: of the samples.
        count: statistics so far.
    """

    name: str
    sampler: Sampler
    workers: int = 0
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    count: LoadingCounts = field(default_factory=LoadingCounts)

    @property
    def tasks(self) -> tuple[str, ...]:
        """The tasks of the sampler."""
        return self.sampler.tasks

    def __len__(self) -> int:
        return len(self.sampler)

    def to(self, device: torch.device) -> ReadStream:
        """The same stream with its samples on ``device``."""
        return replace(self, device=device)

    def batches(self, size: int, order: int | None) -> Iterator[Samples]:
        """One pass; see :meth:`paretorch.workloads.Stream.batches`.

        Raises:
            ValueError: more than 1 % of the samples cannot be read, or a pack is damaged.
        """
        dataset, chunks = BatchDataset(self.sampler, order), batch_indices(len(self), size, order)
        batches = iter(data_loader(dataset, chunks, self.workers, pin_memory=self.device.type == "cuda"))
        while True:
            began = time.perf_counter()
            batch = next(batches, None)
            self.count.waited += time.perf_counter() - began
            if batch is None:
                return
            self._record(batch)
            if batch.inputs is not None:
                labels = {name: label.to(self.device, non_blocking=True) for name, label in batch.labels.items()}
                inputs = batch.inputs.to(self.device, non_blocking=True)
                yield Samples(inputs, self.sampler.targets(labels), len(inputs))

    def loading(self) -> LoadingStatistics:
        """Statistics of reading so far."""
        count = replace(self.count, unreadable=dict(sorted(self.count.unreadable.items())))
        return LoadingStatistics(self.name, self.sampler.kind, self.workers, **vars(count))

    def _record(self, batch: LoadedBatch) -> None:
        if batch.damage:
            raise DamagedError(batch.damage)
        self.count.work += batch.seconds
        self.count.samples += 0 if batch.inputs is None else len(batch.inputs)
        known = self.count.unreadable
        for name, reason in batch.unreadable.items():
            if name not in known:
                known[name] = reason
                warnings.warn(f"{self.name}: {name} is left out: {reason}", stacklevel=3)
        check_unreadable(self.name, known, len(self), "; `paretorch data check` finds all of them")


def worker_count(given: int | None, kind: str) -> int:
    """Number of processes that read a stream.

    Args:
        given: the option; None: one process for each core but one, or half as many without decoding, at most 8.
        kind: of the samples; ``"image files"`` are decoded.
    """
    if given is not None:
        return given
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(MAX_WORKERS, max(1, cores - 1) if kind == "image files" else (cores - 1) // 2)
