"""Streams of samples, whose order is a pure function of seed and epoch, and the splits of a workload's data."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, Self, runtime_checkable

import torch
from torch import Tensor
from torch.utils._pytree import tree_map_only

from paretorch.former_names import former_names

SPLITS = ("train", "validation", "test")
OWN_ORDER = "the data set gives its samples in an order of its own"  # why the seed does not decide the batches
Plain = str | int | float | bool | None | list["Plain"] | dict[str, "Plain"]


FEW_LEFT_OUT = 0.1  # of the samples of an epoch


@dataclass(frozen=True)
class Samples:
    """A batch of samples of one stream.

    Args:
        inputs: (B, ...) inputs of the encoder, a tensor or any nesting of tensors.
        targets: (B, ...) targets of the stream's tasks, by task.
        size: B, the number of samples.
        whole: the number of samples of the batch of which these are one rank's share; None: these are the whole batch.
    """

    inputs: Any
    targets: Mapping[str, Any]
    size: int
    whole: int | None = None

    def to(self, device: torch.device) -> Samples:
        """The same samples on ``device``."""
        inputs, targets = tree_map_only(
            Tensor, lambda x: x.to(device, non_blocking=True), (self.inputs, dict(self.targets))
        )
        return Samples(inputs, targets, self.size, self.whole)

    def share(self, rank: int, ranks: int) -> Samples:
        """The samples of one of several ranks; those of all ranks together are these samples, each once.

        Raises:
            ValueError: a rank would have no sample.

        Example:
            >>> batch = Samples(torch.arange(5), {"a": torch.arange(5)}, size=5)
            >>> [batch.share(rank, 2).inputs.tolist() for rank in range(2)]
            [[0, 1], [2, 3, 4]]
        """
        rows = share_of(self.size, rank, ranks)
        inputs, targets = tree_map_only(Tensor, lambda x: x[rows], (self.inputs, dict(self.targets)))
        return Samples(inputs, targets, rows.stop - rows.start, self.size)


def share_of(size: int, rank: int, ranks: int) -> slice:
    """The part of ``size`` samples that belongs to one of several ranks; the parts differ by one sample at most.

    Raises:
        ValueError: a rank would have no sample.
    """
    if size < ranks:
        raise ValueError(
            f"a batch of {size} sample{'s' * (size != 1)} cannot be divided among {ranks} ranks: use a larger batch size, or "
            "fewer ranks"
        )
    return slice(size * rank // ranks, size * (rank + 1) // ranks)


class Stream(Protocol):
    """A source of samples that are labelled for one or several tasks: tensors in memory, or a loader of files."""

    @property
    def tasks(self) -> tuple[str, ...]:
        """The tasks of the targets."""
        ...

    def __len__(self) -> int:
        """The number of samples of one pass."""
        ...

    def batches(self, size: int, order: int | None) -> Iterator[Samples]:
        """One pass in batches of ``size``.

        Args:
            size: B, samples per batch.
            order: the seed of the order and of every other random draw such as augmentation; an incomplete last batch is then
                omitted, unless it is the only one. None: every sample once, in the stored order.
        """
        ...

    def to(self, device: torch.device) -> Stream:
        """The same stream with its samples on ``device``."""
        ...


@dataclass(frozen=True)
class LoadingStatistics:
    """Statistics of reading a stream so far.

    Args:
        stream: its name, for messages.
        kind: what is read: ``"image files"``, ``"pack"``.
        workers: processes that read; 0: the training process itself.
        samples: number of samples read.
        work: seconds of reading, summed over the processes.
        waited: seconds for which training or evaluation waited.
        unreadable: reasons of the samples that were omitted, by name.
    """

    stream: str
    kind: str
    workers: int
    samples: int
    work: float
    waited: float
    unreadable: Mapping[str, str]

    @property
    def speed(self) -> float:
        """Samples per second that all processes together can read; 0 before the first sample."""
        return self.samples * max(1, self.workers) / self.work if self.work else 0.0


@runtime_checkable
class LoadingStream(Protocol):
    """A stream that reads during training and keeps statistics of it."""

    def loading(self) -> LoadingStatistics:
        """The statistics so far."""
        ...


@runtime_checkable
class ContinuedStream(Protocol):
    """A stream whose epochs may be consecutive parts of one sequence of passes, of a number of steps that it declares."""

    @property
    def steps_per_epoch(self) -> int | None:
        """The number of steps of an epoch; None: an epoch is one pass."""
        ...

    def continued(self, size: int, key: tuple[int, int], start: int) -> Iterator[Samples]:
        """The batches of all passes, one pass after the other, without end.

        Args:
            size: B, samples per batch.
            key: the run's seed and the position of the stream, which together with the number of a pass decide its order.
            start: the number of batches, counted over all passes, that come before the first one.
        """
        ...


@runtime_checkable
class PreviewStream(Protocol):
    """A stream whose first samples can be read without starting processes."""

    def preview(self, count: int) -> Samples | None:
        """The first samples in the stored order; None if reading them would start processes or take samples from training."""
        ...


@runtime_checkable
class PairedStream(Protocol):
    """A stream that knows whether all runs of one seed receive the same batches."""

    @property
    def is_paired(self) -> bool:
        """Whether the seed decides the order of the samples."""
        ...


@runtime_checkable
class StatefulStream(Protocol):
    """A stream whose position in training is stored in checkpoints, as far as the number of the epoch does not decide it."""

    def state_dict(self) -> dict[str, Any]:
        """The position, in plain values and tensors; empty if the number of the epoch decides it."""
        ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores a position."""
        ...


def positions_of(streams: Iterable[Stream]) -> list[dict[str, Any]]:
    """The position of each training stream; empty for those whose position the number of the epoch decides."""
    return [stream.state_dict() if isinstance(stream, StatefulStream) else {} for stream in streams]


def restore_positions(streams: Iterable[Stream], positions: Iterable[Mapping[str, Any]]) -> None:
    """Restores what :func:`positions_of` returned; without positions, the streams stay as they are."""
    for stream, position in zip(streams, positions, strict=False):
        if isinstance(stream, StatefulStream):
            stream.load_state_dict(position)


@runtime_checkable
class DividedStream(Protocol):
    """A stream that reads one rank's share of each batch without reading the others."""

    def share(self, rank: int, ranks: int) -> Stream:
        """The same stream with the share of a rank of every batch; its length is that of the whole stream."""
        ...


@dataclass(frozen=True)
class RankShare:
    """The share of one rank of every batch of a stream, which is read as a whole.

    Args:
        stream: of whole batches.
        rank: from 0.
        ranks: number of ranks.
    """

    stream: Stream
    rank: int
    ranks: int

    @property
    def tasks(self) -> tuple[str, ...]:
        """The tasks of the stream."""
        return self.stream.tasks

    def __len__(self) -> int:
        return len(self.stream)

    def batches(self, size: int, order: int | None) -> Iterator[Samples]:
        """One pass in shares of batches of ``size``; see :meth:`Stream.batches`."""
        for samples in self.stream.batches(size, order):
            yield samples.share(self.rank, self.ranks)

    def to(self, device: torch.device) -> RankShare:
        """The same share with its samples on ``device``."""
        return RankShare(self.stream.to(device), self.rank, self.ranks)


def rank_share(stream: Stream, rank: int, ranks: int) -> Stream:
    """A stream of one rank's share of each batch; the shares of all ranks are the batches of one process."""
    return stream.share(rank, ranks) if isinstance(stream, DividedStream) else RankShare(stream, rank, ranks)


@dataclass(frozen=True)
class TensorStream:
    """Samples in memory; batches are slices of a permutation.

    Args:
        inputs: (n, ...) tensor.
        targets: (n, ...) tensor by task.

    Raises:
        ValueError: a target has another length than the inputs, or there are no samples.

    Example:
        >>> stream = TensorStream(torch.arange(5.0), {"parity": torch.tensor([0, 1, 0, 1, 0])})
        >>> [batch.inputs.tolist() for batch in stream.batches(2, order=None)]
        [[0.0, 1.0], [2.0, 3.0], [4.0]]
        >>> len(list(stream.batches(2, order=7)))
        2
    """

    inputs: Tensor
    targets: Mapping[str, Tensor]

    def __post_init__(self) -> None:
        if not len(self.inputs):
            raise ValueError("a stream has at least one sample, got none")
        for task, target in self.targets.items():
            if len(target) != len(self.inputs):
                raise ValueError(
                    f"task {task!r}: expected {len(self.inputs)} targets, one per input, got {len(target)}"
                )

    @property
    def tasks(self) -> tuple[str, ...]:
        """The tasks that have targets."""
        return tuple(self.targets)

    def __len__(self) -> int:
        return len(self.inputs)

    def batches(self, size: int, order: int | None) -> Iterator[Samples]:
        """One pass; see :meth:`Stream.batches`."""
        if order is None:
            for start in range(0, len(self), size):
                yield self._samples(slice(start, start + size), min(size, len(self) - start))
            return
        permutation = torch.randperm(len(self), generator=torch.Generator().manual_seed(order))
        permutation = permutation.to(self.inputs.device)
        for start in range(0, max(1, len(self) // size) * size, size):
            index = permutation[start : start + size]
            yield self._samples(index, len(index))

    def _samples(self, index: slice | Tensor, size: int) -> Samples:
        return Samples(self.inputs[index], {task: target[index] for task, target in self.targets.items()}, size)

    def to(self, device: torch.device) -> Self:
        """The same stream with its inputs and targets on ``device``; attributes of a subclass are unchanged."""
        moved = copy.copy(self)  # the constructor of a subclass may have other arguments
        object.__setattr__(moved, "inputs", self.inputs.to(device))
        object.__setattr__(moved, "targets", {task: target.to(device) for task, target in self.targets.items()})
        return moved


@dataclass(frozen=True)
class Splits:
    """The training, validation and test data of a workload.

    Validation data are for selection; the test set is evaluated once, after training. Each split is a tuple of streams: one if
    all tasks share their inputs, several if tasks have inputs of their own. A task belongs to one stream.

    Args:
        train: streams for training.
        validation: streams for selection.
        test: streams for the reported results.
        facts: plain values about the data for the record, such as the number of distinct images.
        test_epochs: 0: the test set is evaluated once, after training. n: as in part of the literature, the validation split is
            the test set, nothing is selected by it, and the test scores are means over the last n epochs.
    """

    train: tuple[Stream, ...]
    validation: tuple[Stream, ...]
    test: tuple[Stream, ...]
    facts: Mapping[str, Plain] = field(default_factory=dict)
    test_epochs: int = 0

    def __post_init__(self) -> None:
        for name in SPLITS:
            _check_streams(name, getattr(self, name))
            tasks = [task for stream in getattr(self, name) for task in stream.tasks]
            if repeated := sorted({task for task in tasks if tasks.count(task) > 1}):
                raise ValueError(f"split {name!r}: a task belongs to one stream, but several have {repeated}")
            if not tasks:
                raise ValueError(f"split {name!r} has no task: give it at least one stream with targets")

    def only(self, tasks: tuple[str, ...]) -> Splits:
        """The splits without the streams that have none of ``tasks``."""
        return self._each(lambda streams: tuple(stream for stream in streams if set(stream.tasks) & set(tasks)))

    def to(self, device: torch.device) -> Splits:
        """The same data on ``device``."""
        return self._each(lambda streams: tuple(stream.to(device) for stream in streams))

    def _each(self, change: Callable[[tuple[Stream, ...]], tuple[Stream, ...]]) -> Splits:
        return Splits(change(self.train), change(self.validation), change(self.test), self.facts, self.test_epochs)


def _check_streams(split: str, streams: Any) -> None:
    if not isinstance(streams, tuple | list):
        raise ValueError(
            f"split {split!r}: expected a tuple of streams, got {type(streams).__name__}; a single stream is written as (stream,)"
        )
    for stream in streams:
        if not all(hasattr(stream, name) for name in ("tasks", "batches", "to", "__len__")):
            raise ValueError(
                f"split {split!r}: expected streams, which have tasks, len(), batches(size, order) and to(device); got "
                f"{type(stream).__name__}. paretorch.workloads.TensorStream(inputs, targets) is one"
            )


def steps_per_epoch(streams: tuple[Stream, ...], size: int) -> int:
    """Number of batches of the longest stream; at least one. A stream that declares its steps has that many."""
    return max(_steps(stream, size) for stream in streams)


def left_out_note(streams: tuple[Stream, ...], size: int) -> str | None:
    """A sentence about the samples that complete batches leave out of an epoch; None where they are few.

    A stream that declares the steps of its epoch may have no length, and leaves nothing out by the batch size.

    Args:
        streams: at least one; the longest one decides.
        size: B, samples of each stream per step.

    Example:
        >>> left_out_note((TensorStream(torch.zeros(400), {}),), 256)
        '1 step of 256 samples per epoch; 144 of 400 samples are left out of each epoch: a smaller --batch-size uses them'
    """
    if any(getattr(stream, "steps_per_epoch", None) is not None for stream in streams):
        return None
    samples, steps = max(map(len, streams)), steps_per_epoch(streams, size)
    missing = max(0, samples - steps * size)
    if missing <= FEW_LEFT_OUT * samples:
        return None
    return (
        f"{steps} step{'s' * (steps != 1)} of {size} samples per epoch; {missing} of {samples} samples are left out of each "
        "epoch: a smaller --batch-size uses them"
    )


def passes_per_epoch(streams: tuple[Stream, ...], size: int) -> list[float]:
    """Number of passes over each stream in one epoch: 1 for the longest, more for shorter ones."""
    steps = steps_per_epoch(streams, size)
    return [steps / _steps(stream, size) for stream in streams]


def samples_per_epoch(streams: tuple[Stream, ...], size: int) -> int:
    """Number of samples of all streams that an epoch of training takes."""
    declared = [isinstance(stream, ContinuedStream) and stream.steps_per_epoch is not None for stream in streams]
    sizes = [size if known else min(size, len(stream)) for stream, known in zip(streams, declared, strict=True)]
    return steps_per_epoch(streams, size) * sum(sizes)


def _steps(stream: Stream, size: int) -> int:
    if isinstance(stream, ContinuedStream) and stream.steps_per_epoch is not None:
        return stream.steps_per_epoch
    return max(1, len(stream) // size)


def training_batches(streams: tuple[Stream, ...], size: int, seed: int, epoch: int) -> Iterator[tuple[Samples, ...]]:
    """The batches of one epoch, one of each stream per step; seed and epoch decide their order.

    A stream that is shorter than the longest is repeated in a new order.

    Args:
        streams: at least one.
        size: B, samples of each stream per step.
        seed: the run's seed.
        epoch: from 0.
    """
    steps = steps_per_epoch(streams, size)
    endless = [
        stream.continued(size, (seed, position), epoch * steps)
        if isinstance(stream, ContinuedStream) and stream.steps_per_epoch is not None
        else _passes(stream, size, (seed, epoch, position))
        for position, stream in enumerate(streams)
    ]
    for _ in range(steps):
        yield tuple(next(batches) for batches in endless)


def _passes(stream: Stream, size: int, key: tuple[int, int, int]) -> Iterator[Samples]:
    count = 0
    while True:
        yield from one_pass(stream, size, order=combined_seed(*key, count))
        count += 1


def one_pass(stream: Stream, size: int, order: int | None) -> Iterator[Samples]:
    """One pass of a stream, which gives at least one batch.

    Args:
        stream: whose :meth:`~Stream.batches` are returned.
        size, order: see :meth:`Stream.batches`.

    Raises:
        ValueError: the stream gives no batch, a batch without samples, or something else than :class:`Samples`.

    Example:
        >>> stream = TensorStream(torch.arange(3.0), {"parity": torch.tensor([0, 1, 0])})
        >>> [batch.size for batch in one_pass(stream, 2, order=None)]
        [2, 1]
    """
    count = 0
    for samples in stream.batches(size, order):
        if not all(hasattr(samples, name) for name in ("inputs", "targets", "size", "whole")):
            raise ValueError(
                f"{_name(stream)}: expected batches of paretorch.workloads.Samples(inputs, targets, size), got "
                f"{type(samples).__name__}"
            )
        if samples.size < 1:
            raise ValueError(f"{_name(stream)}: expected batches of at least 1 sample, got size={samples.size}")
        count += 1
        yield samples
        del samples  # its memory is free while the stream makes the next batch
    if not count:
        raise ValueError(
            f"{_name(stream)}: batches() gave no batch in a pass of {'evaluation' if order is None else 'training'}, expected at "
            f"least one of up to {size} samples. Each call starts a new pass, and an incomplete batch is kept where it is "
            "the only one"
        )


def _name(stream: Stream) -> str:
    return f"the stream of {', '.join(map(repr, stream.tasks))} ({type(stream).__name__})"


def combined_seed(*numbers: int) -> int:
    """A 63-bit seed from several numbers; the seeds of similar numbers are unrelated.

    Example:
        >>> combined_seed(0, 1) != combined_seed(1, 0)
        True
    """
    state = 0
    for number in numbers:  # one round of splitmix64 for each
        state = (state + number + 0x9E3779B97F4A7C15) % 2**64
        state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) % 2**64
        state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) % 2**64
        state ^= state >> 31
    return state >> 1


if not TYPE_CHECKING:
    __getattr__ = former_names(
        __name__,
        {
            "Loading": "LoadingStatistics",
            "Loads": "LoadingStream",
            "mixed": "combined_seed",
            "repeats": "passes_per_epoch",
        },
    )
