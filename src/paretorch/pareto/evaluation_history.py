"""The evaluations of a front on validation data during its training."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from paretorch.pareto.front import FrontSnapshot
from paretorch.pareto.plan import Plan


class EvaluationHistory:
    """The evaluations of a front on validation data.

    Args:
        plan: the arguments of :func:`~paretorch.fit_front`.

    Attributes:
        epoch: epochs done.
        seconds: of training so far, without evaluation.
        losses: (N, T) of the last evaluation.
        metrics: of each member in the last evaluation.
        history: all evaluations.
    """

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.epoch, self.seconds = 0, 0.0
        self.losses = torch.empty(0, dtype=torch.float64)
        self.metrics: list[dict[str, dict[str, float]]] = []
        self.history: list[FrontSnapshot] = []
        self._began = 0.0

    def start_epoch(self) -> None:
        """Starts the measurement of an epoch's time."""
        self._began = time.perf_counter()

    def end_epoch(self, epoch: int) -> bool:
        """Ends an epoch; returns whether the front is evaluated now."""
        self.seconds += time.perf_counter() - self._began
        self.epoch = epoch
        return self.plan.is_evaluated_after(epoch)

    def add(self, gradients: int, losses: Tensor, metrics: list[dict[str, dict[str, float]]]) -> None:
        """Appends an evaluation and reports it to the plan's ``progress``."""
        self.losses, self.metrics = losses, metrics
        self.history.append(self.plan.snapshot(self.epoch, gradients, self.seconds, losses))
        if self.plan.progress is not None:
            self.plan.progress(self.history[-1])

    def state(self) -> dict[str, Any]:
        """The state that :meth:`load` restores."""
        return {
            "epoch": self.epoch,
            "seconds": self.seconds,
            "losses": self.losses,
            "metrics": self.metrics,
            "history": [vars(snapshot) for snapshot in self.history],
        }

    def load(self, state: Mapping[str, Any]) -> None:
        """Restores a state."""
        self.epoch, self.seconds = state["epoch"], state["seconds"]
        self.losses, self.metrics = state["losses"], state["metrics"]
        self.history = [FrontSnapshot(**snapshot) for snapshot in state["history"]]
