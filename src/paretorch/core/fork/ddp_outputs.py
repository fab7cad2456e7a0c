"""The outputs of DistributedDataParallel in a step: a backward must reach all of them, or the wrapper waits for gradients."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Collection
from typing import Any

import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from paretorch.core.fork.loss_graphs import reached_nodes
from paretorch.core.fork.nested import opened


class DDPOutputs:
    """The outputs of the wrapper that is running when a Fork's forward is called."""

    def __init__(self) -> None:
        self._wrapper: weakref.ref[Any] | None = None
        self._outputs: list[Tensor] = []  # until the losses are recorded, or the next forward
        self._has_ended = False  # whether the wrapper's forward has ended

    def observe_wrapper(self) -> None:
        """Record the outputs of the wrapper whose forward is running; called in a Fork's forward."""
        self._outputs, self._has_ended = [], False
        wrapper = DistributedDataParallel._active_ddp_module
        if wrapper is not None and (self._wrapper is None or self._wrapper() is not wrapper):
            self._wrapper = weakref.ref(wrapper)
            wrapper.register_forward_hook(_RecordOutputs(self))

    def record(self, output: Any) -> None:
        """Record the outputs of a forward that has ended."""
        self._has_ended = True
        leaves, _ = opened(output, _requires_grad)
        self._outputs = [leaf for leaf in leaves if _requires_grad(leaf)]

    def find(self, nodes: Collection[Any]) -> None:
        """Find the outputs where the hook has recorded none: it does not run yet in the wrapper's first forward.

        Args:
            nodes: of the Fork's forwards in this step.
        """
        if self._wrapper is not None and not self._outputs and DistributedDataParallel._active_ddp_module is None:
            self._has_ended = True
            self._outputs = _tensors_above(nodes)

    def check_any(self) -> None:
        """Refuse a forward without outputs: the wrapper takes all parameters as unused, and its ranks would wait for each other.

        Raises:
            RuntimeError: the wrapper's forward has ended, and returned no tensor that requires grad.
        """
        if self._wrapper is not None and self._wrapper() is not None and self._has_ended and not self._outputs:
            raise RuntimeError(
                "no task is present on this rank, and the model in DistributedDataParallel returned no tensor that requires "
                "grad, so that the other ranks would wait for it: let its forward also return the features, or a head's output"
            )

    def connected(self, zero: Tensor) -> Tensor:
        """The same number, whose backward also reaches all outputs, without a gradient for them."""
        outputs = self.release()
        result: Tensor = _Connected.apply(zero, *outputs) if outputs else zero
        return result

    def release(self) -> list[Tensor]:
        """Give the outputs, and keep no reference to them."""
        outputs, self._outputs = self._outputs, []
        return outputs


def refuse_static_graph() -> None:
    """Refuse the wrapper whose forward is running where it counts backwards, of which weighted heads take one more.

    Raises:
        ValueError: it has ``static_graph=True``.
    """
    if getattr(DistributedDataParallel._active_ddp_module, "static_graph", False):
        raise ValueError(
            "a Fork with heads='weighted' cannot run under DistributedDataParallel(static_graph=True), which counts the "
            "backwards of its first step: leave static_graph out, or use heads='own'"
        )


def _requires_grad(leaf: Any) -> bool:
    return isinstance(leaf, Tensor) and leaf.requires_grad


def _tensors_above(nodes: Collection[Any]) -> list[Tensor]:
    """The tensors of this process that depend on a branch. Only the garbage collector lists them all."""
    links = {node: len(node.like) * len(node.step.tasks) for node in nodes}
    every = [each for each in gc.get_objects() if issubclass(type(each), Tensor) and each.requires_grad]
    return [
        tensor
        for tensor in every
        if links.get(tensor.grad_fn) != tensor.output_nr and not reached_nodes([tensor.grad_fn]).isdisjoint(nodes)
    ]


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
