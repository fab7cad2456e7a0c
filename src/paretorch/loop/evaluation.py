"""Losses and metrics over a whole split."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from paretorch.core.restoring import RestoredOnError
from paretorch.loop.means import WeightedMeans
from paretorch.metrics.metric import Metric, real_number
from paretorch.workloads.base import Workload
from paretorch.workloads.forward import Batch, outputs_of
from paretorch.workloads.streams import Stream, one_pass

Forward = Callable[[nn.Module, Batch], tuple[dict[str, Any], dict[str, Any]]]


@dataclass(frozen=True)
class Scores:
    """Losses and metrics over a whole split.

    Args:
        losses: mean loss over the labelled samples, by task.
        metrics: value by task and metric.
    """

    losses: Mapping[str, float]
    metrics: Mapping[str, Mapping[str, float]]


def evaluate(
    workload: Workload,
    model: nn.Module,
    streams: tuple[Stream, ...],
    batch_size: int,
    metrics: Mapping[str, Sequence[Metric]],
    means: WeightedMeans,
    forward: Forward = outputs_of,
) -> Scores:
    """Scores of a model in eval mode, over every sample of a split once.

    Args:
        workload: defines the losses.
        model: with an encoder and a head for each task that is scored; returned to its mode afterwards.
        streams: of the split.
        batch_size: B, samples per batch; the scores depend on it by rounding only.
        metrics: fresh metrics by task; a task without metrics may be left out.
        means: empty means, in which the losses are accumulated.
        forward: model, batch -> outputs and targets by task.

    Raises:
        ValueError: a metric does not support an output or a target, or returns no real number; or a stream gives no samples.
            The message names the task.
    """
    training = model.training
    with RestoredOnError([model]), torch.no_grad():
        model.eval()
        try:
            for stream in streams:
                for samples in one_pass(stream, batch_size, order=None):
                    outputs, targets = forward(model, (samples,))
                    for task, loss in workload.losses(outputs, targets).items():
                        means.add(task, loss, workload.labelled(task, targets[task], samples.size))
                    for task, output in outputs.items():
                        with _errors_name(task):
                            for metric in metrics.get(task, ()):
                                metric.update(output, targets[task])
        finally:
            model.train(training)
        values = {}
        for task, made in metrics.items():
            with _errors_name(task):
                computed = [metric.compute() for metric in made]
            values[task] = {
                metric.name: metric_value(workload, task, metric, value)
                for metric, value in zip(made, computed, strict=True)
            }
        return Scores(means.read(), values)


def metric_value(workload: Workload, task: str, metric: Metric, computed: Any) -> float:
    """The value of a metric as a float.

    Args:
        workload: has the metric.
        task: of the metric.
        metric: that was computed.
        computed: what it returned.

    Raises:
        ValueError: it returned no real number; the message names workload, task and metric.
    """
    try:
        return real_number(computed)
    except ValueError as error:
        where = f"{type(workload).__name__}.metrics(), task {task!r}, compute() of {metric.name!r}"
        raise ValueError(f"{where}: {error}") from None


@contextmanager
def _errors_name(task: str) -> Iterator[None]:
    """Adds the name of the task to the errors of its metrics, which do not know it."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"task {task!r}: {error}") from error
