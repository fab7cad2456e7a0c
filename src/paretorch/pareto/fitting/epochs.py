"""The epochs of a front: evaluations, and the checkpoint from which an interrupted training resumes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from paretorch.loop.epochs import train_epochs
from paretorch.loop.step_statistics import StepStatistics
from paretorch.pareto.evaluation_history import EvaluationHistory
from paretorch.pareto.plan import FrontPlan, described
from paretorch.storage.checkpoint_file import CheckpointFile
from paretorch.storage.checkpoint_schedule import CheckpointSchedule
from paretorch.workloads.forward import Batch
from paretorch.workloads.streams import Stream, steps_per_epoch, training_batches

FrontScores = tuple[Tensor, list[dict[str, dict[str, float]]]]  # (N, T) losses and the metrics of each member

HISTORY, TRAINING = "looks", "training"  # keys of checkpoints, which earlier versions wrote too


class FrontUpdate(Protocol):
    """The update of a front, with the state that it changes."""

    optimizer: torch.optim.Optimizer

    def step(self, number: int, batch: Batch) -> StepStatistics:
        """One step, counted from 0 over the whole training; returns its counts and values of the front's history."""

    def state(self) -> dict[str, Any]:
        """All values that determine the following steps, for :meth:`load`."""

    def load(self, state: Mapping[str, Any]) -> None:
        """Restores a state."""


def train(
    plan: FrontPlan,
    declared: Mapping[str, str],
    update: FrontUpdate,
    streams: tuple[Stream, ...],
    evaluate: Callable[[], FrontScores],
) -> EvaluationHistory:
    """Trains all epochs that are left and evaluates the front after some of them.

    Args:
        plan: the arguments of :func:`~paretorch.fit_front`.
        declared: the arguments that decide the numbers of the training, except its optimizer, as text by name.
        update: its optimizer is fresh.
        streams: the training data.
        evaluate: losses and metrics of all members on validation data.
    """
    history = EvaluationHistory(plan)
    file = checkpoints = None
    if plan.checkpoint is not None:
        file = CheckpointFile(plan.checkpoint, {**declared, "optimizer": described(update.optimizer)})
        checkpoints = CheckpointSchedule(None, estimate=0.0)  # the first evaluation is always saved
        if (state := file.load()) is not None:
            history.load(state[HISTORY], state[TRAINING])
            update.load(state[TRAINING])
    training = _FrontTraining(plan, update, streams, evaluate, history, file)
    per_epoch = steps_per_epoch(streams, plan.batch_size)
    train_epochs(training, plan.epochs, per_epoch, done=history.epoch, checkpoints=checkpoints)
    return history


@dataclass
class _FrontTraining:
    """A front as what the loop over epochs trains."""

    plan: FrontPlan
    front: FrontUpdate
    streams: tuple[Stream, ...]
    evaluate: Callable[[], FrontScores]
    history: EvaluationHistory
    file: CheckpointFile | None

    def start_epoch(self, epoch: int) -> Iterable[Batch]:
        self.history.start_epoch()
        return training_batches(self.streams, self.plan.batch_size, self.plan.seed, epoch)

    def update(self, step: int, batch: Batch) -> None:
        self.history.statistics.add(self.front.step(step, batch))

    def end_epoch(self, epoch: int) -> bool:
        evaluates = self.history.end_epoch(epoch)
        if evaluates:
            self.history.add(*self.evaluate())
        return evaluates

    def save(self, epoch: int) -> None:
        assert self.file is not None
        training = {**self.front.state(), **self.history.statistics.state()}
        chosen = {name: training[name][0] for name in ("execution",) if name in training}  # of an ensemble
        self.file.save(epoch, {HISTORY: self.history.state(), TRAINING: training}, chosen)

    def report(self, epoch: int) -> None:
        """Does nothing: evaluations are reported before the checkpoint, which relies on their record."""
