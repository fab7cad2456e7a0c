"""The machinery of optimizers that keep Adam's moments for every task: buckets, lengths, factors."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from paretorch.core.gradients.task_gradients import summing_dtype
from paretorch.optim.multitask import MultiTaskOptimizer, shares
from paretorch.optim.per_task.gradients import TaskGradients
from paretorch.optim.per_task.moments import Bucket, Memory, memory

LengthOver = Literal["tensor", "group"]


class AdamPerTask(MultiTaskOptimizer):
    """An optimizer with Adam's moments for every task and parameter. Not made directly."""

    def _take(self, given: Mapping[str, Tensor]) -> None:
        if any(parameter.dtype == torch.float16 for group in self.param_groups for parameter in group["params"]):
            raise ValueError(
                f"{type(self).__name__} got a float16 parameter, and squares of gradients leave the range of float16: keep "
                "parameters in float32 with the forward under autocast, or in bfloat16"
            )
        super()._take(given)

    def _update(self, parameters: Sequence[Tensor], gradients: TaskGradients) -> None:
        for options, places in self._groups(parameters):
            rows = {place: self._memories(options, parameters[place], gradients, place) for place in places}
            reached = {place: memories for place, memories in rows.items() if memories}
            lengths = self._lengths(options, list(reached), gradients)
            together: dict[object, Bucket] = {}
            for place, memories in reached.items():
                parameter, tasks = parameters[place], tuple(memories)
                factors = self._factors(options, self.state[parameter]["by_task"], memories, lengths[place])
                bucket = together.setdefault(
                    (parameter.device, parameter.dtype, tasks),
                    Bucket([], tasks, *({task: [] for task in tasks} for _ in range(3))),  # type: ignore[arg-type, unused-ignore]
                )
                bucket.parameters.append(parameter)
                for task in tasks:
                    part = gradients.rows[task][place]
                    assert part is not None
                    bucket.gradients[task].append(part)
                    bucket.memories[task].append(memories[task])
                    bucket.factors[task].append(min(factors[task], torch.finfo(summing_dtype(parameter.dtype)).max))
            for bucket in together.values():
                foreach = options["foreach"]
                foreach = bucket.parameters[0].device.type == "cuda" if foreach is None else foreach
                for each in (each for own in bucket.memories.values() for each in own):
                    each["taken"] += 1
                for part_of_it in [bucket] if foreach else bucket.pieces():
                    self._move(options, part_of_it)

    @abstractmethod
    def _move(self, options: Mapping[str, Any], bucket: Bucket) -> None:
        """The pure update on one bucket."""

    def _factors(
        self,
        options: Mapping[str, Any],
        by_task: Mapping[str, Memory],
        present: Mapping[str, Memory],
        lengths: Mapping[str, float],
    ) -> dict[str, float]:
        """By what each present task's gradient on one parameter is multiplied before it is remembered.

        Args:
            options: of the group.
            by_task: what all tasks remember of the parameter.
            present: what the present ones do.
            lengths: of their gradients.
        """
        del options, by_task, lengths
        return dict.fromkeys(present, 1.0)

    def _weights(self, options: Mapping[str, Any]) -> dict[str, float]:
        return shares(options["weights"], self.tasks)

    def _memories(
        self, options: Mapping[str, Any], parameter: Tensor, gradients: TaskGradients, place: int
    ) -> dict[str, Memory]:
        """The memories of the present tasks that reach a parameter."""
        reaching = [task for task in gradients.tasks if gradients.rows[task][place] is not None]
        return {task: memory(self.state[parameter], task, parameter, options["amsgrad"]) for task in reaching}

    def _lengths(
        self, options: Mapping[str, Any], places: Sequence[int], gradients: TaskGradients
    ) -> dict[int, dict[str, float]]:
        """By place and task, the length of the gradient on the tensor, or over the whole group."""
        if options.get("length_over", "tensor") == "tensor":
            return {place: {task: gradients.lengths[task][place] for task in gradients.tasks} for place in places}
        whole = {task: math.hypot(*(gradients.lengths[task][place] for place in places)) for task in gradients.tasks}
        return dict.fromkeys(places, whole)


def mean_length(remembered: Memory, length: float, beta: float) -> float:
    """The moving mean of a gradient's length; the first length above zero starts it.

    Started at zero it would grow so slowly that an encoder under heads that begin at zero took steps ten times too large.
    """
    before = remembered.get("length", 0.0)
    remembered["length"] = beta * before + (1 - beta) * length if before > 0 else length
    return float(remembered["length"])


def check_length_over(value: str) -> None:
    """Refuse what is not known."""
    if value not in ("tensor", "group"):
        raise ValueError(f"length_over is 'tensor' or 'group', got {value!r}")
