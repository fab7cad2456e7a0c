"""Training of runs that differ in the seed alone, each in its own folder."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from paretorch.core.restoring import RestoredOnError
from paretorch.loop.epochs import train_epochs
from paretorch.storage.checkpoint_schedule import CheckpointSchedule
from paretorch.training import randomness
from paretorch.training.distributed.ranks import Ranks
from paretorch.training.loop import train
from paretorch.training.monitoring.progress import NoProgress
from paretorch.training.names.devices import find_device
from paretorch.training.record import machine
from paretorch.training.record.continuation import can_be_continued, continue_run
from paretorch.training.record.result import Result
from paretorch.training.record.run_record import RunRecord, finished_result
from paretorch.training.record.together import TOGETHER
from paretorch.training.resolved_run import resolve
from paretorch.training.run import Run
from paretorch.training.run_training import RunTraining, samples_of
from paretorch.training.together.conditions import SeparateError, check_cost, check_resolved, check_runs
from paretorch.training.together.stacked_runs import StackedRuns
from paretorch.workloads.forward import Batch
from paretorch.workloads.streams import combined_seed

Progress = Callable[[Sequence[int], int, int], None]  # the indices of runs, the epochs they have done, and all epochs


def train_together(
    runs: Sequence[Run],
    folders: Sequence[Path],
    *,
    progress: Progress,
    checkpoint_every: int | None = None,
    note: Callable[[str], object] = lambda text: None,
) -> list[Result | Exception]:
    """Trains runs that differ in the seed alone, together where that is possible and faster, else one after the other.

    Results equal those of separate runs to rounding, and the folders contain the same files. A run that is finished is kept; an
    interrupted training is resumed, together if all runs have the same number of epochs done. Where one run fails, all of them
    are continued separately.

    Args:
        runs: S of them.
        folders: of each run.
        progress: called with the indices of the runs that have advanced, the number of their epochs done, and of all epochs.
        checkpoint_every: see :func:`paretorch.train`.
        note: called with the reason why runs are trained separately.

    Returns:
        for each run its result, or the error with which it ended.
    """
    left = [place for place, run in enumerate(runs) if not _is_finished(run, folders[place])]
    try:
        _train_stacked([runs[i] for i in left], [folders[i] for i in left], left, progress, checkpoint_every)
    except SeparateError as reason:
        if len(left) > 1:  # one or none is nothing to be trained together
            note(f"some runs are trained separately: {reason}")
    except FloatingPointError:
        note("some runs are continued separately, each from its last checkpoint: one of them diverged")
    return [
        _separately(run, folder, place, progress, checkpoint_every)
        for place, (run, folder) in enumerate(zip(runs, folders, strict=True))
    ]


def _is_finished(run: Run, folder: Path) -> bool:
    try:
        return not can_be_continued(folder, run) and finished_result(folder, run) is not None
    except Exception:
        return False  # the training of this run by itself raises it again


def _separately(
    run: Run, folder: Path, place: int, progress: Progress, checkpoint_every: int | None
) -> Result | Exception:
    """A run by itself; one that is finished is read."""

    def advance(done: int, of: int) -> None:
        progress([place], done, of)

    try:
        return train(run, folder, progress=advance, checkpoint_every=checkpoint_every)
    except Exception as error:
        return error


def _train_stacked(
    runs: Sequence[Run],
    folders: Sequence[Path],
    places: Sequence[int],
    progress: Progress,
    checkpoint_every: int | None,
) -> None:
    """Trains all runs to their results.

    Raises:
        SeparateError: they are trained separately.
        FloatingPointError: a run has diverged.
    """
    check_runs(runs)
    run, alone = runs[0], Ranks()
    device = find_device(run.device)
    with RestoredOnError(), randomness.preserved(device), ExitStack() as stack:
        trainings: list[RunTraining] = []
        states = []
        for each, folder in zip(runs, folders, strict=True):
            randomness.seed_all(each.seed)
            resolved = resolve(each)
            if trainings:  # the data are the same: they are in memory once
                splits = trainings[0].resolved.splits
                resolved = replace(resolved, splits=splits)
            randomness.seed_all(combined_seed(each.seed, 1))
            check_resolved(resolved)
            continue_run(folder, each)
            record = stack.enter_context(RunRecord(folder, each, machine.environment(device)))
            if finished_result(folder, each) is not None:
                raise SeparateError("another process finished one of them before this one had its lock")
            trainings.append(RunTraining(resolved, record, NoProgress(), alone))
            states.append(randomness.capture(device))
        if len({len(training.history) for training in trainings}) > 1:
            raise SeparateError("they were interrupted after different numbers of epochs")
        machine.reset_peak_memory(device)
        together = _Together(trainings, states, places, progress, device)
        schedule = CheckpointSchedule(1 if run.keep == "best" else checkpoint_every, last=run.epochs)
        train_epochs(together, run.epochs, trainings[0].steps, done=len(trainings[0].history), checkpoints=schedule)
        for training in trainings:
            training.facts[TOGETHER] = [each.seed for each in runs]
            assert isinstance(training.record, RunRecord)
            training.record.finish(training.result())


class _Together:
    """Several runs as what the loop over epochs trains."""

    def __init__(
        self,
        trainings: Sequence[RunTraining],
        states: Sequence[Any],
        places: Sequence[int],
        progress: Progress,
        device: torch.device,
    ) -> None:
        self.trainings, self.states, self.places, self.progress, self.device = (
            trainings,
            states,
            places,
            progress,
            device,
        )
        batches = [next(iter(each.start_epoch(len(each.history)))) for each in trainings]
        check_cost(trainings[0].resolved.model, batches[0])
        self.stacked = StackedRuns([each.resolved for each in trainings])
        self.stacked.check(batches)
        progress(places, len(trainings[0].history), trainings[0].run.epochs)

    def start_epoch(self, epoch: int) -> Iterator[tuple[Batch, ...]]:
        self.began = time.perf_counter()
        yield from zip(*(each.start_epoch(epoch) for each in self.trainings), strict=True)

    def update(self, step: int, batches: tuple[Batch, ...]) -> None:
        records = self.stacked.step(step, batches)
        for training, batch, record in zip(self.trainings, batches, records, strict=True):
            training.record_step(step, samples_of(batch), record)

    def end_epoch(self, epoch: int) -> bool:
        seconds = (time.perf_counter() - self.began) / len(self.trainings)
        for training in self.trainings:
            training.training_seconds = seconds
            training.end_epoch(epoch)
        return True

    def save(self, epoch: int) -> None:
        self.stacked.save_optimizers()
        for training, state in zip(self.trainings, self.states, strict=True):
            randomness.restore(state, self.device)  # no run draws random numbers after its start
            training.save(epoch)

    def report(self, epoch: int) -> None:
        self.progress(self.places, epoch, self.trainings[0].run.epochs)
