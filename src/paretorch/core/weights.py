"""A method's answer to evidence written down by hand: for examples, tests, and a look at what a method does."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from paretorch.core.contract import Evidence, Method


def weights(
    method: Method[Any],
    gramian: Tensor | None = None,
    losses: Tensor | None = None,
    tasks: Sequence[str] | None = None,
    seed: int = 0,
) -> Tensor:
    """The weights of a method's first step, at the paper's scale.

    Args:
        method: a method that answers with weights.
        gramian: (T, T) inner products of the task gradients, where the method looks at them.
        losses: (T,) loss values, where it looks at them.
        tasks: names; by default "0", "1", ...
        seed: of the method's random draws.

    Returns:
        (T,) float64.

    Example:
        >>> import paretorch as pt
        >>> weights(pt.MGDA(), torch.tensor([[18.0, -22.0], [-22.0, 38.0]]))
        tensor([0.6000, 0.4000], dtype=torch.float64)
    """
    given = gramian if gramian is not None else losses
    if given is None:
        raise ValueError("give the method something to look at: gramian=, losses= or both")
    names = tuple(str(task) for task in range(len(given))) if tasks is None else tuple(tasks)
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
        raise ValueError(f"{method} answers with an update, not with weights")
    return balance.weights
