"""The Fork's autograd nodes, at the features and at the losses, and the operators compiled graphs call instead.

The node at the features has one extra output, the *link*. The node at the losses takes it as an input, so that loss values and
their factors reach the features' backward as an ordinary gradient: autograd orders the two, whatever thread runs them.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from paretorch.core.fork.usage import Call
from paretorch.core.gradients.task_gradients import Leaf, wide_dtype
from paretorch.core.method.state_buffers import LIVE

if TYPE_CHECKING:
    from paretorch.core.fork.fork import Fork

NODE_NAME = "Fork({}); for a head that works in place on its features use Fork(..., copies=True) — this "
TOLD = 3  # rows of what the losses tell: sums over calls of loss and of factor, and the number of calls


class _Split(torch.autograd.Function):
    """Features in; for each task an alias of every leaf, and the link, out."""

    @staticmethod
    def forward(ctx: Any, fork: Fork, *leaves: Tensor) -> tuple[Tensor, ...]:
        link, aliases = _link_and_aliases(leaves, len(fork.tasks))
        ctx.fork, ctx.call = fork, Call()
        ctx.like = [Leaf(leaf.shape, leaf.dtype, leaf.device) for leaf in leaves]
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(link, *_kept(fork.keeps, leaves, aliases))
        fork.await_losses(ctx)
        return (*aliases, link)

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor | None) -> Any:
        _refuse_second_order()
        try:
            _, *kept = ctx.saved_tensors
        except RuntimeError as error:
            raise RuntimeError(
                "this branch belongs to a step whose backward() has already run: call fork(features) again for a new step, or "
                "pass retain_graph=True to the first backward()"
            ) from error
        return (None, *ctx.fork.combine(cotangents[:-1], cotangents[-1], ctx.like, kept, ctx.call))


class _CompiledSplit(torch.autograd.Function):
    """:class:`_Split` as compiled graphs hold it: numbers and tensors only, and an operator in the backward."""

    @staticmethod
    def forward(
        ctx: Any, handle: int, tasks: int, state: list[Tensor], keep: str, *leaves: Tensor
    ) -> tuple[Tensor, ...]:
        link, aliases = _link_and_aliases(leaves, tasks)
        ctx.handle, ctx.state = handle, state
        ctx.like = [Leaf(leaf.shape, leaf.dtype, leaf.device) for leaf in leaves]
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*_kept(keep, leaves, aliases))
        return (*aliases, link)

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor | None) -> Any:
        *flat, told = cotangents
        _refuse_second_order()
        out = [torch.empty(leaf.shape, dtype=leaf.dtype, device=leaf.device) for leaf in ctx.like]
        _combine(flat, told, list(ctx.saved_tensors), ctx.handle, ctx.state, out)
        return (None,) * 4 + tuple(out)


def _link_and_aliases(leaves: Sequence[Tensor], tasks: int) -> tuple[Tensor, list[Tensor]]:
    link = leaves[0].new_zeros(TOLD, tasks, dtype=wide_dtype(leaves[0]))
    return link, [leaf.view_as(leaf) for _ in range(tasks) for leaf in leaves]


def _kept(keep: str, leaves: Sequence[Tensor], aliases: Sequence[Tensor]) -> Sequence[Tensor]:
    return () if keep == "nothing" else leaves if keep == "features" else aliases


def _refuse_second_order() -> None:
    if torch.is_grad_enabled():
        raise RuntimeError(
            "a Fork's branches cannot be differentiated twice (backward was called with create_graph=True). Where a task's loss "
            "contains a derivative, as in a PINN, use paretorch.Balancer. A penalty that is not to be balanced can be computed "
            "on branches made under `with fork.paused():`, where its gradient is added as it is"
        )


class _Tell(torch.autograd.Function):
    """Losses in and out, unchanged; backward tells their values and factors to the links, and weights them where asked."""

    @staticmethod
    def forward(
        ctx: Any, handle: int, index: tuple[int, ...], state: list[Tensor], links: int, *tensors: Tensor
    ) -> Any:
        """The tensors are the links, the losses, and (for weighted heads) the branches of every link."""
        ctx.handle, ctx.index, ctx.state, ctx.links = handle, index, state, links
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*tensors)
        losses = tensors[links : links + len(index)]
        if losses:
            return tuple(loss.clone() for loss in losses)
        return (tensors[0].new_zeros((), dtype=torch.float32),)

    @staticmethod
    def backward(ctx: Any, *factors: Tensor | None) -> Any:
        links, end = ctx.links, ctx.links + len(ctx.index)
        saved = ctx.saved_tensors  # non-reentrant checkpointing lets them be read once
        link, losses, branches = saved[0], list(saved[links:end]), list(saved[end:])
        given = list(factors[: len(losses)])
        if torch.compiler.is_compiling():
            out = [torch.empty_like(tensor) for tensor in (*losses, link)]
            _weigh(losses, given, list(ctx.index), ctx.handle, ctx.state, out)
            answer: Sequence[Tensor | None] = out
        else:
            answer = _fork(ctx.handle).weigh(losses, given, link, ctx.index, branches)
        *scaled, told = answer
        return (None,) * 4 + (told,) * links + tuple(scaled) + (None,) * len(branches)


def split(fork: Fork, leaves: Sequence[Tensor]) -> tuple[Sequence[Tensor], Tensor]:
    """T aliases of every leaf, task by task, and the link."""
    if torch.compiler.is_compiling():
        *aliases, link = _CompiledSplit.apply(fork.handle, len(fork.tasks), fork.state_tensors(), fork.keeps, *leaves)
        return aliases, link
    node = _named_split(fork.tasks, len(leaves))
    if torch._C._autograd._top_saved_tensors_default_hooks(False) is None:
        *aliases, link = node.apply(fork, *leaves)
    else:  # the link is read again when the losses are told, which no packing, as by a checkpoint, is made for
        with saved_tensors_hooks(_as_it_is, _as_it_is):
            *aliases, link = node.apply(fork, *leaves)
    return aliases, link


def _as_it_is(tensor: Tensor) -> Tensor:
    return tensor


def tell(fork: Fork, links: Sequence[Tensor], index: tuple[int, ...], tensors: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """The losses again, or one zero where there are none, tied to the links. ``tensors``: losses, then branches."""
    out: tuple[Tensor, ...] = _Tell.apply(fork.handle, index, fork.state_tensors(), len(links), *links, *tensors)
    return out


def _fork(handle: int) -> Fork:
    return cast("Fork", LIVE[handle])


@lru_cache(maxsize=256)
def _named_split(tasks: tuple[str, ...], leaves: int) -> Any:
    """The node under a name that says, in autograd's own error on in-place use, which task it was and what to do."""
    outputs = [task if leaves == 1 else f"{task}, leaf {leaf}" for task in tasks for leaf in range(leaves)]
    listing = "; ".join(f"output {index} = task '{output}'" for index, output in enumerate(outputs))
    return type(NODE_NAME.format(listing), (_Split,), {})


def _shown(fork: Fork, state: list[Tensor]) -> None:
    """Writes the fork's state where the graph expects it: in its buffers, or in copies that it will write back into them."""
    for target, held in zip(state, fork.state_tensors(), strict=True):
        if target.shape == held.shape:  # (T, n) ones are new buffers, of which the next graph knows
            target.copy_(held)


# Compiled graphs call these operators. They return nothing and write into ``out``: functionalization does not take operators
# that change a list (the state) and return another.


@torch.library.custom_op("paretorch::combine", mutates_args={"state", "out"})
def _combine(
    cotangents: list[Tensor | None],
    told: Tensor | None,
    kept: list[Tensor],
    handle: int,
    state: list[Tensor],
    out: list[Tensor],
) -> None:
    fork = _fork(handle)
    fork.ranks.agree_on_tasks(fork.tasks, fork.method)
    for target, value in zip(out, fork.combine(cotangents, told, out, kept, Call()), strict=True):
        target.copy_(value)
    _shown(fork, state)


@torch.library.custom_op("paretorch::weigh", mutates_args={"state", "out"})
def _weigh(
    losses: list[Tensor],
    factors: list[Tensor | None],
    index: list[int],
    handle: int,
    state: list[Tensor],
    out: list[Tensor],
) -> None:
    fork = _fork(handle)
    *scaled, told = fork.weigh(losses, factors, out[-1], index, [])
    _shown(fork, state)
    assert told is not None
    for target, value in zip(out, [*scaled, told], strict=True):
        if value is None:
            target.zero_()
        else:
            target.copy_(value)
