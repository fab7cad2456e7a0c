"""BatchNorm on some samples of a batch as it was among all of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import SyncBatchNorm, _BatchNorm

LEAST = 0.01  # of a layer's momentum: below, the moments of a batch are lost in the digits of the running ones


class Moments(NamedTuple):
    """(C,) mean, and 1 / sqrt(variance + eps), over all but the channels."""

    mean: Tensor
    inverse: Tensor


class Call(NamedTuple):
    """One call of a layer: (B, C, ...) inputs and their moments."""

    layer: _BatchNorm
    inputs: Tensor
    moments: Moments


class Matching:
    r"""Takes down what BatchNorm saw in a forward of a batch; later forwards of its first samples are normalised alike.

    Mean and deviation in a channel are those of the batch, moved as the samples' own have moved since:

    .. math:: \mu = \mu_B + (\mu_S' - \mu_S), \qquad \sigma = \sigma_B\, \sigma_S' / \sigma_S

    with B the batch, S its first samples, and primes for the later forward. Where nothing moved, the samples' features are those
    that they had in the batch.

    Args:
        layers: those of :func:`layers_of`.
    """

    def __init__(self, layers: Sequence[_BatchNorm] = ()) -> None:
        self.layers = layers
        self.calls: list[Call] = []
        self._of_some: dict[int, list[Moments]] = {}  # by the number of first samples, of every call

    @contextmanager
    def noted(self) -> Iterator[None]:
        """Around the forward of the whole batch."""
        before: list[tuple[Tensor, Tensor]] = []

        def keep(layer: _BatchNorm, given: tuple[Tensor, ...]) -> None:
            if layer.running_mean is not None and layer.running_var is not None:
                before.append((layer.running_mean.clone(), layer.running_var.clone()))

        def note(layer: _BatchNorm, given: tuple[Tensor, ...], out: Tensor) -> None:
            was = before.pop() if before else None
            if _uses_batch(layer):
                inputs = given[0].detach()
                moments = None if was is None else _told(layer, inputs, *was)
                self.calls.append(Call(layer, inputs, moments or _normalised(inputs, layer.eps)[1]))

        with ExitStack() as stack:
            for layer in self.layers:
                stack.callback(layer.register_forward_pre_hook(keep).remove)
                stack.callback(layer.register_forward_hook(note).remove)
            yield

    @contextmanager
    def matched(self, samples: int) -> Iterator[None]:
        """Around a forward of the first ``samples``.

        Raises:
            RuntimeError: the layers are not called as they were.
        """
        if samples not in self._of_some:
            self._of_some[samples] = [_normalised(call.inputs[:samples], call.layer.eps)[1] for call in self.calls]
        waiting = iter(zip(self.calls, self._of_some[samples], strict=True))

        def forward_of(layer: _BatchNorm):  # type: ignore[no-untyped-def]
            def forward(inputs: Tensor) -> Tensor:
                call, was = next(waiting, (None, None))
                if call is None or was is None or call.layer is not layer:
                    raise RuntimeError("the encoder calls its layers in another order than before: use samples=None")
                out, now = _normalised(inputs, layer.eps)
                wide = call.moments.inverse / was.inverse
                shift = wide * now.inverse * (was.mean - call.moments.mean)
                if layer.weight is not None:
                    wide, shift = wide * layer.weight, shift * layer.weight + layer.bias
                shape = [1, -1, *[1] * (inputs.ndim - 2)]
                return torch.addcmul(shift.view(shape), out, wide.view(shape)).to(out.dtype)

            return forward

        with ExitStack() as stack:
            for layer in {id(call.layer): call.layer for call in self.calls}.values():
                layer.forward = forward_of(layer)  # type: ignore[method-assign]
                stack.callback(delattr, layer, "forward")
            yield


def layers_of(encoder: nn.Module) -> list[_BatchNorm]:
    """The layers whose output on a sample depends on the batch and can be matched; none in an encoder that is compiled."""
    modules = list(encoder.modules())
    if any(hasattr(each, "_orig_mod") or getattr(each, "_compiled_call_impl", None) is not None for each in modules):
        return []
    return [each for each in modules if isinstance(each, _BatchNorm) and not isinstance(each, SyncBatchNorm)]


def _uses_batch(layer: _BatchNorm) -> bool:
    return layer.training or layer.running_mean is None


def _normalised(inputs: Tensor, eps: float) -> tuple[Tensor, Moments]:
    """(B, C, ...) inputs of mean 0 and variance 1 in every channel, and the moments that they had."""
    out, mean, inverse = torch.native_batch_norm(inputs, None, None, None, None, True, 0.0, eps)
    return out, Moments(mean, inverse)


def _told(layer: _BatchNorm, inputs: Tensor, mean: Tensor, variance: Tensor) -> Moments | None:
    """The moments of a batch from the running ones before, (C,), and after it: no pass over the inputs."""
    share = layer.momentum
    count = inputs.numel() // inputs.shape[1]
    if not share or share < LEAST or layer.running_mean is None or layer.running_var is None or count < 2:
        return None
    own = (layer.running_var - (1 - share) * variance) / share * ((count - 1) / count)
    return Moments((layer.running_mean - (1 - share) * mean) / share, (own.clamp_min(0) + layer.eps).rsqrt())
