"""The weights of a method for given evidence, for examples, tests and experiments."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from paretorch.core.checks import checked_task_names
from paretorch.core.contract import Evidence, Method, Need


def weights(
    method: Method[Any],
    gramian: Tensor | None = None,
    losses: Tensor | None = None,
    tasks: Sequence[str] | None = None,
    seed: int = 0,
) -> Tensor:
    """The weights of a method's first step, at the paper's scale.

    Args:
        method: a method that gives weights.
        gramian: (T, T) inner products of the task gradients, where the method needs them.
        losses: (T,) loss values, where it needs them.
        tasks: names; by default "0", "1", ...
        seed: of the method's random draws.

    Returns:
        (T,) float64.

    Raises:
        ValueError: evidence that the method needs is missing, not finite or of another shape, or it gives no weights.

    Example:
        >>> import paretorch as pt
        >>> weights(pt.MGDA(), torch.tensor([[18.0, -22.0], [-22.0, 38.0]]))
        tensor([0.6000, 0.4000], dtype=torch.float64)
    """
    if Need.JACOBIAN in method.needs or method.batches > 1:
        raise ValueError(f"{method} needs more than one Gramian: use it in a Fork or Balancer")
    size = _checked(method, gramian, losses)
    names = tuple(str(task) for task in range(size)) if tasks is None else checked_task_names(tasks)
    if len(names) != size:
        raise ValueError(f"tasks names {len(names)} tasks {names}, and gramian= and losses= are of {size}")
    evidence = Evidence(
        tasks=names,
        present=torch.ones(len(names), dtype=torch.bool),
        losses=None if losses is None else losses.to(torch.float64),
        gramian=None if gramian is None else gramian.to(torch.float64),
        factor=torch.ones(len(names), dtype=torch.float64),
        generator=torch.Generator().manual_seed(seed),
    )
    balance, _ = method.balance(evidence, method.init(names, torch.zeros((), dtype=torch.float64)))
    if balance.weights is None:
        raise ValueError(f"{method} gives an update, not weights")
    return balance.weights


def _checked(method: Method[Any], gramian: Tensor | None, losses: Tensor | None) -> int:
    """T, of checked evidence that includes all that the method needs."""
    sizes = set()
    for name, value, need, dimensions in (("gramian", gramian, Need.GRAMIAN, 2), ("losses", losses, Need.LOSSES, 1)):
        shape = "(T, T)" if dimensions == 2 else "(T,)"
        if value is None:
            if need in method.needs:
                raise ValueError(f"{method} needs the {name}: give {name}=, a tensor of shape {shape}")
        elif not isinstance(value, Tensor) or value.ndim != dimensions or len({*value.shape}) != 1:
            got = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
            raise ValueError(f"{name} is a tensor of shape {shape}, got {got}")
        elif not value.isfinite().all():
            raise ValueError(f"{name} is finite, got {value.tolist()}")
        else:
            sizes.add(len(value))
    if len(sizes) != 1:
        raise ValueError("gramian= and losses= are of the same tasks; give at least one of them")
    return sizes.pop()
