"""What DistributedDataParallel returned in a step: a backward must reach all of it, or the wrapper waits for gradients."""

from __future__ import annotations

import weakref
from typing import Any

import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel
from torch.utils._pytree import tree_flatten


class WrappedOutputs:
    """The outputs of the wrapper in whose forward a fork is called."""

    def __init__(self) -> None:
        self._wrapper: weakref.ref[Any] | None = None
        self._outputs: list[Tensor] = []  # held until the losses are told, or the next forward

    def follow(self) -> None:
        """Called in a fork's forward: remember what the wrapper around it will return."""
        self._outputs = []
        wrapper = DistributedDataParallel._active_ddp_module
        if wrapper is not None and (self._wrapper is None or self._wrapper() is not wrapper):
            self._wrapper = weakref.ref(wrapper)
            wrapper.register_forward_hook(_Take(self))

    def take(self, output: Any) -> None:
        """The outputs of a forward that has just ended."""
        self._outputs = [leaf for leaf in tree_flatten(output)[0] if isinstance(leaf, Tensor) and leaf.requires_grad]

    def tie(self, zero: Tensor) -> Tensor:
        """The same number, whose backward also passes through all outputs, and brings them no gradient."""
        outputs = self.released()
        tied: Tensor = _Tied.apply(zero, *outputs) if outputs else zero
        return tied

    def released(self) -> list[Tensor]:
        """The outputs, which are not held any longer."""
        outputs, self._outputs = self._outputs, []
        return outputs


class _Take:
    """Forward hook that does not keep the fork alive."""

    def __init__(self, target: WrappedOutputs) -> None:
        self.target = weakref.ref(target)

    def __call__(self, module: Any, arguments: Any, output: Any) -> None:
        target = self.target()
        if target is not None:
            target.take(output)

    def __reduce__(self) -> tuple[type[_Take], tuple[WrappedOutputs]]:
        return _Take, (WrappedOutputs(),)  # a copy of the module has a fork of its own, which registers anew


class _Tied(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, zero: Tensor, *outputs: Tensor) -> Tensor:
        ctx.count = len(outputs)
        return zero.view_as(zero)

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor | None) -> Any:
        return (cotangents[0], *[None] * ctx.count)
