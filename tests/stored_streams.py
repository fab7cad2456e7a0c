"""Streams of workloads that keep all samples in memory."""

from __future__ import annotations

from paretorch.workloads import TensorStream, Workload


def only_stream(workload: Workload, split: str) -> TensorStream:
    """The stream of a split that has exactly one, of tensors in memory."""
    (stream,) = getattr(workload.data(), split)
    assert isinstance(stream, TensorStream)
    return stream
