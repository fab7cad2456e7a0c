"""Names and plain values -> objects: method, optimizer, door, device, and what a run is made of."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

import paretorch.balance
import paretorch.optim
from paretorch.balance.equal import Equal
from paretorch.core.balancer.balancer import Balancer
from paretorch.core.contract import Method
from paretorch.core.fork.fork import Fork
from paretorch.optim import MultiTaskOptimizer, Preconditioned
from paretorch.training import updates
from paretorch.training.line_search import Searched, make_search, searches
from paretorch.training.names.constructors import Call, check_arguments, parse, pick, unknown
from paretorch.training.names.workloads import find_workload
from paretorch.training.run import Run
from paretorch.training.schedule import Schedule
from paretorch.training.workload_checks import check_losses, data_of, metrics_of, trained_model
from paretorch.workloads.base import MultiTaskModel, Workload, check_head_names
from paretorch.workloads.streams import Splits, steps_per_epoch


@dataclass(frozen=True)
class Parts:
    """What a run is made of.

    Args:
        workload: its data, losses and metrics.
        tasks: the tasks trained.
        splits: the data, on the device, without streams that no task needs.
        model: with the heads of ``tasks`` only.
        optimizer: of the model's parameters.
        door: Fork or Balancer; None for a single task, and where the optimizer takes each task's gradient by itself.
        update: one step.
        schedule: of the learning rate.
    """

    workload: Workload
    tasks: tuple[str, ...]
    splits: Splits
    model: nn.Module
    optimizer: torch.optim.Optimizer
    door: Fork | Balancer | None
    update: updates.Update
    schedule: Schedule

    def end_epoch(self) -> str:
        """Tells what counts in epochs that one has ended; returns why a search's bound was lowered, empty where not."""
        if self.door is not None:
            self.door.end_epoch()
        if isinstance(self.optimizer, MultiTaskOptimizer):
            self.optimizer.end_epoch()
        return self.optimizer.search.end_epoch() if isinstance(self.optimizer, Searched) else ""


def assemble(run: Run) -> Parts:
    """Everything that ``run`` names. The initial weights come from torch's global generator.

    Raises:
        ValueError: a name or an option is not known; the nearest is suggested.
    """
    workload = find_workload(run.workload, run.options)
    tasks = _tasks(workload, run)
    method = find_method(run.method)
    searched = run.optimizer in searches()
    if not searched:
        make_optimizer = find_optimizer(run.optimizer, run.optimizer_options, method, tasks, run.clip)
    device = find_device(run.device)
    model = trained_model(workload, tasks).to(device)
    optimizer = make_search(run, model, method, optimizers()) if searched else make_optimizer(model.parameters())
    metrics_of(workload, tasks)
    splits = data_of(workload).only(tasks).to(device)
    check_losses(workload, model, splits)
    if splits.test_epochs and not run.test:
        raise ValueError(
            f"{run.workload}: its validation part is the test set, by which nothing may be selected or tuned; give the workload "
            "options with validation data of its own"
        )
    door = _door_beside(run, method, tasks, model, optimizer)
    if door is not None:
        door.to(device)
    update = updates.choose(workload, model, optimizer, door, run.precision, run.clip)
    steps = run.epochs * steps_per_epoch(splits.train, run.batch_size)
    schedule = Schedule(optimizer, run.schedule, run.warmup, steps, run.epochs)
    return Parts(workload, tasks, splits, model, optimizer, door, update, schedule)


def check(run: Run) -> None:
    """Refuses what a run's names and options alone exclude; no data are read, and no model of the workload is made.

    Raises:
        ValueError: a name or option is not known, or they do not go together.
    """
    workload = find_workload(run.workload, run.options)
    tasks = _tasks(workload, run)
    method = find_method(run.method)
    find_device(run.device)
    metrics_of(workload, tasks)
    check_head_names(workload.tasks)
    with torch.random.fork_rng(devices=()):
        model = MultiTaskModel(nn.Linear(1, 1), {f"{place}": nn.Linear(1, 1) for place in range(len(tasks))})
    if run.optimizer in searches():
        make_search(run, model, method, optimizers())
        return
    optimizer = find_optimizer(run.optimizer, run.optimizer_options, method, tasks, run.clip)(model.parameters())
    _door_beside(run, method, tasks, model, optimizer)


def _door_beside(
    run: Run, method: Method[Any], tasks: tuple[str, ...], model: nn.Module, optimizer: torch.optim.Optimizer
) -> Fork | Balancer | None:
    """The Fork or Balancer of a run; None where the optimizer asks for each task's gradient by itself."""
    if isinstance(optimizer, Searched):
        return None
    door = make_door(run, method, tasks, model)
    if not isinstance(optimizer, MultiTaskOptimizer):
        return door
    if run.door:
        raise ValueError(
            f"the optimizer {run.optimizer} takes each task's gradient by itself: options of a Fork or Balancer, "
            f"here {', '.join(run.door)}, mean nothing to it. Leave them out"
        )
    return None


def _tasks(workload: Workload, run: Run) -> tuple[str, ...]:
    for task in run.tasks:
        if task not in workload.tasks:
            raise unknown(f"task of {run.workload}", task, workload.tasks)
    return tuple(task for task in workload.tasks if not run.tasks or task in run.tasks)


def parameter_counts(model: nn.Module) -> dict[str, int]:
    """Trained numbers in the ``encoder``, in the head of each task, and in ``total``."""

    def count(module: nn.Module) -> int:
        return sum(parameter.numel() for parameter in module.parameters() if parameter.requires_grad)

    counts = {f"head {task}": count(head) for task, head in model.heads.items()}  # type: ignore[union-attr, operator]
    return {"encoder": count(model.encoder), **counts, "total": count(model)}  # type: ignore[arg-type]


def make_door(run: Run, method: Method[Any], tasks: tuple[str, ...], model: nn.Module) -> Fork | Balancer | None:
    """The Fork or Balancer of a run; None for a single task, where there is nothing to balance."""
    if len(tasks) == 1:
        return None
    if run.surface == "features":
        options = check_arguments("the door Fork", Fork, (method, tasks), {"seed": run.seed, **run.door})
        return Fork(**options)
    options = check_arguments("the door Balancer", Balancer, (method,), {"tasks": tasks, "seed": run.seed, **run.door})
    return Balancer(**{"shared": model.encoder, **options})


def methods() -> dict[str, type[Method[Any]]]:
    """The balancing methods by name."""
    return {
        name: value
        for name, value in vars(paretorch.balance).items()
        if inspect.isclass(value) and issubclass(value, Method) and value is not Method
    }


def find_method(text: str) -> Method[Any]:
    """The method that ``text`` writes as a constructor, read as a literal.

    Raises:
        ValueError: it is not a constructor with plain values, or its name or an option is not known.

    Example:
        >>> find_method("CAGrad(c=0.25)").c
        0.25
        >>> find_method("MDGA()")
        Traceback (most recent call last):
        ...
        ValueError: unknown method 'MDGA': did you mean 'MGDA'? Known: ...
    """
    return _method(parse(text))


def _method(call: Call) -> Method[Any]:
    made = pick("method", call.name, methods())
    positional = tuple(_method(value) if isinstance(value, Call) else value for value in call.positional)
    named = {name: _method(value) if isinstance(value, Call) else value for name, value in call.named.items()}
    return made(**check_arguments(f"the method {call.name}", made, positional, named))


def optimizers() -> dict[str, type[torch.optim.Optimizer]]:
    """The optimizers by name: those of torch.optim whose step needs no closure, and those of paretorch.optim."""
    torchs = {
        name: value
        for name, value in vars(torch.optim).items()
        if inspect.isclass(value)
        and issubclass(value, torch.optim.Optimizer)
        and value not in (torch.optim.Optimizer, torch.optim.SparseAdam)  # dense gradients are none of the latter's
        and inspect.signature(value.step).parameters["closure"].default is None
    }
    ours = {
        name: value
        for name, value in vars(paretorch.optim).items()
        if inspect.isclass(value) and issubclass(value, MultiTaskOptimizer) and value is not MultiTaskOptimizer
    }
    return torchs | ours


def find_optimizer(
    name: str,
    options: Mapping[str, Any],
    method: Method[Any] | None = None,
    tasks: tuple[str, ...] | None = None,
    clip: float | None = None,
) -> Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]:
    """What makes the optimizer called ``name`` for some parameters.

    Args:
        name: a class of torch.optim or paretorch.optim.
        options: its arguments.
        method: what ``Preconditioned`` balances by; other optimizers that see every task balance by themselves.
        tasks: their names, for those optimizers.
        clip: the length to which those optimizers shorten the gradient of each task, unless the options say it.

    Raises:
        ValueError: the name or an option is not known, or the optimizer and the method both balance.

    Example:
        >>> find_optimizer("SGD", {"lr": 0.1})([nn.Parameter(torch.zeros(1))]).defaults["lr"]
        0.1
    """
    made = pick("optimizer", name, optimizers())
    given: dict[str, Any] = dict(options)
    if issubclass(made, MultiTaskOptimizer):
        given = {"tasks": tasks, "max_norm": clip, **given}
        if made is Preconditioned:
            given["method"] = Equal() if method is None else method
        elif not (method is None or isinstance(method, Equal)):
            raise ValueError(
                f"the optimizer {name} balances by itself, and so does the method {method}: "
                f"leave the method out, or use Preconditioned, which balances by any method"
            )
    check_arguments(f"the optimizer {name}", made, ([],), given)
    try:
        made([nn.Parameter(torch.zeros(1))], **given)
    except (ValueError, TypeError) as error:
        raise ValueError(f"the optimizer {name} does not take {dict(options)}: {error}") from None
    return lambda parameters: made(parameters, **given)


def find_device(name: str) -> torch.device:
    """The device called ``name``.

    Raises:
        ValueError: it is not a device, or not one that this machine and this torch have.
    """
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ValueError(f"device is 'cpu', 'cuda', 'cuda:0' or 'mps', got {name!r}") from None
    there = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if device.type not in there:
        raise ValueError(f"device is 'cpu', 'cuda', 'cuda:0' or 'mps', got {name!r}")
    if not there[device.type] or (device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count()):
        raise ValueError(
            f"device {name!r} is not available: this torch ({torch.__version__}) finds no such device. Use 'cpu'"
        )
    return device
