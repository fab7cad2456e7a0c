"""Adam's moments, kept for every task apart: the memory, and how a step changes it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

SQUARES = 1e10  # a factor beyond it, or its inverse, is not squared in float32
GRAIN = 1 << 16  # numbers a thread: fewer cost more calls than the cache saves, all at once more memory traffic

Memory = dict[str, Any]
"""What a task remembers of a parameter: ``taken`` (its steps so far), ``exp_avg``, ``exp_avg_sq`` (like the parameter),
``max_exp_avg_sq`` with amsgrad, and ``length``, the moving mean of its gradient's length, where one is kept."""


@dataclass(frozen=True)
class Bucket:
    """Parameters of one group, device and dtype that the same tasks reach, so that one kernel can serve them all.

    Args:
        parameters: k of them.
        tasks: those that reach them in this step.
        gradients: by task, k gradients.
        memories: by task, k memories.
        factors: by task, k numbers by which its gradients are multiplied.
    """

    parameters: list[Tensor]
    tasks: tuple[str, ...]
    gradients: Mapping[str, list[Tensor]]
    memories: Mapping[str, list[Memory]]
    factors: Mapping[str, list[float]]

    def pieces(self) -> Iterator[Bucket]:
        """One bucket for each parameter, or for each part of a long one: less memory at a time, the same numbers to rounding."""
        size = GRAIN * torch.get_num_threads()
        for place, parameter in enumerate(self.parameters):
            own = {task: self.memories[task][place] for task in self.tasks}
            gradients = {task: self.gradients[task][place] for task in self.tasks}
            factors = {task: [self.factors[task][place]] for task in self.tasks}
            touched = [
                parameter,
                *gradients.values(),
                *(value for each in own.values() for value in _moments(each).values()),
            ]
            if parameter.numel() <= size or not all(tensor.is_contiguous() for tensor in touched):
                yield Bucket(
                    [parameter],
                    self.tasks,
                    {task: [gradient] for task, gradient in gradients.items()},
                    {task: [each] for task, each in own.items()},
                    factors,
                )
                continue
            parameters = _cut(parameter, size)
            cut = {task: _cut(gradient, size) for task, gradient in gradients.items()}
            moments = {
                task: {name: _cut(value, size) for name, value in _moments(each).items()} for task, each in own.items()
            }
            for number, part in enumerate(parameters):
                yield Bucket(
                    [part],
                    self.tasks,
                    {task: [parts[number]] for task, parts in cut.items()},
                    {
                        task: [own[task] | {name: parts[number] for name, parts in named.items()}]
                        for task, named in moments.items()
                    },
                    factors,
                )


def _moments(remembered: Memory) -> dict[str, Tensor]:
    return {name: value for name, value in remembered.items() if isinstance(value, Tensor)}


def _cut(tensor: Tensor, size: int) -> tuple[Tensor, ...]:
    parts: tuple[Tensor, ...] = tensor.view(-1).split(size)
    return parts


def memory(state: dict[str, Any], task: str, like: Tensor, amsgrad: bool) -> Memory:
    """The memory of ``task`` in a parameter's state; made at its first step."""
    by_task = state.setdefault("by_task", {})
    if task not in by_task:
        names = ("exp_avg", "exp_avg_sq", "max_exp_avg_sq") if amsgrad else ("exp_avg", "exp_avg_sq")
        moments = {name: torch.zeros_like(like, memory_format=torch.preserve_format) for name in names}
        by_task[task] = {"taken": 0, **moments}
    found: Memory = by_task[task]
    return found


def remember(
    gradients: Sequence[Tensor],
    memories: Sequence[Memory],
    factors: Sequence[float],
    betas: tuple[float, float],
) -> None:
    r"""One task's moments after one more gradient, in place.

    .. math:: m \leftarrow \beta_1 m + (1 - \beta_1) c g, \qquad v \leftarrow \beta_2 v + (1 - \beta_2) (c g)^2

    Args:
        gradients: k of them.
        memories: what the task remembers of each parameter; this step is counted in them already.
        factors: c, one for each gradient.
        betas: of the two means.
    """
    firsts, seconds = [each["exp_avg"] for each in memories], [each["exp_avg_sq"] for each in memories]
    if len(gradients) == 1:
        _remember_one(gradients[0], firsts[0], seconds[0], factors[0], betas)
    else:
        scaled = torch._foreach_mul(list(gradients), list(factors))
        torch._foreach_lerp_(firsts, scaled, 1 - betas[0])
        torch._foreach_mul_(seconds, betas[1])
        torch._foreach_addcmul_(seconds, scaled, scaled, 1 - betas[1])
    if "max_exp_avg_sq" in memories[0]:
        torch._foreach_maximum_([each["max_exp_avg_sq"] for each in memories], seconds)


def _remember_one(gradient: Tensor, first: Tensor, second: Tensor, factor: float, betas: tuple[float, float]) -> None:
    """The same without a tensor for the product c g: memory is what a step costs on a CPU."""
    if not 1 / SQUARES < factor < SQUARES:
        gradient, factor = gradient * factor, 1.0
    first.mul_(betas[0]).add_(gradient, alpha=(1 - betas[0]) * factor)
    second.mul_(betas[1]).addcmul_(gradient, gradient, value=(1 - betas[1]) * factor**2)


def descend(
    parameters: Sequence[Tensor],
    memories: Sequence[Sequence[Memory]],
    rate: float,
    betas: tuple[float, float],
    eps: float,
) -> None:
    r"""Moves parameters by the moments of some tasks, in place.

    .. math:: \theta \leftarrow \theta - \eta \sum_i \hat m_i \Big/ \max_i \big( \sqrt{\hat v_i} + \epsilon \big)

    Args:
        parameters: k of them.
        memories: by task, k memories.
        rate: eta.
        betas: of the two moments.
        eps: added to the denominator.
    """
    firsts = [[each["exp_avg"] for each in own] for own in memories]
    seconds = [
        [each["max_exp_avg_sq" if "max_exp_avg_sq" in each else "exp_avg_sq"] for each in own] for own in memories
    ]
    taken = [[each["taken"] for each in own] for own in memories]
    unbiased = [1.0, 1.0]
    if len({count for own in taken for count in own}) == 1:  # the biases are factors of the whole step
        unbiased = [1 - beta ** taken[0][0] for beta in betas]
    else:
        firsts = [
            list(torch._foreach_div(own, [1 - betas[0] ** count for count in counts]))
            for own, counts in zip(firsts, taken, strict=True)
        ]
        seconds = [
            list(torch._foreach_div(own, [1 - betas[1] ** count for count in counts]))
            for own, counts in zip(seconds, taken, strict=True)
        ]
    total = list(torch._foreach_add(firsts[0], firsts[1])) if len(memories) > 1 else firsts[0]
    root = list(torch._foreach_maximum(seconds[0], seconds[1])) if len(memories) > 1 else seconds[0]
    for first, second in zip(firsts[2:], seconds[2:], strict=True):
        torch._foreach_add_(total, first)
        torch._foreach_maximum_(root, second)
    if root is seconds[0]:
        root = list(torch._foreach_sqrt(root))
    else:
        torch._foreach_sqrt_(root)
    torch._foreach_add_(root, eps * unbiased[1] ** 0.5)
    torch._foreach_addcdiv_(list(parameters), total, root, -rate * unbiased[1] ** 0.5 / unbiased[0])


def decay(parameters: Sequence[Tensor], rate: float, weight_decay: float) -> None:
    """Decoupled weight decay: p <- (1 - rate weight_decay) p."""
    if weight_decay:
        torch._foreach_mul_(list(parameters), 1 - rate * weight_decay)
