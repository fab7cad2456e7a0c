"""Public base of the line searches on a network."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import ExitStack
from operator import attrgetter
from typing import Any

from torch import Tensor, nn

from paretorch.core import checks
from paretorch.core.contract import Balance, Method
from paretorch.core.method.runner import MethodRunner, Scale
from paretorch.former_names import warn_renamed
from paretorch.linesearch.contract import Step
from paretorch.linesearch.loss_values import LossesOf, checked_losses
from paretorch.linesearch.parts import SearchParts, SearchState, initial_state
from paretorch.linesearch.stored_state import packed, undo_of_method, unpacked

_PARTS = ("encoder", "heads", "shared", "rules", "max_step", "bound", "direction", "accept", "verify")
FORMER_ATTRIBUTES = {name: f"parts.{name}" for name in _PARTS} | {
    "own": "parts.head_parameters",
    "units": "parts.scaling",
}


class LineSearch(ABC):
    """A search that moves the parameters of an encoder and its heads by a step that it finds.

    Args:
        parts: encoder, heads, rules and options.
        method: the balancing method, which needs one batch, before the step alone.
        scale: of its weights, ``"calibrated"`` or ``"paper"``.
        seed: of its random draws.

    Attributes:
        tasks: declared names, of the heads or of the first losses.
        steps: number of steps taken, refused ones included.
        last: result of the last step; None before the first.
    """

    def __init__(self, parts: SearchParts, method: Method[Any], scale: Scale, seed: int) -> None:
        self.parts = parts
        self.runner = MethodRunner(method, scale=scale, seed=seed, owner=type(self).__name__)
        if method.batches > 1 or method.observes:
            raise ValueError(
                f"a line search takes a method that needs one batch before the step, {method} does not: use it in a Fork or "
                "Balancer"
            )
        self.last: Step | None = None
        self.state: SearchState = initial_state(parts, ())
        if isinstance(parts.heads, nn.ModuleDict):
            self.declare(tuple(parts.heads))

    def __getattr__(self, name: str) -> Any:
        """Attributes by their former names, with a warning."""
        if name not in FORMER_ATTRIBUTES:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        kind, place = type(self).__name__, FORMER_ATTRIBUTES[name]
        warn_renamed(f"{kind}.{name}", f"{kind}.{place}")
        return attrgetter(place)(self)

    @abstractmethod
    def step(self, x: Any, losses_of: LossesOf) -> Step:
        """Moves the parameters by one step on a batch.

        Args:
            x: input of the encoder.
            losses_of: features -> scalar losses by task, through the heads; an absent task is omitted, or None. It is called
                again for every trial, with the same random draws.

        Returns:
            The result of the step.

        Raises:
            ValueError: losses of unknown tasks, that are not scalars, or that do not come from the features given.
            FloatingPointError: a loss or gradient is not finite.

        After any exception, of ``losses_of`` or KeyboardInterrupt too, the parameters, the buffers, and the states of the search,
        of its direction and of its method are those before the step. Random numbers that the forward drew are not restored.
        """

    def follow_requires_grad(self) -> bool:
        """Takes the parameters that require grad now, which may be others than in the last step; returns whether they are.

        A metric and a bound that were found for others start anew.

        Raises:
            ValueError: no parameter of the encoder requires grad.
        """
        parts = self.parts.following()
        if parts is self.parts:
            return False
        self.parts = parts
        self.parts.direction.restart()
        if parts.max_step is None:
            self.state = self.state.forget_bound()
        return True

    def undo_on_error(self) -> ExitStack:
        """Restores, when it is closed, the present state of the search, its direction and its method.

        As a context around a step it does so on an exception. What else the step changes is added with ``callback`` before the
        change; ``pop_all()`` at the end of the step confirms it.
        """
        undo = ExitStack()
        undo.callback(self.__dict__.update, parts=self.parts, state=self.state, last=self.last)
        undo.callback(undo_of_method(self.runner))
        undo.callback(self.parts.direction.undo())
        return undo

    def end_epoch(self) -> str:
        """Updates the rules that count epochs.

        Returns:
            The reason for a decrease of the bound; empty where there is none.
        """
        if not self.tasks:
            return ""
        self.runner.end_epoch()
        bound, reason = self.parts.bound.end_epoch(self.state.bound)
        self.state = self.state._replace(rules=self.parts.rules.end_epoch(self.state.rules), bound=bound)
        return reason

    @property
    def tasks(self) -> tuple[str, ...]:
        """Declared names; empty before they are known."""
        return self.state.tasks

    @property
    def steps(self) -> int:
        """Number of steps taken, refused ones included."""
        return self.state.steps

    @property
    def balance(self) -> Balance | None:
        """The method's last result."""
        return self.runner.balance

    def declared(self, losses: Mapping[str, Tensor | None]) -> dict[str, Tensor]:
        """The losses of the present tasks, checked; the first losses declare the tasks where the heads did not."""
        if not self.tasks and (present := checks.present_losses(losses, "losses_of")):
            self.declare(checks.checked_task_names(present))
        return checked_losses(losses, self.tasks)

    def declare(self, tasks: tuple[str, ...]) -> None:
        """Fixes the tasks; the state becomes that before the first step."""
        state = self.runner.state
        if tasks != state.tasks:
            if state.tasks:
                state.undeclare()
                self.runner.record(None)
            state.declare(checks.checked_task_names(tasks))
        self.state = initial_state(self.parts, tasks)._replace(steps=self.steps)

    def state_dict(self) -> dict[str, Any]:
        """What a resumed search needs in addition to the model's parameters: plain values and tensors."""
        state, known = self.state, bool(self.tasks)
        return {
            "tasks": state.tasks,
            "steps": state.steps,
            "method": self.runner.state_dict(),
            "search": packed(state.rules) if known else None,
            "bound": packed(state.bound) if known else None,
            "units": packed(state.scaling) if known else None,
            "direction": self.parts.direction.state_dict(),
        }

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Restores the state.

        Raises:
            ValueError: the state is of other tasks.
        """
        tasks = tuple(state_dict["tasks"])
        if self.tasks and set(tasks) != set(self.tasks):
            raise ValueError(f"the stored state is of the tasks {tasks}, this {type(self).__name__} has {self.tasks}")
        if tasks and tasks != self.tasks:
            self.declare(tasks)
        self.state = self.state._replace(steps=int(state_dict["steps"]))
        if tasks:
            self.state = self.state._replace(
                rules=unpacked(self.state.rules, state_dict["search"]),
                bound=unpacked(self.state.bound, state_dict["bound"]),
                scaling=unpacked(self.state.scaling, state_dict["units"]),
            )
        self.runner.load_state_dict(state_dict["method"])
        self.parts.direction.load_state_dict(dict(state_dict["direction"]))
