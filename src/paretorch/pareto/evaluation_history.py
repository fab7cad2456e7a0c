"""The evaluations of a front during its training, and the totals of its steps."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from paretorch.loop.step_statistics import StatisticsTotals
from paretorch.pareto.files.stored_front import FrontSnapshot
from paretorch.pareto.plan import FrontPlan

GRADIENTS = "gradients"  # count of a step: gradient evaluations of all members; for NSGA-II, loss evaluations
TRANSFERS = "listened"  # value of a step with transfer: the share of members to which parameters were transferred
MEAN_TRANSFER = "took something over"  # fact of a front with transfer: the mean of TRANSFERS over its steps


class EvaluationHistory:
    """The evaluations of a front on validation data, and the totals of its steps.

    Args:
        plan: the arguments of :func:`~paretorch.fit_front`.

    Attributes:
        epoch: epochs done.
        seconds: of training so far, without evaluation.
        losses: (N, T) of the last evaluation.
        metrics: of each member in the last evaluation.
        history: all evaluations.
        statistics: of all steps: :data:`GRADIENTS` and :data:`TRANSFERS`, which are also their keys in checkpoints.
    """

    def __init__(self, plan: FrontPlan) -> None:
        self.plan = plan
        self.epoch, self.seconds = 0, 0.0
        self.losses = torch.empty(0, dtype=torch.float64)
        self.metrics: list[dict[str, dict[str, float]]] = []
        self.history: list[FrontSnapshot] = []
        self.statistics = StatisticsTotals()
        self._began = 0.0

    def start_epoch(self) -> None:
        """Starts the measurement of an epoch's time."""
        self._began = time.perf_counter()

    def end_epoch(self, epoch: int) -> bool:
        """Ends an epoch; returns whether the front is evaluated now."""
        self.seconds += time.perf_counter() - self._began
        self.epoch = epoch
        return self.plan.is_evaluated_after(epoch)

    def add(self, losses: Tensor, metrics: list[dict[str, dict[str, float]]]) -> None:
        """Appends an evaluation and reports it to the plan's ``progress``."""
        self.losses, self.metrics = losses, metrics
        self.history.append(self.plan.snapshot(self.epoch, self.statistics.counts[GRADIENTS], self.seconds, losses))
        if self.plan.progress is not None:
            self.plan.progress(self.history[-1])

    def facts(self) -> dict[str, Any]:
        """The gradient evaluations, the seconds and, with transfer, the mean share of members that it changed, for the front."""
        found = {"gradient evaluations": self.statistics.counts[GRADIENTS], "seconds": self.seconds}
        if (share := self.statistics.means().get(TRANSFERS)) is not None:
            found[MEAN_TRANSFER] = share
        return found

    def state(self) -> dict[str, Any]:
        """The evaluations and the time, for :meth:`load`; the statistics are saved by the training."""
        return {
            "epoch": self.epoch,
            "seconds": self.seconds,
            "losses": self.losses,
            "metrics": self.metrics,
            "history": [vars(snapshot) for snapshot in self.history],
        }

    def load(self, state: Mapping[str, Any], statistics: Mapping[str, Any]) -> None:
        """Restores a state, and the statistics, which may be among other values."""
        self.statistics.load({name: statistics[name] for name in (GRADIENTS, TRANSFERS) if name in statistics})
        self.epoch, self.seconds = state["epoch"], state["seconds"]
        self.losses, self.metrics = state["losses"], state["metrics"]
        self.history = [FrontSnapshot(**snapshot) for snapshot in state["history"]]
