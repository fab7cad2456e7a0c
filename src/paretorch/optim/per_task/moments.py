"""Adam's moments for each task and parameter, and their update in place."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

MAX_SQUARED = 1e10  # a factor beyond it, or its inverse, is not squared in float32
ELEMENTS_PER_THREAD = 1 << 16  # fewer cost more calls than the cache saves, all at once more memory traffic

Moments = dict[str, Any]
"""The state of a task on a parameter: ``taken`` (its number of steps), ``exp_avg``, ``exp_avg_sq`` (like the parameter),
``max_exp_avg_sq`` with amsgrad, and ``length``, the moving mean of its gradient's length, if the optimizer uses one."""


@dataclass(frozen=True)
class Bucket:
    """Parameters of one group, device and dtype that the same tasks reach, which one kernel can update together.

    Args:
        parameters: k of them.
        tasks: those that reach the parameters in this step.
        gradients: by task, k gradients.
        moments: by task, k states.
        factors: by task, k numbers by which its gradients are multiplied.
        weights: by task, r.
    """

    parameters: list[Tensor]
    tasks: tuple[str, ...]
    gradients: Mapping[str, list[Tensor]]
    moments: Mapping[str, list[Moments]]
    factors: Mapping[str, list[float]]
    weights: Mapping[str, float]

    @staticmethod
    def empty(tasks: tuple[str, ...], weights: Mapping[str, float]) -> Bucket:
        """A bucket without parameters."""
        return Bucket(
            [], tasks, {task: [] for task in tasks}, {task: [] for task in tasks}, {task: [] for task in tasks}, weights
        )

    def chunks(self) -> Iterator[Bucket]:
        """One bucket for each parameter, or for each part of a long one: less memory at a time, equal to rounding."""
        size = ELEMENTS_PER_THREAD * torch.get_num_threads()
        for place, parameter in enumerate(self.parameters):
            own = {task: self.moments[task][place] for task in self.tasks}
            gradients = {task: self.gradients[task][place] for task in self.tasks}
            factors = {task: [self.factors[task][place]] for task in self.tasks}
            tensors = [
                parameter,
                *gradients.values(),
                *(value for each in own.values() for value in _tensors(each).values()),
            ]
            if parameter.numel() <= size or not all(tensor.is_contiguous() for tensor in tensors):
                yield Bucket(
                    [parameter],
                    self.tasks,
                    {task: [gradient] for task, gradient in gradients.items()},
                    {task: [each] for task, each in own.items()},
                    factors,
                    self.weights,
                )
                continue
            parameters = _split(parameter, size)
            split = {task: _split(gradient, size) for task, gradient in gradients.items()}
            moments = {
                task: {name: _split(value, size) for name, value in _tensors(each).items()}
                for task, each in own.items()
            }
            for number, part in enumerate(parameters):
                yield Bucket(
                    [part],
                    self.tasks,
                    {task: [parts[number]] for task, parts in split.items()},
                    {
                        task: [own[task] | {name: parts[number] for name, parts in named.items()}]
                        for task, named in moments.items()
                    },
                    factors,
                    self.weights,
                )


def _tensors(moments: Moments) -> dict[str, Tensor]:
    return {name: value for name, value in moments.items() if isinstance(value, Tensor)}


def _split(tensor: Tensor, size: int) -> tuple[Tensor, ...]:
    parts: tuple[Tensor, ...] = tensor.view(-1).split(size)
    return parts


def moments_of(state: dict[str, Any], task: str, like: Tensor, amsgrad: bool) -> Moments:
    """The moments of ``task`` in a parameter's state; zero before its first step."""
    by_task = state.setdefault("by_task", {})
    if task not in by_task:
        names = ("exp_avg", "exp_avg_sq", "max_exp_avg_sq") if amsgrad else ("exp_avg", "exp_avg_sq")
        moments = {name: torch.zeros_like(like, memory_format=torch.preserve_format) for name in names}
        by_task[task] = {"taken": 0, **moments}
    found: Moments = by_task[task]
    return found


def update_moments(
    gradients: Sequence[Tensor],
    moments: Sequence[Moments],
    factors: Sequence[float],
    betas: tuple[float, float],
) -> None:
    r"""Updates the moments of one task in place.

    .. math:: m \leftarrow \beta_1 m + (1 - \beta_1) c g, \qquad v \leftarrow \beta_2 v + (1 - \beta_2) (c g)^2

    Args:
        gradients: g, k of them.
        moments: of each parameter; their step counters already include this step.
        factors: c, one for each gradient.
        betas: of the two moments.
    """
    firsts, seconds = [each["exp_avg"] for each in moments], [each["exp_avg_sq"] for each in moments]
    if len(gradients) == 1:
        _update_single(gradients[0], firsts[0], seconds[0], factors[0], betas)
    else:
        scaled = torch._foreach_mul(list(gradients), list(factors))
        torch._foreach_lerp_(firsts, scaled, 1 - betas[0])
        torch._foreach_mul_(seconds, betas[1])
        torch._foreach_addcmul_(seconds, scaled, scaled, 1 - betas[1])
    if "max_exp_avg_sq" in moments[0]:
        torch._foreach_maximum_([each["max_exp_avg_sq"] for each in moments], seconds)


def _update_single(gradient: Tensor, first: Tensor, second: Tensor, factor: float, betas: tuple[float, float]) -> None:
    """The same without a tensor for the product c g: on a CPU, memory traffic dominates the time of a step."""
    if not 1 / MAX_SQUARED < factor < MAX_SQUARED:
        gradient, factor = gradient * factor, 1.0
    first.mul_(betas[0]).add_(gradient, alpha=(1 - betas[0]) * factor)
    second.mul_(betas[1]).addcmul_(gradient, gradient, value=(1 - betas[1]) * factor**2)


def adam_step(
    parameters: Sequence[Tensor],
    moments: Sequence[Sequence[Moments]],
    rate: float,
    betas: tuple[float, float],
    eps: float,
) -> None:
    r"""Moves parameters by the moments of several tasks, in place.

    .. math:: \theta \leftarrow \theta - \eta \sum_i \hat m_i \Big/ \max_i \big( \sqrt{\hat v_i} + \epsilon \big)

    Args:
        parameters: k of them.
        moments: by task, k states.
        rate: eta.
        betas: of the two moments.
        eps: added to the denominator.
    """
    firsts = [[each["exp_avg"] for each in own] for own in moments]
    seconds = [
        [each["max_exp_avg_sq" if "max_exp_avg_sq" in each else "exp_avg_sq"] for each in own] for own in moments
    ]
    counts = [[each["taken"] for each in own] for own in moments]
    unbiased = [1.0, 1.0]
    if len({count for own in counts for count in own}) == 1:  # the biases are factors of the whole step
        unbiased = [1 - beta ** counts[0][0] for beta in betas]
    else:
        firsts = [
            list(torch._foreach_div(own, [1 - betas[0] ** count for count in steps]))
            for own, steps in zip(firsts, counts, strict=True)
        ]
        seconds = [
            list(torch._foreach_div(own, [1 - betas[1] ** count for count in steps]))
            for own, steps in zip(seconds, counts, strict=True)
        ]
    total = list(torch._foreach_add(firsts[0], firsts[1])) if len(moments) > 1 else firsts[0]
    root = list(torch._foreach_maximum(seconds[0], seconds[1])) if len(moments) > 1 else seconds[0]
    for first, second in zip(firsts[2:], seconds[2:], strict=True):
        torch._foreach_add_(total, first)
        torch._foreach_maximum_(root, second)
    if root is seconds[0]:
        root = list(torch._foreach_sqrt(root))
    else:
        torch._foreach_sqrt_(root)
    torch._foreach_add_(root, eps * unbiased[1] ** 0.5)
    torch._foreach_addcdiv_(list(parameters), total, root, -rate * unbiased[1] ** 0.5 / unbiased[0])


def decay_weights(parameters: Sequence[Tensor], rate: float, weight_decay: float) -> None:
    """Decoupled weight decay: p <- (1 - rate weight_decay) p."""
    if weight_decay:
        torch._foreach_mul_(list(parameters), 1 - rate * weight_decay)
