"""Losses and metrics over a whole split."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence

import torch
from torch import nn

from paretorch.training.record.result import Epoch, Scores
from paretorch.training.record.totals import Means
from paretorch.training.updates import outputs_of
from paretorch.training.workload_checks import metrics_of
from paretorch.workloads.base import Workload
from paretorch.workloads.streams import Splits, Stream


@torch.no_grad()
def evaluate(
    workload: Workload, model: nn.Module, streams: tuple[Stream, ...], tasks: tuple[str, ...], size: int, precision: str
) -> Scores:
    """Scores of ``tasks`` in eval mode, over every sample once; the model's mode is put back.

    Args:
        workload: whose losses and metrics.
        model: with a head for each of ``tasks``.
        streams: a split.
        tasks: what to score.
        size: B, samples per batch; the scores do not depend on it beyond rounding.
        precision: ``"float32"`` or ``"bfloat16"``.
    """
    losses = Means()
    metrics = metrics_of(workload, tasks)
    training = model.training
    model.eval()
    try:
        for stream in streams:
            for samples in stream.batches(size, order=None):
                outputs, targets = outputs_of(model, (samples,), precision)
                for task, loss in workload.losses(outputs, targets).items():
                    losses.add(task, loss, workload.labelled(task, targets[task], samples.size))
                for task, output in outputs.items():
                    for metric in metrics[task]:
                        metric.update(output, targets[task])
    finally:
        model.train(training)
    return Scores(
        losses=losses.read(),
        metrics={task: {metric.name: metric.compute() for metric in made} for task, made in metrics.items()},
    )


def tested(splits: Splits, history: Sequence[Epoch], score: Callable[[tuple[Stream, ...]], Scores]) -> Scores:
    """What is reported on the test set: one reading after training, or the mean of the last epochs' where that is the custom.

    Args:
        splits: of the run.
        history: of its epochs; where there are fewer than the custom asks for, the mean is of all.
        score: with the last weights, the scores over a split.
    """
    return mean_scores(history[-splits.test_epochs :]) if splits.test_epochs else score(splits.test)


def mean_scores(epochs: Sequence[Epoch]) -> Scores:
    """The mean over epochs of each validation loss and metric; nan where one epoch's is.

    Args:
        epochs: at least one.
    """
    found = [epoch.validation for epoch in epochs]
    return Scores(
        losses={task: statistics.fmean(scores.losses[task] for scores in found) for task in found[0].losses},
        metrics={
            task: {name: statistics.fmean(scores.metrics[task][name] for scores in found) for name in values}
            for task, values in found[0].metrics.items()
        },
    )
