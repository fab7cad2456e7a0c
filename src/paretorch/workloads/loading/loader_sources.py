"""Sources of batches: data sets with indices, data sets that are iterated, and data loaders of the user."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset, SequentialSampler

from paretorch.workloads.loading.loader_samples import collate
from paretorch.workloads.loading.workers import batch_indices, exit_with_parent
from paretorch.workloads.streams import combined_seed, share_of

EPOCH_NUMBERS = 2**31  # what is given to set_epoch is below


@dataclass(frozen=True)
class ReadingOptions:
    """How a data set is read.

    Args:
        workers: processes that read; 0: the calling process reads.
        collate_fn: joins samples to a batch.
        pin_memory: whether batches are copied to page-locked memory.
        worker_init_fn: called in each worker.
        further: arguments of torch's DataLoader.
    """

    workers: int = 0
    collate_fn: Callable[[list[Any]], Any] = collate
    pin_memory: bool = False
    worker_init_fn: Callable[[int], None] | None = None
    further: Mapping[str, Any] = field(default_factory=dict)

    def loader(self, dataset: Any, order: int, **arguments: Any) -> DataLoader[Any]:
        """A loader whose workers draw random numbers from ``order``."""
        return DataLoader(
            dataset,
            num_workers=self.workers,
            pin_memory=self.pin_memory,
            worker_init_fn=WorkerStart(self.worker_init_fn),
            generator=torch.Generator().manual_seed(order),
            **{**(self.further if self.workers else {}), **arguments},
        )


@dataclass(frozen=True)
class WorkerStart:
    """Starts a worker, which ends with its parent process.

    Args:
        function: of the user, called with the worker's number.
    """

    function: Callable[[int], None] | None

    def __call__(self, worker: int) -> None:
        """Starts the worker of this number."""
        exit_with_parent(worker)
        if self.function is not None:
            self.function(worker)


class Source(Protocol):
    """What a stream reads."""

    @property
    def samples(self) -> int | None:
        """The number of samples of one pass; None: unknown."""
        ...

    @property
    def is_paired(self) -> bool:
        """Whether the order of the samples follows from the seed, so that a pass can be repeated."""
        ...

    @property
    def is_indexed(self) -> bool:
        """Whether batches are skipped, and divided among ranks, without reading them."""
        ...

    def batches(
        self, size: int, order: int | None, start: int = 0, rank: int = 0, ranks: int = 1
    ) -> Iterator[tuple[Any, int]]:
        """One pass: batches as the data set gives them, each with the number of samples that all ranks have of it, or 0.

        Args:
            size: B, samples per batch; a loader of the user may give others.
            order: the seed of the order and of all random draws; None: the stored order.
            start: the number of batches that are left out; 0 if the source is not indexed.
            rank: from 0.
            ranks: number of ranks; 1 if the source is not indexed.
        """
        ...


# --- data sets with indices ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class IndexedBatches(Dataset[Any]):
    """Batches by the list of their indices; all random draws depend on ``order`` and the indices, not on the process.

    Args:
        dataset: with ``__getitem__``, and ``__getitems__`` if it reads several samples at a time.
        collate_fn: joins samples to a batch.
        order: the seed of random draws.
    """

    dataset: Any
    collate_fn: Callable[[list[Any]], Any]
    order: int

    def __getitem__(self, indices: list[int]) -> Any:
        with separate_draws():
            if hasattr(self.dataset, "__getitems__"):
                seed_draws(combined_seed(self.order, indices[0]))
                rows = self.dataset.__getitems__(indices)
            else:
                rows = [self._row(index) for index in indices]
            return self.collate_fn(rows)

    def _row(self, index: int) -> Any:
        seed_draws(combined_seed(self.order, index))
        return self.dataset[index]


@dataclass(frozen=True)
class IndexedSource:
    """A data set with indices and a length.

    Args:
        dataset: with ``__getitem__`` and ``__len__``.
        options: how it is read.
        sampler: of the user, whose ``generator`` decides the order; None: every sample once.
        is_shuffled: whether training reads the samples in an order by seed; else in the stored order.
    """

    dataset: Any
    options: ReadingOptions
    sampler: Any = None
    is_shuffled: bool = True
    is_paired: bool = True
    is_indexed: bool = True

    @property
    def samples(self) -> int:
        """The number of samples of one pass of training."""
        return len(self.dataset if self.sampler is None else self.sampler)

    def batches(
        self, size: int, order: int | None, start: int = 0, rank: int = 0, ranks: int = 1
    ) -> Iterator[tuple[Any, int]]:
        """One pass; see :meth:`Source.batches`."""
        chunks = self._indices(size, order)[start:]
        parts = chunks if ranks == 1 else [chunk[share_of(len(chunk), rank, ranks)] for chunk in chunks]
        dataset = IndexedBatches(self.dataset, self.options.collate_fn, 0 if order is None else order)
        # with batch_size=None, each list of indices is one item of the data set, and nothing is collated
        loader = self.options.loader(dataset, dataset.order, sampler=parts, batch_size=None, collate_fn=_unchanged)
        for batch, chunk in zip(loader, chunks, strict=True):
            yield batch, len(chunk)

    def _indices(self, size: int, order: int | None) -> list[list[int]]:
        if order is None:
            return batch_indices(len(self.dataset), size, None)
        if self.sampler is not None:
            seed_sampler(self.sampler, order)
            indices = list(self.sampler)
            end = max(1, len(indices) // size) * size
            return [indices[place : place + size] for place in range(0, min(end, len(indices)), size)]
        return batch_indices(len(self.dataset), size, order) if self.is_shuffled else self._stored_order(size)

    def _stored_order(self, size: int) -> list[list[int]]:
        chunks = batch_indices(len(self.dataset), size, None)
        return chunks[: max(1, len(self.dataset) // size)]


# --- data sets and loaders that are iterated -----------------------------------------------------------------------------


@dataclass(frozen=True)
class IteratedSource:
    """A data set that is iterated.

    Args:
        dataset: an IterableDataset of torch or of Hugging Face.
        options: how it is read.
        is_paired: whether a pass can be repeated.
    """

    dataset: Any
    options: ReadingOptions
    is_paired: bool
    is_indexed: bool = False

    @property
    def samples(self) -> int | None:
        """The number of samples of one pass; None: unknown."""
        return known_length(self.dataset)

    def batches(
        self, size: int, order: int | None, start: int = 0, rank: int = 0, ranks: int = 1
    ) -> Iterator[tuple[Any, int]]:
        """One pass; see :meth:`Source.batches`."""
        del start, rank, ranks
        seed = 0 if order is None else order
        set_epoch(self.dataset, seed)
        loader = self.options.loader(self.dataset, seed, batch_size=size, collate_fn=self.options.collate_fn)
        yield from _iterated(loader, seed, self.options.workers)


@dataclass(frozen=True)
class LoaderSource:
    """A data loader of the user, which is iterated as it is.

    Args:
        loader: an iterable of batches; each iteration is a pass.
        is_paired: whether a pass can be repeated.
        batch_size: of the loader; None: unknown.
    """

    loader: Any
    is_paired: bool
    batch_size: int | None = None
    is_indexed: bool = False

    @property
    def samples(self) -> int | None:
        """The number of samples of one pass; None: unknown."""
        batches = known_length(self.loader)
        return None if batches is None or self.batch_size is None else batches * self.batch_size

    def batches(
        self, size: int, order: int | None, start: int = 0, rank: int = 0, ranks: int = 1
    ) -> Iterator[tuple[Any, int]]:
        """One pass; see :meth:`Source.batches`."""
        del size, start, rank, ranks
        seed = 0 if order is None else order
        if isinstance(self.loader, DataLoader):
            self.loader.generator = torch.Generator().manual_seed(seed)
            for sampler in samplers_of(self.loader):
                seed_sampler(sampler, seed)
            set_epoch(self.loader.dataset, seed)
        else:
            set_epoch(self.loader, seed)
        yield from _iterated(self.loader, seed, getattr(self.loader, "num_workers", 0))

    @property
    def has_state(self) -> bool:
        """Whether the loader stores its position, as torchdata's StatefulDataLoader does."""
        return hasattr(self.loader, "state_dict") and hasattr(self.loader, "load_state_dict")


def _iterated(loader: Any, seed: int, workers: int) -> Iterator[tuple[Any, int]]:
    """The batches of a loader; what it draws in this process follows from the seed, and changes no other generator."""
    draws = None if workers else Draws(seed)
    batches = draws.call(lambda: iter(loader)) if draws else iter(loader)
    while True:
        batch = draws.call(lambda: next(batches, _END)) if draws else next(batches, _END)
        if batch is _END:
            return
        yield batch, 0


_END = object()


def known_length(source: Any) -> int | None:
    """The length of a source; None if it has none."""
    try:
        return len(source)
    except (TypeError, NotImplementedError):
        return None


# --- order and random draws ----------------------------------------------------------------------------------------------


def samplers_of(loader: DataLoader[Any]) -> list[Any]:
    """The samplers that decide the order of a loader of a data set with indices."""
    found = [loader.batch_sampler, loader.sampler, getattr(loader.batch_sampler, "sampler", None)]
    return [sampler for sampler in found if sampler is not None]


def has_fixed_order(sampler: Any) -> bool:
    """Whether a sampler gives the same order in each pass."""
    # the batch samplers of torch and torchdata; a subclass may have an order of its own
    inner = sampler.sampler if type(sampler).__name__ == "BatchSampler" else sampler
    return isinstance(inner, SequentialSampler | list | tuple | range)


def follows_seed(sampler: Any) -> bool:
    """Whether the order of a sampler can be set: it has a generator of torch, or ``set_epoch``."""
    return hasattr(sampler, "generator") or hasattr(sampler, "set_epoch")


def seed_sampler(sampler: Any, seed: int) -> None:
    """Makes the order of a sampler follow from the seed, if it can be set."""
    if hasattr(sampler, "generator"):
        sampler.generator = torch.Generator().manual_seed(seed)
    set_epoch(sampler, seed)


def set_epoch(target: Any, seed: int) -> None:
    """Calls ``set_epoch``, by which data sets and samplers choose their order, with a number that follows from the seed."""
    if hasattr(target, "set_epoch"):
        target.set_epoch(seed % EPOCH_NUMBERS)


def is_iterated(dataset: Any) -> bool:
    """Whether a data set is iterated and has no indices; those of Hugging Face select columns by theirs."""
    return isinstance(dataset, IterableDataset) or type(dataset).__name__ == "IterableDataset"


class Draws:
    """The states of the generators of Python, NumPy and torch on the CPU, from which a source draws.

    Args:
        seed: decides all draws.
    """

    def __init__(self, seed: int) -> None:
        with separate_draws():
            seed_draws(seed)
            self.state = _states()

    def call(self, function: Callable[[], Any]) -> Any:
        """The result of a function that draws from these states; the generators are unchanged for others."""
        with separate_draws():
            _restore(self.state)
            try:
                return function()
            finally:
                self.state = _states()


@contextmanager
def separate_draws() -> Iterator[None]:
    """Restores the states of the generators after the block."""
    before = _states()
    try:
        yield
    finally:
        _restore(before)


def seed_draws(seed: int) -> None:
    """Seeds the generators of Python, NumPy and torch on the CPU."""
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002 - data sets draw from it
    torch.default_generator.manual_seed(seed)


def _states() -> tuple[Any, ...]:
    return random.getstate(), np.random.get_state(legacy=True), torch.get_rng_state()  # noqa: NPY002


def _restore(states: tuple[Any, ...]) -> None:
    random.setstate(states[0])
    np.random.set_state(states[1])  # noqa: NPY002
    torch.set_rng_state(states[2])


def _unchanged(batch: Any) -> Any:
    return batch
