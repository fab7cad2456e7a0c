"""Checks of a workload before training; each error is one sentence with the cure."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from paretorch.loop.evaluation import metric_value
from paretorch.metrics import Metric
from paretorch.training import randomness
from paretorch.workloads import forward
from paretorch.workloads.base import Workload, check_head_names
from paretorch.workloads.streams import LoadingStream, PreviewStream, Samples, Splits, Stream, one_pass

CHECKED_SAMPLES = 2  # of each stream
LABEL_BATCH = 256  # samples that are read at a time in the search for a label


def trained_model(workload: Workload, tasks: tuple[str, ...]) -> nn.Module:
    """The workload's model with the heads of ``tasks`` only; its weights are those of the complete model.

    Raises:
        ValueError: the model has no encoder or no head for each task, or no module can have the name of a task.
    """
    check_head_names(workload.tasks)
    model = workload.model()
    heads = getattr(model, "heads", None)
    if not isinstance(getattr(model, "encoder", None), nn.Module) or not isinstance(heads, nn.ModuleDict):
        raise ValueError(
            f"{type(workload).__name__}.model(): expected a module with an encoder and heads, an nn.ModuleDict by "
            f"task; got {type(model).__name__}. paretorch.workloads.MultiTaskModel(encoder, heads) is one"
        )
    if set(heads) != set(workload.tasks):
        raise ValueError(
            f"{type(workload).__name__}.model(): expected a head for each of {workload.tasks}, got {tuple(heads)}"
        )
    for task in set(workload.tasks) - set(tasks):
        del heads[task]
    return model


def data_of(workload: Workload) -> Splits:
    """The workload's data.

    Raises:
        ValueError: they are no Splits, or contain no streams.
    """
    splits = workload.data()
    if not isinstance(splits, Splits):
        raise ValueError(
            f"{type(workload).__name__}.data(): expected paretorch.workloads.Splits(train, validation, test), got "
            f"{_kind(splits)}"
        )
    return splits


def metrics_of(workload: Workload, tasks: tuple[str, ...]) -> dict[str, tuple[Metric, ...]]:
    """Fresh metrics of each of ``tasks``; an empty tuple for a task without metrics.

    Raises:
        ValueError: they are not metrics by task, with different names in a task.
    """
    where = f"{type(workload).__name__}.metrics()"
    made: Any = workload.metrics()
    if not isinstance(made, Mapping):
        raise ValueError(
            f"{where}: expected a dict of metrics by task, as in {{{workload.tasks[0]!r}: (Accuracy(),)}}, got {_kind(made)}"
        )
    if unexpected := [task for task in made if task not in workload.tasks]:
        raise ValueError(f"{where}: expected metrics of the tasks {', '.join(workload.tasks)}, got {unexpected}")
    for task, metrics in made.items():
        if not isinstance(metrics, tuple | list):
            raise ValueError(
                f"{where}: expected a tuple of metrics for {task!r}, got {_kind(metrics)}; one metric is written (Accuracy(),)"
            )
        for metric in metrics:
            if not isinstance(metric, Metric):
                raise ValueError(
                    f"{where}: expected objects of paretorch.workloads.Metric for {task!r}, as Accuracy() is one, got "
                    f"{_kind(metric)}"
                )
            for attribute, kind in (("name", str), ("higher_is_better", bool), ("unit", str)):
                if not isinstance(found := getattr(metric, attribute, None), kind):
                    raise ValueError(
                        f"{where}: expected {attribute} of {type(metric).__name__}, a metric of {task!r}, to be a "
                        f"{kind.__name__}, got {found!r}"
                    )
        names = [metric.name for metric in metrics]
        if repeated := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(
                f"{where}: expected metrics of different names for {task!r}, got {', '.join(map(repr, repeated))} several times"
            )
    return {task: tuple(made.get(task, ())) for task in tasks}


def checked_tasks(workload: Workload) -> tuple[str, ...]:
    """The tasks of a workload.

    Raises:
        ValueError: they are no names, or there is none.
    """
    tasks: Any = workload.tasks
    if not isinstance(tasks, tuple | list) or not tasks or not all(isinstance(task, str) for task in tasks):
        raise ValueError(f"{type(workload).__name__}.tasks: expected a tuple of names, got {tasks!r}"[:300])
    return tuple(tasks)


def check_losses(workload: Workload, model: nn.Module, splits: Splits) -> None:
    """Checks losses and metrics of a few training samples of each stream, without side effects on model or random generators.

    Streams that are read from files, and loaders, are not checked: that would start their processes. A metric that cannot be
    computed on so few samples passes; the evaluation of a split checks it again.

    Raises:
        ValueError: the losses are not scalars by task, a metric is no real number, or a stream gives no samples.
    """
    found = [_first_samples(stream) for stream in splits.train]
    batch = tuple(samples for samples in found if samples is not None)
    if len(batch) < len(found):
        return
    where, training = f"{type(workload).__name__}.losses()", model.training
    device = next(model.parameters()).device
    model.eval()
    try:
        with torch.no_grad(), randomness.preserved(device):
            outputs, targets = forward.outputs_of(model, batch)
            losses: Any = workload.losses(outputs, targets)
            _check_metrics(workload, outputs, targets)
    finally:
        model.train(training)
    if not isinstance(losses, Mapping):
        raise ValueError(f"{where}: expected a dict of a scalar loss by task, got {_kind(losses)}")
    if unexpected := [task for task in losses if task not in outputs]:
        raise ValueError(f"{where}: expected losses of {', '.join(outputs)}, the tasks in outputs, got {unexpected}")
    for task, loss in losses.items():
        if not isinstance(loss, Tensor) or loss.ndim or not loss.is_floating_point():
            got = _kind(loss)
            if isinstance(loss, Tensor):
                got = f"a tensor of shape {tuple(loss.shape)}" if loss.ndim else f"a tensor of {loss.dtype}"
            raise ValueError(
                f"{where}: expected a scalar tensor for {task!r}, the mean over the labelled samples, got {got}"
            )


def _check_metrics(workload: Workload, outputs: Mapping[str, Any], targets: Mapping[str, Any]) -> None:
    """Checks that metrics are real numbers, as far as they can be computed on these samples."""
    for task, metrics in metrics_of(workload, tuple(outputs)).items():
        for metric in metrics:
            try:
                with warnings.catch_warnings(action="ignore"):
                    metric.update(outputs[task], targets[task])
                    computed = metric.compute()
            except Exception:  # it may need more samples; an error that persists is raised by the evaluation
                continue
            if computed is not None:  # as a metric that is undefined on these samples may return
                metric_value(workload, task, metric, computed)


def _first_samples(stream: Stream) -> Samples | None:
    """The first samples of a stream; None if reading them would start processes."""
    if isinstance(stream, PreviewStream):
        return stream.preview(CHECKED_SAMPLES)
    return None if isinstance(stream, LoadingStream) else next(one_pass(stream, CHECKED_SAMPLES, order=None))


def check_selection(name: str, workload: Workload, tasks: tuple[str, ...], splits: Splits) -> None:
    """Checks that the best epoch can be selected on validation data.

    Args:
        name: of the workload.
        workload: counts labels.
        tasks: the trained tasks.
        splits: read up to the first batch with a label.

    Raises:
        ValueError: the validation split is the test set, or has no label of a trained task.
    """
    cure = "give the workload validation data, or keep the last epoch (--keep last)"
    if splits.test_epochs:
        raise ValueError(
            f"{name}: the best epoch cannot be kept, because the validation split is the test set, on which nothing may be "
            f"selected: {cure}"
        )
    for stream in splits.validation:
        for samples in one_pass(stream, LABEL_BATCH, order=None):
            for task in set(tasks) & set(samples.targets):
                if bool(torch.as_tensor(workload.labelled(task, samples.targets[task], samples.size)) > 0):
                    return
    raise ValueError(
        f"{name}: the best epoch cannot be kept, because no validation sample has a label of {', '.join(tasks)}: {cure}"
    )


def _kind(value: Any) -> str:
    return f"the class {value.__name__}, not an object of it" if isinstance(value, type) else type(value).__name__
