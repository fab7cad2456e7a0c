"""Replay of BatchNorm on the first samples of a batch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


class Moments(NamedTuple):
    """(C,) mean, and 1 / sqrt(variance + eps), over all but the channels."""

    mean: Tensor
    inverse: Tensor


class Call(NamedTuple):
    """One call of a layer: (B, C, ...) inputs and their moments."""

    layer: _BatchNorm
    inputs: Tensor
    moments: Moments


class BatchNormReplay:
    r"""Records the inputs of BatchNorm in a forward of a batch; later forwards of its first samples use the batch's moments.

    Mean and deviation of a channel are those of the batch, corrected by the change of the samples' own moments:

    .. math:: \mu = \mu_B + (\mu_S' - \mu_S), \qquad \sigma = \sigma_B\, \sigma_S' / \sigma_S

    with B the batch, S its first samples, and primes for the later forward. With the same parameters, the samples have the
    same features as in the batch.

    Args:
        layers: those of :func:`replayable_layers`.
    """

    def __init__(self, layers: Sequence[_BatchNorm] = ()) -> None:
        self.layers = layers
        self.calls: list[Call] = []
        self._subsample_moments: dict[int, list[Moments]] = {}  # by the number of first samples, of every call

    @contextmanager
    def recorded(self) -> Iterator[None]:
        """A context for the forward of the whole batch."""

        def record(layer: _BatchNorm, inputs: tuple[Tensor, ...], out: Tensor) -> None:
            if layer.training or layer.running_mean is None:
                self.calls.append(Call(layer, inputs[0].detach(), _moments(layer, inputs[0].detach(), out)))

        with ExitStack() as stack:
            for layer in self.layers:
                stack.callback(layer.register_forward_hook(record).remove)
            yield

    @contextmanager
    def on_subsample(self, samples: int) -> Iterator[None]:
        """A context for a forward of the first ``samples``.

        Raises:
            RuntimeError: the layers are called in another order.
        """
        if samples not in self._subsample_moments:
            self._subsample_moments[samples] = [
                _normalized(call.inputs[:samples], call.layer.eps)[1] for call in self.calls
            ]
        recorded = iter(zip(self.calls, self._subsample_moments[samples], strict=True))

        def forward_of(layer: _BatchNorm):  # type: ignore[no-untyped-def]
            def forward(inputs: Tensor) -> Tensor:
                call, before = next(recorded, (None, None))
                if call is None or before is None or call.layer is not layer:
                    raise RuntimeError("the encoder calls its layers in another order than before: use samples=None")
                out, now = _normalized(inputs, layer.eps)
                scale = call.moments.inverse / before.inverse
                shift = scale * now.inverse * (before.mean - call.moments.mean)
                if layer.weight is not None:
                    scale, shift = scale * layer.weight, shift * layer.weight + layer.bias
                shape = [1, -1, *[1] * (inputs.ndim - 2)]
                return torch.addcmul(shift.view(shape), out, scale.view(shape)).to(out.dtype)

            return forward

        with ExitStack() as stack:
            for layer in {id(call.layer): call.layer for call in self.calls}.values():
                layer.forward = forward_of(layer)  # type: ignore[method-assign]
                stack.callback(delattr, layer, "forward")
            yield


def replayable_layers(encoder: nn.Module) -> list[_BatchNorm]:
    """The layers whose output on a sample depends on the batch and can be replayed; none in a compiled encoder."""
    modules = list(encoder.modules())
    if any(hasattr(each, "_orig_mod") or getattr(each, "_compiled_call_impl", None) is not None for each in modules):
        return []
    return [each for each in modules if getattr(each.forward, "__func__", None) is _BatchNorm.forward]  # type: ignore[misc]


def _normalized(inputs: Tensor, eps: float) -> tuple[Tensor, Moments]:
    """(B, C, ...) inputs normalized to mean 0 and variance 1 in every channel, and their moments."""
    out, mean, inverse = torch.native_batch_norm(inputs, None, None, None, None, True, 0.0, eps)
    return out, Moments(mean, inverse)


def _moments(layer: _BatchNorm, inputs: Tensor, out: Tensor) -> Moments:
    """The moments by which the layer has just normalized a batch: those saved for its backward, or computed again."""
    mean, inverse = (getattr(out.grad_fn, f"_saved_result{place}", None) for place in (1, 2))
    if isinstance(mean, Tensor) and isinstance(inverse, Tensor):
        return Moments(mean.detach(), inverse.detach())
    return _normalized(inputs, layer.eps)[1]
