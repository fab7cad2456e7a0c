"""The loop over epochs and batches."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol, TypeVar

from paretorch.storage.checkpoint_schedule import CheckpointSchedule

B = TypeVar("B")


class Trainable(Protocol[B]):
    """What :func:`train_epochs` trains."""

    def start_epoch(self, epoch: int) -> Iterable[B]:
        """The batches of an epoch, counted from 0."""

    def update(self, step: int, batch: B) -> None:
        """One step, counted from 0 over the whole training."""

    def end_epoch(self, epoch: int) -> bool:
        """Evaluates and records after ``epoch`` epochs; returns whether this state may be saved as a checkpoint."""

    def save(self, epoch: int) -> None:
        """Writes a checkpoint after ``epoch`` epochs."""

    def report(self, epoch: int) -> None:
        """Reports progress after ``epoch`` epochs, after the checkpoint of this epoch, if there is one."""


def train_epochs(
    training: Trainable[B], epochs: int, steps: int, *, done: int = 0, checkpoints: CheckpointSchedule | None = None
) -> None:
    """Trains the epochs that are left.

    Args:
        training: what is trained.
        epochs: of the whole training.
        steps: per epoch.
        done: epochs that were trained before.
        checkpoints: which epochs are followed by a checkpoint; None: no epoch.
    """
    for epoch in range(done, epochs):
        step = epoch * steps
        for batch in training.start_epoch(epoch):
            training.update(step, batch)
            del batch  # its memory, which the caches still contain, is free for the next batch
            step += 1
        may_be_saved = training.end_epoch(epoch + 1)
        if checkpoints is not None and may_be_saved and checkpoints(epoch + 1):
            with checkpoints.measure():
                training.save(epoch + 1)
        training.report(epoch + 1)
