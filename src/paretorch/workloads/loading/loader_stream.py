"""A stream of samples from a data set or a data loader of the user."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from itertools import islice
from typing import Any

import torch
from torch.utils.data import BatchSampler, DataLoader, RandomSampler, SequentialSampler, default_collate

from paretorch.storage.nested_state import pack
from paretorch.task_names import check_task_name
from paretorch.workloads.loading.loader_samples import BatchConversion, ToBatch, collate, rebatched
from paretorch.workloads.loading.loader_sources import (
    IndexedSource,
    IteratedSource,
    LoaderSource,
    ReadingOptions,
    Source,
    follows_seed,
    has_fixed_order,
    is_iterated,
    known_length,
    samplers_of,
)
from paretorch.workloads.streams import OWN_ORDER, Samples, combined_seed


class LoaderStream:
    """Samples of a data set of torch or Hugging Face, or of a data loader.

    * A data set with indices, or a DataLoader of one: ``(seed, epoch)`` decides the order and all random draws of a sample,
      whatever the number of workers and ranks. All treatments of a study receive the same batches, and a resumed run those of
      an uninterrupted one. Of a DataLoader its data set, sampler, ``collate_fn`` and workers are used; the batch size is that
      of the run.
    * A data set that is iterated, or any other iterable of batches: read in its own order. With ``set_epoch(number)``, which
      receives a number that seed and epoch decide, a pass can be repeated. Without it :attr:`is_paired` is False, and reports
      mention it.

    Batches have the size of the run; a loader that gives others has its batches joined or split. In training, an
    incomplete last batch of a pass is left out; in evaluation it is kept.

    A label that is missing (None) becomes nan, or -1 where labels are whole numbers; see the documentation, "Missing labels".

    Args:
        source: a data set with ``__getitem__`` and ``__len__``, an IterableDataset, a DataLoader, or an iterable of batches.
        tasks: names of the tasks, which are keys of the batches unless ``to_batch`` is given.
        to_batch: batch -> inputs and a dict of targets by task. By default a batch is a dict, ``(inputs, {task: target})``, or a
            tuple of the inputs and the target of each task.
        inputs: the key of the inputs in a dict, or several keys, which give a dict; by default all keys that are not tasks.
        steps_per_epoch: the steps of an epoch of training; needed where the length is unknown. The next epoch begins where the
            last one ended. An evaluation reads at most so many batches.
        workers: processes that read a data set.
        collate_fn: joins samples of a data set to a batch; by default tensors are stacked.
        pin_memory: whether batches are copied to page-locked memory; by default on CUDA.
        is_paired: whether two passes of the same number give the same batches, where the source does not show it.
        name: for messages.

    Raises:
        ValueError: the source is none of these, its order cannot be set, or an option belongs to the DataLoader that was given.

    Example:
        >>> rows = [{"x": [float(i), 1.0], "size": float(i), "even": None if i == 3 else i % 2} for i in range(5)]
        >>> stream = LoaderStream(rows, ("size", "even"))
        >>> batch = next(stream.batches(4, order=None))
        >>> tuple(batch.inputs.shape), batch.targets["even"].tolist()
        ((4, 2), [0, 1, 0, -1])
    """

    def __init__(
        self,
        source: Any,
        tasks: Iterable[str],
        *,
        to_batch: ToBatch | None = None,
        inputs: str | Iterable[str] | None = None,
        steps_per_epoch: int | None = None,
        workers: int | None = None,
        collate_fn: Callable[[list[Any]], Any] | None = None,
        pin_memory: bool | None = None,
        is_paired: bool | None = None,
        name: str = "data",
    ) -> None:
        if isinstance(tasks, str):
            raise ValueError(f"{name}: tasks is a sequence of names, as in ({tasks!r},), got the text {tasks!r}")
        self.tasks = tuple(tasks)
        for task in self.tasks:
            check_task_name(task)
        if not self.tasks:
            raise ValueError(f"{name}: tasks has at least one name, got none")
        if steps_per_epoch is not None and steps_per_epoch < 1:
            raise ValueError(f"{name}: steps_per_epoch is at least 1, got {steps_per_epoch}")
        self.name, self.steps_per_epoch = name, steps_per_epoch
        self._pins = pin_memory
        self._source = source_of(source, name, workers, collate_fn, is_paired)
        keys = inputs if inputs is None or isinstance(inputs, str) else tuple(inputs)
        kinds = kinds_of_labels(source, self.tasks) if to_batch is None else {}
        self._conversion = BatchConversion(name, self.tasks, keys, to_batch, kinds)
        self._device = torch.device("cpu")
        self._rank, self._ranks = 0, 1
        self._position = Position()  # shared by copies on other devices

    @property
    def is_paired(self) -> bool:
        """Whether the seed decides the batches, so that all runs of a seed receive the same ones."""
        return self._source.is_paired

    def __len__(self) -> int:
        samples = self._source.samples
        if samples is None:
            raise ValueError(
                f"{self.name}: the length of the data is unknown, so an epoch has no end: give its number of batches, "
                "LoaderStream(..., steps_per_epoch=1000)"
            )
        return samples

    def batches(self, size: int, order: int | None, start: int = 0) -> Iterator[Samples]:
        """One pass; see :meth:`Stream.batches`.

        Args:
            size: B, samples per batch.
            order: the seed of the order and of random draws; None: the stored order.
            start: the number of batches that are left out; data with indices are not read for it.

        Raises:
            ValueError: the source yields nothing, or something else than batches of the tasks.
        """
        if order is None and self.steps_per_epoch is not None:
            return islice(self._pass(size, order, start), max(0, self.steps_per_epoch - start))
        return self._pass(size, order, start)

    def continued(self, size: int, key: tuple[int, int], start: int) -> Iterator[Samples]:
        """The batches of all passes, one pass after the other; see ``paretorch.workloads.streams.ContinuedStream``.

        The batches before ``start`` are left out: without reading them where the data have indices, by continuing where the last
        call ended, or from a stored state; else by reading them again.
        """
        position = self._position
        iterator = position.iterator
        if iterator is None or (position.key, position.size, position.step) != (key, size, start):
            iterator = position.iterator = self._from(size, key, start)
            position.key, position.size, position.step = key, size, start
        while True:
            samples = next(iterator)
            position.step += 1
            yield samples

    def state_dict(self) -> dict[str, Any]:
        """The position of a stream with ``steps_per_epoch``, whose source has no indices, in plain values; empty for others."""
        position = self._position
        if self._source.is_indexed or position.key is None:
            return {}
        state: dict[str, Any] = {
            "step": position.step,
            "pass": position.passes,
            "batch": position.batch,
            "loader": None,
        }
        if isinstance(self._source, LoaderSource) and self._source.has_state and not position.waiting:
            state["loader"] = _plain(self._source.loader.state_dict())
        return state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores a position; the next training continues there."""
        self._position.iterator, self._position.restored = None, dict(state) or None

    def preview(self, count: int) -> Samples | None:
        """The first samples in the stored order, read in this process; None if the source has no indices."""
        if not isinstance(self._source, IndexedSource):
            return None
        source = replace(self._source, options=replace(self._source.options, workers=0, further={}))
        batch = next((batch for batch, _ in source.batches(count, None)), None)
        return None if batch is None else self._conversion(batch).to(self._device)

    def to(self, device: torch.device) -> LoaderStream:
        """The same stream with its samples on ``device``."""
        moved = copy.copy(self)
        moved._device = device
        pins = device.type == "cuda" if self._pins is None else self._pins
        if isinstance(self._source, IndexedSource | IteratedSource):
            options = replace(self._source.options, pin_memory=pins or self._source.options.pin_memory)
            moved._source = replace(self._source, options=options)
        return moved

    def share(self, rank: int, ranks: int) -> LoaderStream:
        """The same stream with one rank's share of every batch; its length is that of the whole stream."""
        shared = copy.copy(self)
        shared._rank, shared._ranks, shared._position = rank, ranks, Position()
        return shared

    def _pass(self, size: int, order: int | None, start: int, repeated: bool = False) -> Iterator[Samples]:
        """One pass, without the first batches.

        Args:
            size, order, start: see :meth:`batches`.
            repeated: whether a loader continues a pass, which may have no further batch.
        """
        rank, ranks = self._rank, self._ranks
        found = bool(start) or repeated
        if self._source.is_indexed:
            for batch, whole in self._source.batches(size, order, start, rank, ranks):
                found = True
                samples = self._conversion(batch)
                yield (samples if ranks == 1 else replace(samples, whole=whole)).to(self._device)
        else:
            for samples in islice(rebatched(self._read(size, order), size, order is None, self.name), start, None):
                found = True
                yield (samples if ranks == 1 else samples.share(rank, ranks)).to(self._device)
        if not found:
            raise self._nothing()

    def _read(self, size: int, order: int | None) -> Iterator[Samples]:
        """The batches that the source gives, of any size."""
        for batch, _ in self._source.batches(size, order):
            samples = self._conversion(batch)
            if order is not None:
                self._position.waiting += samples.size
            yield samples

    def _nothing(self) -> ValueError:
        return ValueError(
            f"{self.name}: the source yields nothing. A generator can be read once: give an object whose __iter__ starts again, "
            "such as a data set or a DataLoader; and check its filters and its files"
        )

    def _from(self, size: int, key: tuple[int, int], start: int) -> Iterator[Samples]:
        """All passes from a batch on."""
        position, source = self._position, self._source
        restored, position.restored = position.restored, None
        number, skipped, left, taken = 0, 0, start, 0
        if source.is_indexed:
            number, skipped = divmod(start, max(1, len(self) // size))
            left = 0
        elif restored is not None and restored["step"] == start:
            number, left = restored["pass"], restored["batch"]
            if restored["loader"] is not None and isinstance(source, LoaderSource) and source.has_state:
                source.loader.load_state_dict(restored["loader"])
                left, taken = 0, restored["batch"]
        if left and not self.is_paired:
            warnings.warn(
                f"{self.name}: {OWN_ORDER}, so the training cannot continue where it stopped: it continues with the first "
                "samples of a new pass",
                stacklevel=2,
            )
            left = 0
        while True:
            position.waiting = 0
            for samples in self._pass(size, combined_seed(*key, number), skipped, repeated=bool(taken)):
                taken += 1
                position.waiting -= samples.size if samples.whole is None else samples.whole
                if left:
                    left -= 1
                    continue
                position.passes, position.batch = number, taken
                yield samples
            number, skipped, taken = number + 1, 0, 0


class Position:
    """Where the training reads in the passes of a stream.

    Attributes:
        iterator: of the batches from here on; None before the first one.
        key, size, step: of the next batch: what decides its order, samples per batch, and its number over all passes.
        passes, batch: passes before the present one, and batches of the present one that were taken.
        waiting: samples that were read and are not part of a batch yet.
        restored: a state that was loaded and is not used yet.
    """

    def __init__(self) -> None:
        self.iterator: Iterator[Samples] | None = None
        self.key: tuple[int, int] | None = None
        self.size = self.step = self.passes = self.batch = self.waiting = 0
        self.restored: dict[str, Any] | None = None


def source_of(
    source: Any,
    name: str,
    workers: int | None,
    collate_fn: Callable[[list[Any]], Any] | None,
    is_paired: bool | None,
) -> Source:
    """How a data set or a loader is read.

    Args:
        source: a data set, a DataLoader, or an iterable of batches.
        name: of the stream, for messages.
        workers, collate_fn, is_paired: see :class:`LoaderStream`.

    Raises:
        ValueError: it is none of these, or its order cannot be set.
    """
    if isinstance(source, DataLoader) or not (is_iterated(source) or _is_indexed(source)):
        for option, value in (("workers", workers), ("collate_fn", collate_fn)):
            if value is not None:
                raise ValueError(f"{name}: {option} is an option of a data set; a loader has its own: set it there")
        if isinstance(source, DataLoader):
            return _source_of_loader(source, name, is_paired)
        if not hasattr(source, "__iter__"):
            raise ValueError(
                f"{name}: expected a data set (with __getitem__ and __len__, or an IterableDataset), a DataLoader, or another "
                f"iterable of batches; got {type(source).__name__}"
            )
        paired = hasattr(source, "set_epoch") if is_paired is None else is_paired
        return LoaderSource(source, paired, getattr(source, "batch_size", None))
    options = ReadingOptions(workers or 0, collate if collate_fn is None else collate_fn)
    if is_iterated(source):
        return IteratedSource(source, options, hasattr(source, "set_epoch") if is_paired is None else is_paired)
    if not len(source):
        raise ValueError(
            f"{name}: the data set has no sample, so the stream would yield nothing: check its filters and files"
        )
    return IndexedSource(source, options)


def _is_indexed(source: Any) -> bool:
    return hasattr(source, "__getitem__") and hasattr(source, "__len__") and not isinstance(source, Mapping)


def _source_of_loader(loader: DataLoader[Any], name: str, is_paired: bool | None) -> Source:
    """How a DataLoader is read: by its parts where the order of its samples can be set, else as it is."""
    if is_iterated(loader.dataset):
        paired = hasattr(loader.dataset, "set_epoch") if is_paired is None else is_paired
        return LoaderSource(loader, paired, loader.batch_size)
    samplers = samplers_of(loader)
    divided = [sampler for sampler in samplers if getattr(sampler, "num_replicas", 1) > 1]
    if divided:
        raise ValueError(
            f"{name}: the DataLoader has a {type(divided[0]).__name__}, which gives each rank a share, and paretorch divides "
            "each batch itself: give the DataLoader without it"
        )
    fixed = all(map(has_fixed_order, samplers))
    if not fixed and not any(map(follows_seed, samplers)) and is_paired is None:
        unknown = next(sampler for sampler in reversed(samplers) if not has_fixed_order(sampler))
        raise ValueError(
            f"{name}: the order of the DataLoader is decided by a {type(unknown).__name__}, which no seed can set: give it an "
            "attribute `generator` or a method set_epoch(number), give LoaderStream the data set itself, or accept runs that are "
            "not paired: is_paired=False"
        )
    follows = fixed or any(map(follows_seed, samplers))
    paired = follows if is_paired is None else is_paired
    is_plain = (
        type(loader) is DataLoader and type(loader.batch_sampler) is BatchSampler and loader.batch_size is not None
    )
    if not (is_plain and follows):
        size = loader.batch_size or getattr(loader.batch_sampler, "batch_size", None)
        return LoaderSource(loader, paired, size)
    options = ReadingOptions(
        loader.num_workers,
        collate if loader.collate_fn is default_collate else loader.collate_fn,
        loader.pin_memory,
        loader.worker_init_fn,
        {
            "timeout": loader.timeout,
            "prefetch_factor": loader.prefetch_factor,
            "multiprocessing_context": loader.multiprocessing_context,
        },
    )
    shuffles = type(loader.sampler) is RandomSampler and not loader.sampler.replacement
    whole = shuffles and len(loader.sampler) == len(loader.dataset)  # type: ignore[arg-type]
    if not known_length(loader.dataset):
        raise ValueError(f"{name}: the data set of the DataLoader has no sample, so the stream would yield nothing")
    if type(loader.sampler) is SequentialSampler or whole:
        return IndexedSource(loader.dataset, options, is_shuffled=whole, is_paired=paired)
    return IndexedSource(loader.dataset, options, loader.sampler, is_paired=paired)


def kinds_of_labels(source: Any, tasks: tuple[str, ...]) -> dict[str, bool]:
    """For tasks whose labels are single numbers by the features of a Hugging Face data set: whether these are whole."""
    features = getattr(source.dataset if isinstance(source, DataLoader) else source, "features", None)
    found: dict[str, bool] = {}
    if not isinstance(features, Mapping):
        return found
    for task in tasks:
        kind = str(getattr(features.get(task), "dtype", ""))  # of a Value or a ClassLabel
        if kind.startswith(("int", "uint", "bool", "float", "double")):
            found[task] = not kind.startswith(("float", "double"))
    return found


def _plain(state: Any) -> Any:
    """A state of plain values and tensors; None if it contains others, which a checkpoint cannot store."""
    try:
        pack(state)
    except TypeError:
        return None
    return state
