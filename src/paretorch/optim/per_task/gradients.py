"""The gradient of each task on each parameter, with its length."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from paretorch.core.gradients.graph import task_gradients
from paretorch.core.gradients.ranks import Ranks
from paretorch.core.gradients.task_gradients import summing_dtype, to_host

SAFE = 1e-15, 1e15  # between these lengths, sums of squares are in the range of float32


class TaskGradients(NamedTuple):
    """The gradients of the present tasks on each parameter.

    Args:
        tasks: the present ones, in the optimizer's order.
        rows: by task, one gradient per parameter; None for parameters that the task does not reach.
        lengths: by task, the Euclidean lengths of these gradients; 0 for None.
    """

    tasks: tuple[str, ...]
    rows: Mapping[str, Sequence[Tensor | None]]
    lengths: Mapping[str, Sequence[float]]


def gradients_of(
    losses: Mapping[str, Tensor], parameters: Sequence[Tensor], tasks: Sequence[str], ranks: Ranks
) -> TaskGradients:
    """The gradients of each loss by one backward pass, averaged over ranks; tasks with zero gradients are absent.

    Args:
        losses: scalars by task, of this rank.
        parameters: the leaves, in the same order on all ranks.
        tasks: names in the optimizer's order, the same on all ranks; a superset of those of ``losses``.
        ranks: those over which gradients are averaged.

    Raises:
        ValueError: a loss reaches none of the parameters, or has sparse gradients.
        FloatingPointError: a loss or a gradient is not finite.
    """
    rows: dict[str, Sequence[Tensor | None]] = {}
    for place, (task, loss) in enumerate(losses.items()):
        keep = place + 1 < len(losses)
        rows[task] = task_gradients([loss], [None], parameters, retain_graph=keep) if loss.requires_grad else []
        _check(task, rows[task])
    values: Mapping[str, Tensor] = {task: loss.detach() for task, loss in losses.items()}
    if ranks.size > 1:
        values = _summed(values, tasks, ranks)
        rows = _averaged(rows, parameters, tasks, ranks)
    lengths, on_host = _lengths(rows, values)
    for what, sizes in (("loss", on_host), ("gradient", {task: sum(each) for task, each in lengths.items()})):
        for task, size in sizes.items():
            if not math.isfinite(size):
                raise FloatingPointError(
                    f"the {what} of task {task!r} is not finite; parameters and state are unchanged. Check its "
                    "inputs and targets for inf or nan, or use a smaller step"
                )
    present = tuple(task for task in tasks if any(lengths.get(task, ())))
    return TaskGradients(present, rows, lengths)


def clipped(gradients: TaskGradients, max_norm: float | None) -> TaskGradients:
    """The gradient of each task, clipped to the norm ``max_norm`` over all parameters, as by ``clip_grad_norm_``."""
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
            f"the loss of task {task!r} reaches none of the optimizer's parameters: was the optimizer created from "
            "another model's, or before fully_shard divided them, or are they divided over ranks? A multi-task optimizer "
            "requires whole parameters: under FSDP use paretorch.Fork. Leave out an absent task, or give None"
        )


def _averaged(
    rows: Mapping[str, Sequence[Tensor | None]], parameters: Sequence[Tensor], tasks: Sequence[str], ranks: Ranks
) -> dict[str, Sequence[Tensor | None]]:
    """The mean over ranks, with zero for absent tasks; a parameter is reached if any rank reaches it."""
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


def _summed(losses: Mapping[str, Tensor], tasks: Sequence[str], ranks: Ranks) -> dict[str, Tensor]:
    """The sums over ranks, so that all ranks find the same losses that are not finite."""
    own = dict(zip(losses, to_host(list(losses.values())), strict=True))
    zero = torch.zeros((), dtype=torch.float64)
    if not tasks:
        return {}
    return dict(zip(tasks, ranks.sum(torch.stack([own.get(task, zero) for task in tasks])), strict=True))


def _lengths(
    rows: Mapping[str, Sequence[Tensor | None]], losses: Mapping[str, Tensor]
) -> tuple[dict[str, list[float]], dict[str, float]]:
    """Lengths in float64 on the host, and the losses, with one transfer for all."""
    existing = [part for row in rows.values() for part in row if part is not None]
    norms = [torch.linalg.vector_norm(part, dtype=summing_dtype(part.dtype)) for part in existing]
    values = [*losses.values(), *norms]
    is_host = all(value.device.type == "cpu" for value in values)
    found = [value.item() for value in values] if is_host else [float(value) for value in to_host(values)]
    on_host = dict(zip(losses, found, strict=False))
    del found[: len(losses)]
    low, high = SAFE
    sizes = iter(
        length if low < length < high else _scaled_length(part) for length, part in zip(found, existing, strict=True)
    )
    return {task: [0.0 if part is None else next(sizes) for part in row] for task, row in rows.items()}, on_host


def _scaled_length(part: Tensor) -> float:
    """The length of a gradient whose squares may overflow or underflow, computed relative to its largest entry."""
    largest = float(part.abs().max()) if part.numel() else 0.0
    if largest == 0 or not math.isfinite(largest):
        return largest
    return largest * float(torch.linalg.vector_norm((part / largest).to(summing_dtype(part.dtype))))
