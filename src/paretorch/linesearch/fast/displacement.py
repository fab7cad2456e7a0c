"""Displacement of the features when the shared parameters move along a direction, q = J_z u."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from paretorch.linesearch.fast.direction import StepDirection
from paretorch.linesearch.fast.jacobian_products import jacobian_product, secant
from paretorch.linesearch.fast.state import FastState
from paretorch.linesearch.fast.subsample import subsample_size
from paretorch.linesearch.parts import changes_bound
from paretorch.linesearch.tensor_rows import norm

BRIEF = 1e-3  # part of the bound below which a step is so short that rounding can hide the displacement
COMPARED = 50  # steps between two comparisons of the subsample's slopes with the batch's
EARLY = (5, 10, 20)  # steps of further comparisons
TOLERANCE = 0.7  # relative error of a subsample's slope: .5 is harmless where it is the same for all tasks
DISPARITY = 2.0  # ratio between the largest and the smallest of these slopes, each relative to the batch's


@dataclass(frozen=True)
class Displacement:
    """Displacement q of the features' leaves: they are at z - step q."""

    parts: Sequence[Tensor]  # one tensor for each leaf
    span: float = math.nan  # the step over which it was measured, if it is a secant; nan otherwise
    # span and parts of an earlier secant along the same direction, if there is one
    shorter: tuple[float, Sequence[Tensor]] | None = None
    subsampled: bool = False  # whether it was measured on a subsample

    def at(self, step: float) -> Sequence[Tensor]:
        r"""The displacement at a step: of two secants, that of the parabola through the features and both ends.

        .. math:: q(\eta) = q_2 + (q_1 - q_2) \frac{\eta - h_2}{h_1 - h_2}
        """
        if self.shorter is None:
            return self.parts
        span, parts = self.shorter
        return torch._foreach_lerp(list(self.parts), list(parts), (step - self.span) / (span - self.span))

    def moved(self, leaves: Sequence[Tensor], step: float) -> list[Tensor]:
        """The leaves at a step, as new tensors without a graph."""
        return [leaf.detach().add(part, alpha=-step) for leaf, part in zip(leaves, self.at(step), strict=True)]

    def is_near(self, step: float, factor: float) -> bool:
        """Whether a step is within a factor of the span of a secant, or nothing was measured over a span."""
        spans = [self.span] if self.shorter is None else [self.span, self.shorter[0]]
        return not all(max(step / span, span / step) > factor for span in spans)


def feature_displacement(direction: StepDirection) -> Displacement:
    """d_z itself, as if the features were free. No forward."""
    return Displacement(direction.on_features)


def projected_displacement(direction: StepDirection) -> Displacement:
    r"""The part of J_z u along d_z, for u = J_z^T d_z: :math:`d_z \lVert u \rVert^2 / \lVert d_z \rVert^2`. No forward.

    The slope of the balanced loss along it is exact; those of the single tasks are not.
    """
    size = norm(direction.on_features)
    factor = (norm(direction.encoder.parts) / size) ** 2 if size > 0 else 0.0
    return Displacement([part * factor for part in direction.on_features])


def tangent_displacement(direction: StepDirection) -> Displacement:
    """The secant over a short step, on the whole batch. One forward."""
    return Displacement(direction.encoder.tangent, direction.encoder.short_step)


def secant_displacement(direction: StepDirection, step: float, samples: int | None, state: FastState) -> Displacement:
    """The secant over a step. One forward, of the samples."""
    parts = secant(direction.gradients.batch, direction.encoder.parts, step, samples, state.encoder)
    return Displacement(parts, step, subsampled=samples is not None)


def measured_displacement(direction: StepDirection, state: FastState) -> tuple[Displacement, FastState]:
    """The displacement that ``displacement=`` names, except ``"gradient"``, and what is then known of the encoder."""
    options, search = direction.gradients.batch.options, state.search
    if options.displacement == "linearised":
        return _linearised(direction, state)
    if direction.gradients.batch.coarse and state.encoder.differentiable:
        try:
            return _linearised(direction, state, warn=False)
        except ValueError:
            state = state._replace(encoder=state.encoder._replace(differentiable=False))
    bound_changes = changes_bound(direction.gradients.batch.parts, search)
    is_scaled = options.displacement == "calibrated" and search.steps % options.every and math.isfinite(state.ratio)
    if is_scaled and state.scaling_agrees and not (bound_changes or direction.by_parameters):
        return Displacement(_scaled(direction, state.ratio)), state
    span = search.expected_step()
    if not span >= BRIEF * search.previous_bound:
        short = direction.encoder.short_step
        span = short if math.isnan(span) else max(span, short)
    if options.displacement == "calibrated":  # on the whole batch, since it is rare and following steps depend on it
        found = secant_displacement(direction, span, None, state)
    else:

        def measured(samples: int | None, state: FastState) -> tuple[Displacement, FastState]:
            return secant_displacement(direction, span, samples, state), state

        found, state = _on_reliable_samples(direction, state, measured)
    size = norm(direction.encoder.parts)
    if size > 0:
        state = state._replace(ratio=norm(found.parts) / size)
    if options.displacement == "calibrated" and not direction.by_parameters:
        scaled = direction.slopes(_scaled(direction, state.ratio)).total
        beta = direction.gradients.batch.parts.rules.beta
        agrees = bool(((scaled > 0) & (direction.slopes(found.parts).total > beta * scaled)).all())
        # after a disagreement every step takes a secant, until the next regular one
        state = state._replace(scaling_agrees=agrees and (state.scaling_agrees or search.steps % options.every == 0))
    return found, state


def _linearised(direction: StepDirection, state: FastState, *, warn: bool = True) -> tuple[Displacement, FastState]:
    """J_z u exactly.

    Raises:
        ValueError: an operation of the encoder has no derivative for it.
    """

    def product(samples: int | None, state: FastState) -> tuple[Displacement, FastState]:
        batch = direction.gradients.batch
        parts, encoder = jacobian_product(batch, direction.encoder.parts, samples, state.encoder, warn=warn)
        return Displacement(parts), state._replace(encoder=encoder)

    return _on_reliable_samples(direction, state, product)


def reliable_samples(direction: StepDirection, state: FastState) -> tuple[int | None, FastState]:
    """Number of samples on which a displacement is measured; None: the whole batch."""
    if not state.encoder.subsample_reliable:
        return None, state
    samples, encoder = subsample_size(direction.gradients.batch, state.encoder)
    state = state._replace(encoder=encoder)
    return samples, state


def _scaled(direction: StepDirection, ratio: float) -> list[Tensor]:
    """d_z at the norm that the ratio of displacement and direction predicts."""
    size = norm(direction.on_features)
    factor = ratio * norm(direction.encoder.parts) / size if size > 0 else 0.0
    return [part * factor for part in direction.on_features]


Measurement = Callable[[int | None, FastState], tuple[Displacement, FastState]]


def _on_reliable_samples(
    direction: StepDirection, state: FastState, measured: Measurement
) -> tuple[Displacement, FastState]:
    """A displacement measured on a subsample while its slopes agree with the batch's; compared at regular steps.

    In a small network a subsample suffices. In a deep network each sample has a displacement of its own: after a
    disagreement, the whole batch is used.
    """
    batch, search = direction.gradients.batch, state.search
    samples, encoder = subsample_size(batch, state.encoder)
    state = state._replace(encoder=encoder)
    compares = search.steps % COMPARED == 0 or search.steps in EARLY or changes_bound(batch.parts, search)
    if samples is None or not compares or not encoder.subsample_reliable or (batch.options.samples or 1) >= 1:
        samples, state = reliable_samples(direction, state)
        return measured(samples, state)
    on_samples, state = measured(samples, state)
    slopes = direction.slopes(on_samples.parts).total
    whole, state = measured(None, state)
    true = direction.slopes(whole.parts).total
    with np.errstate(divide="ignore", invalid="ignore"):
        part = slopes / true
    reliable = bool((np.abs(part - 1) <= TOLERANCE).all() and part.max() <= DISPARITY * part.min())
    return whole, state._replace(encoder=state.encoder._replace(subsample_reliable=reliable))
