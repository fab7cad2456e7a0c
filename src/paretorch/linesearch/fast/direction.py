"""Direction of a step of the fast search."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from torch import Tensor

from paretorch.core.contract import Need
from paretorch.core.gradients.finite import all_finite
from paretorch.core.gradients.step_evidence import StepResult
from paretorch.core.gradients.task_gradients import Row, by_sample
from paretorch.core.method.runner import MethodRunner, combined_gradient
from paretorch.linesearch.contract import Slopes
from paretorch.linesearch.directions.metrics import common_descent
from paretorch.linesearch.fast.batch import Batch
from paretorch.linesearch.fast.gradients import BatchGradients, encoder_gradient
from paretorch.linesearch.fast.jacobian_products import short_step, tangent
from paretorch.linesearch.fast.state import FastState
from paretorch.linesearch.tensor_rows import divided, inner_products, weighted_sum, with_zeros


class EncoderDirectionError(FloatingPointError):
    """The direction of the encoder's parameters is not finite, because its backward makes inf or nan of finite numbers."""


@dataclass(frozen=True)
class EncoderDirection:
    """Direction u of the shared parameters; each property is computed when it is first used."""

    batch: Batch  # after its forward
    compute: Callable[[], list[Tensor]]  # computes the direction

    @cached_property
    def parts(self) -> list[Tensor]:
        """One tensor for each shared parameter.

        Raises:
            EncoderDirectionError: it is not finite.
        """
        found = self.compute()
        if not all_finite(found):
            raise EncoderDirectionError("the direction of the encoder's parameters is not finite")
        return found

    @cached_property
    def short_step(self) -> float:
        """A step well above rounding that moves the parameters by a small part of their norm."""
        return short_step(self.batch, self.parts)

    @cached_property
    def tangent(self) -> list[Tensor]:
        """J_z u, by the secant over the short step where the features resolve it: one forward of the whole batch."""
        return tangent(self.batch, self.parts, self.short_step)


@dataclass(frozen=True)
class StepDirection:
    """Direction of all parameters."""

    gradients: BatchGradients  # of the batch
    on_features: list[Tensor]  # d_z, the balanced gradient on the features
    heads: Row  # direction of the heads' parameters
    encoder: EncoderDirection  # direction of the shared parameters
    by_parameters: bool = False  # whether it is the common descent direction of the gradients on the parameters
    fallback: str = ""  # why it is a common descent direction; empty where it is the method's

    def slopes(self, displacement: Sequence[Tensor]) -> Slopes:
        """(T,) slopes where the features move along a displacement."""
        return self.gradients.slopes(self.heads, displacement)


def method_direction(gradients: BatchGradients, runner: MethodRunner) -> tuple[StepDirection, StepResult]:
    """The direction of the method, and of the optimizer or metric if there is one; and the method's result."""
    batch, parts = gradients.batch, gradients.batch.parts
    losses = {task: value / gradients.divisors[task] for task, value in gradients.values.items()}
    method_result = runner.run_on(losses, gradients.scaled, gradients.gramian, by_sample(batch.features.leaves))
    on_features = combined_gradient(method_result, gradients.scaled)
    weights = runner.head_weights(method_result)
    factors = [
        weights[position] / gradients.divisors[task]
        for task, position in zip(gradients.values, gradients.positions, strict=True)
    ]
    heads = weighted_sum(factors, list(gradients.on_heads.values()))
    encoder = EncoderDirection(batch, lambda: encoder_gradient(batch, on_features))
    if not parts.direction.is_gradient:
        gradient = encoder.parts
        rows = gradients.parameter_rows() if parts.direction.needs_tasks else {}
        made = parts.direction.make(parts.parameters, [*gradient, *heads], rows, gradients.values)
        encoder, heads = _split(gradients, made)
    return StepDirection(gradients, on_features, heads, encoder), method_result


def gramian_slopes(direction: StepDirection, method_result: StepResult, runner: MethodRunner) -> Slopes:
    """(T,) slopes where the features move along d_z, from the Gramian where the method returns weights."""
    gradients = direction.gradients
    if method_result.weights is None or runner.method.needs == Need.LOSSES:
        return direction.slopes(direction.on_features)
    divisors = np.array([gradients.divisors[task] for task in gradients.values])
    own = gradients.head_squares / divisors
    if gradients.heads_overlap:
        own = np.array(inner_products(list(gradients.on_heads.values()), direction.heads))
    return Slopes(own, (gradients.gramian @ np.array(method_result.weights))[list(gradients.positions)] * divisors)


def common_descent_on_features(
    direction: StepDirection, slopes: Slopes, state: FastState
) -> tuple[StepDirection, Slopes]:
    """The minimum norm of the gradients on the features, in place of a direction with these slopes; and its slopes."""
    gradients, divisors = direction.gradients, state.search.divisors(direction.gradients.values)
    metric, leaves = gradients.batch.parts.direction.metric, gradients.batch.leaves
    known = [
        divided(gradients.feature_row(task), divisors[task])
        for task, position in zip(gradients.values, gradients.positions, strict=True)
        if position in gradients.on_features.known
    ]
    on_features = with_zeros(common_descent(metric, known)[0], leaves)
    heads: Row = weighted_sum([1 / divisor for divisor in divisors.values()], list(gradients.on_heads.values()))
    found = gradients.slopes(heads, on_features)
    if not found.all_positive:  # the heads are coupled by a parameter of several tasks
        rows = [
            divided([*gradients.feature_row(task), *row], divisors[task]) for task, row in gradients.on_heads.items()
        ]
        together = common_descent(metric, rows)[0]
        on_features, heads = with_zeros(together[: len(leaves)], leaves), together[len(leaves) :]
        found = gradients.slopes(heads, on_features)
    encoder = EncoderDirection(gradients.batch, lambda: encoder_gradient(gradients.batch, on_features))
    return StepDirection(gradients, on_features, heads, encoder, fallback=_reason(direction, slopes)), found


def common_descent_on_parameters(
    direction: StepDirection, slopes: Slopes, state: FastState
) -> tuple[StepDirection, Slopes]:
    """The minimum norm of the gradients on the parameters, in place of a direction with these slopes; and its slopes."""
    gradients, divisors = direction.gradients, state.search.divisors(direction.gradients.values)
    parts = gradients.batch.parts
    metric, count, nothing = parts.direction.metric, len(parts.shared), [None] * len(parts.head_parameters)
    rows = {task: divided(row, divisors[task]) for task, row in gradients.parameter_rows().items()}
    own = weighted_sum([1 / divisor for divisor in divisors.values()], list(gradients.on_heads.values()))
    shared = common_descent(metric, [[*row[:count], *nothing] for row in rows.values()])[0]
    heads = metric.inverse([*([None] * count), *own])
    found, scaled = _toward(direction, [*shared[:count], *heads[count:]], rows)
    if not scaled.all_positive:  # the heads are coupled, by the metric or by a parameter of several tasks
        found, scaled = _toward(direction, common_descent(metric, list(rows.values()))[0], rows)
    factors = np.array([divisors[task] for task in rows])
    found = replace(found, by_parameters=True, fallback=_reason(direction, slopes))
    return found, Slopes(scaled.heads * factors, scaled.features * factors)


def _toward(
    direction: StepDirection, parts: Sequence[Tensor | None], rows: Mapping[str, Row]
) -> tuple[StepDirection, Slopes]:
    """A direction of all parameters, and the slopes of rows along it."""
    encoder, heads = _split(direction.gradients, parts)
    count, given = len(direction.gradients.batch.parts.shared), list(rows.values())
    own = inner_products([row[count:] for row in given], heads)
    shared = inner_products([row[:count] for row in given], encoder.parts)
    return replace(direction, encoder=encoder, heads=heads), Slopes(np.array(own), np.array(shared))


def _split(gradients: BatchGradients, made: Sequence[Tensor | None]) -> tuple[EncoderDirection, list[Tensor | None]]:
    """The encoder's and the heads' part of a direction of all parameters."""
    shared = gradients.batch.parts.shared
    encoder = with_zeros(made[: len(shared)], shared)
    return EncoderDirection(gradients.batch, lambda: encoder), list(made[len(shared) :])


def _reason(direction: StepDirection, slopes: Slopes) -> str:
    """Why a direction with these slopes is replaced."""
    worst = int(slopes.total.argmin())
    task = list(direction.gradients.values)[worst]
    if slopes.total[worst] <= 0:
        return f"the direction would increase the loss of task {task!r} (slope {slopes.total[worst]:.3g})"
    return f"no step along the direction decreases the loss of task {task!r} (slope {slopes.total[worst]:.3g})"
