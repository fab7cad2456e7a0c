"""The features of a Fork: their leaves, those that can be balanced, and the branches made of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._pytree import TreeSpec, tree_flatten, tree_unflatten

from paretorch.core.fork.nested import Fill, has_fields, opened
from paretorch.core.gradients.task_gradients import chunks

CONTAINERS = (Mapping, list, tuple)  # as a tuple: torch 2.7 does not compile a union
SETS = (set, frozenset)


class OpenFeatures(NamedTuple):
    """The leaves of nested features, and the way back to the nesting."""

    leaves: list[Any]
    places: list[int]  # of the leaves that require grad
    distinct: list[int]  # of these, without repetitions: a tensor that is nested in several places is balanced once
    balanced: list[Tensor]  # the distinct leaves
    spec: TreeSpec | None  # of the nesting; None: a single tensor
    fill: Fill | None  # for objects with fields


def open_features(features: Any) -> OpenFeatures:
    """The leaves of features that are to be balanced, checked.

    Raises:
        ValueError: on leaves and containers that cannot be balanced.
        RuntimeError: inside a torch.func transform.
    """
    leaves, spec = ([features], None) if isinstance(features, Tensor) else tree_flatten(features)
    fill = None
    if spec is not None and not torch.compiler.is_compiling() and any(map(has_fields, leaves)):
        leaves, fill = opened(features, is_balanced)
    places = [place for place, leaf in enumerate(leaves) if is_balanced(leaf)]
    check_features(leaves, places)
    distinct = [place for place in places if place == next(first for first in places if leaves[first] is leaves[place])]
    return OpenFeatures(leaves, places, distinct, [leaves[place] for place in distinct], spec, fill)


def branches_of(features: OpenFeatures, tasks: tuple[str, ...], aliases: Sequence[Tensor]) -> dict[str, Any]:
    """The features of each task, nested as given.

    Args:
        features: as they were given.
        tasks: (T,) names.
        aliases: of the balanced leaves, task by task and, within each task, leaf by leaf.
    """
    if features.spec is None:
        return dict(zip(tasks, aliases, strict=True))
    result = {}
    for task, own in zip(tasks, chunks(aliases, len(tasks)), strict=True):
        filled = list(features.leaves)
        for place in features.places:
            for leaf, alias in zip(features.balanced, own, strict=True):
                if features.leaves[place] is leaf:
                    filled[place] = alias
        result[task] = tree_unflatten(filled, features.spec) if features.fill is None else features.fill(filled)
    return result


def is_balanced(leaf: Any) -> bool:
    """Whether a leaf has a gradient that the tasks share."""
    return isinstance(leaf, Tensor) and leaf.requires_grad and (leaf.is_floating_point() or leaf.is_complex())


def check_features(leaves: Sequence[Any], balanced: Sequence[int]) -> None:
    """Check that the features require grad, in known containers, and outside of torch.func.

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
            f"fork(features) got a {type(leaf).__name__}, whose fields a compiled function cannot read: pass its "
            "tensors in a dict, list or tuple, or fork outside the compiled function"
        )


def _cure(leaf: Tensor) -> str:
    """The kind of a leaf that cannot be balanced, and the cure; empty: the leaf can be balanced."""
    if leaf.is_nested:
        return "a nested tensor: pass z.values(), and build the nested tensor from each task's branch"
    if leaf.layout is not torch.strided:
        return f"one of layout {leaf.layout}: pass its values, as with z.coalesce().values(), or z.to_dense()"
    if leaf.is_complex():
        return f"one of dtype {leaf.dtype}: pass torch.view_as_real(z), and make it complex in the heads"
    if type(leaf) is not Tensor and hasattr(leaf, "to_local"):
        return (
            f"a {type(leaf).__name__}: pass z.to_local() where each rank has its own samples, or z.full_tensor() with "
            "Fork(..., group=None) where all ranks have the same"
        )
    return ""


def _without_gradient(leaves: Sequence[Any]) -> str:
    got = ", ".join(type(leaf).__name__ if not isinstance(leaf, Tensor) else str(leaf.dtype) for leaf in leaves)
    start = f"fork(features) in training expects floating features that require grad, got {got or 'nothing'} without"
    objects = sorted({type(leaf).__name__ for leaf in leaves if not isinstance(leaf, Tensor) and leaf is not None})
    if objects and not any(isinstance(leaf, Tensor) for leaf in leaves):
        return (
            f"{start}: no field of {', '.join(objects)} is such a tensor. Pass the tensors themselves, in a dict, list "
            "or tuple"
        )
    return (
        f"{start}: was the encoder frozen, or its output detached? For a frozen encoder there is nothing to balance: leave the "
        "Fork out, or call fork.eval()"
    )
