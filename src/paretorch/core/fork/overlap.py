"""Check of the entries that two tasks' gradients have in common on the features."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from paretorch.core.arrays import Array
from paretorch.core.fork.backward_checks import Warn
from paretorch.core.gradients.task_gradients import Gradients

# After so many steps, two gradients without a common entry are hardly chance, as they may be with few labels.
SUFFICIENT_STEPS = 20


class OverlapCheck:
    """Finds two tasks whose gradients never have an entry in common: their cosine is 0 whatever the losses are.

    Args:
        tasks: the declared names.
        warn: warns once for each topic.
    """

    def __init__(self, tasks: tuple[str, ...], warn: Warn) -> None:
        self._tasks, self._warn = tasks, warn
        self._overlapping = np.eye(len(tasks), dtype=bool)  # (T, T) pairs whose gradients had a common entry
        self._disjoint_steps = np.zeros((len(tasks), len(tasks)), int)  # (T, T) steps with both gradients and none
        self.is_settled = len(tasks) == 1

    def update(self, gradients: Gradients, gramian: Array) -> None:
        """Take one step into account, and warn where two gradients are disjoint.

        Args:
            gradients: of the tasks on the features.
            gramian: (all, all) their inner products on this rank.
        """
        if len(gradients.known) < 2:
            return
        self._overlapping |= np.isfinite(gramian) & (gramian != 0)
        if self._overlapping.all():
            self.is_settled = True
            return
        nonzero = gramian.diagonal() != 0
        pairs = [
            (s, t)
            for place, s in enumerate(gradients.known)
            for t in gradients.known[place + 1 :]
            if nonzero[s] and nonzero[t] and not self._overlapping[s, t]
        ]
        for s, t in pairs:
            entry, row = _in_common(gradients, s, t)
            self._overlapping[s, t] = self._overlapping[t, s] = entry
            self._disjoint_steps[s, t] += not entry
            others = self._overlapping & ~np.eye(len(self._tasks), dtype=bool)
            all_disjoint = not others[np.ix_(nonzero, nonzero)].any()
            is_evident = row or (all_disjoint and _covered(gradients)) or self._disjoint_steps[s, t] >= SUFFICIENT_STEPS
            if not entry and is_evident:
                self.is_settled = True
                self._warn_disjoint(s, t, row)
                return

    def _warn_disjoint(self, s: int, t: int, row: bool) -> None:
        reason = (
            "have no entry of the features in common: each head reads positions, channels, levels or inputs of its own"
            if row
            else "are nonzero on different rows of the features: each task has samples of its own (or positions, where the first "
            "dimension is not that of the samples)"
        )
        self._warn(
            "apart",
            f"the gradients of {self._tasks[s]!r} and {self._tasks[t]!r} {reason}. Their cosine is 0 by construction, and "
            "balancing on the features cannot find a conflict: use paretorch.Balancer, which compares them on the shared "
            "parameters",
        )


def _in_common(gradients: Gradients, s: int, t: int) -> tuple[bool, bool]:
    """Whether the gradients of two tasks share an entry that is not zero in both, and whether they share a row.

    A row is an index of the first dimension; leaves with equally many rows share them.
    """
    one, other = (gradients.rows[gradients.known.index(task)] for task in (s, t))
    rows: dict[int, list[Tensor]] = {}
    for leaf, a, b in zip(gradients.like, one, other, strict=True):
        count = leaf.shape[0] if len(leaf.shape) > 1 else 1
        for place, part in enumerate((a, b)):
            if part is not None and part.numel():
                nonzero = rows.setdefault(
                    count, [torch.zeros(count, dtype=torch.bool, device=leaf.device) for _ in range(2)]
                )
                nonzero[place] |= (part != 0).reshape(count, -1).any(dim=1)
        if a is not None and b is not None and bool(((a != 0) & (b != 0)).any()):
            return True, True
    return False, any(bool((nonzero[0] & nonzero[1]).any()) for nonzero in rows.values())


def _covered(gradients: Gradients) -> bool:
    """Whether every row of the features has a nonzero gradient, as where each task has samples of its own."""
    for index, leaf in enumerate(gradients.like):
        count = leaf.shape[0] if len(leaf.shape) > 1 else 1
        if leaf.shape.numel() and not bool((gradients.matrix(index) != 0).any(dim=0).view(count, -1).any(dim=1).all()):
            return False
    return True
