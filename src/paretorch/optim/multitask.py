"""What multi-task optimizers share: the face of torch.optim, steps from losses by name, and a memory for every task."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from paretorch.core import checks
from paretorch.core.balancer.shared_parameters import check_whole
from paretorch.core.contract import Balance
from paretorch.core.gradients.engine import allow_repeated_backwards
from paretorch.core.gradients.graph import task_graph
from paretorch.core.gradients.ranks import ALL, Ranks
from paretorch.optim.per_task.gradients import TaskGradients, clipped, gradients_of

Losses = Mapping[str, Tensor | None]
Weights = Mapping[str, float] | Sequence[float] | None


class MultiTaskOptimizer(torch.optim.Optimizer):
    """An optimizer whose ``step(losses)`` takes the gradient of each task by itself. Not made directly.

    ``step`` runs one backward per loss and moves the parameters; it leaves ``.grad`` alone, and needs neither
    ``zero_grad()`` nor ``backward()``. All else is torch's: parameter groups, ``state_dict``, hooks, schedulers.

    * A task that is left out, None, or whose gradient is zero everywhere is absent: its memory waits.
    * A gradient that is not finite raises FloatingPointError before anything is changed. Losses scaled for float16 are not
      needed where lengths are normalised; train in bfloat16, or unscaled.
    * On several ranks gradients are averaged over ``group``, with or without DistributedDataParallel around the model.

    Args:
        params: parameters or parameter groups.
        defaults: the options of a group.
        tasks: names in a fixed order, which alone matters where a formula speaks of the first task; by default those of
            the losses as they come.
        max_norm: shorten each task's gradient, over all parameters, to this length.
        group: ranks whose losses are averaged: ``"all"`` where torch.distributed is initialised, a process group, or None.
    """

    def __init__(
        self,
        params: Any,
        defaults: dict[str, Any],
        *,
        tasks: Iterable[str] | None,
        max_norm: float | None,
        group: dist.ProcessGroup | str | None = ALL,
    ) -> None:
        named = () if tasks is None else checks.task_names(tasks)
        if max_norm is not None and not max_norm > 0:
            raise ValueError(f"max_norm is above 0, or None, got {max_norm}")
        # kept in the groups, where every tool that saves an optimizer saves them
        known = {"tasks": named, "declared": tasks is not None, "max_norm": max_norm}
        self.ranks = Ranks(group)
        allow_repeated_backwards()
        super().__init__(params, defaults | known)
        for options in self.param_groups:
            self._check_group(options)

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "ranks": self.ranks}

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Adds a group of parameters, with options of its own where they are given."""
        super().add_param_group(param_group)
        self.param_groups[-1]["tasks"] = self.param_groups[0]["tasks"]

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes the state back.

        Raises:
            ValueError: it is of another optimizer.
        """
        for group in state_dict["param_groups"]:
            missing = sorted(self.defaults.keys() - group.keys())
            if missing or len(group["betas"]) != len(self.defaults["betas"]):
                what = f"has no {', '.join(missing)}" if missing else f"has {len(group['betas'])} betas"
                raise ValueError(f"the stored state is of another optimizer than {type(self).__name__}: it {what}")
        super().load_state_dict(state_dict)

    @property
    def tasks(self) -> tuple[str, ...]:
        """The tasks met so far, or declared, in the order that counts."""
        return tuple(self.param_groups[0]["tasks"])

    @property
    def balance(self) -> Balance | None:
        """What the last step came to, for optimizers that weigh gradients by a balancing method; None for the others."""
        return None

    def end_epoch(self) -> None:
        """Tells a balancing method that counts in epochs that one has ended."""

    @torch.no_grad()
    def step(  # type: ignore[override]
        self,
        losses: Losses | Callable[[], Losses] | None = None,
        closure: Callable[[], Losses] | None = None,
    ) -> Losses | None:
        """Moves the parameters by the gradients of ``losses``.

        Args:
            losses: scalars with a graph, by task name; a task that is absent is left out, or None.
            closure: computes the losses instead.

        Returns:
            what the closure gave; None without one.

        Raises:
            ValueError: on unknown names, and on losses that are not scalars with a graph.
            FloatingPointError: a gradient is not finite; nothing was changed.
        """
        if callable(losses):
            losses, closure = None, losses
        if (losses is None) == (closure is None):
            raise ValueError(
                f"{type(self).__name__}.step takes the losses by task name, step(losses), or a closure that returns them"
            )
        with torch.enable_grad():
            computed = closure() if closure is not None else losses
            assert computed is not None
            given = checks.given_losses(computed, f"{type(self).__name__}.step")
        self._know(given)
        self._take(given)
        return computed if closure is not None else None

    def _take(self, given: Mapping[str, Tensor]) -> None:
        """One step from checked losses."""
        checks.real((parameter for group in self.param_groups for parameter in group["params"]), type(self).__name__)
        parameters, found = self._gradients(given, self.tasks)
        if found.tasks:
            self._update(parameters, found)

    def _gradients(self, losses: Mapping[str, Tensor], names: Sequence[str]) -> tuple[list[Tensor], TaskGradients]:
        """The parameters that require grad, and the gradients of the losses on them."""
        parameters = [parameter for group in self.param_groups for parameter in group["params"]]
        wanted = [parameter for parameter in parameters if parameter.requires_grad]
        if not wanted:
            raise ValueError(f"{type(self).__name__} has no parameter that requires grad: unfreeze some")
        if self.ranks.size > 1:
            graph = task_graph([[loss] for loss in losses.values()] if self.ranks.sharded_modules else [])
            check_whole(wanted, graph, self.ranks, type(self).__name__)
        found = gradients_of(losses, wanted, names, self.ranks)
        return wanted, clipped(found, self.param_groups[0]["max_norm"])

    @abstractmethod
    def _update(self, parameters: Sequence[Tensor], gradients: TaskGradients) -> None:
        """Moves the parameters; their places are those of the gradients."""

    def _know(self, given: Mapping[str, Tensor]) -> None:
        """Check the names; without declared tasks the new ones are added at the end of the order."""
        options = self.param_groups[0]
        if options["declared"]:
            checks.known_tasks(given, self.tasks, f"{type(self).__name__}.step")
        new = [name for name in checks.task_names(given) if name not in self.tasks] if given else []
        if self.ranks.size > 1:
            self.ranks.agree_on_tasks(self.tasks if options["declared"] else (), type(self).__name__)
            for names in self.ranks.gathered(tuple(new)):
                new += [name for name in names if name not in new]  # type: ignore[attr-defined]
            new.sort()  # every rank has the same set, each in an order of its own
        if new:
            for group in self.param_groups:
                group["tasks"] = (*self.tasks, *new) if group is options else options["tasks"]
        if options["tasks"]:
            for group in self.param_groups:
                shares(group["weights"], self.tasks)

    def _check_group(self, options: Mapping[str, Any]) -> None:
        """Refuse options that no step could use."""
        name = type(self).__name__
        for option in ("lr", "eps", "weight_decay"):
            if not float(options[option]) >= 0 or math.isinf(float(options[option])):
                raise ValueError(f"{name}: {option} is a finite number, at least 0, got {options[option]}")
        if not all(0 <= beta < 1 for beta in options["betas"]):
            raise ValueError(f"{name}: betas are in 0 <= beta < 1, got {options['betas']}")
        if options["declared"]:
            weights = options["weights"]
            shares(weights, tuple(options["tasks"]))
            if isinstance(weights, Mapping):
                checks.known_tasks(weights, tuple(options["tasks"]), f"{name}: weights")

    def _groups(self, parameters: Sequence[Tensor]) -> Iterator[tuple[dict[str, Any], list[int]]]:
        """Each group with the places of its parameters among ``parameters``."""
        places = {id(parameter): place for place, parameter in enumerate(parameters)}
        for group in self.param_groups:
            yield group, [places[id(parameter)] for parameter in group["params"] if id(parameter) in places]


def shares(weights: Weights, tasks: Sequence[str]) -> dict[str, float]:
    """The weight of each task: as given, by name or in the order of the tasks; 1 where none are given.

    Raises:
        ValueError: a task has no weight, one is not above 0, or as many as there are tasks were not given in order.

    Example:
        >>> shares((0.5, 2.0), ("seg", "depth"))
        {'seg': 0.5, 'depth': 2.0}
    """
    if weights is None:
        return dict.fromkeys(tasks, 1.0)
    if isinstance(weights, Mapping):
        if missing := [task for task in tasks if task not in weights]:
            raise ValueError(f"weights: task {missing[0]!r} has none; got weights of {', '.join(map(repr, weights))}")
        found = {task: float(weights[task]) for task in tasks}
    else:
        if len(weights) != len(tasks):
            raise ValueError(f"weights: expected one for each of {tuple(tasks)}, got {tuple(weights)}")
        found = dict(zip(tasks, map(float, weights), strict=True))
    for task, weight in found.items():
        if not (weight > 0 and math.isfinite(weight)):
            raise ValueError(f"weights: task {task!r} has {weight}, expected a finite number above 0")
    return found
