"""Training of one run in its folder."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import torch

from paretorch.core.restoring import RestoredOnError
from paretorch.loop.epochs import train_epochs
from paretorch.storage.checkpoint_folder import remove_others
from paretorch.storage.checkpoint_schedule import CheckpointSchedule
from paretorch.training import randomness
from paretorch.training.distributed.checks import check_ranks
from paretorch.training.distributed.ranks import Ranks
from paretorch.training.fronts.run import train_front
from paretorch.training.monitoring.loading import SlowLoadingWarning
from paretorch.training.monitoring.progress import ProgressDisplay, ProgressOption, progress_display
from paretorch.training.monitoring.training_monitor import TrainingWarning
from paretorch.training.names.devices import find_device
from paretorch.training.record import machine
from paretorch.training.record.continuation import can_be_continued, continue_run
from paretorch.training.record.kept_epoch import KEPT
from paretorch.training.record.result import Result
from paretorch.training.record.run_record import RunRecord, SilentRecord, finished_result
from paretorch.training.resolved_run import resolve
from paretorch.training.run import Run
from paretorch.training.run_training import RunTraining
from paretorch.training.tracking.contract import NO_TRACKING, Tracking
from paretorch.training.tracking.tracked_progress import tracked
from paretorch.workloads.streams import combined_seed


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
    result = ranks.on_first(lambda: _finished(folder, run))
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
            training = RunTraining(resolved, record, display, ranks)
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


def _finished(folder: Path, run: Run) -> Result | None:
    if can_be_continued(folder, run):
        return None
    result = finished_result(folder, run)
    if result is not None and run.keep == "best":
        remove_others(folder / "best", result.facts[KEPT])
    return result


def _record(folder: Path, run: Run, ranks: Ranks, device: torch.device) -> RunRecord | SilentRecord:
    """What writes the files: the first rank alone."""
    about = machine.environment(device)
    if not ranks.is_first:
        return SilentRecord(folder)
    continue_run(folder, run)  # where the model and the data are known to be usable
    return RunRecord(folder, run, about | ranks.facts)


@contextmanager
def _one_warning(ranks: Ranks) -> Iterator[None]:
    """Leaves warnings about the training to the first rank; all ranks would give the same."""
    with warnings.catch_warnings():
        if not ranks.is_first:
            warnings.simplefilter("ignore", TrainingWarning)
            warnings.simplefilter("ignore", SlowLoadingWarning)
        yield
