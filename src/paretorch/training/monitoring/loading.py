"""The time that training waits for its data, and a warning with a cure."""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import Any

from paretorch.workloads.streams import LoadingStatistics, LoadingStream, Samples, Splits, Stream

SHARE = 0.25  # of the time; more waiting causes a warning
LEAST = 5.0  # seconds of waiting; less causes no warning


class SlowLoadingWarning(UserWarning):
    """Training waits for its data."""


class LoadingTimer:
    """Measures the seconds that training waits for batches, and warns once if they are many.

    Args:
        streams: the training data.

    Example:
        >>> timer = LoadingTimer(())
        >>> for batch in timer.over([(), ()]):
        ...     pass
        >>> 0 < timer.seconds < 1
        True
    """

    def __init__(self, streams: tuple[Stream, ...]) -> None:
        self.streams = streams
        self.seconds = 0.0
        self.advice: str | None = None
        self._elapsed = 0.0
        self._samples = 0

    def over(self, batches: Iterable[tuple[Samples, ...]]) -> Iterator[tuple[Samples, ...]]:
        """The batches of an epoch; the time between two of them is that of training."""
        source = iter(batches)
        while True:
            began = time.perf_counter()
            batch = list(islice(source, 1))
            self.seconds += time.perf_counter() - began
            if not batch:
                return
            samples = sum(part.size for part in batch[0])
            yield batch.pop()  # without a reference here, its memory is free before the next batch is read
            self._elapsed += time.perf_counter() - began
            self._samples += samples
            if self.advice is None and self.seconds > max(LEAST, SHARE * self._elapsed):
                training = self._samples / max(self._elapsed - self.seconds, 1e-9)
                self.advice = advice(self.seconds / self._elapsed, training, self.streams)
                warnings.warn(self.advice, SlowLoadingWarning, stacklevel=2)


def advice(share: float, training: float, streams: tuple[Stream, ...]) -> str:
    """The stream that training waits for, and the cure.

    Args:
        share: of the time that training waits, in [0, 1].
        training: samples per second of training without waiting.
        streams: the training data.
    """
    reports = [stream.loading() for stream in streams if isinstance(stream, LoadingStream)]
    prefix = f"training waits for its data {100 * share:.0f} % of the time"
    if not reports:
        return f"{prefix}: its streams are too slow. Store them in memory, or read them in other processes"
    slowest = max(reports, key=lambda report: report.waited)
    by = f"{slowest.workers} worker{'s' * (slowest.workers != 1)}" if slowest.workers else "the training process itself"
    reads = "decoding image files" if slowest.kind == "image files" else f"reading the {slowest.kind}"
    return (
        f"{prefix}: {reads} ({slowest.stream}) in {by} reaches {slowest.speed:,.0f} samples/s, training alone could reach "
        f"{training:,.0f} of all streams. {_cures(slowest)}"
    )


def _cures(report: LoadingStatistics) -> str:
    cures = ["`paretorch data pack`"] if report.kind == "image files" else []
    if report.workers < (os.cpu_count() or 1):
        cures.append(f"more workers (workers={max(1, 2 * report.workers)})")
    cures.append("smaller images (size=...) or a smaller subset")
    return f"This helps: {', or '.join(cures)}"


def loading_facts(splits: Splits, timer: LoadingTimer) -> Mapping[str, Any]:
    """Facts about data loading: samples per second, seconds of waiting, unreadable samples; empty for data in memory."""
    streams = (*splits.train, *splits.validation, *splits.test)
    reports = [stream.loading() for stream in streams if isinstance(stream, LoadingStream)]
    found: dict[str, Any] = {}
    if reports:
        found["loader"] = {
            report.stream: {
                "reads": report.kind,
                "workers": report.workers,
                "samples per second": report.speed,
                "seconds waited": report.waited,
            }
            for report in reports
        }
    if left_out := {report.stream: dict(report.unreadable) for report in reports if report.unreadable}:
        found["left out, unreadable"] = left_out
    if timer.advice is not None:
        found["loader advice"] = timer.advice
    return found
