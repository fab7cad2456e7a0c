"""A balancing method as a search asks it: its state, and one step on gradients that lie on one process."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from paretorch.core.arrays import Array
from paretorch.core.contract import Method, Need, Status
from paretorch.core.gradients.step_evidence import StepResult
from paretorch.core.gradients.task_gradients import Gradients
from paretorch.core.method.runner import Door, Scale


class Asking(Door):
    """Asks a method for weights (or an update), and keeps its state.

    Args:
        method: any method for one batch.
        scale: ``"calibrated"`` or ``"paper"``.
        seed: of its random draws.

    Raises:
        ValueError: the method takes several batches, or looks at the losses after the step.
    """

    def __init__(self, method: Method[Any], scale: Scale, seed: int) -> None:
        super().__init__(method, scale=scale, every=1, factor=None, group=None, seed=seed)
        if method.batches > 1 or method.observes:
            raise ValueError(
                f"a line search takes a method that answers from one batch before the step, {method} does not: use it in a "
                "Fork or Balancer"
            )

    def declare(self, tasks: tuple[str, ...]) -> None:
        """Fixes the tasks."""
        self._declare(tasks)

    @property
    def weighs_gradients(self) -> bool:
        """Whether the method answers from gradients, so that its direction may be made of divided losses."""
        return self.method.needs != Need.LOSSES

    def answer(
        self,
        losses: Mapping[str, float],
        gradients: Gradients,
        gramian: Array,
        features: Tensor | None = None,
    ) -> StepResult:
        """One step of the method.

        Args:
            losses: values by task; absent tasks are left out.
            gradients: of the declared tasks.
            gramian: (all, all) their inner products, in whatever metric.
            features: (B, D) the point at which they were taken, for methods that look at it.
        """
        told = np.zeros((3, len(self.tasks)))
        for task, value in losses.items():
            told[:, self.tasks.index(task)] = value, 1.0, 1.0
        seen = self._seen(told, gramian, gradients.resolution)
        if not self.weighs_gradients:
            seen = seen._replace(present=seen.told & (seen.losses != 0))
        if not seen.present.any():
            return StepResult(seen, [0.0] * len(self.tasks), Status.ABSENT)
        jacobian = None
        if Need.JACOBIAN in self.method.needs:
            jacobian = gradients.jacobian(torch.from_numpy(seen.present))
        return self._solve(seen, jacobian, features)

    def combined(self, outcome: StepResult, gradients: Gradients) -> list[Tensor]:
        """The one gradient that the answer stands for, leaf by leaf."""
        if outcome.update is not None:
            return gradients.split(outcome.update)
        assert outcome.weights is not None
        return gradients.combined(outcome.weights)

    def head_weights(self, outcome: StepResult) -> Sequence[float]:
        """(all,) by what each task's gradient on its head is multiplied: its weight for loss methods, else 1."""
        if not self.weighs_gradients and outcome.weights is not None:
            return outcome.weights
        return [1.0] * len(self.tasks)
