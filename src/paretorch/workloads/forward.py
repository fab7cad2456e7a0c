"""A batch through a model: each stream's inputs once through the encoder, then every labelled task's head."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from paretorch.workloads.streams import Samples

Batch = tuple[Samples, ...]  # one part per stream


def features_of(model: nn.Module, batch: Batch) -> tuple[Any, ...]:
    """The encoder's features of each stream's part.

    Raises:
        ValueError: one sample meets a batch norm that trains.
    """
    encoder: nn.Module = model.encoder  # type: ignore[assignment]
    try:
        return tuple(encoder(samples.inputs) for samples in batch)
    except ValueError as error:
        if not str(error).startswith("Expected more than 1 value per channel"):
            raise
        raise ValueError(f"batch norm cannot train on one sample: use a batch size of 2 or more ({error})") from error


def outputs_of(
    model: nn.Module,
    batch: Batch,
    fork: Callable[[tuple[Any, ...]], Mapping[str, Any]] | None = None,
    features: tuple[Any, ...] | None = None,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The heads' outputs and the targets, by task of the model.

    Args:
        model: with an encoder and heads by task.
        batch: one part per stream.
        fork: what the features go through, those of several streams together, as one tuple, so that a step is one forward of
            it: features -> each task's features. None: heads read the features themselves.
        features: of each stream's part; None: the encoder computes them.
    """
    outputs: dict[str, Any] = {}
    targets: dict[str, Any] = {}
    heads: Mapping[str, nn.Module] = model.heads  # type: ignore[assignment]
    features = features_of(model, batch) if features is None else features
    alone = len(batch) == 1
    branch = None if fork is None else fork(features[0] if alone else features)
    for place, samples in enumerate(batch):
        for task in samples.targets:
            if task in heads:
                own = features[place] if branch is None else branch[task] if alone else branch[task][place]
                outputs[task] = heads[task](own)
                targets[task] = samples.targets[task]
    return outputs, targets
