"""Every task's own gradient on every parameter, with its length: what a multi-task optimizer looks at."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from paretorch.core.gradients.graph import task_gradients
from paretorch.core.gradients.ranks import Ranks
from paretorch.core.gradients.task_gradients import summing_dtype, to_host

SAFE = 1e-15, 1e15  # lengths between these are sums of squares that float32 holds


class TaskGradients(NamedTuple):
    """The gradients of the tasks that are present, parameter by parameter.

    Args:
        tasks: those that are present, in the optimizer's order.
        rows: by task, one gradient for each parameter; None where the task does not reach it.
        lengths: by task, the Euclidean length of each of those; 0 where there is none.
    """

    tasks: tuple[str, ...]
    rows: Mapping[str, Sequence[Tensor | None]]
    lengths: Mapping[str, Sequence[float]]


def gradients_of(
    losses: Mapping[str, Tensor], parameters: Sequence[Tensor], tasks: Sequence[str], ranks: Ranks
) -> TaskGradients:
    """One backward for each loss; gradients are averaged over ranks, and tasks whose gradient is zero are left out.

    Args:
        losses: scalars by task, those of this rank.
        parameters: the leaves, in an order that is the same on all ranks.
        tasks: names in the optimizer's order, the same on all ranks; holds at least those of ``losses``.
        ranks: whose gradients are averaged.

    Raises:
        ValueError: a loss reaches none of the parameters, or has sparse gradients.
        FloatingPointError: a gradient is not finite.
    """
    rows: dict[str, Sequence[Tensor | None]] = {}
    for place, (task, loss) in enumerate(losses.items()):
        keep = place + 1 < len(losses)
        rows[task] = task_gradients([loss], [None], parameters, retain_graph=keep) if loss.requires_grad else []
        _check(task, rows[task])
    if ranks.size > 1:
        rows = _averaged(rows, parameters, tasks, ranks)
    lengths = _lengths(rows)
    for task, values in lengths.items():
        if not math.isfinite(sum(values)):
            raise FloatingPointError(
                f"the gradient of task {task!r} is not finite; parameters and state are as before the step. Look for "
                "inf or nan in its loss, or take a smaller step"
            )
    present = tuple(task for task in tasks if any(lengths.get(task, ())))
    return TaskGradients(present, rows, lengths)


def clipped(gradients: TaskGradients, max_norm: float | None) -> TaskGradients:
    """Every task's gradient over all parameters, shortened to ``max_norm`` where it is longer, as ``clip_grad_norm_`` does."""
    if max_norm is None:
        return gradients
    rows, lengths = dict(gradients.rows), dict(gradients.lengths)
    for task in gradients.tasks:
        factor = max_norm / (math.hypot(*lengths[task]) + 1e-6)
        if factor < 1:
            rows[task] = [None if part is None else part * factor for part in rows[task]]
            lengths[task] = [length * factor for length in lengths[task]]
    return TaskGradients(gradients.tasks, rows, lengths)


def _check(task: str, row: Sequence[Tensor | None]) -> None:
    if all(part is None for part in row):
        raise ValueError(
            f"the loss of task {task!r} reaches none of the optimizer's parameters: was the optimizer made of another "
            "model's, or before fully_shard divided them, or are they spread over ranks? A multi-task optimizer takes whole "
            "parameters: under FSDP use paretorch.Fork. Leave the task out (or give None) when it is absent"
        )


def _averaged(
    rows: Mapping[str, Sequence[Tensor | None]], parameters: Sequence[Tensor], tasks: Sequence[str], ranks: Ranks
) -> dict[str, Sequence[Tensor | None]]:
    """The mean over ranks, where a rank without a task counts as zero; a parameter is reached if some rank reaches it."""
    reached = torch.zeros(len(tasks), len(parameters), dtype=torch.float64)
    for task, row in rows.items():
        for place, part in enumerate(row):
            reached[list(tasks).index(task), place] = part is not None
    reached = ranks.sum(reached)
    mean: dict[str, Sequence[Tensor | None]] = {}
    for number, task in enumerate(tasks):
        own = rows.get(task) or [None] * len(parameters)
        if bool(reached[number].any()):
            mean[task] = [
                None if not reached[number, place] else _mean(part, leaf, ranks)
                for place, (part, leaf) in enumerate(zip(own, parameters, strict=True))
            ]
            _check(task, mean[task])
    return mean


def _mean(part: Tensor | None, leaf: Tensor, ranks: Ranks) -> Tensor:
    return ranks.sum_on_device((torch.zeros_like(leaf) if part is None else part).contiguous()) / ranks.size


def _lengths(rows: Mapping[str, Sequence[Tensor | None]]) -> dict[str, list[float]]:
    """Lengths in float64 on the host, with one transfer for all."""
    there = [part for row in rows.values() for part in row if part is not None]
    if not there:
        return {task: [0.0] * len(row) for task, row in rows.items()}
    values = [torch.linalg.vector_norm(part, dtype=summing_dtype(part.dtype)) for part in there]
    found = [float(value) for value in to_host(values)] if there[0].device.type != "cpu" else [v.item() for v in values]
    low, high = SAFE
    sizes = iter(length if low < length < high else _rescued(part) for length, part in zip(found, there, strict=True))
    return {task: [0.0 if part is None else next(sizes) for part in row] for task, row in rows.items()}


def _rescued(part: Tensor) -> float:
    """The length of a gradient whose squares may leave the range of float32: of itself over its largest entry."""
    largest = float(part.abs().max()) if part.numel() else 0.0
    if largest == 0 or not math.isfinite(largest):
        return largest
    return largest * float(torch.linalg.vector_norm((part / largest).to(summing_dtype(part.dtype))))
