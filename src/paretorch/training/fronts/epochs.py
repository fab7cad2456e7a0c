"""The epochs of a front that is trained: what is written of it and shown."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence

import torch
from torch import Tensor

from paretorch.pareto import FrontSnapshot
from paretorch.pareto.hypervolume import hypervolume
from paretorch.training.monitoring.progress import Progress
from paretorch.training.record.record import Record
from paretorch.training.record.result import Epoch, Scores
from paretorch.training.run import Run
from paretorch.training.updates import StepRecord

VOLUME = "hypervolume"
SET = "front"  # under this name the numbers about the whole set stand among those about tasks


class Follow:
    """Writes and shows the front while it is trained: called at each look at the validation data.

    Args:
        run: what is trained.
        tasks: (T,) names.
        record: where it is written.
        shown: where it is shown.
        steps: of an epoch.
        samples: of an epoch.
        done: epochs that were trained before.
    """

    def __init__(
        self,
        run: Run,
        tasks: tuple[str, ...],
        record: Record,
        shown: Progress,
        steps: int,
        samples: int,
        done: tuple[Epoch, ...],
    ) -> None:
        self.tasks, self.record, self.shown, self.steps = tasks, record, shown, steps
        self.samples = samples
        self.epochs = list(done)
        self.trained, self.before = sum(epoch.seconds["training"] for epoch in done), time.perf_counter()
        shown.start(run, len(done), steps)

    def __call__(self, moment: FrontSnapshot) -> None:
        """A look."""
        now = time.perf_counter()
        training = moment.seconds - self.trained
        seconds = {"training": training, "evaluation": max(0.0, now - self.before - training), "loading": 0.0}
        losses = torch.tensor(moment.losses, dtype=torch.float64)
        scores = set_scores(self.tasks, losses, None, moment.hypervolume)
        self.epochs.append(Epoch(moment.epoch, {}, scores, {}, {}, self.samples, seconds))
        self.record.epoch(self.epochs[-1])
        self.record.settle()  # a checkpoint may follow, and relies on it
        for _ in range(self.steps):
            self.shown.step(moment.epoch, self.samples // self.steps, StepRecord({}))
        self.shown.epoch(self.epochs[-1])
        self.trained, self.before = moment.seconds, now


def set_scores(
    tasks: tuple[str, ...], losses: Tensor, reference: Sequence[float] | None, volume: float = math.nan
) -> Scores:
    """What a set of models comes to: the least loss of each task over the models, and the hypervolume of the set.

    Args:
        tasks: (T,) names.
        losses: (N, T); rows that are not finite do not count.
        reference: (T,) from which the hypervolume is measured; None: it is ``volume``.
        volume: the hypervolume where it is known.
    """
    finite = losses[losses.isfinite().all(dim=1)]
    least = finite.min(dim=0).values.tolist() if len(finite) else [math.nan] * len(tasks)
    if reference is not None:
        volume = hypervolume(finite, torch.tensor(reference, dtype=torch.float64))
    return Scores(dict(zip(tasks, least, strict=True)), {SET: {VOLUME: volume}})
