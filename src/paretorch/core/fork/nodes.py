"""The Fork's autograd nodes, at the features and at the losses, and the operators that compiled graphs call instead.

The node at the features has one extra output, the *link*, which is an input of the node at the losses: loss values and their
factors reach the features' backward as the gradient of the link, so that autograd orders the two on whatever thread they run.
"""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from paretorch.core.fork.branch_checks import has_foreign_hooks
from paretorch.core.fork.forwards import ForwardCall
from paretorch.core.fork.head_gradients import undo_zeros_after_backward
from paretorch.core.fork.step import FORK_STEPS, ForkStep
from paretorch.core.gradients.graph import FORK_NODES
from paretorch.core.gradients.task_gradients import Leaf, wide_dtype

NODE_NAME = FORK_NODES + "{}); for a head that works in place on its features use Fork(..., copies=True) — this "
LOSS_ROWS = 3  # of the link and of loss sums: sums over calls of loss and of factor, and the number of calls


class FeatureNode(torch.autograd.Function):
    """Features to an alias of every leaf for each task, and the link."""

    @staticmethod
    def forward(ctx: Any, step: ForkStep, *leaves: Tensor) -> tuple[Tensor, ...]:
        """Aliases of the leaves, task by task and, within each task, leaf by leaf; then the link."""
        aliases = [leaf.view_as(leaf) for _ in step.tasks for leaf in leaves]
        link = _link(leaves, len(step.tasks))
        ctx.step, ctx.call, ctx.features = step, ForwardCall(ctx), [weakref.ref(leaf) for leaf in leaves]
        ctx.like = [Leaf(leaf.shape, leaf.dtype, leaf.device) for leaf in leaves]
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(link, *_saved(step.saves, leaves, aliases))
        step.forwards.add(ctx)
        return (*aliases, link)

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor | None) -> Any:
        """The combined gradient of each leaf, of the aliases' cotangents and the link's."""
        _refuse_second_order()
        try:
            _, *saved = ctx.saved_tensors
        except RuntimeError as error:
            raise RuntimeError(
                "this branch belongs to a step whose backward() has already run: call fork(features) again for a new step, or "
                "pass retain_graph=True to the first backward()"
            ) from error
        combined = ctx.step.combine(cotangents[:-1], cotangents[-1], ctx.like, saved, ctx.call)
        if ctx.step.sends_nothing:  # hooks expect a tensor, and custom functions make zeros of None
            undo_zeros_after_backward(ctx)
            hooked = (has_foreign_hooks(ref()) for ref in ctx.features)
            combined = [part if has_hooks else None for part, has_hooks in zip(combined, hooked, strict=True)]
        return (None, *combined)


class CompiledFeatureNode(torch.autograd.Function):
    """:class:`FeatureNode` for compiled graphs: its arguments are numbers and tensors, and its backward is an operator.

    Its outputs are copies. Where a compiled graph ends between the Fork and the heads, torch makes aliases anew from the features
    outside of the graph, so that their gradients would not come through this node. Clones in the graph are no solution: equal
    expressions become one, and with them the gradients of the tasks.
    """

    @staticmethod
    def forward(
        ctx: Any, handle: int, tasks: int, state: list[Tensor], saves: str, *leaves: Tensor
    ) -> tuple[Tensor, ...]:
        """As in :class:`FeatureNode`, of a step by its handle, with copies."""
        copies = _copies(list(leaves), tasks)
        ctx.handle, ctx.state = handle, state
        ctx.like = [Leaf(leaf.shape, leaf.dtype, leaf.device) for leaf in leaves]
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*_saved(saves, leaves, copies))
        return (*copies, _link(leaves, tasks))

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor | None) -> Any:
        """As in :class:`FeatureNode`."""
        *flat, loss_sums = cotangents
        _refuse_second_order()
        out = [torch.empty(leaf.shape, dtype=leaf.dtype, device=leaf.device) for leaf in ctx.like]
        _combine(flat, loss_sums, list(ctx.saved_tensors), ctx.handle, ctx.state, out)
        return (None,) * 4 + tuple(out)


def _link(leaves: Sequence[Tensor], tasks: int) -> Tensor:
    return leaves[0].new_zeros(LOSS_ROWS, tasks, dtype=wide_dtype(leaves[0]))


def _saved(saves: str, leaves: Sequence[Tensor], aliases: Sequence[Tensor]) -> Sequence[Tensor]:
    return () if saves == "nothing" else leaves if saves == "features" else aliases


def _refuse_second_order() -> None:
    if torch.is_grad_enabled():
        raise RuntimeError(
            "a Fork's branches cannot be differentiated twice (backward was called with create_graph=True). Where a task's loss "
            "contains a derivative, as in a PINN, use paretorch.Balancer. A penalty that is not to be balanced can be computed "
            "on branches made under `with fork.paused():`, where its gradient is added unchanged"
        )


class LossNode(torch.autograd.Function):
    """Losses to the same losses; the backward sends the loss sums to the links, and weights the losses where it should."""

    @staticmethod
    def forward(
        ctx: Any, handle: int, index: tuple[int, ...], state: list[Tensor], links: int, *tensors: Tensor
    ) -> Any:
        """The tensors are the links, the losses, and (for weighted heads) the branches of every link."""
        ctx.handle, ctx.index, ctx.state, ctx.links = handle, index, state, links
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*tensors)
        losses = tensors[links : links + len(index)]
        if losses:  # one tensor may be the loss of several tasks
            return tuple(
                _copies(list(losses), 1) if torch.compiler.is_compiling() else [loss.clone() for loss in losses]
            )
        return (tensors[0].new_zeros((), dtype=torch.float32),)

    @staticmethod
    def backward(ctx: Any, *factors: Tensor | None) -> Any:
        """The loss sums for each link, and the gradient for each loss."""
        links, end = ctx.links, ctx.links + len(ctx.index)
        saved = ctx.saved_tensors  # under non-reentrant checkpointing they can be read once
        link, losses, branches = saved[0], list(saved[links:end]), list(saved[end:])
        given = list(factors[: len(losses)])
        if torch.compiler.is_compiling():
            out = [torch.empty_like(tensor) for tensor in (*losses, link)]
            _weight_losses(losses, given, list(ctx.index), ctx.handle, ctx.state, out)
            sent: Sequence[Tensor | None] = out
        else:
            sent = FORK_STEPS[ctx.handle].weight_losses(losses, given, link, ctx.index, branches)
        *scaled, loss_sums = sent
        return (None,) * 4 + (loss_sums,) * links + tuple(scaled) + (None,) * len(branches)


def alias_features(step: ForkStep, leaves: Sequence[Tensor]) -> tuple[Sequence[Tensor], Tensor]:
    """T aliases of every leaf, task by task, and the link."""
    if torch.compiler.is_compiling():
        state = step.runner.state.fields()
        *aliases, link = CompiledFeatureNode.apply(step.handle, len(step.tasks), state, step.saves, *leaves)
        return aliases, link
    node = _named_node(step.tasks, len(leaves))
    if not _may_have_saved_tensors_hooks():
        *aliases, link = node.apply(step, *leaves)
    else:  # the link is read again at the losses, and hooks such as those of a checkpoint do not support that
        with saved_tensors_hooks(_unchanged, _unchanged):
            *aliases, link = node.apply(step, *leaves)
    return aliases, link


def _may_have_saved_tensors_hooks() -> bool:
    """Whether hooks act on what the next function saves; True where this version of torch has no such query, as 2.7 has none."""
    autograd = torch._C._autograd
    if autograd._saved_tensors_hooks_get_disabled_error_message() is not None:
        return False
    innermost = getattr(autograd, "_top_saved_tensors_default_hooks", None)
    return innermost is None or innermost(False) is not None


def _unchanged(tensor: Tensor) -> Tensor:
    return tensor


def record_losses(
    step: ForkStep, links: Sequence[Tensor], index: tuple[int, ...], tensors: Sequence[Tensor]
) -> tuple[Tensor, ...]:
    """The losses, or one zero where there are none, connected to the links. ``tensors``: losses, then branches."""
    state = step.runner.state.fields()
    out: tuple[Tensor, ...] = LossNode.apply(step.handle, index, state, len(links), *links, *tensors)
    return out


@lru_cache(maxsize=256)
def _named_node(tasks: tuple[str, ...], leaves: int) -> Any:
    """The node under a name that puts the task and the cure into autograd's own error on in-place use."""
    outputs = [task if leaves == 1 else f"{task}, leaf {leaf}" for task in tasks for leaf in range(leaves)]
    listing = "; ".join(f"output {index} = task '{output}'" for index, output in enumerate(outputs))
    return type(NODE_NAME.format(listing), (FeatureNode,), {})


def _write_state(step: ForkStep, state: list[Tensor]) -> None:
    """Write the state into the tensors of the graph: the buffers, or copies that the graph writes back into them."""
    for target, field in zip(state, step.runner.state.fields(), strict=True):
        if target.shape == field.shape:  # rows of n numbers are new buffers, which the next graph takes
            target.copy_(field)


# Compiled graphs call these operators. They return nothing and write into ``out``: functionalization does not support operators
# that change one list (the state) and return another. They transfer numbers to the host, which the recording of a CUDA graph
# (mode="reduce-overhead") refuses: the tag excludes them from it.
_TAG = getattr(torch.Tag, "cudagraph_unsafe", None)  # since torch 2.8
_OPTIONS: dict[str, Any] = {} if _TAG is None else {"tags": (_TAG,)}


@torch.library.custom_op("paretorch::copies", mutates_args=())
def _copies(tensors: list[Tensor], times: int) -> list[Tensor]:
    """Copies of the tensors, all of them ``times`` times, with their strides."""
    return [tensor.clone() for _ in range(times) for tensor in tensors]


@_copies.register_fake
def _(tensors: list[Tensor], times: int) -> list[Tensor]:
    return [torch.empty_like(tensor) for _ in range(times) for tensor in tensors]


@torch.library.custom_op("paretorch::combine", mutates_args={"state", "out"}, **_OPTIONS)
def _combine(
    cotangents: list[Tensor | None],
    loss_sums: Tensor | None,
    saved: list[Tensor],
    handle: int,
    state: list[Tensor],
    out: list[Tensor],
) -> None:
    step = FORK_STEPS[handle]
    step.runner.ranks.agree_on_tasks(step.tasks, step.runner.method)
    for target, value in zip(out, step.combine(cotangents, loss_sums, out, saved, ForwardCall()), strict=True):
        target.copy_(value)
    _write_state(step, state)


@torch.library.custom_op("paretorch::weight_losses", mutates_args={"state", "out"}, **_OPTIONS)
def _weight_losses(
    losses: list[Tensor],
    factors: list[Tensor | None],
    index: list[int],
    handle: int,
    state: list[Tensor],
    out: list[Tensor],
) -> None:
    step = FORK_STEPS[handle]
    *scaled, loss_sums = step.weight_losses(losses, factors, out[-1], index, [])
    _write_state(step, state)
    assert loss_sums is not None
    for target, value in zip(out, [*scaled, loss_sums], strict=True):
        if value is None:
            target.zero_()
        else:
            target.copy_(value)
