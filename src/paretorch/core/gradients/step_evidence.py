"""The evidence and the result of one step, as arrays on the host."""

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
    """The evidence of a step for all declared tasks, averaged over ranks."""

    present: Mask  # (all,)
    losses_known: Mask  # (all,) loss and factor are known
    losses: Array  # (all,), nan where unknown
    factor: Array  # (all,), nan where unknown
    gramian: Array | None = None  # (all, all)
    resolution: float = EPS
    cross: Array | None = None  # (all, all) between two further batches
    broken: Mask | None = None  # (all,) tasks whose gradient on the further batches is not finite
    left_out: Mask | None = None  # (all,) tasks that are skipped, because a loss or gradient of theirs is not finite
    reused: bool = False  # the weights are those of an earlier step, and ``present`` is by the gradients of this one
    regular: bool = False  # the usual step: one process, every task present with a finite gradient, losses unknown

    def without(self, broken: Mask) -> StepEvidence:
        """A copy without the (all,) tasks."""
        return self._replace(present=self.present & ~broken, left_out=broken)

    def with_own_gradient(self) -> Mask:
        """(all,) tasks whose own parameters receive their gradient.

        A task whose gradient on the compared parameters is zero may have another on its own; a task that is left out has none.
        """
        trained = self.present | self.reused
        if self.gramian is not None:
            trained = trained | (self.gramian.diagonal() == 0)
        return trained if self.left_out is None else trained & ~self.left_out

    def nonfinite(self) -> Mask | None:
        """(all,) tasks whose gradient or known loss is inf or nan; None: no such task.

        A loss that is nan or inf counts whatever its gradient is, zero included: methods that need losses alone have no
        gradient to check, and the same step is nonfinite for all methods.
        """
        if self.regular:
            return None
        broken = self.losses_known & ~np.isfinite(self.losses)
        if self.broken is not None:
            broken |= self.broken & self.present
        if self.gramian is not None:
            broken |= ~np.isfinite(self.gramian.diagonal()) & self.present
        return broken if broken.any() else None


class StepResult(NamedTuple):
    """The result of a step for all declared tasks."""

    evidence: StepEvidence
    weights: list[float] | None  # (all,), None for Jacobian methods
    status: Status
    update: Tensor | None = None  # (n,)
    heads: list[float] | None = None  # (all,), factor of the gradients of a task's own parameters; None: 1
    gap: dict[str, float] | None = None

    def without_update(self) -> StepResult:
        """A copy without the combined gradient, whose size is that of the compared parameters or features."""
        return self if self.update is None else self._replace(update=None)

    def balance(self, tasks: tuple[str, ...]) -> Balance:
        """The public record of the step."""
        evidence = self.evidence
        return Balance(
            weights=None if self.weights is None else torch.from_numpy(np.array(self.weights, np.float64)),
            status=self.status,
            update=self.update,
            heads=torch.tensor([1.0] * len(tasks) if self.heads is None else self.heads, dtype=torch.float64),
            tasks=tasks,
            present=torch.from_numpy(evidence.present.copy()),  # a copy: regular steps share one array
            gramian=None if evidence.gramian is None else torch.from_numpy(evidence.gramian),
            losses=torch.from_numpy(evidence.losses.copy()),
            factor=torch.from_numpy(evidence.factor.copy()),
            gap=self.gap or {},
        )


@lru_cache(maxsize=64)
def all_tasks_mask(tasks: int) -> Mask:
    """The column ``present`` of a step in which every task is present."""
    return np.ones(tasks, bool)


@lru_cache(maxsize=64)
def unknown_losses(tasks: int, factor: float | None) -> tuple[Mask, Array, Array]:
    """The columns ``losses_known``, ``losses`` and ``factor`` of unknown losses."""
    return np.zeros(tasks, bool), np.full(tasks, np.nan), np.full(tasks, np.nan if factor is None else factor)


@lru_cache(maxsize=64)
def ones(tasks: int) -> Tensor:
    """The column ``factor`` of unknown factors, for methods."""
    return torch.ones(tasks, dtype=torch.float64)


@lru_cache(maxsize=64)
def all_tasks_tensor(tasks: int) -> Tensor:
    """:func:`all_tasks_mask` for methods."""
    return torch.from_numpy(all_tasks_mask(tasks))


def fill_loss_sums(
    blank: Tensor, index: Sequence[int], losses: Sequence[Tensor], factors: Sequence[Tensor] | None = None
) -> Tensor:
    """(3, all) loss sums: for each task the sums over calls of its loss and of its factor, and the number of calls.

    Args:
        blank: (3, all) zeros, filled in place.
        index: (k,) the tasks of the k losses, each at most once.
        losses: k scalars.
        factors: k scalars dTotal/dL; None: ones.
    """
    if index:
        values = torch.stack([loss.detach() for loss in losses]).to(blank)
        calls = torch.ones_like(values)
        columns = torch.stack([values, calls if factors is None else torch.stack(list(factors)).to(blank), calls])
        if list(index) == list(range(blank.shape[1])):
            return blank.copy_(columns)
        for place, task in enumerate(index):  # an index on the host would be transferred
            blank[:, task] = columns[:, place]
    return blank
