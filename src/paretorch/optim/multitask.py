"""The base of multi-task optimizers: a torch optimizer that steps from losses by task name."""

from __future__ import annotations

import math
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
from paretorch.core.restoring import RestoredOnError
from paretorch.optim.per_task.gradients import TaskGradients, clipped, gradients_of
from paretorch.optim.per_task.step import Losses, TaskStep, UpdateRule, task_weights

GivenLosses = Mapping[str, Tensor | None]
ADDED = {"differentiable"}  # to the defaults of an optimizer, by torch, when it loads a state


class MultiTaskOptimizer(torch.optim.Optimizer):
    """An optimizer whose ``step(losses)`` computes the gradient of each task and applies an update rule to them.

    ``step`` runs one backward pass per loss and moves the parameters; it does not change ``.grad``, and needs neither
    ``zero_grad()`` nor ``backward()``. Parameter groups, ``state_dict``, hooks and schedulers are those of torch.

    * A task is absent if its loss is missing or None, or if its gradient is zero everywhere: its state is unchanged.
    * A non-finite gradient raises FloatingPointError before anything is changed. Rules that normalize lengths need no loss
      scaling for float16; train in bfloat16, or unscaled.
    * On several ranks gradients are averaged over ``group``, with or without DistributedDataParallel around the model.

    Args:
        params: parameters or parameter groups.
        defaults: the options of a group, among them lr, betas, eps, weights and weight_decay.
        rule: how the gradients of the tasks move the parameters.
        tasks: names in the order that formulas use; by default the order in which losses first occur.
        max_norm: clip each task's gradient, over all parameters, to this length.
        group: ranks whose losses are averaged: ``"all"`` if torch.distributed is initialised, a process group, or None.
    """

    def __init__(
        self,
        params: Any,
        defaults: dict[str, Any],
        rule: UpdateRule,
        *,
        tasks: Iterable[str] | None,
        max_norm: float | None,
        group: dist.ProcessGroup | str | None = ALL,
    ) -> None:
        named = () if tasks is None else checks.checked_task_names(tasks)
        if max_norm is not None and not max_norm > 0:
            raise ValueError(f"max_norm is above 0, or None, got {max_norm!r}")
        # in the groups, which every tool that saves an optimizer saves
        known = {"tasks": named, "declared": tasks is not None, "max_norm": max_norm}
        self.ranks, self.rule = Ranks(group), rule
        allow_repeated_backwards()
        super().__init__(params, defaults | known)
        for options in self.param_groups:
            self._check_group(options)

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "ranks": self.ranks, "rule": self.rule}

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Adds a group of parameters; options that it lacks are the defaults."""
        super().add_param_group(param_group)
        self.param_groups[-1]["tasks"] = self.param_groups[0]["tasks"]

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Loads a state.

        Raises:
            ValueError: it belongs to another optimizer.
        """
        for group in state_dict["param_groups"]:
            missing = sorted(self.defaults.keys() - group.keys() - ADDED)
            if missing or len(group["betas"]) != len(self.defaults["betas"]):
                what = f"has no {', '.join(missing)}" if missing else f"has {len(group['betas'])} betas"
                raise ValueError(f"the stored state is of another optimizer than {type(self).__name__}: it {what}")
        super().load_state_dict(state_dict)

    @property
    def tasks(self) -> tuple[str, ...]:
        """The declared tasks, or those of the losses so far, in order."""
        return tuple(self.param_groups[0]["tasks"])

    @property
    def balance(self) -> Balance | None:
        """The result of the balancing method in the last step; None for optimizers without one."""
        return None

    def end_epoch(self) -> None:
        """Notifies a balancing method that depends on epochs of the end of one."""

    def step(  # type: ignore[override]
        self,
        losses: GivenLosses | Callable[[], GivenLosses] | None = None,
        closure: Callable[[], GivenLosses] | None = None,
    ) -> GivenLosses | None:
        """Moves the parameters by the gradients of ``losses``.

        Args:
            losses: scalars with a graph, by task name; absent tasks are missing or None.
            closure: returns the losses instead.

        Returns:
            The result of the closure; None without one.

        Raises:
            ValueError: a name is unknown, or a loss is not a scalar with a graph.
            FloatingPointError: a gradient is not finite; parameters and state are unchanged.
        """
        with RestoredOnError(), torch.no_grad():
            return self._step(losses, closure)

    def _step(
        self,
        losses: GivenLosses | Callable[[], GivenLosses] | None,
        closure: Callable[[], GivenLosses] | None,
    ) -> GivenLosses | None:
        if callable(losses):
            losses, closure = None, losses
        if (losses is None) == (closure is None):
            raise ValueError(
                f"{type(self).__name__}.step takes the losses by task name, step(losses), or a closure that returns them"
            )
        with torch.enable_grad():
            computed = closure() if closure is not None else losses
            assert computed is not None
            given = checks.present_losses(computed, f"{type(self).__name__}.step")
        before = [(group, group["tasks"]) for group in self.param_groups]
        try:
            self._register_tasks(given)
            if given or self.ranks.size > 1:
                self._update(given)
        except (ValueError, FloatingPointError):  # a step that is refused registers no task
            for group, tasks in before:
                group["tasks"] = tasks
            raise
        return computed if closure is not None else None

    def _update(self, losses: Losses) -> None:
        """One step of the rule, from checked losses."""
        rule = self.rule
        if rule.check is not None:
            rule.check((parameter for group in self.param_groups for parameter in group["params"]), type(self).__name__)
        given = losses
        if rule.losses is not None:
            losses = rule.losses(losses, self.param_groups[0], self._count_present(losses))
        try:
            parameters, gradients = self._gradients(losses, self.tasks if rule.rows is None else rule.rows)
        except FloatingPointError as error:
            if rule.rows is None:
                raise
            raise FloatingPointError(_not_finite(given)) from error
        rule.update(TaskStep(parameters, list(self._groups(parameters)), gradients, self.tasks, self.state))

    def _count_present(self, losses: Losses) -> int:
        """The number of tasks that have a loss on any rank."""
        if self.ranks.size == 1:
            return len(losses)
        here = torch.tensor([float(task in losses) for task in self.tasks])
        return int((self.ranks.sum(here) > 0).sum())

    def _gradients(self, losses: Mapping[str, Tensor], names: Sequence[str]) -> tuple[list[Tensor], TaskGradients]:
        """The parameters that require grad, and the gradients of the losses."""
        parameters = [parameter for group in self.param_groups for parameter in group["params"]]
        wanted = [parameter for parameter in parameters if parameter.requires_grad]
        if not wanted:
            raise ValueError(f"{type(self).__name__} has no parameter that requires grad: unfreeze some")
        if self.ranks.size > 1:
            graph = task_graph([[loss] for loss in losses.values()] if self.ranks.sharded_modules else [])
            check_whole(wanted, graph, self.ranks, type(self).__name__)
        found = gradients_of(losses, wanted, names, self.ranks)
        return wanted, clipped(found, self.param_groups[0]["max_norm"])

    def _register_tasks(self, given: Mapping[str, Tensor]) -> None:
        """Checks the names; if no tasks are declared, appends new ones to the order."""
        options = self.param_groups[0]
        if options["declared"]:
            checks.check_known_tasks(given, self.tasks, f"{type(self).__name__}.step")
        new = [name for name in checks.checked_task_names(given) if name not in self.tasks] if given else []
        if self.ranks.size > 1:
            self.ranks.agree_on_tasks(self.tasks if options["declared"] else (), type(self).__name__)
            for names in self.ranks.gathered(tuple(new)):
                new += [name for name in names if name not in new]  # type: ignore[attr-defined]
            new.sort()  # all ranks have the same set, in different orders
        if new:
            for group in self.param_groups:
                group["tasks"] = (*self.tasks, *new) if group is options else options["tasks"]
        if options["tasks"]:
            for group in self.param_groups:
                task_weights(group["weights"], self.tasks)

    def _check_group(self, options: Mapping[str, Any]) -> None:
        """Refuses options that are out of range."""
        name = type(self).__name__
        for option in ("lr", "eps", "weight_decay"):
            if not float(options[option]) >= 0 or math.isinf(float(options[option])):
                raise ValueError(f"{name}: {option} is a finite number, at least 0, got {options[option]}")
        if not all(0 <= beta < 1 for beta in options["betas"]):
            raise ValueError(f"{name}: betas are numbers in [0, 1), got {options['betas']}")
        if options["declared"]:
            weights = options["weights"]
            task_weights(weights, tuple(options["tasks"]))
            if isinstance(weights, Mapping):
                checks.check_known_tasks(weights, tuple(options["tasks"]), f"{name}: weights")

    def _groups(self, parameters: Sequence[Tensor]) -> Iterator[tuple[dict[str, Any], list[int]]]:
        """Each group with the indices of its parameters in ``parameters``."""
        places = {id(parameter): place for place, parameter in enumerate(parameters)}
        for group in self.param_groups:
            yield group, [places[id(parameter)] for parameter in group["params"] if id(parameter) in places]


def _not_finite(losses: Losses) -> str:
    """The message where the mean of these losses, or its gradient, is not finite."""
    broken = [task for task, loss in losses.items() if not bool(loss.isfinite())]
    what = f"the loss of {', '.join(map(repr, broken))}" if broken else f"a gradient of {', '.join(map(repr, losses))}"
    cure = "Check inputs and targets for inf or nan, or use a smaller step"
    return f"{what} is not finite; parameters and state are unchanged. {cure}"
