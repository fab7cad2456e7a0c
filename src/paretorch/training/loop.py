"""Training of one run in its folder."""

from __future__ import annotations

import statistics
import time
import warnings
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch

from paretorch.core.restoring import RestoredOnError
from paretorch.loop.epochs import train_epochs
from paretorch.storage import checkpoint_folder
from paretorch.storage.checkpoint_schedule import CheckpointSchedule
from paretorch.training import randomness
from paretorch.training.distributed.checks import BATCH_STATISTICS, check_ranks, depends_on_shares
from paretorch.training.distributed.ranks import Ranks
from paretorch.training.evaluation import evaluate, reported_test_scores
from paretorch.training.fronts.run import train_front
from paretorch.training.model_size import parameter_counts
from paretorch.training.monitoring.loading import SlowLoadingWarning
from paretorch.training.monitoring.progress import ProgressDisplay, ProgressOption, progress_display
from paretorch.training.monitoring.training_monitor import TrainingMonitor, TrainingWarning
from paretorch.training.names.devices import find_device
from paretorch.training.record import machine
from paretorch.training.record.continuation import continue_run
from paretorch.training.record.epoch_totals import EpochTotals, step_numbers
from paretorch.training.record.kept_epoch import KEPT, best_epoch
from paretorch.training.record.pairing import pairing_facts
from paretorch.training.record.result import Epoch, Result, Scores
from paretorch.training.record.run_record import RunRecord, SilentRecord, finished_result, step_interval
from paretorch.training.resolved_run import ResolvedRun, resolve
from paretorch.training.run import Run
from paretorch.training.tracking.contract import NO_TRACKING, Tracking
from paretorch.training.tracking.tracked_progress import tracked
from paretorch.training.workload_checks import metrics_of
from paretorch.workloads.forward import Batch
from paretorch.workloads.streams import (
    StatefulStream,
    Stream,
    combined_seed,
    left_out_note,
    passes_per_epoch,
    steps_per_epoch,
    training_batches,
)

STREAMS = "streams"  # the key of the positions of the training streams, next to the states of the random generators


def train(
    run: Run,
    folder: str | Path,
    *,
    progress: ProgressOption = "auto",
    checkpoint_every: int | None = 1,
    tracking: Tracking = NO_TRACKING,
) -> Result:
    """Trains a run in its folder, resumes it there, or returns its result if it is finished.

    A folder with the same run and fewer epochs, finished or not, is continued; see
    ``paretorch.training.record.continuation``.

    Where torch.distributed is initialised, all ranks call this function together. Each trains on its share of every batch, so
    that the numbers are those of one process; rank 0 evaluates and writes the files. A run may be resumed with another number
    of ranks.

    On the CPU, with the same number of threads, a resumed run gives the numbers of an uninterrupted one, wherever it was
    interrupted. The state of the caller's global random generators is restored.

    Args:
        run: what is trained.
        folder: where ``run.json``, ``events.jsonl``, ``checkpoint/`` and, at the end, ``result.json`` are written.
        progress: ``"auto"`` (live on a terminal, lines elsewhere), ``"live"``, ``"plain"``, None, or a function that is
            called with the number of epochs done and the number of all epochs.
        checkpoint_every: epochs between two checkpoints; the last epoch always has one. None: as many epochs as keep the time
            for checkpoints below a hundredth of all time, which is one where an epoch takes more than a few seconds. A run that
            keeps its best epoch has one after every epoch.
        tracking: other packages in which the numbers of the record are logged; one that fails is a warning.

    Raises:
        ValueError: a name in the run is not known, the folder contains another run, or its checkpoint is damaged; or the best
            epoch is to be kept and there are no validation data; or several ranks cannot train the run.
        RuntimeError: another rank has failed, which raises the reason.
        OSError: the disk is full, or another process trains in the folder; all files are complete.
    """
    folder = Path(folder)
    if checkpoint_every is not None and checkpoint_every < 1:
        raise ValueError(f"checkpoint_every is at least 1 epoch, got {checkpoint_every}")
    ranks = Ranks.current()
    check_ranks(run, ranks)
    if run.front:
        return train_front(run, folder, progress=progress, tracking=tracking)
    result = ranks.on_first(lambda: _continued_or_finished(folder, run))
    if result is not None:
        return result
    device = find_device(run.device)
    quiet = _one_warning(ranks)
    with RestoredOnError(), randomness.deterministic(run.deterministic), randomness.preserved(device), quiet:
        randomness.seed_all(run.seed)
        resolved = ranks.together(lambda: resolve(run, ranks))
        ranks.match_model(resolved.model)
        # the same random numbers in training, however many the initial weights drew
        randomness.seed_all(combined_seed(run.seed, 1))
        with (
            ranks.together(lambda: _record(folder, run, ranks, device)) as record,
            closing(_display(progress, folder, tracking, ranks)) as display,
        ):
            if (result := ranks.on_first(lambda: finished_result(folder, run))) is not None:
                return result  # another process finished it before this one had the lock
            machine.reset_peak_memory(device)
            training = _RunTraining(resolved, record, display, ranks)
            checkpoints = CheckpointSchedule(1 if run.keep == "best" else checkpoint_every, last=run.epochs)
            train_epochs(training, run.epochs, training.steps, done=len(training.history), checkpoints=checkpoints)
            result = ranks.on_first(training.result)
            record.finish(result)
    return result


def _display(progress: ProgressOption, folder: Path, tracking: Tracking, ranks: Ranks) -> ProgressDisplay:
    """The progress display of this rank, and the trackers: both on the first rank alone."""
    if not ranks.is_first:
        return progress_display(None)
    return tracked(progress_display(progress), folder, tracking)


def _continued_or_finished(folder: Path, run: Run) -> Result | None:
    continue_run(folder, run)
    return finished_result(folder, run)


def _record(folder: Path, run: Run, ranks: Ranks, device: torch.device) -> RunRecord | SilentRecord:
    """What writes the files: the first rank alone."""
    about = machine.environment(device)
    return RunRecord(folder, run, about | ranks.facts) if ranks.is_first else SilentRecord(folder)


@contextmanager
def _one_warning(ranks: Ranks) -> Iterator[None]:
    """Leaves warnings about the training to the first rank; all ranks would give the same."""
    with warnings.catch_warnings():
        if not ranks.is_first:
            warnings.simplefilter("ignore", TrainingWarning)
            warnings.simplefilter("ignore", SlowLoadingWarning)
        yield


class _RunTraining:
    """A run as what the loop over epochs trains; loads the newest checkpoint in the folder if there is one."""

    def __init__(
        self, resolved: ResolvedRun, record: RunRecord | SilentRecord, display: ProgressDisplay, ranks: Ranks
    ) -> None:
        self.resolved, self.record, self.display, self.ranks = resolved, record, display, ranks
        self.run = run = resolved.run
        self.streams = resolved.splits.train
        self.monitor = TrainingMonitor(run, record.folder, self.streams)
        metrics = metrics_of(resolved.workload, resolved.tasks)
        self.higher_is_better = {task: {m.name: m.higher_is_better for m in made} for task, made in metrics.items()}
        self.units = {task: {m.name: m.unit for m in made} for task, made in metrics.items()}
        done = self._resume()
        self.history = list(ranks.on_first(lambda: record.rewind(done)))
        if run.keep == "best" and self.history and ranks.is_first:
            self._save_best(
                len(self.history)
            )  # if the run was interrupted between the two checkpoints of its last epoch
        self.steps = steps_per_epoch(self.streams, run.batch_size)
        self.interval = step_interval(self.steps * run.epochs, resolved.tasks, resolved.is_line_search)
        display.start(run, len(self.history), self.steps)
        if ranks.size > 1 and depends_on_shares(resolved.model):
            self.monitor.warn(BATCH_STATISTICS)
        if note := left_out_note(self.streams, run.batch_size):
            display.note(note)

    def _resume(self) -> int:
        """Loads the newest checkpoint, if there is one; returns the number of epochs done."""
        resolved, record = self.resolved, self.record
        folder = record.folder / "checkpoint"
        found = self.ranks.on_first(lambda: checkpoint_folder.load_latest(folder, record.owners, previous=True))
        if found is None:
            return 0
        for reason in found.damaged:
            self.monitor.warn(
                f"{reason}. The training continues from {found.folder.name}, and trains the epochs after it again"
            )
        found.load_into(resolved.model, resolved.optimizer, resolved.balancer)
        randomness.restore(found.states["random"], resolved.device)
        for stream, state in zip(self.streams, found.states["random"].get(STREAMS, ()), strict=False):
            if isinstance(stream, StatefulStream):
                stream.load_state_dict(state)
        return found.epoch

    def start_epoch(self, epoch: int) -> Iterable[Batch]:
        self.resolved.model.train()
        if self.ranks.size > 1:  # each rank draws its own numbers, as those of its dropout, and a resumed run the same
            randomness.seed_all(combined_seed(self.run.seed, 1, epoch, self.ranks.rank))
        self.totals, self.began, self.loading_before = EpochTotals(), time.perf_counter(), self.monitor.loading.seconds
        batches = training_batches(self.streams, self.run.batch_size, self.run.seed, epoch)
        return self.monitor.loading.over(batches)

    def update(self, step: int, batch: Batch) -> None:
        samples = sum(part.size if part.whole is None else part.whole for part in batch)
        self.resolved.schedule.before(step)
        try:
            record = self.resolved.update(batch)
        except FloatingPointError as error:
            raise FloatingPointError(self.monitor.refused(step, error)) from error
        del batch
        epoch = len(self.history) + 1
        self.totals.add(record, samples)
        self.monitor.step(step, record)
        self.display.step(epoch, samples, record)
        if step % self.interval == 0:
            self.record.step(epoch, step, partial(step_numbers, record))

    def end_epoch(self, epoch: int) -> bool:
        totals = self.totals
        totals.flush()
        if lowered := self.resolved.end_epoch():
            totals.searches.add_lowered(lowered)
        losses = totals.losses.read()  # waits for the device, so that the time until here is that of training
        trained = time.perf_counter()
        self.ranks.match_buffers(self.resolved.model)
        validation = self.ranks.on_first(lambda: self._evaluate(self.resolved.splits.validation))
        seconds = {
            "training": trained - self.began,
            "evaluation": time.perf_counter() - trained,
            "loading": self.monitor.loading.seconds - self.loading_before,
        }
        entry = Epoch(
            epoch, losses, validation, totals.weights.read(), dict(totals.statuses), totals.samples, seconds,
            totals.cosines.read(), totals.searches.read(),
        )  # fmt: skip
        self.history.append(entry)
        self.record.epoch(entry)
        self.monitor.epoch(self.history, self.resolved.model)
        return True

    def save(self, epoch: int) -> None:
        record = self.record
        if isinstance(record, SilentRecord):
            return
        record.sync()
        states = self._states()
        owner = (self.run.to_json(), record.digest)
        checkpoint_folder.save(record.folder / "checkpoint", epoch, states, *owner, previous=epoch < self.run.epochs)
        if self.run.keep == "best":
            self._save_best(epoch)

    def _states(self) -> dict[str, Any]:
        resolved = self.resolved
        return {
            "model": resolved.model.state_dict(),
            "optimizer": resolved.optimizer.state_dict(),
            "door": {} if resolved.balancer is None else resolved.balancer.state_dict(),
            "random": randomness.capture(resolved.device) | self._stream_states(),
        }

    def _stream_states(self) -> dict[str, Any]:
        """The positions of the training streams; empty if all of them follow from the number of the epoch."""
        states = [stream.state_dict() if isinstance(stream, StatefulStream) else {} for stream in self.streams]
        return {STREAMS: states} if any(states) else {}

    def _save_best(self, epoch: int) -> None:
        """Stores the state after ``epoch`` epochs if it is the best one, after its checkpoint, from which it can be restored."""
        folder = self.record.folder / "best"
        if best_epoch(self.history, self.higher_is_better) == epoch and not (folder / f"epoch-{epoch}").exists():
            checkpoint_folder.save(folder, epoch, self._states(), self.run.to_json(), self.record.digest)

    def _load_best(self) -> int:
        """Loads the weights of the best epoch; returns its number."""
        best = best_epoch(self.history, self.higher_is_better)
        folder = self.record.folder / "best"
        found = checkpoint_folder.load_latest(folder, self.record.owners)
        if found is None or found.epoch != best:
            raise ValueError(
                f"{folder} is damaged: expected the weights of epoch {best}, got those of "
                f"{'no epoch' if found is None else f'epoch {found.epoch}'}. Remove the folder {self.record.folder} to start "
                "this run again"
            )
        self.resolved.model.load_state_dict(found.states["model"])
        return best

    def report(self, epoch: int) -> None:
        del epoch
        self.display.epoch(self.history[-1])

    def _evaluate(self, streams: tuple[Stream, ...]) -> Scores:
        resolved, run = self.resolved, self.run
        return evaluate(resolved.workload, resolved.model, streams, resolved.tasks, run.batch_size, run.precision)

    def result(self) -> Result:
        resolved, run, splits = self.resolved, self.run, self.resolved.splits
        memory = machine.peak_memory(resolved.device)
        kept = self._load_best() if run.keep == "best" else len(self.history)
        best = {KEPT: kept} if run.keep == "best" else {}
        passes = passes_per_epoch(self.streams, run.batch_size)
        return Result(
            run=run,
            tasks=resolved.tasks,
            history=tuple(self.history),
            validation=self.history[kept - 1].validation,
            test=reported_test_scores(splits, self.history, self._evaluate) if run.test else Scores({}, {}),
            higher_is_better=self.higher_is_better,
            units=self.units,
            seconds_per_epoch=statistics.median(epoch.seconds["training"] for epoch in self.history),
            peak_memory=memory,
            parameters=parameter_counts(resolved.model),
            facts={
                **splits.facts,
                "passes per epoch of each stream": passes,
                **best,
                **pairing_facts(self.streams),
                **self.ranks.facts,
                **self.monitor.facts(splits),
            },
        )
