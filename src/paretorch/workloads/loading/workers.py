"""Worker processes that load data and exit when their parent process ends."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Sequence
from typing import Any, TypeVar

import torch
from torch.utils.data import DataLoader, Dataset

SECONDS = 1.0  # between two checks of the parent process

T = TypeVar("T")


def data_loader(
    dataset: Dataset[T], chunks: Sequence[Sequence[int]], workers: int, *, pin_memory: bool = False
) -> DataLoader[T]:
    """A loader of ``dataset[chunk]`` for each list of indices, in their order.

    Args:
        dataset: indexed by lists of indices.
        chunks: the lists.
        workers: processes that read; 0: the calling process reads.
        pin_memory: whether batches are copied to page-locked memory.
    """
    return DataLoader(
        dataset,
        sampler=chunks,
        batch_size=None,
        num_workers=workers,
        collate_fn=_identity,
        pin_memory=pin_memory,
        worker_init_fn=exit_with_parent,
        generator=torch.Generator().manual_seed(0),  # otherwise it would draw from the run's generator
    )


def batch_indices(length: int, size: int, order: int | None) -> list[list[int]]:
    """The indices of each batch of one pass, as :meth:`paretorch.workloads.Stream.batches` specifies.

    Example:
        >>> batch_indices(5, 2, None)
        [[0, 1], [2, 3], [4]]
        >>> [len(batch) for batch in batch_indices(5, 2, 7)]
        [2, 2]
    """
    if order is None:
        indices, end = list(range(length)), length
    else:
        indices = torch.randperm(length, generator=torch.Generator().manual_seed(order)).tolist()
        end = max(1, length // size) * size
    return [indices[start : start + size] for start in range(0, end, size)]


def exit_with_parent(worker: int) -> None:
    """Starts a thread in a worker that ends the worker soon after its parent process ended.

    torch's workers check for their parent only while they wait for work. A worker whose result exceeds the capacity of the pipe
    waits for the pipe instead, forever: it has the other end of the pipe open itself, so that writing never fails.

    Args:
        worker: its number, which is ignored.
    """
    del worker
    parent, first = multiprocessing.parent_process(), os.getppid()
    if parent is None:
        return

    def watch() -> None:
        # a forked sibling may keep the parent's sentinel open, so the parent's process id is compared as well
        while parent.is_alive() and os.getppid() == first:
            parent.join(SECONDS)
        os._exit(1)  # a regular exit would wait for the pipe

    threading.Thread(target=watch, daemon=True).start()


def _identity(batch: Any) -> Any:
    return batch
