"""Fixed parts of a search, and its state between steps."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor, nn

from paretorch.core.option_checks import check_above, check_choice, check_whole
from paretorch.linesearch.armijo.rules import Rules, RulesState
from paretorch.linesearch.bound import BoundState, UpperBound
from paretorch.linesearch.directions.direction_rules import DirectionRule, direction_rule
from paretorch.linesearch.directions.metrics import Metric
from paretorch.linesearch.loss_scaling import LossScaling, LossScalingState

Accept = Literal["both", "heads", "features"]
ACCEPTS = ("both", "heads", "features")
BoundRule = Literal["fixed", "manual", "regression", "sasa"]
Heads = nn.Module | Mapping[str, nn.Module]


@dataclass(frozen=True)
class SearchParts:
    """What a search is made of; the same in every step."""

    encoder: nn.Module  # inputs -> features
    heads: nn.Module  # of all tasks
    shared: list[nn.Parameter]  # the encoder's parameters that require grad
    head_parameters: list[nn.Parameter]  # those of the heads that require grad and are not shared
    rules: Rules  # acceptance condition, trials, first trial
    max_step: float | None  # the given bound of the steps; None: it is found
    bound: UpperBound  # rule that changes the bound
    scaling: LossScaling  # divisors of the losses
    direction: DirectionRule  # makes the direction from the balanced gradient
    accept: Accept  # part of the slopes of which a share is required as decrease
    verify: int  # steps between two records of the true losses after a step; 0: none

    def following(self) -> SearchParts:
        """The parts with the parameters that require grad now; itself where these are the same.

        Raises:
            ValueError: no parameter of the encoder requires grad.
        """
        shared, own = trained_parameters(self.encoder, self.heads)
        if [*map(id, shared), None, *map(id, own)] == [*map(id, self.shared), None, *map(id, self.head_parameters)]:
            return self
        return replace(self, shared=shared, head_parameters=own)

    @property
    def parameters(self) -> list[nn.Parameter]:
        """All parameters that a step moves."""
        return [*self.shared, *self.head_parameters]


def search_parts(
    encoder: nn.Module,
    heads: Heads,
    rules: Rules,
    max_step: float | None,
    bound: UpperBound | BoundRule,
    direction: torch.optim.Optimizer | Metric | None,
    accept: Accept,
    imbalance: float,
    verify: int,
) -> SearchParts:
    """Checks the options of a search and collects its parts.

    Raises:
        ValueError: an option is out of range, or the process is one of several ranks.
    """
    if max_step is not None:
        check_above("max_step, if it is not None,", max_step)
    check_whole("verify, a number of steps or 0 for never,", verify, least=0)
    check_choice("accept", accept, ACCEPTS)
    if not isinstance(encoder, nn.Module):
        raise ValueError(f"encoder is a module, got {type(encoder).__name__}")
    if dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
        raise ValueError(
            "a line search on several ranks would accept a different step on each of them: train in one process, or with a "
            "fixed step and a Fork"
        )
    modules = heads if isinstance(heads, nn.Module) else nn.ModuleDict(dict(heads))
    return SearchParts(
        encoder,
        modules,
        *trained_parameters(encoder, modules),
        rules,
        max_step,
        UpperBound(bound) if isinstance(bound, str) else bound,
        LossScaling(imbalance),
        direction_rule(direction),
        accept,
        verify,
    )


def trained_parameters(encoder: nn.Module, heads: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """The parameters of the encoder that require grad, and those of the heads that are not among them.

    Raises:
        ValueError: no parameter of the encoder requires grad.
    """
    shared = [leaf for leaf in encoder.parameters() if leaf.requires_grad]
    if not shared:
        raise ValueError("the encoder has no parameter that requires grad: nothing is shared or balanced")
    inside = {id(leaf) for leaf in shared}
    return shared, [leaf for leaf in heads.parameters() if leaf.requires_grad and id(leaf) not in inside]


class SearchState(NamedTuple):
    """State of a search between steps."""

    tasks: tuple[str, ...]  # declared names; empty before they are known
    steps: int  # number of steps taken, refused ones included
    rules: RulesState  # state of the rules
    bound: BoundState  # state of the bound
    scaling: LossScalingState  # state of the divisors
    previous_bound: float = math.nan  # largest step allowed in the last step of this process; nan before the first
    differentiates: bool = False  # whether losses contain derivatives, so that trials need a graph
    warned: bool = False  # whether a warning of a rejected step was given

    def divisors(self, tasks: Mapping[str, object] | tuple[str, ...]) -> dict[str, float]:
        """By task, the divisor of its loss in a direction that decreases every loss: a power of two, at least 1."""
        return {task: float(2 ** self.scaling.exponents[self.tasks.index(task)]) for task in tasks}

    def positions(self, tasks: Mapping[str, object]) -> tuple[int, ...]:
        """(T,) indices of tasks among the declared ones."""
        return tuple(self.tasks.index(task) for task in tasks)

    def expected_step(self) -> float:
        """The step that the next search will probably accept; nan before the first."""
        return min(self.rules.last, self.bound.bound) if self.bound.bound > 0 else math.nan

    def forget_bound(self) -> SearchState:
        """The state in which the next step finds the bound again, unless it was given."""
        return self._replace(bound=self.bound.forgotten())


def initial_state(parts: SearchParts, tasks: tuple[str, ...]) -> SearchState:
    """The state before the first step."""
    count, bound = len(tasks), math.nan if parts.max_step is None else parts.max_step
    return SearchState(tasks, 0, parts.rules.init(count), parts.bound.init(count, bound), parts.scaling.init(count))


def changes_bound(parts: SearchParts, state: SearchState) -> bool:
    """Whether this step evaluates true losses to find or review the bound."""
    return math.isnan(state.bound.bound) or parts.bound.needs_review(state.bound)


def verifies(parts: SearchParts, state: SearchState) -> bool:
    """Whether the losses of the whole model after this step are recorded."""
    return parts.verify > 0 and state.steps % parts.verify == 0


def detached(losses: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The losses without their graphs."""
    return {task: loss.detach() for task, loss in losses.items()}
