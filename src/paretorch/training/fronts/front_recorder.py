"""Recording and display of the evaluations of a front during training."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence

import torch
from torch import Tensor

from paretorch.loop.evaluation import Scores
from paretorch.pareto import FrontSnapshot
from paretorch.pareto.hypervolume import hypervolume
from paretorch.training.monitoring.progress import ProgressDisplay
from paretorch.training.record.result import Epoch
from paretorch.training.record.run_record import RunRecord
from paretorch.training.run import Run
from paretorch.training.updates import StepRecord

VOLUME = "hypervolume"
SET = "front"  # the name of the numbers of the whole front among those of tasks


class FrontRecorder:
    """Records and displays a front; called after each evaluation.

    Args:
        run: what is trained.
        tasks: (T,) names.
        record: the files of the run.
        display: of the progress.
        steps: per epoch.
        samples: per epoch.
        done: the epochs that were trained before.
    """

    def __init__(
        self,
        run: Run,
        tasks: tuple[str, ...],
        record: RunRecord,
        display: ProgressDisplay,
        steps: int,
        samples: int,
        done: tuple[Epoch, ...],
    ) -> None:
        self.tasks, self.record, self.display, self.steps = tasks, record, display, steps
        self.samples = samples
        self.epochs = list(done)
        self.trained, self.recorded = sum(epoch.seconds["training"] for epoch in done), time.perf_counter()
        display.start(run, len(done), steps)

    def __call__(self, snapshot: FrontSnapshot) -> None:
        """Records and displays an evaluation."""
        now = time.perf_counter()
        training = snapshot.seconds - self.trained
        seconds = {"training": training, "evaluation": max(0.0, now - self.recorded - training), "loading": 0.0}
        losses = torch.tensor(snapshot.losses, dtype=torch.float64)
        scores = front_scores(self.tasks, losses, None, snapshot.hypervolume)
        self.epochs.append(Epoch(snapshot.epoch, {}, scores, {}, {}, self.samples, seconds))
        self.record.epoch(self.epochs[-1])
        self.record.sync()  # a checkpoint that may follow relies on it
        for _ in range(self.steps):
            self.display.step(snapshot.epoch, self.samples // self.steps, StepRecord({}))
        self.display.epoch(self.epochs[-1])
        self.trained, self.recorded = snapshot.seconds, now


def front_scores(
    tasks: tuple[str, ...], losses: Tensor, reference: Sequence[float] | None, volume: float = math.nan
) -> Scores:
    """The smallest loss of each task over the models of a front, and its hypervolume.

    Args:
        tasks: (T,) names.
        losses: (N, T); rows that are not finite are ignored.
        reference: (T,) reference point of the hypervolume; None: the hypervolume is ``volume``.
        volume: the hypervolume if it is known.
    """
    finite = losses[losses.isfinite().all(dim=1)]
    smallest = finite.min(dim=0).values.tolist() if len(finite) else [math.nan] * len(tasks)
    if reference is not None:
        volume = hypervolume(finite, torch.tensor(reference, dtype=torch.float64))
    return Scores(dict(zip(tasks, smallest, strict=True)), {SET: {VOLUME: volume}})
