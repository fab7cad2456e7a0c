"""What many steps leave behind: memory, open files, objects, and the time of a step."""

from __future__ import annotations

import ctypes
import gc
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch

SAMPLES = 30  # measurements over all steps
REFERENCE = 40  # plain steps at each measurement, to which the time of a step is compared
BOUNDS = {
    "memory": 0.01,  # growth of the resident memory over the second half, relative to its level
    "files": 0.5,  # that are open at the end, and were not after the first half
    "blocks": 0.5,  # of memory, in the interpreter, that remain of each step of the second half
    "tensors": 0.01,  # that remain of each step of the second half
    "time": 0.5,  # growth of the time of a step from the first third to the last, relative to plain steps
}
COLUMNS = ("steps", "memory", "files", "blocks", "tensors", "ratio")


@dataclass
class Soak:
    """Measures the process while something makes steps.

    Attributes:
        steps: of the whole soak.
        reference: one plain step.
        samples: (SAMPLES, 6) after equal numbers of steps: the number of steps; resident memory in bytes; open files; blocks of
            memory that the interpreter has given out, for objects of any type; tensors to which Python refers; the median time of
            the last steps, relative to that of plain steps.
    """

    steps: int
    reference: Callable[[], object]

    def __post_init__(self) -> None:
        self.done, self.every, self.taken = 0, max(1, self.steps // SAMPLES), 0
        self.samples = np.full((SAMPLES, len(COLUMNS)), np.nan)  # no sample leaves an object behind
        self.times = np.full(REFERENCE, np.nan)
        self.ended = time.process_time()

    def step(self) -> None:
        """Counts one step, and measures after equal numbers of them."""
        now = time.process_time()
        self.times[self.done % REFERENCE] = now - self.ended
        self.ended = now
        self._count(1)

    def epoch(self, steps: int) -> None:
        """Counts the steps of an epoch, which divides the number of steps between two measurements."""
        self.times[:] = (time.process_time() - self.ended) / steps
        self._count(steps)

    def _count(self, steps: int) -> None:
        self.done += steps
        if self.done % self.every == 0 and self.taken < SAMPLES:
            self._measure()

    def _measure(self) -> None:
        ratio = np.nanmedian(self.times) / self._reference_time()
        gc.collect()
        tensors = sum(isinstance(each, torch.Tensor) for each in gc.get_objects())
        files, blocks = len(os.listdir("/proc/self/fd")), sys.getallocatedblocks()
        self.samples[self.taken] = self.done, _resident_memory(), files, blocks, tensors, ratio
        self.taken += 1
        self.ended = time.process_time()

    def _reference_time(self) -> float:
        times = []
        with torch.enable_grad():
            for _ in range(REFERENCE):
                began = time.process_time()
                self.reference()
                times.append(time.process_time() - began)
        return statistics.median(times)

    @property
    def figures(self) -> dict[str, float]:
        """What has grown, in the unit of the bounds of :func:`findings`."""
        columns = dict(zip(COLUMNS, self.samples.T, strict=True))
        half, third = SAMPLES // 2, SAMPLES // 3

        def per_step(name: str) -> float:
            return float(np.polyfit(columns["steps"][half:], columns[name][half:], 1)[0])

        first, last = np.median(columns["ratio"][1 : third + 1]), np.median(columns["ratio"][-third:])
        return {
            "memory": per_step("memory") * self.steps / 2 / columns["memory"][-1],
            "files": columns["files"][-1] - columns["files"][half],
            "blocks": per_step("blocks"),
            "tensors": per_step("tensors"),
            "time": float(last / first) - 1,
        }


@contextmanager
def soaked(steps: int, reference: Callable[[], object]) -> Iterator[Soak]:
    """A soak in whose block only objects that are made there are searched for tensors."""
    gc.collect()
    gc.freeze()
    try:
        yield Soak(steps, reference)
    finally:
        gc.unfreeze()


def _resident_memory() -> int:
    """In bytes. Memory that glibc has kept from earlier tests is returned first: it would hide what a step leaves behind."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # of glibc alone
    if trim is not None:
        trim(0)
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def findings(soak: Soak) -> list[str]:
    """What has grown: names of figures with their values."""
    assert soak.taken == SAMPLES, f"{soak.done} of {soak.steps} steps"
    return [f"{name}: {value:.3g}" for name, value in soak.figures.items() if not value <= BOUNDS[name]]
