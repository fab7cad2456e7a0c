"""The losses of a step on their device, until one transfer brings them to the host."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from paretorch.core.arrays import Array
from paretorch.core.balancer.loss_step import broken_rows
from paretorch.core.gradients.finite import total_sum
from paretorch.core.gradients.task_gradients import to_host


class StepLosses(NamedTuple):
    """Losses that are transferred together with the Gramian, so that a step waits for the device once.

    Args:
        tensors: on the device.
        on_host: the (3, all) sums of losses and factors, and the numbers of calls, from the transferred tensors.
    """

    tensors: list[Tensor]
    on_host: Callable[[Sequence[Array]], Array]

    def read(self, others: Sequence[Tensor] = ()) -> tuple[Array, list[Tensor]]:
        """(3, all) sums of losses and factors, and the numbers of calls; and other tensors from the same transfer."""
        found = to_host([*self.tensors, *others])
        count = len(self.tensors)
        return self.on_host([tensor.numpy() for tensor in found[:count]]), found[count:]


def step_losses(
    given: Mapping[str, Tensor], tasks: Sequence[str], factor: float, total_factor: float | Tensor
) -> StepLosses:
    """The losses of the present tasks, with one call for each.

    Args:
        given: the losses by task, multiplied by ``factor``.
        tasks: (all,) names.
        factor: by which the losses are multiplied.
        total_factor: by which the backward multiplies them.
    """
    index = [tasks.index(name) for name in given]

    def on_host(arrays: Sequence[Array]) -> Array:
        loss_sums = np.zeros((3, len(tasks)))
        if given:
            further = float(arrays[1]) if isinstance(total_factor, Tensor) else total_factor
            loss_sums[0, index], loss_sums[1, index], loss_sums[2, index] = arrays[0] / factor, factor * further, 1
        return loss_sums

    if not given:
        return StepLosses([], on_host)
    values = torch.stack([loss.detach() for loss in given.values()])
    return StepLosses([values, total_factor] if isinstance(total_factor, Tensor) else [values], on_host)


def with_own_gradients(
    losses: StepLosses, own: Mapping[str, Sequence[Tensor | None]], tasks: Sequence[str]
) -> StepLosses:
    """The losses, with nan for a task whose gradient on its own parameters is not finite.

    Args:
        losses: of the step.
        own: every task's gradients on the parameters that are not compared.
        tasks: (all,) names.
    """
    total = total_sum([part for row in own.values() for part in row])
    if total is None:
        return losses

    def on_host(arrays: Sequence[Array]) -> Array:
        loss_sums = losses.on_host(arrays[:-1])
        if not np.isfinite(arrays[-1]):
            loss_sums[0, broken_rows(own, tasks)] = np.nan  # nan reaches all ranks
        return loss_sums

    return StepLosses([*losses.tensors, total], on_host)
