"""The objects that the names in a run stand for."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from paretorch.core.balancer.balancer import Balancer
from paretorch.core.contract import Method
from paretorch.core.fork.fork import Fork
from paretorch.optim import MultiTaskOptimizer
from paretorch.storage.checkpoint_folder import Checkpoint
from paretorch.training import randomness, updates
from paretorch.training.distributed.ranks import Ranks
from paretorch.training.line_search import LineSearchOptimizer, make_search, searches
from paretorch.training.names.constructors import check_arguments, unknown
from paretorch.training.names.devices import find_device
from paretorch.training.names.methods import find_method
from paretorch.training.names.optimizers import find_optimizer, optimizers
from paretorch.training.names.workloads import find_workload
from paretorch.training.run import Run
from paretorch.training.schedule import Schedule
from paretorch.training.workload_checks import (
    check_losses,
    check_selection,
    checked_tasks,
    data_of,
    metrics_of,
    trained_model,
)
from paretorch.workloads.base import MultiTaskModel, Workload, check_head_names
from paretorch.workloads.streams import Splits, positions_of, restore_positions, steps_per_epoch

STREAMS = "streams"  # the key of the positions of the training streams, next to the states of the random generators


@dataclass(frozen=True)
class ResolvedRun:
    """A run and the objects that it names, made once before the first step.

    Args:
        run: plain values.
        device: of the model and the data.
        workload: data, losses and metrics.
        tasks: (T,) names of the tasks that are trained.
        splits: the data on the device, without streams that no task needs.
        model: with the heads of ``tasks`` only.
        optimizer: of the model's parameters.
        balancer: Fork or Balancer; None for a single task, and with an optimizer that balances by itself.
        update: one step.
        schedule: of the learning rate.
    """

    run: Run
    device: torch.device
    workload: Workload
    tasks: tuple[str, ...]
    splits: Splits
    model: nn.Module
    optimizer: torch.optim.Optimizer
    balancer: Fork | Balancer | None
    update: updates.Update
    schedule: Schedule

    @property
    def is_line_search(self) -> bool:
        """Whether a line search moves the parameters."""
        return isinstance(self.optimizer, LineSearchOptimizer)

    def states(self) -> dict[str, Any]:
        """What a checkpoint stores by part, so that :meth:`restore` continues from it; the tensors are not copied.

        The random generators come with the positions of the training streams, unless the number of the epoch decides them.
        """
        positions = positions_of(self.splits.train)
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "door": {} if self.balancer is None else self.balancer.state_dict(),
            "random": randomness.capture(self.device) | ({STREAMS: positions} if any(positions) else {}),
        }

    def restore(self, found: Checkpoint) -> None:
        """Restores :meth:`states`.

        Raises:
            ValueError: the tensors do not fit; nothing was loaded.
        """
        found.load_into(self.model, self.optimizer, self.balancer)
        randomness.restore(found.states["random"], self.device)
        restore_positions(self.splits.train, found.states["random"].get(STREAMS, ()))

    def end_epoch(self) -> str:
        """Ends an epoch of the method and the line search; returns why a search's bound was lowered, or an empty text."""
        if self.balancer is not None:
            self.balancer.end_epoch()
        if isinstance(self.optimizer, MultiTaskOptimizer):
            self.optimizer.end_epoch()
        return self.optimizer.search.end_epoch() if isinstance(self.optimizer, LineSearchOptimizer) else ""


def resolve(run: Run, ranks: Ranks = updates.ALONE) -> ResolvedRun:
    """Makes all objects that ``run`` names. The initial weights are drawn from torch's global generator.

    Args:
        run: plain values.
        ranks: that train together; the training streams have this rank's share of each batch.

    Raises:
        ValueError: a name or an option is not known, with the nearest one; or the workload is not valid.
    """
    workload = find_workload(run.workload, run.options)
    tasks = _tasks(workload, run)
    method = _method(run)
    _check_surface(run, workload)
    device = find_device(run.device)
    if run.optimizer not in searches():
        make_optimizer = find_optimizer(run.optimizer, run.optimizer_options, method, tasks, run.clip, device)
    model = trained_model(workload, tasks).to(device)
    optimizer: torch.optim.Optimizer
    if run.optimizer in searches():
        optimizer = make_search(run, model, method, optimizers())
    else:
        optimizer = make_optimizer(model.parameters())
    metrics_of(workload, tasks)
    splits = data_of(workload).only(tasks).to(device)
    check_losses(workload, model, splits)
    if splits.test_epochs and not run.test:
        raise ValueError(
            f"{run.workload}: its validation split is the test set, on which nothing may be selected or tuned; give the workload "
            "options with validation data of its own"
        )
    if run.keep == "best":
        check_selection(run.workload, workload, tasks, splits)
    balancer = _balancer_beside(run, method, tasks, model, optimizer)
    if balancer is not None:
        balancer.to(device)
    splits = replace(splits, train=ranks.shares(splits.train))
    update = updates.make_update(workload, model, optimizer, balancer, run.precision, run.clip, ranks)
    steps = run.epochs * steps_per_epoch(splits.train, run.batch_size)
    schedule = Schedule(optimizer, run.schedule, run.warmup, steps, run.epochs)
    return ResolvedRun(run, device, workload, tasks, splits, model, optimizer, balancer, update, schedule)


def combines_tasks(optimizer: str) -> bool:
    """Whether an optimizer of that name combines the tasks by itself: a line search, or a multi-task optimizer."""
    return optimizer in searches() or issubclass(optimizers().get(optimizer, torch.optim.Optimizer), MultiTaskOptimizer)


def check(run: Run) -> None:
    """Checks the names and options of a run; no data are read, and the workload's model is not made.

    Raises:
        ValueError: a name or an option is not known, or two of them exclude each other.
    """
    workload = find_workload(run.workload, run.options)
    tasks = _tasks(workload, run)
    method = _method(run)
    _check_surface(run, workload)
    device = find_device(run.device)
    metrics_of(workload, tasks)
    check_head_names(workload.tasks)
    with torch.random.fork_rng(devices=()):
        model = MultiTaskModel(nn.Linear(1, 1), {f"{index}": nn.Linear(1, 1) for index in range(len(tasks))})
    if run.optimizer in searches():
        make_search(run, model, method, optimizers())
        return
    make_optimizer = find_optimizer(run.optimizer, run.optimizer_options, method, tasks, run.clip, device)
    optimizer = make_optimizer(model.parameters())
    _balancer_beside(run, method, tasks, model, optimizer)


def _method(run: Run) -> Method[Any]:
    """The method of a run.

    Raises:
        ValueError: its constructor is not valid, or it takes several batches per step.
    """
    method = find_method(run.method)
    if method.batches > 1:
        raise ValueError(
            f"{method} takes {method.batches} batches per step, and a run has one: use it in a loop of your own, with "
            "paretorch.Balancer, or train with another method"
        )
    return method


def _check_surface(run: Run, workload: Workload) -> None:
    """Refuses a surface that has no effect, unless the workload's protocol names it for all optimizers."""
    if run.surface not in ("features", workload.protocol.get("surface")) and combines_tasks(run.optimizer):
        raise ValueError(
            f"the optimizer {run.optimizer} combines the tasks by itself, without a Fork or Balancer: "
            f"surface={run.surface!r} has no effect. Leave it out"
        )


def _tasks(workload: Workload, run: Run) -> tuple[str, ...]:
    tasks = checked_tasks(workload)
    for task in run.tasks:
        if task not in tasks:
            raise unknown(f"task of {run.workload}", task, tasks)
    return tuple(task for task in tasks if not run.tasks or task in run.tasks)


def _balancer_beside(
    run: Run, method: Method[Any], tasks: tuple[str, ...], model: nn.Module, optimizer: torch.optim.Optimizer
) -> Fork | Balancer | None:
    """The Fork or Balancer of a run; None for an optimizer that needs none."""
    if isinstance(optimizer, LineSearchOptimizer):
        return None
    if not isinstance(optimizer, MultiTaskOptimizer):
        return _balancer(run, method, tasks, model)
    if run.door:
        raise ValueError(
            f"the optimizer {run.optimizer} uses each task's gradient without a Fork or Balancer: their options, here "
            f"{', '.join(run.door)}, have no effect. Leave them out"
        )
    return None


def _balancer(run: Run, method: Method[Any], tasks: tuple[str, ...], model: nn.Module) -> Fork | Balancer | None:
    """The Fork or Balancer that ``run.surface`` names; None for a single task, which needs no balancing."""
    if len(tasks) == 1:
        return None
    if run.surface == "features":
        options = check_arguments("the Fork", Fork, (method, tasks), {"seed": run.seed, **run.door})
        fork = Fork(**options)
        fork.runner.disable_warning("nonfinite")  # the monitor of the training reports it with the step
        return fork
    options = check_arguments("the Balancer", Balancer, (method,), {"tasks": tasks, "seed": run.seed, **run.door})
    return Balancer(**{"shared": model.encoder, **options})
