"""The results of a diagnosis as values."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

import numpy as np

from paretorch.core.arrays import Array
from paretorch.storage.json_files import to_json


@dataclass(frozen=True)
class Cosines:
    """Cosines between the gradients of each two tasks: means over batches, with intervals that hold for all pairs together.

    Args:
        mean: (T, T) means over the batches in which both tasks have a gradient; nan where there is none.
        low: (T, T) lower ends of 95 % intervals.
        high: (T, T) upper ends.
    """

    mean: Array
    low: Array
    high: Array


@dataclass(frozen=True)
class Prediction:
    """Agreement of a method's weights on the features with its weights on the shared parameters, over batches.

    Args:
        difference: mean absolute difference of the weights, each scaled to a mean of one; 0: equal.
        correlation: of these weights over tasks and batches; nan where one of them does not vary.
        cosine: mean cosine between the two updates of the shared parameters; 1: the same direction.
        batches: number of batches in which the method gives weights on both.
    """

    difference: float
    correlation: float
    cosine: float
    batches: int


@dataclass(frozen=True)
class Raised:
    """The shares of trial steps of one kind that increased a loss.

    Args:
        any_task: share of the steps that increased the loss of a task on the batch of the step.
        same: (T,) shares by task, on the batch of the step; nan for tasks that are never there.
        other: (T,) shares by task, on the next batch.
    """

    any_task: float
    same: Array
    other: Array


@dataclass(frozen=True)
class Trials:
    """Trial steps: the losses are computed before and after each, and the step is undone.

    Args:
        steps: number of steps of each kind.
        sum: gradient steps along the sum of the losses. To first order they change no loss by more than a hundredth of its
            value, and they are short enough for the sum to decrease by at least half of what the first order gives.
        scaled: the same for the sum of the losses divided by their gradient norms.
        training: steps of the optimizer for the same sum, in its state after the warm-up.
        own: (T,) shares of gradient steps of one task that increased its own loss on the next batch: the effect of noise alone;
            nan where it was not measured.
    """

    steps: int
    sum: Raised
    scaled: Raised
    training: Raised
    own: Array


@dataclass(frozen=True)
class Measurement:
    """The measurement at one state of the weights, over K batches.

    Args:
        steps: steps of warm-up training before it.
        losses: (T,) mean losses.
        norms: (T,) gradient norms on the shared parameters, geometric means over batches; 0 for a task without gradient.
        feature_norms: (T,) the same on the features; None where these are unknown.
        cosines: on the shared parameters.
        feature_cosines: on the features; None where these are unknown.
        layers: on the parameters of each layer, in the order of the model.
        expected_cosines: (T, T) cosines between the expected gradients, without the noise of batches; nan where noise hides them.
        noise: (T,) gradient noise scale in batches: the trace of the covariance of a batch's gradient over the squared length of
            the expected gradient. Infinite where noise hides the expected gradient.
        noise_least: (T,) lower 97.5 % bound of the noise scale.
        predictions: of the weights on the parameters by those on the features, by method.
    """

    steps: int
    losses: Array
    norms: Array
    feature_norms: Array | None
    cosines: Cosines
    feature_cosines: Cosines | None
    layers: Mapping[str, Cosines]
    expected_cosines: Array
    noise: Array
    noise_least: Array
    predictions: Mapping[str, Prediction]

    @property
    def ratio(self) -> float:
        """The largest gradient norm on the shared parameters over the smallest, of tasks that have a gradient."""
        positive = self.norms[self.norms > 0]
        return float(positive.max() / positive.min()) if len(positive) else math.nan


@dataclass(frozen=True)
class Advice:
    """One row of the table of advice that applies.

    Args:
        condition: what was found.
        recommendation: what to do.
        reason: the numbers from which it follows.
        cost: of following it.
    """

    condition: str
    recommendation: str
    reason: str
    cost: str


@dataclass(frozen=True)
class Diagnosis:
    """What the gradients of a model's tasks are like, and which way of training follows from it.

    ``print(diagnosis)`` prints it as text. It is made by :func:`paretorch.diagnose`.

    Args:
        tasks: (T,) names.
        verdict: the recommendation in one sentence.
        advice: all rows of the table of advice that apply, the verdict's first.
        problems: faults in the wiring of model and losses, one sentence each.
        weights: by task, constant weights with a mean of one at which the gradient norms on the shared parameters agree.
        initial: the measurement at the given weights.
        trained: the measurement after the warm-up training of a copy.
        trials: trial steps after the warm-up.
        batches: K, number of batches measured.
        batch_size: samples per batch; None where it is unknown.
        features: name of the submodule whose output (of a Fork: whose input) the heads share; None where it is unknown.
        shared: number of shared parameters (scalars).
        notes: how it was measured, one sentence each.
        text: all of it as plain text, with tables.
    """

    tasks: tuple[str, ...]
    verdict: str
    advice: tuple[Advice, ...]
    problems: tuple[str, ...]
    weights: Mapping[str, float]
    initial: Measurement
    trained: Measurement
    trials: Trials
    batches: int
    batch_size: int | None
    features: str | None
    shared: int
    notes: tuple[str, ...]
    text: str = ""

    def __str__(self) -> str:
        return self.text

    def to_json(self) -> dict[str, Any]:
        """The diagnosis as JSON values; numbers that are not finite are the strings ``"nan"``, ``"inf"`` and ``"-inf"``."""
        return {field.name: to_json(_without_arrays(getattr(self, field.name))) for field in fields(self)}


def _without_arrays(value: Any) -> Any:
    if is_dataclass(value):
        return {field.name: _without_arrays(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Mapping):
        return {name: _without_arrays(part) for name, part in value.items()}
    if isinstance(value, tuple):
        return [_without_arrays(part) for part in value]
    return value.tolist() if isinstance(value, np.ndarray) else value
