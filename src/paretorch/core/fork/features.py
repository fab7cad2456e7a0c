"""What can be balanced among the leaves of the features, and sentences for what cannot."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from paretorch.core.fork.nested import has_fields

CONTAINERS = (Mapping, list, tuple)  # as a tuple: torch 2.7 does not compile a union
SETS = (set, frozenset)


def is_balanced(leaf: Any) -> bool:
    """Whether a leaf carries a gradient that the tasks share."""
    return isinstance(leaf, Tensor) and leaf.requires_grad and (leaf.is_floating_point() or leaf.is_complex())


def check_features(leaves: Sequence[Any], balanced: Sequence[int]) -> None:
    """Features must carry a gradient, in containers that are known, and torch.func must not be at work.

    Args:
        leaves: all leaves of the features.
        balanced: the places of those that are balanced.

    Raises:
        ValueError: on leaves and containers that cannot be balanced.
        RuntimeError: inside a torch.func transform.
    """
    for leaf in leaves:
        if not isinstance(leaf, Tensor):
            _check_container(leaf)
    for place in balanced:
        if cure := _cure(leaves[place]):
            raise ValueError(f"fork(features) takes real dense tensors of one process, got {cure}")
    if not balanced:
        raise ValueError(_without_gradient(leaves))
    if not torch.compiler.is_compiling() and torch._C._are_functorch_transforms_active():
        raise RuntimeError(
            "a Fork cannot run inside a torch.func transform (grad, vmap, jvp): wrap it in `with fork.paused():`"
        )


def _check_container(leaf: Any) -> None:
    if isinstance(leaf, CONTAINERS) or (isinstance(leaf, SETS) and any(map(is_balanced, leaf))):
        raise ValueError(
            f"fork(features) takes tensors in any nesting of dicts, lists and tuples, got a {type(leaf).__name__}: make it "
            "a plain one, as with dict(features), or register it with torch.utils._pytree"
        )
    if torch.compiler.is_compiling() and has_fields(leaf):
        raise ValueError(
            f"fork(features) got a {type(leaf).__name__}, into whose fields a compiled function cannot look: hand over its "
            "tensors in a dict, list or tuple, or fork outside the compiled function"
        )


def _cure(leaf: Tensor) -> str:
    """What is wrong with a leaf and what to do; empty: nothing."""
    if leaf.is_nested:
        return "a nested tensor: hand over z.values(), and build the nested tensor from each task's branch"
    if leaf.layout is not torch.strided:
        return f"one of layout {leaf.layout}: hand over its values, as with z.coalesce().values(), or z.to_dense()"
    if leaf.is_complex():
        return f"one of dtype {leaf.dtype}: hand over torch.view_as_real(z), and make it complex in the heads"
    if type(leaf) is not Tensor and hasattr(leaf, "to_local"):
        return (
            f"a {type(leaf).__name__}: hand over z.to_local() where each rank has its own samples, or z.full_tensor() with "
            "Fork(..., group=None) where all ranks have the same"
        )
    return ""


def _without_gradient(leaves: Sequence[Any]) -> str:
    got = ", ".join(type(leaf).__name__ if not isinstance(leaf, Tensor) else str(leaf.dtype) for leaf in leaves)
    start = f"fork(features) in training expects floating features that require grad, got {got or 'nothing'} without"
    objects = sorted({type(leaf).__name__ for leaf in leaves if not isinstance(leaf, Tensor) and leaf is not None})
    if objects and not any(isinstance(leaf, Tensor) for leaf in leaves):
        return (
            f"{start}: no field of {', '.join(objects)} holds such a tensor. Hand over the tensors themselves, in a dict, list "
            "or tuple"
        )
    return (
        f"{start}: was the encoder frozen, or its output detached? For a frozen encoder there is nothing to balance: leave the "
        "Fork out, or call fork.eval()"
    )
