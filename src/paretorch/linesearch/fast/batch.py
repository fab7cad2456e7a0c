"""Forward of a batch through encoder and heads."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from paretorch.core.arrays import Array
from paretorch.core.option_checks import check_choice, check_whole, is_number
from paretorch.linesearch.fast.features import Features
from paretorch.linesearch.loss_values import (
    InputDerivative,
    LossesOf,
    checked_losses,
    input_derivative_error,
    losses_in_order,
    requiring_grad,
)
from paretorch.linesearch.parts import SearchParts
from paretorch.linesearch.repeated_backward import RepeatedBackward
from paretorch.linesearch.replay.autocast import CallerAutocast
from paretorch.linesearch.replay.batch_norm import BatchNormReplay, replayable_layers
from paretorch.linesearch.replay.forward import ForwardReplay, lacks_graph

DisplacementName = Literal["gradient", "linearised", "difference", "calibrated"]
COARSE = (torch.bfloat16, torch.float16)
DISPLACEMENTS = ("gradient", "linearised", "difference", "calibrated")


@dataclass(frozen=True)
class FastOptions:
    """Options of the fast search, in addition to those of every search.

    Raises:
        ValueError: an option is out of range.
    """

    displacement: DisplacementName  # how the displacement of the features is computed
    samples: float | None  # number or part of the samples on which it is computed; None: all
    every: int  # steps between two secants of ``"calibrated"``
    parameters: Mapping[str, nn.Parameter]  # the encoder's that require grad, by name
    norms: Sequence[_BatchNorm]  # BatchNorm layers of the encoder that can be replayed on a subsample

    @classmethod
    def of(cls, encoder: nn.Module, displacement: DisplacementName, samples: float | None, every: int) -> FastOptions:
        """The options for an encoder."""
        return cls(displacement, samples, every, {}, ()).following(encoder)

    def following(self, encoder: nn.Module) -> FastOptions:
        """The options with the parameters that require grad and the layers of the encoder now."""
        parameters = {name: leaf for name, leaf in encoder.named_parameters() if leaf.requires_grad}
        return replace(self, parameters=parameters, norms=replayable_layers(encoder))

    def __post_init__(self) -> None:
        check_choice("displacement", self.displacement, DISPLACEMENTS)
        samples = self.samples
        if samples is not None and not (
            is_number(samples) and (0 < samples < 1 or (samples >= 1 and samples % 1 == 0))
        ):
            raise ValueError(f"samples is a number of samples, a part of the batch in (0, 1), or None, got {samples}")
        check_whole("every", self.every, unit=" steps")


@dataclass(frozen=True)
class Batch:
    """A batch after its forward."""

    parts: SearchParts  # of the search
    options: FastOptions  # of the fast search
    x: Any  # input of the encoder
    losses_of: LossesOf  # features -> losses by task
    features: Features  # of the encoder
    # Detached copies of the features' leaves that require grad, from which the losses are computed.
    leaves: list[Tensor]
    losses: dict[str, Tensor]  # of the present tasks, with their graphs
    encoding: ForwardReplay  # repeats the forward of the encoder
    decoding: ForwardReplay  # repeats the forward of the heads
    encoder_backward: RepeatedBackward  # gradients through the encoder's graph
    undo: ExitStack  # restores what the step changes, on an exception
    coarse: bool  # whether the features are rounded more than float32, which hides their displacement over a short step

    @property
    def size(self) -> int:
        """Number of rows of the features."""
        return len(self.leaves[0]) if self.leaves[0].ndim else 1

    def repeated_losses(self) -> list[Tensor]:
        """The losses of a repeated forward of the heads, with a new graph."""
        with self.decoding.with_graph():
            losses = _heads_forward(self.losses_of, self.features, self.leaves)
            return list(checked_losses(losses, tuple(self.losses)).values())

    def losses_on(self, leaves: Sequence[Tensor], tasks: Mapping[str, object]) -> Array:
        """(T,) losses of the heads, with their present parameters, on features with these leaves."""

        def losses() -> Array:
            given = [leaf.detach().requires_grad_() for leaf in leaves] if torch.is_grad_enabled() else leaves
            return losses_in_order(self.losses_of(self.features.with_leaves(given)), tasks)

        return self.decoding.evaluated(losses)

    def model_losses(self, tasks: Mapping[str, object]) -> Array:
        """(T,) losses of the whole model, with its present parameters."""
        with self.encoding.without_graph():
            leaves = self.features.leaves_of(self.parts.encoder(self.x))
        return self.losses_on(leaves, tasks)


def forward_batch(
    parts: SearchParts,
    options: FastOptions,
    x: Any,
    losses_of: LossesOf,
    declared: Callable[[Mapping[str, Tensor | None]], dict[str, Tensor]],
    *,
    autocast: CallerAutocast,
    subsample_reliable: bool,
    differentiates: bool,
    undo: ExitStack,
) -> Batch:
    """Runs a batch through encoder and heads; ``undo`` restores their buffers."""
    device = parts.shared[0].device
    subsampled = options.samples is not None and options.displacement != "gradient" and subsample_reliable
    encoding = ForwardReplay([parts.encoder], device, autocast, BatchNormReplay(options.norms if subsampled else ()))
    decoding = ForwardReplay([parts.heads], device, autocast, graph=differentiates)
    undo.callback(encoding.undo_buffers)
    undo.callback(decoding.undo_buffers)
    with encoding.first(), torch.enable_grad():
        features = Features(parts.encoder(x))
    leaves = [leaf.detach().requires_grad_() for leaf in features.leaves]
    with decoding.first(), torch.enable_grad():
        losses = declared(_first_losses(losses_of, features, leaves, x))

    def repeated_features() -> list[Tensor]:
        with encoding.with_graph():
            return features.leaves_of(parts.encoder(x))

    backward = RepeatedBackward(features.leaves, repeated_features)
    coarse = any(map(_is_coarse, leaves))
    return Batch(parts, options, x, losses_of, features, leaves, losses, encoding, decoding, backward, undo, coarse)


def _is_coarse(leaf: Tensor) -> bool:
    """Whether a tensor has bfloat16 or float16, or float32 whose first sample has the numbers of one of these."""
    if leaf.dtype != torch.float32:
        return leaf.dtype in COARSE
    first = leaf.detach()[:1] if leaf.ndim else leaf.detach()
    return any(torch.equal(first.to(dtype).to(first.dtype), first) for dtype in COARSE)


def _heads_forward(losses_of: LossesOf, features: Features, leaves: Sequence[Tensor]) -> Mapping[str, Tensor | None]:
    """The losses with their graphs, on copies of the leaves, so that heads can change them in place."""
    return losses_of(features.with_leaves([leaf.clone() for leaf in leaves]))


def _first_losses(
    losses_of: LossesOf, features: Features, leaves: Sequence[Tensor], x: Any
) -> Mapping[str, Tensor | None]:
    inputs = requiring_grad(x)
    try:
        with InputDerivative(inputs) if inputs else nullcontext():
            return _heads_forward(losses_of, features, leaves)
    except RuntimeError as error:
        if not lacks_graph(error):
            raise
        raise input_derivative_error() from error
