"""The evidence of one step, and what the step came to: arrays on the host, in which nothing is made that is not read."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from paretorch.core.arrays import EPS, Array, Mask
from paretorch.core.contract import Balance, Status


class StepEvidence(NamedTuple):
    """What all ranks saw together, for all declared tasks."""

    present: Mask  # (all,)
    told: Mask  # (all,) loss and factor are known
    losses: Array  # (all,), nan where unknown
    factor: Array  # (all,), nan where unknown
    gramian: Array | None = None  # (all, all)
    resolution: float = EPS
    cross: Array | None = None  # (all, all) between two further batches
    broken: Mask | None = None  # (all,) tasks whose gradient on these is not finite
    left_out: Mask | None = None  # (all,) tasks that are skipped, because something of theirs is not finite
    regular: bool = False  # what most steps are: one process, every task present with a finite gradient, losses unknown

    def without(self, broken: Mask) -> StepEvidence:
        """The same, from which (all,) tasks are left out."""
        return self._replace(present=self.present & ~broken, left_out=broken)

    def with_own_gradient(self) -> Mask:
        """(all,) tasks whose own parameters receive their gradient.

        A task without a gradient on what is compared may have one on what is its own; one that is left out has none.
        """
        there = self.present if self.gramian is None else self.present | (self.gramian.diagonal() == 0)
        return there if self.left_out is None else there & ~self.left_out

    def nonfinite(self) -> Mask | None:
        """(all,) tasks whose gradient or known loss is inf or nan; None: no such task.

        A loss that is nan or inf counts whatever its gradient is, zero included: methods that look at losses alone cannot know
        the gradient, and all methods judge a step alike.
        """
        if self.regular:
            return None
        broken = self.told & ~np.isfinite(self.losses)
        if self.broken is not None:
            broken |= self.broken & self.present
        if self.gramian is not None:
            broken |= ~np.isfinite(self.gramian.diagonal()) & self.present
        return broken if broken.any() else None


class StepResult(NamedTuple):
    """What a step came to, for all declared tasks."""

    seen: StepEvidence
    weights: list[float] | None  # (all,), None for Jacobian methods
    status: Status
    update: Tensor | None = None  # (n,)
    heads: list[float] | None = None  # (all,), what a task's own parameters' gradients are multiplied by; None: 1
    gap: dict[str, float] | None = None

    def without_update(self) -> StepResult:
        """The same without the tensor that is as long as the surface."""
        return self if self.update is None else self._replace(update=None)

    def balance(self, tasks: tuple[str, ...]) -> Balance:
        """As the record that users read."""
        seen = self.seen
        return Balance(
            weights=None if self.weights is None else torch.from_numpy(np.array(self.weights, np.float64)),
            status=self.status,
            update=self.update,
            heads=torch.tensor([1.0] * len(tasks) if self.heads is None else self.heads, dtype=torch.float64),
            tasks=tasks,
            present=torch.from_numpy(seen.present.copy()),  # the columns of most steps are one array for all of them
            gramian=None if seen.gramian is None else torch.from_numpy(seen.gramian),
            losses=torch.from_numpy(seen.losses.copy()),
            factor=torch.from_numpy(seen.factor.copy()),
            gap=self.gap or {},
        )


@lru_cache(maxsize=64)
def all_tasks_mask(tasks: int) -> Mask:
    """The column ``present`` where every task is."""
    return np.ones(tasks, bool)


@lru_cache(maxsize=64)
def unknown_losses(tasks: int, factor: float | None) -> tuple[Mask, Array, Array]:
    """The columns ``told``, ``losses`` and ``factor`` where the losses are not known."""
    return np.zeros(tasks, bool), np.full(tasks, np.nan), np.full(tasks, np.nan if factor is None else factor)


@lru_cache(maxsize=64)
def ones(tasks: int) -> Tensor:
    """The column ``factor`` where none is known, for methods."""
    return torch.ones(tasks, dtype=torch.float64)


@lru_cache(maxsize=64)
def all_tasks_tensor(tasks: int) -> Tensor:
    """:func:`all_tasks_mask` for methods."""
    return torch.from_numpy(all_tasks_mask(tasks))


def filled(
    blank: Tensor, index: Sequence[int], losses: Sequence[Tensor], factors: Sequence[Tensor] | None = None
) -> Tensor:
    """(3, all) what losses tell: their values, their factors, and one call each; zero for the tasks that are not there.

    Args:
        blank: (3, all) zeros, filled in place.
        index: (k,) places of the k losses among the tasks.
        losses: k scalars.
        factors: k scalars dTotal/dL; None: ones.
    """
    if index:
        values = torch.stack([loss.detach() for loss in losses]).to(blank)
        calls = torch.ones_like(values)
        blank[:, list(index)] = torch.stack(
            [values, calls if factors is None else torch.stack(list(factors)).to(blank), calls]
        )
    return blank
