"""Training of a front as a run."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from paretorch.loop.evaluation import Scores
from paretorch.optim import MultiTaskOptimizer
from paretorch.pareto import Front, FrontAlgorithm, fit_front
from paretorch.pareto.evaluation_history import MEAN_TRANSFER
from paretorch.pareto.files.front_folder import FORMAT
from paretorch.pareto.files.ownership import check_front
from paretorch.pareto.hypervolume import check_reference
from paretorch.pareto.models.members import score
from paretorch.storage import atomic
from paretorch.storage.checkpoint_file import saved_epochs
from paretorch.training import randomness
from paretorch.training.fronts.algorithms import find_algorithm
from paretorch.training.fronts.front_recorder import SET, VOLUME, FrontRecorder, front_scores
from paretorch.training.fronts.open_front import RUN, example_inputs, load_front, workload_of
from paretorch.training.fronts.options import FrontOptions, options_of
from paretorch.training.line_search import searches
from paretorch.training.model_size import parameter_counts
from paretorch.training.monitoring.progress import ProgressDisplay, ProgressOption, progress_display
from paretorch.training.names.devices import find_device
from paretorch.training.names.optimizers import find_optimizer, optimizers
from paretorch.training.names.workloads import find_workload
from paretorch.training.record import machine
from paretorch.training.record.pairing import pairing_facts
from paretorch.training.record.result import Result
from paretorch.training.record.run_record import RunRecord, finished_result
from paretorch.training.run import Plain, Run
from paretorch.training.schedule import Schedule
from paretorch.training.tracking.contract import NO_TRACKING, Tracking
from paretorch.training.tracking.tracked_progress import tracked
from paretorch.training.workload_checks import check_losses, checked_tasks, data_of, metrics_of, trained_model
from paretorch.workloads.base import Workload
from paretorch.workloads.streams import Splits, left_out_note, samples_per_epoch, steps_per_epoch

__all__ = ["check", "example_inputs", "load_front", "train_front", "workload_of"]

CHECKPOINT = "checkpoint"  # the folder from which an interrupted training resumes
MARGIN = 0.1  # between an untrained model's losses and the reference: a neglected task may end slightly above its initial loss
UNUSED: Mapping[str, Plain | tuple[str, ...]] = {
    "method": "Equal()", "surface": "features", "door": {}, "precision": "float32", "clip": None, "tasks": (),
    "keep": "last",
}  # fmt: skip


def train_front(
    run: Run, folder: Path, *, progress: ProgressOption = "auto", tracking: Tracking = NO_TRACKING
) -> Result:
    """Trains a run's front in its folder, or returns the result if it is finished.

    In addition to the files of every run, the folder contains the front as ``Front.save`` writes it. An interrupted training
    resumes from its last checkpoint and gives the numbers of an uninterrupted one; an evolution starts again.

    Args:
        run: with ``front``.
        folder: where all files are written; ``result.json`` is the last.
        progress: see :func:`paretorch.training.loop.train`.
        tracking: see :func:`paretorch.training.loop.train`.

    Raises:
        ValueError: a name or option is not known, a field has no effect on a front, or the folder contains another run or a file
            with a name of the front's files that no front wrote.
    """
    if (result := finished_result(folder, run)) is not None:
        atomic.remove_folder(folder / CHECKPOINT)  # which a killed process may have left
        return result
    check_front(folder, FORMAT)
    atomic.check_own(folder / CHECKPOINT)
    device = find_device(run.device)
    with randomness.deterministic(run.deterministic), randomness.preserved(device):
        resolved = resolve_front(run)
        _make_optimizer(resolved)  # an error comes before the first file
        splits = _checked_data(resolved)
        with (
            RunRecord(folder, run, machine.environment(device)) as record,
            closing(tracked(progress_display(progress), folder, tracking)) as display,
        ):
            if (result := finished_result(folder, run)) is None:  # else another process finished it before the lock
                machine.reset_peak_memory(device)
                result = _train(resolved, splits, record, display)
                record.finish(result)
            atomic.remove_folder(folder / CHECKPOINT)
    return result


def check(run: Run) -> None:
    """Checks the names and options of a front's run; no data are read, and no model is made.

    Raises:
        ValueError: a name or an option is not known, or two of them exclude each other.
    """
    _make_optimizer(resolve_front(run))


@dataclass(frozen=True)
class ResolvedFrontRun:
    """A run that trains a front and the objects that it names.

    Args:
        run: plain values.
        device: of the models and the data.
        workload: data, model, losses and metrics.
        algorithm: the front algorithm.
        options: of the front.
        preferences: (N, T).
    """

    run: Run
    device: torch.device
    workload: Workload
    algorithm: FrontAlgorithm
    options: FrontOptions
    preferences: Tensor


def resolve_front(run: Run) -> ResolvedFrontRun:
    """Makes the objects that ``run`` names; no data are read, and no model is made.

    Raises:
        ValueError: a name or an option is not known or has no effect on a front, or the workload cannot have these preferences,
            this reference or its metrics.
    """
    workload, algorithm, options = find_workload(run.workload, run.options), find_algorithm(run.front), options_of(run)
    for name, value in UNUSED.items():
        if getattr(run, name) != value:
            raise ValueError(
                f"{name}={getattr(run, name)!r} has no effect on a front, which is trained by {run.front}: leave it out"
            )
    device = find_device(run.device)
    preferences = options.rows(checked_tasks(workload))
    algorithm.check(preferences, workload.tasks)
    if options.reference is not None:
        check_reference(options.reference, workload.tasks)
    metrics_of(workload, workload.tasks)
    return ResolvedFrontRun(run, device, workload, algorithm, options, preferences)


def _checked_data(resolved: ResolvedFrontRun) -> Splits:
    """The data, after the checks of model, data and losses that come before the first file is written."""
    workload = resolved.workload
    with torch.random.fork_rng():
        model = trained_model(workload, workload.tasks)
    splits = data_of(workload)
    check_losses(workload, model, splits)
    return splits


def _train(resolved: ResolvedFrontRun, splits: Splits, record: RunRecord, display: ProgressDisplay) -> Result:
    run, workload, algorithm = resolved.run, resolved.workload, resolved.algorithm
    reference = _reference(resolved, splits)
    steps = steps_per_epoch(splits.train, run.batch_size)
    samples = samples_per_epoch(splits.train, run.batch_size)
    checkpoint = None if algorithm.evolves else record.folder / CHECKPOINT
    done = record.rewind(0 if checkpoint is None else saved_epochs(checkpoint))
    recorder = FrontRecorder(run, workload.tasks, record, display, steps, samples, done)
    if note := left_out_note(splits.train, run.batch_size):
        display.note(note)
    front = fit_front(
        workload,
        algorithm,
        preferences=resolved.preferences,
        epochs=run.epochs,
        batch_size=run.batch_size,
        optimizer=_make_optimizer(resolved),
        schedule=_schedule(run, steps * run.epochs),
        reference=reference,
        starts=resolved.options.starts,
        execution=resolved.options.execution if algorithm.trains_members else "auto",
        seed=run.seed,
        device=run.device,
        every=1,
        progress=recorder,
        checkpoint=checkpoint,
    )
    replace(front, facts={**front.facts, RUN: record.digest}).save(record.folder)
    memory = machine.peak_memory(resolved.device)
    tested = _test_scores(resolved, front, splits) if run.test else []
    test_losses = torch.stack([losses for losses, _ in tested]) if tested else None
    facts = {
        "algorithm": repr(algorithm),
        "preferences": front.preferences.tolist(),
        "reference": list(reference),
        "gradients": [snapshot.gradients for snapshot in front.history],
        "losses": front.losses.tolist(),
        "test losses": None if test_losses is None else test_losses.tolist(),
        "metrics": list(front.metrics),
        "test metrics": [metrics for _, metrics in tested],
        "diverged": list(front.diverged),
        "execution": front.facts.get("execution", "one network"),
        MEAN_TRANSFER: front.facts.get(MEAN_TRANSFER),
        "largest hypervolume": _largest_hypervolume(workload, reference),
    }
    return Result(
        run=run,
        tasks=workload.tasks,
        history=tuple(recorder.epochs),
        validation=recorder.epochs[-1].validation,
        test=Scores({}, {}) if test_losses is None else front_scores(workload.tasks, test_losses, reference),
        higher_is_better={SET: {VOLUME: True}},
        units={SET: {VOLUME: ""}},
        seconds_per_epoch=statistics.median(epoch.seconds["training"] for epoch in recorder.epochs),
        peak_memory=memory,
        parameters=parameter_counts(workload.model()),
        facts={**splits.facts, **pairing_facts(splits.train), SET: facts},
    )


def _make_optimizer(resolved: ResolvedFrontRun) -> Callable[[Any], torch.optim.Optimizer]:
    run = resolved.run
    name = run.optimizer
    if name in searches() or issubclass(optimizers().get(name, torch.optim.SGD), MultiTaskOptimizer):
        raise ValueError(
            f"the optimizer {name} uses the losses of a single model: train a front with an optimizer such as Adam or SGD"
        )
    return find_optimizer(name, run.optimizer_options, device=resolved.device)


def _schedule(run: Run, steps: int) -> Callable[[float], float] | None:
    """The factor of the learning rate by progress in [0, 1); None for a constant rate."""
    if run.schedule == "constant" and not run.warmup:
        return None
    schedule = Schedule(torch.optim.SGD([torch.zeros(1)], lr=1.0), run.schedule, run.warmup, steps, run.epochs)
    return lambda progress: schedule.factor(round(progress * steps))


def _reference(resolved: ResolvedFrontRun, splits: Splits) -> tuple[float, ...]:
    """(T,) reference point of the hypervolume; by default a tenth above the losses of an untrained model."""
    workload, run = resolved.workload, resolved.run
    tasks, truth = workload.tasks, workload.truth
    if resolved.options.reference is not None:
        return tuple(map(float, resolved.options.reference))
    if truth is not None:
        return tuple(truth.reference)
    torch.manual_seed(run.seed)
    losses, _ = score(workload, workload.model(), splits.validation, run.batch_size)
    missing = [task for task, loss in zip(tasks, losses.tolist(), strict=True) if not math.isfinite(loss)]
    if missing:
        raise ValueError(
            f"an untrained model has no finite loss on the validation data of {', '.join(missing)}: give a reference, "
            f"one value above the losses of interest for each of {tasks}"
        )
    return tuple(_round_up(loss + MARGIN * abs(loss)) for loss in losses.tolist())


def _largest_hypervolume(workload: Workload, reference: Sequence[float]) -> float | None:
    truth = workload.truth
    return truth.hypervolume if truth is not None and tuple(truth.reference) == tuple(reference) else None


def _test_scores(
    resolved: ResolvedFrontRun, front: Front, splits: Splits
) -> list[tuple[Tensor, dict[str, dict[str, float]]]]:
    """The test losses and metrics of each model."""
    streams = splits.to(resolved.device).test
    models = (front.model(member).to(resolved.device) for member in range(len(front)))
    return [score(resolved.workload, model, streams, resolved.run.batch_size) for model in models]


def _round_up(value: float) -> float:
    """Rounds up to two significant digits.

    Example:
        >>> _round_up(2.3026), _round_up(817.0)
        (2.4, 820.0)
    """
    if value == 0:
        return 0.0
    unit = 10.0 ** (math.floor(math.log10(abs(value))) - 1)
    return float(f"{math.ceil(value / unit) * unit:.6g}")
