"""Data as a workload hands it out: streams of samples whose order is a pure function of seed and epoch."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, Self, runtime_checkable

import torch
from torch import Tensor
from torch.utils._pytree import tree_map_only

Plain = str | int | float | bool | None | list["Plain"] | dict[str, "Plain"]


@dataclass(frozen=True)
class Samples:
    """Some samples of one stream.

    Args:
        inputs: (B, ...) what the encoder takes, a tensor or any nesting of tensors.
        targets: what each of the stream's tasks is compared with, (B, ...), by task.
        size: B, the number of samples.
    """

    inputs: Any
    targets: Mapping[str, Any]
    size: int

    def to(self, device: torch.device) -> Samples:
        """The same samples on another device; itself where they are there already."""
        inputs, targets = tree_map_only(
            Tensor, lambda x: x.to(device, non_blocking=True), (self.inputs, dict(self.targets))
        )
        return Samples(inputs, targets, self.size)


class Stream(Protocol):
    """A source of samples for some tasks. Tensors in memory, or a loader over files: the loop sees no difference."""

    @property
    def tasks(self) -> tuple[str, ...]:
        """The tasks that these samples are labelled for."""
        ...

    def __len__(self) -> int:
        """The number of samples of one pass."""
        ...

    def batches(self, size: int, order: int | None) -> Iterator[Samples]:
        """One pass in batches of ``size``.

        Args:
            size: B, samples per batch.
            order: a seed that alone decides the order, and every other random draw such as augmentation; the last,
                incomplete batch is then left out, unless it is the only one. None: every sample once, as they lie.
        """
        ...

    def to(self, device: torch.device) -> Stream:
        """The same stream, giving its samples on ``device``."""
        ...


@dataclass(frozen=True)
class Loading:
    """How reading a stream went so far.

    Args:
        stream: its name, for messages.
        kind: what is read: ``"image files"``, ``"pack"``.
        workers: processes that read; 0: the training process itself.
        samples: read so far.
        work: seconds that reading them took, summed over the processes.
        waited: seconds for which training or evaluation waited for them.
        unreadable: samples that were left out: reason by name.
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
        """Samples per second that reading can give, all its processes together; 0 before the first."""
        return self.samples * max(1, self.workers) / self.work if self.work else 0.0


@runtime_checkable
class Loads(Protocol):
    """A stream that reads while training runs, and says how that goes."""

    def loading(self) -> Loading:
        """How it went so far."""
        ...


@dataclass(frozen=True)
class TensorStream:
    """Samples that lie in memory; batches are slices by a permutation.

    Args:
        inputs: (n, ...) tensor.
        targets: (n, ...) tensor by task.

    Raises:
        ValueError: a target has another number of samples than the inputs, or there are none.

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
            raise ValueError("a stream holds at least one sample, got none")
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
        """The same stream with its inputs and targets on ``device``; whatever a subclass adds stays as it is."""
        moved = copy.copy(self)  # whose constructor may be another
        object.__setattr__(moved, "inputs", self.inputs.to(device))
        object.__setattr__(moved, "targets", {task: target.to(device) for task, target in self.targets.items()})
        return moved


@dataclass(frozen=True)
class Splits:
    """The three parts of a workload's data. Training fits, validation selects, the test set is read once, at the end.

    Each part is a tuple of streams: one where all tasks share their inputs, several where tasks have their own. A task
    belongs to one stream.

    Args:
        train: streams to train on.
        validation: streams to select on.
        test: streams to report on.
        facts: plain values worth recording about the data, such as the number of distinct images.
        test_epochs: 0: the test set is read once, after training. n: as some of the literature reports, the validation part is
            the test set, nothing is selected by it, and the test scores are the means of its scores over the last n epochs.
    """

    train: tuple[Stream, ...]
    validation: tuple[Stream, ...]
    test: tuple[Stream, ...]
    facts: Mapping[str, Plain] = field(default_factory=dict)
    test_epochs: int = 0

    def __post_init__(self) -> None:
        for name in ("train", "validation", "test"):
            _check_streams(name, getattr(self, name))
            tasks = [task for stream in getattr(self, name) for task in stream.tasks]
            if repeated := sorted({task for task in tasks if tasks.count(task) > 1}):
                raise ValueError(f"split {name!r}: a task belongs to one stream, but several hold {repeated}")
            if not tasks:
                raise ValueError(f"split {name!r} has no task: give it at least one stream with targets")

    def only(self, tasks: tuple[str, ...]) -> Splits:
        """Without the streams that none of ``tasks`` needs."""
        return self._each(lambda streams: tuple(stream for stream in streams if set(stream.tasks) & set(tasks)))

    def to(self, device: torch.device) -> Splits:
        """The same data, given on ``device``."""
        return self._each(lambda streams: tuple(stream.to(device) for stream in streams))

    def _each(self, change: Callable[[tuple[Stream, ...]], tuple[Stream, ...]]) -> Splits:
        return Splits(change(self.train), change(self.validation), change(self.test), self.facts, self.test_epochs)


def _check_streams(split: str, streams: Any) -> None:
    if not isinstance(streams, tuple | list):
        raise ValueError(
            f"split {split!r}: expected a tuple of streams, got {type(streams).__name__}; one stream is written (stream,)"
        )
    for stream in streams:
        if not all(hasattr(stream, name) for name in ("tasks", "batches", "to", "__len__")):
            raise ValueError(
                f"split {split!r}: expected streams, which have tasks, len(), batches(size, order) and to(device); got "
                f"{type(stream).__name__}. paretorch.workloads.TensorStream(inputs, targets) is one"
            )


def steps_per_epoch(streams: tuple[Stream, ...], size: int) -> int:
    """Batches until the longest stream is through; at least one."""
    return max(max(1, len(stream) // size) for stream in streams)


def repeats(streams: tuple[Stream, ...], size: int) -> list[float]:
    """How often each stream is passed in one epoch: 1 for the longest, more for the shorter ones."""
    steps = steps_per_epoch(streams, size)
    return [steps / max(1, len(stream) // size) for stream in streams]


def training_batches(streams: tuple[Stream, ...], size: int, seed: int, epoch: int) -> Iterator[tuple[Samples, ...]]:
    """One epoch: a batch of every stream per step, in an order that (seed, epoch) decides.

    A stream that is shorter than the longest starts again in a new order.

    Args:
        streams: one or several.
        size: B, samples of each stream per step.
        seed: the run's seed.
        epoch: counted from 0.
    """
    endless = [_passes(stream, size, (seed, epoch, position)) for position, stream in enumerate(streams)]
    for _ in range(steps_per_epoch(streams, size)):
        yield tuple(next(batches) for batches in endless)


def _passes(stream: Stream, size: int, key: tuple[int, int, int]) -> Iterator[Samples]:
    count = 0
    while True:
        yield from stream.batches(size, order=mixed(*key, count))
        count += 1


def mixed(*numbers: int) -> int:
    """One 63-bit seed out of several numbers: neighbours give unrelated seeds.

    Example:
        >>> mixed(0, 1) != mixed(1, 0)
        True
    """
    state = 0
    for number in numbers:  # splitmix64, once per number
        state = (state + number + 0x9E3779B97F4A7C15) % 2**64
        state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) % 2**64
        state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) % 2**64
        state ^= state >> 31
    return state >> 1
