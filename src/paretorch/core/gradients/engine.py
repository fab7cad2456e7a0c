"""Single passes of the autograd engine: watched for Python code; what they saved, freed; what they found, accumulated."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Variable
from torch.autograd.graph import GradientEdge
from torch.overrides import TorchFunctionMode

from paretorch.core.gradients.graph import hooks_silenced, is_leaf


class _TorchCalls(TorchFunctionMode):
    """Notices calls of torch functions from Python. Autograd's own nodes are C++ and make none; hooks and custom nodes do."""

    def __init__(self) -> None:
        super().__init__()
        self.seen = False

    def __torch_function__(self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.seen = True
        return func(*args, **(kwargs or {}))


def observed_gradients(
    starts: Sequence[GradientEdge], cotangents: Sequence[Tensor], leaves: Sequence[Tensor]
) -> tuple[list[Tensor | None], bool]:
    """Gradients with respect to the leaves, and whether Python code took part in computing them.

    Hooks on tensors and on nodes, custom functions, and recomputed checkpoints call torch functions from Python. Only what
    autograd's own nodes do alone is known to be linear and to be the same for every cotangent. The graph is kept.

    Args:
        starts: edges at which the cotangents enter; ``leaves``: without their hooks.
    """
    with hooks_silenced(leaves):
        return _observed(starts, cotangents, leaves)


def _observed(
    starts: Sequence[GradientEdge], cotangents: Sequence[Tensor], ends: Sequence[Any]
) -> tuple[list[Tensor | None], bool]:
    """One pass from the starts to the ends, which are leaves or edges, and whether Python code called torch within it."""
    edges, places, calls = tuple(starts), tuple(ends), _TorchCalls()
    with calls:
        # torch.autograd.grad would itself count as a call
        found = Variable._execution_engine.run_backward(
            edges, tuple(cotangents), True, False, places, allow_unreachable=True, accumulate_grad=False
        )
    return list(found), calls.seen


def is_hooked(starts: Sequence[GradientEdge]) -> bool:
    """Whether hooks change a cotangent that enters by one of the edges: taken there, it has passed them already."""
    edges = [start for start in starts if not is_leaf(start.node)]
    if not edges:
        return False
    about = [start.node._input_metadata[start.output_nr] for start in edges]
    ones = [torch.ones((), dtype=each.dtype, device=each.device).expand(each.shape) for each in about]
    try:
        found, has_python = _observed(edges, ones, edges)
    except Exception:  # of a hook that writes in place, or expects another cotangent
        return True
    return has_python or any(
        one is None or one.data_ptr() != other.data_ptr() for one, other in zip(found, ones, strict=True)
    )


class _Deliver(torch.autograd.Function):
    """Hands gradients that were computed before to the leaves' accumulators, and keeps no reference: none is copied."""

    @staticmethod
    def forward(ctx: Any, gradients: list[Tensor | None], *leaves: Tensor) -> Tensor:
        ctx.gradients = gradients
        return leaves[0].new_zeros(())

    @staticmethod
    def backward(ctx: Any, *_: Tensor) -> Any:
        found = (None, *ctx.gradients)
        ctx.gradients.clear()
        return found


def accumulate(leaves: Sequence[Tensor], gradients: list[Tensor | None]) -> None:
    """Add the gradients to ``.grad`` by one backward, so that every hook on the leaves runs once; ``gradients`` is emptied.

    Where a gradient is None the leaf's accumulator runs without one, as in a backward that reaches it from no loss.
    """
    if leaves:
        with torch.enable_grad():
            root = _Deliver.apply(gradients, *leaves)
        root.backward()


def allow_repeated_backwards() -> None:
    """Let functions that are compiled from now on be passed by several backwards.

    torch.compile may let the first backward overwrite what the forward saved ("donated buffers"), and then refuses the second.
    The switch is one for the whole process.
    """
    from torch._functorch import config

    if hasattr(config, "donated_buffer"):
        config.donated_buffer = False


def free(nodes: Iterable[Any]) -> None:
    """Free the tensors that nodes of a graph saved, as a backward without ``retain_graph`` does; some may be free already."""
    for node in nodes:
        if is_leaf(node):
            continue
        for name in _saved_names(node):
            try:
                saved = getattr(node, name)
                for each in saved if isinstance(saved, list | tuple) else (saved,):
                    each.register_hooks(_dropped, _refused)
            except RuntimeError:  # nothing was saved here, it is free already, or it belongs to hooks of its own
                continue


_SAVED: dict[str, tuple[str, ...]] = {}  # by the name of a node


def _saved_names(node: Any) -> tuple[str, ...]:
    """The attributes in which a node holds what it saved."""
    kind = type(node).__name__
    if kind not in _SAVED:
        _SAVED[kind] = tuple(name for name in dir(node) if name.startswith("_raw_saved_"))
    return _SAVED[kind]


def _dropped(_: Tensor) -> None:
    return None


def _refused(_: None) -> Tensor:
    raise RuntimeError(
        "trying to backward through the graph a second time: its saved tensors were freed by balancer.backward(). Specify "
        "retain_graph=True there to go through it again"
    )
