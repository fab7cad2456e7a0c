"""Passes of the autograd engine: gradients with a check for Python code, accumulation, and release of saved tensors."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Variable
from torch.autograd.graph import GradientEdge
from torch.overrides import TorchFunctionMode

from paretorch.core.gradients.graph import TaskGraph, is_leaf, leaf_hooks_disabled
from paretorch.core.gradients.ranks import is_distributed

AGAIN = "trying to backward through the graph a second time: its saved tensors were freed by"
FREED = {
    "balancer.backward": (
        f"{AGAIN} balancer.backward(losses), which is the only backward of the step. Leave out sum(losses).backward(), which "
        "would add the gradients again; for another loss on the same graph give balancer.backward(losses, retain_graph=True)"
    ),
    "balancer.total": (
        f"{AGAIN} the backward of balancer.total(losses). For another term on the same graph, as in balancer.total(losses) + "
        "penalty, give balancer.total(losses, retain_graph=True); leave out sum(losses).backward(), which would add the "
        "gradients again"
    ),
    "": (
        f"{AGAIN} the Balancer's backward, which is the only one of the step. Leave out sum(losses).backward(), which would add "
        "the gradients again; for another loss on the same graph give balancer.backward(losses, retain_graph=True), or "
        "balancer.total(losses, retain_graph=True)"
    ),
}


class _TorchCalls(TorchFunctionMode):
    """Records whether Python code calls torch functions. Hooks and custom nodes do; autograd's own nodes are C++ and do not."""

    def __init__(self) -> None:
        super().__init__()
        self.called = False

    def __torch_function__(self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.called = True
        return func(*args, **(kwargs or {}))


def observed_gradients(
    starts: Sequence[GradientEdge], cotangents: Sequence[Tensor], ends: Sequence[Tensor | GradientEdge]
) -> tuple[list[Tensor | None], bool]:
    """Gradients with respect to leaves or edges, and whether Python code ran in the backward.

    Hooks on tensors and nodes, custom functions, and recomputed checkpoints call torch functions from Python. Only a backward of
    autograd's own nodes is known to be linear in the cotangent. The graph is kept.

    Args:
        starts: the edges at which the cotangents enter.
        cotangents: one for each edge.
        ends: leaves, whose hooks do not run, or edges.
    """
    with leaf_hooks_disabled([leaf for leaf in ends if isinstance(leaf, Tensor)]):
        return _observed(starts, cotangents, ends)


def _observed(
    starts: Sequence[GradientEdge], cotangents: Sequence[Tensor], ends: Sequence[Any]
) -> tuple[list[Tensor | None], bool]:
    """One backward from the starts to the ends (leaves or edges), and whether Python code called torch functions in it."""
    edges, inputs, calls = tuple(starts), tuple(ends), _TorchCalls()
    with calls:
        # the engine itself: torch.autograd.grad would count as a call
        found = Variable._execution_engine.run_backward(
            edges, tuple(cotangents), True, False, inputs, allow_unreachable=True, accumulate_grad=False
        )
    return list(found), calls.called


def has_hooks(starts: Sequence[GradientEdge]) -> bool:
    """Whether hooks at one of the edges change a cotangent; a gradient at that edge includes their effect already."""
    edges = [start for start in starts if not is_leaf(start.node)]
    if not edges:
        return False
    metadata = [start.node._input_metadata[start.output_nr] for start in edges]
    ones = [torch.ones((), dtype=each.dtype, device=each.device).expand(each.shape) for each in metadata]
    try:
        found, has_python = _observed(edges, ones, edges)
    except Exception:  # from a hook that writes in place or expects another cotangent
        return True
    return has_python or any(
        one is None or one.data_ptr() != other.data_ptr() for one, other in zip(found, ones, strict=True)
    )


class _PrecomputedGradients(torch.autograd.Function):
    """A node whose backward returns precomputed gradients and releases its references, so that no gradient is copied."""

    @staticmethod
    def forward(ctx: Any, gradients: list[Tensor | None], *leaves: Tensor) -> Tensor:
        ctx.gradients = gradients
        return leaves[0].new_zeros(())

    @staticmethod
    def backward(ctx: Any, *_: Tensor) -> Any:
        found = (None, *ctx.gradients)
        ctx.gradients.clear()
        return found


def accumulate_gradients(
    leaves: Sequence[Tensor], gradients: list[Tensor | None], skipped: Iterable[Tensor] = ()
) -> None:
    """Add the gradients to ``.grad`` by one backward, which runs every hook on the leaves once.

    The accumulator of a leaf whose gradient is None runs without one, as in a backward in which the leaf is unused.

    Args:
        leaves: each once.
        gradients: of the leaves; emptied.
        skipped: leaves of tasks that are left out of the step. DistributedDataParallel without ``find_unused_parameters`` waits
            for them, so that their accumulators run without a gradient where ranks work together; of a ``.grad`` that was None
            it makes zeros, which are None again afterwards.
    """
    waiting: list[Tensor] = []
    if is_distributed():
        ready = {id(leaf) for leaf in leaves}
        waiting = [leaf for leaf in skipped if id(leaf) not in ready]
    empty = [leaf for leaf in waiting if leaf.grad is None]
    every = [*leaves, *waiting]
    if every:
        gradients += [None] * len(waiting)
        with torch.enable_grad():
            root = _PrecomputedGradients.apply(gradients, *every)
        root.backward()
    for leaf in empty:
        if leaf.grad is not None and not bool(leaf.grad.any()):
            leaf.grad = None


def allow_repeated_backwards() -> None:
    """Allow several backwards through functions that are compiled from now on.

    By default the first backward of a compiled function may overwrite tensors that the forward saved ("donated buffers"), and a
    second backward raises an error. The setting applies to the whole process.
    """
    from torch._functorch import config

    if hasattr(config, "donated_buffer"):
        config.donated_buffer = False


def free_saved_tensors(nodes: Iterable[Any]) -> None:
    """Free the tensors that nodes of a graph saved, as a backward without ``retain_graph`` does; some may be freed already."""
    for node in nodes:
        if is_leaf(node):
            continue
        for name in _saved_names(node):
            try:
                saved = getattr(node, name)
                for each in saved if isinstance(saved, list | tuple) else (saved,):
                    each.register_hooks(_discard, _refuse)
            except RuntimeError:  # nothing was saved, it is freed already, or it has hooks of its own
                continue


def free_unreached(graph: TaskGraph, tasks: int) -> None:
    """Free the saved tensors of a graph that the backward of its last task, which kept nothing, did not reach."""
    last = 1 << max(tasks - 1, 0)
    free_saved_tensors(node for (node, _), mask in graph.task_masks.items() if not mask & last)


def mark_freed(losses: Iterable[Tensor], call: str, graph: TaskGraph | None) -> None:
    """Make a later backward through the losses raise an error that names the Balancer's call, where it would fail.

    Torch's own message suggests to keep the graph, and then the gradients would be added twice. A graph that saved no tensor
    can be passed through again.

    Args:
        losses: their backward has run.
        call: ``"balancer.backward"`` or ``"balancer.total"``.
        graph: a later backward of other losses that comes through it raises the error as well; None: torch's own.
    """
    for loss in losses:
        if loss.grad_fn is not None:
            loss.grad_fn.register_prehook(_RefuseFreed(loss, call))
    for node, _ in () if graph is None else graph.task_masks:
        if not is_leaf(node) and _is_emptied(node):
            node.register_prehook(partial(_refuse_pass, call))


class _RefuseFreed:
    """Pre-hook of a loss's node. The loss is referred to weakly, so that its graph is released as before."""

    def __init__(self, loss: Tensor, call: str) -> None:
        self._loss, self._call = weakref.ref(loss), call

    def __call__(self, _: Any) -> None:
        loss = self._loss()
        if loss is not None and _is_freed(loss.grad_fn):
            raise RuntimeError(FREED[self._call])


def _refuse_pass(call: str, _: Any) -> None:
    raise RuntimeError(FREED[call])


def _is_emptied(node: Any) -> bool:
    """Whether a backward has freed tensors that a node saved; those that remain are freed here.

    Hooks on saved tensors, as those of a checkpoint, do not run; such tensors count as none.
    """
    for name in _saved_names(node):
        try:
            saved = getattr(node, name)
            for each in saved if isinstance(saved, list | tuple) else (saved,):
                each.register_hooks(_discard, _refuse)
        except RuntimeError as error:
            if "freed" in str(error):
                return True
    return False


def _is_freed(root: Any) -> bool:
    """Whether a node from here on has lost its saved tensors."""
    stack, visited = [root], {root}
    while stack:
        node = stack.pop()
        if is_leaf(node):
            continue
        for name in dir(node):
            if name.startswith("_saved_") or name == "saved_tensors":
                try:
                    getattr(node, name)
                except RuntimeError:
                    return True
        stack += [below for below, _ in node.next_functions if below is not None and below not in visited]
        visited.update(stack)
    return False


_SAVED: dict[str, tuple[str, ...]] = {}  # by the class name of a node


def _saved_names(node: Any) -> tuple[str, ...]:
    """The attributes of a node that hold saved tensors."""
    kind = type(node).__name__
    if kind not in _SAVED:
        _SAVED[kind] = tuple(name for name in dir(node) if name.startswith("_raw_saved_"))
    return _SAVED[kind]


def _discard(_: Tensor) -> None:
    return None


def _refuse(_: None) -> Tensor:
    raise RuntimeError(FREED[""])
