"""Validation and test scores of a run."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence

from torch import nn

from paretorch.loop import evaluation
from paretorch.loop.evaluation import Scores
from paretorch.loop.means import DeviceMeans
from paretorch.training.record.result import Epoch
from paretorch.training.updates import outputs_in_precision
from paretorch.training.workload_checks import metrics_of
from paretorch.workloads.base import Workload
from paretorch.workloads.streams import Splits, Stream


def evaluate(
    workload: Workload, model: nn.Module, streams: tuple[Stream, ...], tasks: tuple[str, ...], size: int, precision: str
) -> Scores:
    """Scores of ``tasks`` over a whole split; see :func:`paretorch.loop.evaluation.evaluate`.

    Args:
        workload: defines the losses and metrics.
        model: with a head for each of ``tasks``.
        streams: of the split.
        tasks: what is scored.
        size: B, samples per batch.
        precision: ``"float32"`` or ``"bfloat16"``.
    """
    metrics = metrics_of(workload, tasks)
    return evaluation.evaluate(
        workload,
        model,
        streams,
        size,
        metrics,
        DeviceMeans(),
        lambda model, batch: outputs_in_precision(model, batch, precision),
    )


def reported_test_scores(
    splits: Splits, history: Sequence[Epoch], score: Callable[[tuple[Stream, ...]], Scores]
) -> Scores:
    """The scores that are reported on the test set.

    Args:
        splits: of the run. With ``test_epochs`` the scores are the means over the last epochs' validation scores, or over all
            epochs if there are fewer; otherwise the test set is evaluated once.
        history: the epochs of the run.
        score: evaluates a split with the last weights.
    """
    return mean_scores(history[-splits.test_epochs :]) if splits.test_epochs else score(splits.test)


def mean_scores(epochs: Sequence[Epoch]) -> Scores:
    """The mean over epochs of each validation loss and metric; nan if one epoch's value is nan.

    Args:
        epochs: at least one.
    """
    validation = [epoch.validation for epoch in epochs]
    return Scores(
        losses={task: statistics.fmean(scores.losses[task] for scores in validation) for task in validation[0].losses},
        metrics={
            task: {name: statistics.fmean(scores.metrics[task][name] for scores in validation) for name in values}
            for task, values in validation[0].metrics.items()
        },
    )
