"""The sum of the losses as a tensor whose backward runs a given function."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

# The first argument is the factor that arrives, on its device unless that is the CPU; the second whether the graph is kept.
Step = Callable[[float | Tensor, bool], None]

AGAIN = (
    "trying to backward through balancer.total(losses) a second time: the first backward freed the graph of the losses. "
    "Specify retain_graph=True in the first one, or compute the losses again"
)
HIGHER = (
    "balancer.total(losses) has no second derivative: leave create_graph out, or sum the losses without the Balancer"
)


class _Total(torch.autograd.Function):
    """A number whose backward runs a step, which adds gradients to ``.grad`` by a backward of its own."""

    @staticmethod
    def forward(ctx: Any, anchor: Tensor, value: Tensor, step: Step) -> Tensor:
        ctx.step = step
        return value.clone()

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> tuple[None, None, None]:
        if torch.is_grad_enabled():
            raise RuntimeError(HIGHER)
        if ctx.step is None:
            raise RuntimeError(AGAIN)
        keep = _keeps_graph()
        step = ctx.step
        if not keep:
            ctx.step = None  # a total that is kept for a log does not keep the losses' graph
        factor = cotangents[0]
        step(float(factor) if factor.device.type == "cpu" else factor, keep)  # on a device it is read with the losses
        return None, None, None


def total_of(losses: Mapping[str, Tensor], step: Step) -> Tensor:
    """The sum of the losses, whose backward is ``step(factor, keep)``; without gradients the plain sum.

    Args:
        losses: scalars by task.
        step: the factor is the gradient that arrives at the sum; ``keep``: that backward keeps its graph.

    Raises:
        ValueError: within the forward of a wrapper that would search the graph of the sum for the parameters.
    """
    values = [loss.detach() for loss in losses.values()]
    value = torch.stack(values).sum() if values else torch.zeros(())
    if not torch.is_grad_enabled():
        return value
    _check_wrapper()
    anchor = torch.zeros((), device=value.device, requires_grad=True)  # so that the sum requires grad
    total: Tensor = _Total.apply(anchor, value, step)
    return total


def _keeps_graph() -> bool:
    """Whether the backward that is running keeps its graph; False where this version of torch has no such query."""
    keeps = getattr(torch._C._autograd, "_get_current_graph_task_keep_graph", None)
    return bool(keeps()) if keeps is not None else False


def _check_wrapper() -> None:
    """Refuse the total as an output of a wrapper that follows the graph of its outputs to find the used parameters."""
    wrapper = DistributedDataParallel._active_ddp_module
    if wrapper is None:
        return
    for option in ("find_unused_parameters", "static_graph"):
        if getattr(wrapper, option, False):
            raise ValueError(
                f"balancer.total was called in the forward of a model in DistributedDataParallel({option}=True), which searches "
                "the graph of what the forward returns, and the total's graph does not contain the parameters: leave the option "
                "out, or return the losses from the forward and call balancer.total on them outside"
            )
