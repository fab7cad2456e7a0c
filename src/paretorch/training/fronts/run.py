"""A run that trains a front: names -> algorithm and preferences, and the files of a run."""

from __future__ import annotations

import math
import shutil
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from paretorch.optim import MultiTaskOptimizer
from paretorch.pareto import Front, FrontAlgorithm, fit_front
from paretorch.pareto.files.front_folder import FORMAT
from paretorch.pareto.fitting.epochs import epochs_kept
from paretorch.pareto.hypervolume import check_reference
from paretorch.pareto.models.members import score
from paretorch.storage import atomic
from paretorch.storage.ownership import check_front
from paretorch.training import randomness
from paretorch.training.fronts.algorithms import find_algorithm
from paretorch.training.fronts.epochs import SET, VOLUME, Follow, set_scores
from paretorch.training.fronts.open_front import RUN, example_inputs, load_front, workload_of
from paretorch.training.fronts.options import FrontOptions, options_of
from paretorch.training.line_search import searches
from paretorch.training.monitoring.progress import Progress, Show, Shown
from paretorch.training.names.workloads import find_workload
from paretorch.training.parts import find_device, find_optimizer, optimizers, parameter_counts
from paretorch.training.record import machine
from paretorch.training.record.record import Record, finished
from paretorch.training.record.result import Result, Scores
from paretorch.training.run import Plain, Run
from paretorch.training.schedule import Schedule
from paretorch.training.workload_checks import check_losses, data_of, metrics_of, trained_model
from paretorch.workloads.base import Workload
from paretorch.workloads.streams import Splits, steps_per_epoch

__all__ = ["check", "example_inputs", "load_front", "train_front", "workload_of"]

KEPT = "checkpoint"  # where a training that was killed goes on
BEYOND = 0.1  # a task that a model neglects ends a little above where it began
UNUSED: Mapping[str, Plain | tuple[str, ...]] = {
    "method": "Equal()", "surface": "features", "door": {}, "precision": "float32", "clip": None, "tasks": (),
}  # fmt: skip


def train_front(run: Run, folder: Path, *, progress: Show = "auto") -> Result:
    """Trains a run's front in its folder, or returns the result where it is finished.

    Beside the files of every run, the folder holds the front as ``Front.save`` writes it. A training that was killed goes on
    where it was kept, to the numbers of one that never stopped; an evolution begins again.

    Args:
        run: with ``front``.
        folder: where everything is written; ``result.json`` comes last.
        progress: see :func:`paretorch.training.loop.train`.

    Raises:
        ValueError: a name or option is not known, a field means nothing to a front, or the folder holds another run or a file
            of a front's names that no front wrote.
    """
    if (result := finished(folder, run)) is not None:
        return result
    check_front(folder, FORMAT)
    atomic.check_own(folder / KEPT)
    device = find_device(run.device)
    with randomness.deterministic(run.deterministic), randomness.kept(device):
        workload = find_workload(run.workload, run.options)
        job = _Job(run, workload, find_algorithm(run.front), options_of(run))
        splits = job.check()
        about = {"versions": machine.versions(), "commit": machine.commit(), "machine": machine.machine(device)}
        with Record(folder, run, about) as record, Shown(progress) as shown:
            machine.forget_peak_memory(device)
            result = job.train(splits, record, shown)
            record.finish(result)
        shutil.rmtree(folder / KEPT, ignore_errors=True)
    return result


def check(run: Run) -> None:
    """Refuses what the names and options of a front's run alone exclude; no data are read, and no model is made.

    Raises:
        ValueError: a name or option is not known, or they do not go together.
    """
    job = _Job(run, find_workload(run.workload, run.options), find_algorithm(run.front), options_of(run))
    find_device(run.device)
    job.check_options()
    job.optimizer()


@dataclass(frozen=True)
class _Job:
    """One front to train."""

    run: Run
    workload: Workload
    algorithm: FrontAlgorithm
    options: FrontOptions

    def __post_init__(self) -> None:
        for name, value in UNUSED.items():
            if getattr(self.run, name) != value:
                raise ValueError(
                    f"{name}={getattr(self.run, name)!r} means nothing to a front, which is trained by {self.run.front}: "
                    "leave it out"
                )

    def check_options(self) -> None:
        """Refuses preferences, a reference or metrics that the workload cannot have."""
        self.algorithm.check(self.options.rows(self.workload.tasks), self.workload.tasks)
        if self.options.reference is not None:
            check_reference(self.options.reference, self.workload.tasks)
        metrics_of(self.workload, self.workload.tasks)

    def check(self) -> Splits:
        """The data; refuses what can be refused before a folder is begun.

        Raises:
            ValueError: preferences or a reference that the workload cannot have, or the workload breaks a promise.
        """
        self.check_options()
        with torch.random.fork_rng():
            model = trained_model(self.workload, self.workload.tasks)
        splits = data_of(self.workload)
        check_losses(self.workload, model, splits)
        return splits

    def train(self, splits: Splits, record: Record, shown: Progress) -> Result:
        run, device = self.run, find_device(self.run.device)
        reference = self.reference(splits)
        steps = steps_per_epoch(splits.train, run.batch_size)
        samples = steps * sum(min(run.batch_size, len(stream)) for stream in splits.train)
        kept = None if self.algorithm.evolves else record.folder / KEPT
        done = record.rewind(0 if kept is None else epochs_kept(kept))
        follow = Follow(run, self.workload.tasks, record, shown, steps, samples, done)
        front = fit_front(
            self.workload,
            self.algorithm,
            preferences=self.options.rows(self.workload.tasks),
            epochs=run.epochs,
            batch_size=run.batch_size,
            optimizer=self.optimizer(),
            schedule=self.schedule(steps * run.epochs),
            reference=reference,
            starts=self.options.starts,
            execution=self.options.execution,
            seed=run.seed,
            device=run.device,
            every=1,
            progress=follow,
            checkpoint=kept,
        )
        replace(front, facts={**front.facts, RUN: record.digest}).save(record.folder)
        memory = machine.peak_memory(device)
        tested = self.test(front, splits.to(device), device) if run.test else []
        losses = torch.stack([found for found, _ in tested]) if tested else None
        facts = {
            "algorithm": repr(self.algorithm),
            "preferences": front.preferences.tolist(),
            "reference": list(reference),
            "gradients": [moment.gradients for moment in front.history],
            "losses": front.losses.tolist(),
            "test losses": None if losses is None else losses.tolist(),
            "metrics": list(front.metrics),
            "test metrics": [found for _, found in tested],
            "diverged": list(front.diverged),
            "execution": front.facts.get("execution", "one network"),
            "took something over": front.facts.get("took something over"),
            "largest hypervolume": self.largest(reference),
        }
        return Result(
            run=run,
            tasks=self.workload.tasks,
            history=tuple(follow.epochs),
            validation=follow.epochs[-1].validation,
            test=Scores({}, {}) if losses is None else set_scores(self.workload.tasks, losses, reference),
            higher_is_better={SET: {VOLUME: True}},
            units={SET: {VOLUME: ""}},
            seconds_per_epoch=statistics.median(epoch.seconds["training"] for epoch in follow.epochs),
            peak_memory=memory,
            parameters=parameter_counts(self.workload.model()),
            facts={**splits.facts, SET: facts},
        )

    def optimizer(self) -> Callable[[Any], torch.optim.Optimizer]:
        name = self.run.optimizer
        if name in searches() or issubclass(optimizers().get(name, torch.optim.SGD), MultiTaskOptimizer):
            raise ValueError(
                f"the optimizer {name} decides by the losses of one model: a front is trained by one such as Adam or SGD"
            )
        return find_optimizer(name, self.run.optimizer_options)

    def schedule(self, steps: int) -> Callable[[float], float] | None:
        run = self.run
        if run.schedule == "constant" and not run.warmup:
            return None
        schedule = Schedule(torch.optim.SGD([torch.zeros(1)], lr=1.0), run.schedule, run.warmup, steps, run.epochs)
        return lambda progress: schedule.factor(round(progress * steps))

    def reference(self, splits: Splits) -> tuple[float, ...]:
        """The point that hypervolumes are measured from; by default a tenth beyond an untrained model's losses."""
        tasks, truth = self.workload.tasks, self.workload.truth
        if self.options.reference is not None:
            return tuple(map(float, self.options.reference))
        if truth is not None:
            return tuple(truth.reference)
        torch.manual_seed(self.run.seed)
        losses, _ = score(self.workload, self.workload.model(), splits.validation, self.run.batch_size)
        missing = [task for task, loss in zip(tasks, losses.tolist(), strict=True) if not math.isfinite(loss)]
        if missing:
            raise ValueError(
                f"an untrained model has no finite loss on the validation data of {', '.join(missing)}: give a reference, "
                f"one value above the losses that matter for each of {tasks}"
            )
        return tuple(_rounded_up(loss + BEYOND * abs(loss)) for loss in losses.tolist())

    def largest(self, reference: Sequence[float]) -> float | None:
        truth = self.workload.truth
        return truth.hypervolume if truth is not None and tuple(truth.reference) == tuple(reference) else None

    def test(
        self, front: Front, splits: Splits, device: torch.device
    ) -> list[tuple[Tensor, dict[str, dict[str, float]]]]:
        models = (front.model(member).to(device) for member in range(len(front)))
        return [score(self.workload, model, splits.test, self.run.batch_size) for model in models]


def _rounded_up(value: float) -> float:
    """To two significant digits.

    Example:
        >>> _rounded_up(2.3026), _rounded_up(817.0)
        (2.4, 820.0)
    """
    if value == 0:
        return 0.0
    unit = 10.0 ** (math.floor(math.log10(abs(value))) - 1)
    return float(f"{math.ceil(value / unit) * unit:.6g}")
