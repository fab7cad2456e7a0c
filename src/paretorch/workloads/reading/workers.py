"""Reading by other processes, which end when the one that started them does, however it ended."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Sequence
from typing import Any, TypeVar

import torch
from torch.utils.data import DataLoader, Dataset

SECONDS = 1.0  # between two looks at the parent

T = TypeVar("T")


def loader(
    dataset: Dataset[T], chunks: Sequence[Sequence[int]], workers: int, *, pin_memory: bool = False
) -> DataLoader[T]:
    """What ``dataset`` gives for each list of places, in their order.

    Args:
        dataset: takes a list of places at a time.
        chunks: the lists.
        workers: processes that read; 0 reads in this one.
        pin_memory: for a device that copies without waiting.
    """
    return DataLoader(
        dataset,
        sampler=chunks,
        batch_size=None,
        num_workers=workers,
        collate_fn=_as_it_is,
        pin_memory=pin_memory,
        worker_init_fn=end_with_parent,
        generator=torch.Generator().manual_seed(0),  # else it would draw from the run's own random numbers
    )


def end_with_parent(worker: int) -> None:
    """Lets a worker end soon after the process that started it has died.

    torch's workers look for their parent only while they wait for work. One whose results are larger than a pipe waits in the
    pipe instead, and for ever: it holds the pipe's other end itself, so that writing never fails.

    Args:
        worker: its number, which is not looked at.
    """
    del worker
    parent, first = multiprocessing.parent_process(), os.getppid()
    if parent is None:
        return

    def watch() -> None:
        # a forked sibling may hold the handle that tells of the parent's death; the parent's number changes all the same
        while parent.is_alive() and os.getppid() == first:
            parent.join(SECONDS)
        os._exit(1)  # any other end would wait for the pipe

    threading.Thread(target=watch, daemon=True).start()


def _as_it_is(batch: Any) -> Any:
    return batch
