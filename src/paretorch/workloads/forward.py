"""The forward pass of a batch: the encoder on each stream's inputs, then the head of every task with targets."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from paretorch.workloads.streams import Samples

Batch = tuple[Samples, ...]  # the samples of each stream


def features_of(model: nn.Module, batch: Batch) -> tuple[Any, ...]:
    """The encoder's features of each stream's samples.

    Raises:
        ValueError: a batch norm in training mode receives a single sample.
    """
    encoder: nn.Module = model.encoder  # type: ignore[assignment]
    try:
        return tuple(encoder(samples.inputs) for samples in batch)
    except ValueError as error:
        if not str(error).startswith("Expected more than 1 value per channel"):
            raise
        raise ValueError(
            f"batch norm cannot be trained on one sample: use a batch size of 2 or more ({error})"
        ) from error


def head_output(heads: Mapping[str, nn.Module], task: str, features: Any) -> Any:
    """The output of a task's head; an error in it carries a note with the task."""
    try:
        return heads[task](features)
    except Exception as error:
        error.add_note(f"in the head of task {task!r}, {type(heads[task]).__name__}")
        raise


def outputs_of(
    model: nn.Module,
    batch: Batch,
    fork: Callable[[tuple[Any, ...]], Mapping[str, Any]] | None = None,
    features: tuple[Any, ...] | None = None,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The heads' outputs and the targets, by task of the model.

    Args:
        model: with an encoder and heads by task.
        batch: the samples of each stream.
        fork: features -> each task's features; it is called once, with a tuple if there are several streams. None: the features
            are the input of the heads.
        features: of each stream's samples; None: the encoder computes them.
    """
    outputs: dict[str, Any] = {}
    targets: dict[str, Any] = {}
    heads: Mapping[str, nn.Module] = model.heads  # type: ignore[assignment]
    features = features_of(model, batch) if features is None else features
    single = len(batch) == 1
    branch = None if fork is None else fork(features[0] if single else features)
    for index, samples in enumerate(batch):
        for task in samples.targets:
            if task in heads:
                own = features[index] if branch is None else branch[task] if single else branch[task][index]
                outputs[task] = head_output(heads, task, own)
                targets[task] = samples.targets[task]
    return outputs, targets
