"""The outputs of DistributedDataParallel in a step: a backward must reach all of them, or the wrapper waits for gradients."""

from __future__ import annotations

import weakref
from typing import Any

import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel
from torch.utils._pytree import tree_flatten


class DDPOutputs:
    """The outputs of the wrapper that is running when a Fork's forward is called."""

    def __init__(self) -> None:
        self._wrapper: weakref.ref[Any] | None = None
        self._outputs: list[Tensor] = []  # until the losses are recorded, or the next forward

    def observe_wrapper(self) -> None:
        """Record the outputs of the wrapper whose forward is running; called in a Fork's forward."""
        self._outputs = []
        wrapper = DistributedDataParallel._active_ddp_module
        if wrapper is not None and (self._wrapper is None or self._wrapper() is not wrapper):
            self._wrapper = weakref.ref(wrapper)
            wrapper.register_forward_hook(_RecordOutputs(self))

    def record(self, output: Any) -> None:
        """Record the outputs of a forward that has ended."""
        self._outputs = [leaf for leaf in tree_flatten(output)[0] if isinstance(leaf, Tensor) and leaf.requires_grad]

    def connected(self, zero: Tensor) -> Tensor:
        """The same number, whose backward also reaches all outputs, without a gradient for them."""
        outputs = self.release()
        result: Tensor = _Connected.apply(zero, *outputs) if outputs else zero
        return result

    def release(self) -> list[Tensor]:
        """Give the outputs, and keep no reference to them."""
        outputs, self._outputs = self._outputs, []
        return outputs


class _RecordOutputs:
    """Forward hook that does not keep the Fork alive."""

    def __init__(self, target: DDPOutputs) -> None:
        self.target = weakref.ref(target)

    def __call__(self, module: Any, arguments: Any, output: Any) -> None:
        target = self.target()
        if target is not None:
            target.record(output)

    def __reduce__(self) -> tuple[type[_RecordOutputs], tuple[DDPOutputs]]:
        return _RecordOutputs, (DDPOutputs(),)  # a copy of the module has another Fork, which registers its own hook


class _Connected(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, zero: Tensor, *outputs: Tensor) -> Tensor:
        ctx.count = len(outputs)
        return zero.view_as(zero)

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor | None) -> Any:
        return (cotangents[0], *[None] * ctx.count)
