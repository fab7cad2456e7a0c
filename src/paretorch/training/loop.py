"""The one training loop: a run and a folder in, a result out. It knows one seam, ``update(batch) -> StepRecord``."""

from __future__ import annotations

import statistics
import time
from functools import partial
from pathlib import Path

import torch

from paretorch.storage.checkpoint_schedule import CheckpointSchedule
from paretorch.training import randomness
from paretorch.training.evaluation import evaluate, tested
from paretorch.training.fronts.run import train_front
from paretorch.training.line_search import Searched
from paretorch.training.monitoring.progress import Progress, Show, Shown
from paretorch.training.monitoring.troubles import Troubles
from paretorch.training.parts import Parts, assemble, find_device, parameter_counts
from paretorch.training.record import checkpoint, machine
from paretorch.training.record.record import Record, finished, stride
from paretorch.training.record.result import Epoch, Result, Scores
from paretorch.training.record.totals import EpochTotals, step_numbers
from paretorch.training.run import Run
from paretorch.training.workload_checks import metrics_of
from paretorch.workloads.streams import Stream, combined_seed, passes_per_epoch, steps_per_epoch, training_batches


def train(run: Run, folder: str | Path, *, progress: Show = "auto", checkpoint_every: int | None = 1) -> Result:
    """Trains a run in its folder, resumes it there, or returns its result where it is finished.

    On the CPU, with as many threads, a resumed run gives the very numbers of one that was never stopped, whenever that
    was. The caller's global random numbers are left as they were.

    Args:
        run: what to train.
        folder: where ``run.json``, ``events.jsonl``, ``checkpoint/`` and, at the end, ``result.json`` are written.
        progress: ``"auto"`` (live on a terminal, lines elsewhere), ``"live"``, ``"plain"``, None, or a function that is
            called with the epochs done and the epochs in all.
        checkpoint_every: epochs between two checkpoints; the last epoch always has one. None: as many epochs as keep what
            checkpoints cost below a hundredth of the time, which is one where epochs take more than a few seconds.

    Raises:
        ValueError: a name in the run is not known, the folder holds another run, or its checkpoint is damaged.
        OSError: the disk is full, or another process is training in the folder; nothing is half written.
    """
    folder = Path(folder)
    if checkpoint_every is not None and checkpoint_every < 1:
        raise ValueError(f"checkpoint_every is at least 1 epoch, got {checkpoint_every}")
    if run.front:
        return train_front(run, folder, progress=progress)
    if (result := finished(folder, run)) is not None:
        return result
    device = find_device(run.device)
    with randomness.deterministic(run.deterministic), randomness.kept(device):
        randomness.seed_all(run.seed)
        parts = assemble(run)
        # the same draws while training, whatever the initial weights took
        randomness.seed_all(combined_seed(run.seed, 1))
        about = {"versions": machine.versions(), "commit": machine.commit(), "machine": machine.machine(device)}
        with Record(folder, run, about) as record, Shown(progress) as shown:
            machine.forget_peak_memory(device)
            troubles = Troubles(run, folder, parts.splits.train)
            history = _fit(run, parts, record, shown, checkpoint_every, troubles)
            result = _result(run, parts, history, device, troubles)
            record.finish(result)
    return result


def _fit(
    run: Run, parts: Parts, record: Record, progress: Progress, checkpoint_every: int | None, troubles: Troubles
) -> tuple[Epoch, ...]:
    device = find_device(run.device)
    done = _resume(run, parts, record, device)
    history = list(record.rewind(done))
    steps = steps_per_epoch(parts.splits.train, run.batch_size)
    every = stride(steps * run.epochs, parts.tasks, isinstance(parts.optimizer, Searched))
    progress.start(run, done, steps)
    due = CheckpointSchedule(checkpoint_every)
    for epoch in range(done, run.epochs):
        parts.model.train()
        totals, began, waited = EpochTotals(), time.perf_counter(), troubles.waiting.seconds
        batches = training_batches(parts.splits.train, run.batch_size, run.seed, epoch)
        step = epoch * steps
        for batch in troubles.waiting.over(batches):
            samples = sum(part.size for part in batch)
            parts.schedule.before(step)
            said = parts.update(batch)
            del batch  # the next one comes to lie where it lay, which the caches still hold
            totals.add(said, samples)
            troubles.step(step, said)
            progress.step(epoch + 1, samples, said)
            if step % every == 0:
                record.step(epoch + 1, step, partial(step_numbers, said))
            step += 1
        totals.settle()
        if lowered := parts.end_epoch():
            totals.searches.lower(lowered)
        losses = totals.losses.read()  # waits for the device: what comes before is training
        trained = time.perf_counter()
        validation = _scores(run, parts, parts.splits.validation)
        seconds = {"training": trained - began, "evaluation": time.perf_counter() - trained}
        seconds["loading"] = troubles.waiting.seconds - waited
        weights, statuses, cosines = totals.weights.read(), dict(totals.statuses), totals.cosines.read()
        numbers = weights, statuses, totals.samples, seconds, cosines, totals.searches.read()
        history.append(Epoch(epoch + 1, losses, validation, *numbers))
        record.epoch(history[-1])
        troubles.epoch(history, parts.model)
        if epoch + 1 == run.epochs or due(epoch + 1):
            with due.measured():
                record.settle()
                checkpoint.save(record.folder / "checkpoint", run, epoch + 1, _states(parts, device), record.digest)
        progress.epoch(history[-1])
    return tuple(history)


def _resume(run: Run, parts: Parts, record: Record, device: torch.device) -> int:
    """Loads the newest checkpoint, if there is one; returns the epochs done."""
    found = checkpoint.load_latest(record.folder / "checkpoint", run, record.digest)
    if found is None:
        return 0
    found.load_into(parts.model, parts.optimizer, parts.door)
    randomness.restore(found.states["random"], device)
    return found.epoch


def _states(parts: Parts, device: torch.device) -> dict[str, object]:
    return {
        "model": parts.model.state_dict(),
        "optimizer": parts.optimizer.state_dict(),
        "door": {} if parts.door is None else parts.door.state_dict(),
        "random": randomness.capture(device),
    }


def _scores(run: Run, parts: Parts, streams: tuple[Stream, ...]) -> Scores:
    return evaluate(parts.workload, parts.model, streams, parts.tasks, run.batch_size, run.precision)


def _result(run: Run, parts: Parts, history: tuple[Epoch, ...], device: torch.device, troubles: Troubles) -> Result:
    memory = machine.peak_memory(device)
    metrics = metrics_of(parts.workload, parts.tasks)
    passes = passes_per_epoch(parts.splits.train, run.batch_size)
    return Result(
        run=run,
        tasks=parts.tasks,
        history=history,
        validation=history[-1].validation,
        test=tested(parts.splits, history, partial(_scores, run, parts)) if run.test else Scores({}, {}),
        higher_is_better={task: {m.name: m.higher_is_better for m in made} for task, made in metrics.items()},
        units={task: {m.name: m.unit for m in made} for task, made in metrics.items()},
        seconds_per_epoch=statistics.median(epoch.seconds["training"] for epoch in history),
        peak_memory=memory,
        parameters=parameter_counts(parts.model),
        facts={**parts.splits.facts, "passes per epoch of each stream": passes, **troubles.facts(parts.splits)},
    )
