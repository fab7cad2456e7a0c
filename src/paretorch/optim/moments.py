"""Adam's moments, kept for every task apart: the memory, and how a step changes it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

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

    def alone(self) -> list[Bucket]:
        """One bucket for each parameter: less memory at a time, the same numbers."""
        return [
            Bucket(
                [parameter],
                self.tasks,
                {task: [self.gradients[task][place]] for task in self.tasks},
                {task: [self.memories[task][place]] for task in self.tasks},
                {task: [self.factors[task][place]] for task in self.tasks},
            )
            for place, parameter in enumerate(self.parameters)
        ]


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
        memories: what the task remembers of each parameter.
        factors: c, one for each gradient.
        betas: of the two means.
    """
    firsts = [each["exp_avg"] for each in memories]
    seconds = [each["exp_avg_sq"] for each in memories]
    scaled = list(gradients)
    if any(factor != 1 for factor in factors):
        scaled = list(torch._foreach_mul(scaled, list(factors)))
    torch._foreach_lerp_(firsts, scaled, 1 - betas[0])
    torch._foreach_mul_(seconds, betas[1])
    torch._foreach_addcmul_(seconds, scaled, scaled, 1 - betas[1])
    if "max_exp_avg_sq" in memories[0]:
        torch._foreach_maximum_([each["max_exp_avg_sq"] for each in memories], seconds)
    for each in memories:
        each["taken"] += 1


def means(memories: Sequence[Memory], beta: float) -> list[Tensor]:
    """First moments without their bias, new tensors: m / (1 - beta^t)."""
    firsts = [each["exp_avg"] for each in memories]
    return list(torch._foreach_mul(firsts, [1 / (1 - beta ** each["taken"]) for each in memories]))


def squares(memories: Sequence[Memory], beta: float) -> list[Tensor]:
    """Second moments without their bias, new tensors: v / (1 - beta^t); the largest so far with amsgrad."""
    name = "max_exp_avg_sq" if "max_exp_avg_sq" in memories[0] else "exp_avg_sq"
    seconds = [each[name] for each in memories]
    return list(torch._foreach_mul(seconds, [1 / (1 - beta ** each["taken"]) for each in memories]))


def decay(parameters: Sequence[Tensor], rate: float, weight_decay: float) -> None:
    """Decoupled weight decay: p <- (1 - rate weight_decay) p."""
    if weight_decay:
        torch._foreach_mul_(list(parameters), 1 - rate * weight_decay)
