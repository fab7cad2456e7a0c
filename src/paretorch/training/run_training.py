"""A resolved run as what the loop over epochs trains."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Iterable
from functools import partial
from typing import Any

from paretorch.pareto.stationarity import residual
from paretorch.storage import checkpoint_folder
from paretorch.training import randomness
from paretorch.training.distributed.checks import BATCH_STATISTICS, depends_on_shares
from paretorch.training.distributed.ranks import Ranks
from paretorch.training.evaluation import evaluate, reported_test_scores
from paretorch.training.model_size import parameter_counts
from paretorch.training.monitoring.progress import ProgressDisplay
from paretorch.training.monitoring.training_monitor import TrainingMonitor
from paretorch.training.record import machine
from paretorch.training.record.epoch_totals import EpochTotals, step_numbers
from paretorch.training.record.kept_epoch import KEPT, best_epoch
from paretorch.training.record.pairing import pairing_facts
from paretorch.training.record.result import STATIONARITY, Epoch, Result, Scores
from paretorch.training.record.run_record import RunRecord, SilentRecord, step_interval
from paretorch.training.resolved_run import ResolvedRun
from paretorch.training.updates import StepRecord
from paretorch.training.workload_checks import metrics_of
from paretorch.workloads.forward import Batch
from paretorch.workloads.streams import (
    Stream,
    combined_seed,
    left_out_note,
    passes_per_epoch,
    steps_per_epoch,
    training_batches,
)


class RunTraining:
    """A run as what the loop over epochs trains; loads the newest checkpoint in the folder if there is one.

    Args:
        resolved: the run and its objects.
        record: writes the files.
        display: of the progress.
        ranks: that train together.
    """

    def __init__(
        self, resolved: ResolvedRun, record: RunRecord | SilentRecord, display: ProgressDisplay, ranks: Ranks
    ) -> None:
        self.resolved, self.record, self.display, self.ranks = resolved, record, display, ranks
        self.run = run = resolved.run
        self.streams = resolved.splits.train
        self.training_seconds: float | None = None  # of the epoch, where they are measured elsewhere
        self.facts: dict[str, Any] = {}  # of the result, in addition to those about the data
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
        if found.epoch == self.run.epochs:  # interrupted after the last checkpoint, before all others were removed
            self.ranks.on_first(lambda: checkpoint_folder.remove_others(folder, found.epoch))
        try:
            resolved.restore(found)
        except (LookupError, TypeError, AttributeError, ArithmeticError, RuntimeError) as error:
            raise ValueError(
                f"{found.folder} does not fit this run: {type(error).__name__}: {error}. Remove the folder {found.folder} to "
                "continue from the one before it"
            ) from error
        return found.epoch

    def start_epoch(self, epoch: int) -> Iterable[Batch]:
        """The batches of an epoch."""
        self.resolved.model.train()
        if self.ranks.size > 1:  # each rank draws its own numbers, as those of its dropout, and a resumed run the same
            randomness.seed_all(combined_seed(self.run.seed, 1, epoch, self.ranks.rank))
        self.totals, self.began, self.loading_before = EpochTotals(), time.perf_counter(), self.monitor.loading.seconds
        batches = training_batches(self.streams, self.run.batch_size, self.run.seed, epoch)
        return self.monitor.loading.over(batches)

    def update(self, step: int, batch: Batch) -> None:
        """One step of the run."""
        samples = samples_of(batch)
        self.resolved.schedule.before(step)
        try:
            record = self.resolved.update(batch)
        except FloatingPointError as error:
            raise FloatingPointError(self.monitor.refused(step, error)) from error
        del batch
        self.record_step(step, samples, record)

    def record_step(self, step: int, samples: int, record: StepRecord) -> None:
        """Adds the numbers of an update to those of the epoch, and writes them where it is time."""
        epoch = len(self.history) + 1
        self.totals.add(record, samples)
        self.monitor.step(step, record)
        self.display.step(epoch, samples, record)
        if step % self.interval == 0:
            self.record.step(epoch, step, partial(step_numbers, record))

    def end_epoch(self, epoch: int) -> bool:
        """Evaluates and records an epoch."""
        totals = self.totals
        totals.flush()
        if lowered := self.resolved.end_epoch():
            totals.searches.add_lowered(lowered)
        losses = totals.losses.read()  # waits for the device, so that the time until here is that of training
        trained = time.perf_counter()
        training = trained - self.began if self.training_seconds is None else self.training_seconds
        self.monitor.check_parameters(self.history, losses, self.resolved.model, totals.nonfinite)
        self.ranks.match_buffers(self.resolved.model)
        validation = self.ranks.on_first(lambda: self._evaluate(self.resolved.splits.validation))
        seconds = {
            "training": training,
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
        """Writes a checkpoint."""
        record = self.record
        if isinstance(record, SilentRecord):
            return
        record.sync()
        states = self.resolved.states()
        owner = (self.run.to_json(), record.digest)
        checkpoint_folder.save(record.folder / "checkpoint", epoch, states, *owner, previous=epoch < self.run.epochs)
        if self.run.keep == "best":
            self._save_best(epoch)

    def _save_best(self, epoch: int) -> None:
        """Stores the state after ``epoch`` epochs if it is the best one, after its checkpoint, from which it can be restored."""
        folder = self.record.folder / "best"
        if best_epoch(self.history, self.higher_is_better) == epoch and not (folder / f"epoch-{epoch}").exists():
            checkpoint_folder.save(folder, epoch, self.resolved.states(), self.run.to_json(), self.record.digest)

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
        checkpoint_folder.remove_others(folder, best)  # if an interruption left a part of one
        self.resolved.model.load_state_dict(found.states["model"])
        return best

    def report(self, epoch: int) -> None:
        """Displays the epoch."""
        del epoch
        self.display.epoch(self.history[-1])

    def _evaluate(self, streams: tuple[Stream, ...]) -> Scores:
        resolved, run = self.resolved, self.run
        return evaluate(resolved.workload, resolved.model, streams, resolved.tasks, run.batch_size, run.precision)

    def result(self) -> Result:
        """The result after the last epoch."""
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
                **self._stationarity(),
                **self.facts,
            },
        )

    def _stationarity(self) -> dict[str, float]:
        """The Pareto stationarity residual of the reported weights, for runs with that option; nan if it is undefined."""
        resolved, run = self.resolved, self.run
        if not (run.stationarity and run.test):
            return {}
        resolved.model.eval()
        try:
            found = residual(resolved.workload, resolved.model, self.streams, run.batch_size, samples=run.stationarity)
        except ValueError:
            found = math.nan
        return {STATIONARITY: found}


def samples_of(batch: Batch) -> int:
    """The number of samples in a batch, on all ranks together."""
    return sum(part.size if part.whole is None else part.whole for part in batch)
