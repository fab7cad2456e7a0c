"""Rules that make the direction from the balanced gradient: a metric, or the step of an optimizer."""

from __future__ import annotations

import copy
import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.autograd import _unsafe_preserve_version_counter  # type: ignore[attr-defined]

from paretorch.core.gradients.task_gradients import Row
from paretorch.linesearch.directions.metrics import Identity, Metric

TORCH_STATE = ("state", "param_groups")  # what the state_dict of every optimizer has


class DirectionRule(ABC):
    """Makes the direction of a step; its metric is that of the common descent direction which replaces it if necessary."""

    needs_tasks = False  # whether it needs each task's gradient on all parameters, in addition to the balanced one
    is_gradient = False  # whether the direction is the balanced gradient

    @property
    @abstractmethod
    def metric(self) -> Metric:
        """The metric of the common descent direction."""

    @property
    def known_metric(self) -> Metric | None:
        """The metric in which the method balances; None where it is not known before the direction is made."""
        return None

    @abstractmethod
    def make(
        self, parameters: Sequence[Tensor], gradient: Row, rows: Mapping[str, Row], losses: Mapping[str, float]
    ) -> list[Tensor | None]:
        """The direction, which is subtracted from the parameters.

        Args:
            parameters: of encoder and heads.
            gradient: balanced on the shared parameters, each task's own on the heads'.
            rows: by task, the gradient on all parameters; empty unless ``needs_tasks``.
            losses: by task.
        """

    @abstractmethod
    def undo(self) -> Callable[[], None]:
        """A function that restores the present state after an interrupted step."""

    @abstractmethod
    def restart(self) -> None:
        """Discards what belongs to the parameters of the steps before, where other parameters follow."""

    def state_dict(self) -> dict[str, Any]:
        """The state, as plain values and tensors."""
        return {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restores the state."""
        del state_dict


class MetricDirection(DirectionRule):
    """M^-1 times the balanced gradient."""

    def __init__(self, metric: Metric) -> None:
        self._metric, self._first = metric, metric.snapshot()
        self.needs_tasks = metric.needs_tasks
        self.is_gradient = isinstance(metric, Identity)

    @property
    def metric(self) -> Metric:
        """M."""
        return self._metric

    @property
    def known_metric(self) -> Metric:
        """M before this step."""
        return self._metric

    def make(
        self, parameters: Sequence[Tensor], gradient: Row, rows: Mapping[str, Row], losses: Mapping[str, float]
    ) -> list[Tensor | None]:
        """M^-1 times the gradient, after M is updated by it."""
        del parameters, losses, rows
        self._metric.learn(gradient)
        return self._metric.inverse(gradient)

    def undo(self) -> Callable[[], None]:
        """Restores the state of the metric."""
        return partial(self._metric.load_state_dict, self._metric.snapshot())

    def restart(self) -> None:
        """Restores the state that the metric was given with; it belongs to places among the parameters."""
        self._metric.load_state_dict(copy.deepcopy(self._first))

    def state_dict(self) -> dict[str, Any]:
        """The state of the metric."""
        return self._metric.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restores the state of the metric."""
        self._metric.load_state_dict(state_dict)


class OptimizerDirection(DirectionRule):
    """The step of an optimizer from the balanced gradient, divided by its learning rate; the parameters are restored.

    Args:
        optimizer: of torch.optim, or another with a ``step()`` that uses ``.grad``; or one with a ``step(losses)`` that
            differentiates every loss. Its moments advance in every step, accepted or not.

    Raises:
        ValueError: its step needs a closure, or its learning rate is zero.
    """

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self.optimizer = optimizer
        self._last: list[Tensor] = []
        self._moved: list[tuple[Tensor, Tensor, Tensor | None]] = []  # during a step: parameter, value, .grad before
        options = inspect.signature(optimizer.step).parameters
        self.needs_tasks = "losses" in options
        if not self.needs_tasks and "closure" in options and options["closure"].default is inspect.Parameter.empty:
            raise ValueError(
                f"{type(optimizer).__name__} evaluates a closure several times in a step and searches by itself: use an "
                "optimizer whose step() needs no closure, or direction=LBFGS()"
            )
        if not self._rate() > 0:
            raise ValueError(
                f"the direction is the optimizer's step over its learning rate, which must be above 0: {optimizer}"
            )

    @property
    def metric(self) -> Metric:
        """The diagonal of an adaptive optimizer, from its state; 1 where it has none."""
        return _DiagonalMetric(self.optimizer, self._last)

    def make(
        self, parameters: Sequence[Tensor], gradient: Row, rows: Mapping[str, Row], losses: Mapping[str, float]
    ) -> list[Tensor | None]:
        """The step over the learning rate of the first group; the other groups keep their ratios to it."""
        self._last = list(parameters)
        before = [leaf.detach().clone() for leaf in parameters]
        self._moved = [(leaf, value, leaf.grad) for leaf, value in zip(parameters, before, strict=True)]
        # The graph of this step's forward is needed later; versions are kept, since every value is restored.
        with _unsafe_preserve_version_counter(tuple(parameters)):
            self._step(parameters, gradient, rows, losses)
            with torch.no_grad():
                direction: list[Tensor | None] = [
                    (old - leaf) / self._rate() for old, leaf in zip(before, parameters, strict=True)
                ]
            self._restore()
        return direction

    def restart(self) -> None:
        """Keeps the optimizer's state, which belongs to parameters by themselves."""

    def _restore(self) -> None:
        """Restores what the optimizer's step has changed of the parameters; an interrupted step is restored by :meth:`undo`."""
        with torch.no_grad():
            for leaf, value, gradient in self._moved:
                leaf.copy_(value)
                leaf.grad = gradient
        self._moved = []

    def _step(
        self, parameters: Sequence[Tensor], gradient: Row, rows: Mapping[str, Row], losses: Mapping[str, float]
    ) -> None:
        if self.needs_tasks:
            step: Callable[[Mapping[str, Tensor]], object] = self.optimizer.step  # type: ignore[assignment]
            step(_with_gradients(parameters, rows, losses))
            return
        for leaf, part in zip(parameters, gradient, strict=True):
            leaf.grad = None if part is None else part.detach().clone()
        self.optimizer.step()

    def undo(self) -> Callable[[], None]:
        """Restores the state, which is copied here, the groups and the attributes; and what else an own ``state_dict`` has."""
        optimizer = self.optimizer
        attributes, state, groups = dict(vars(optimizer)), optimizer.state, optimizer.param_groups
        values = {leaf: _copied(each) for leaf, each in state.items()}
        options = [(each, dict(each)) for each in (optimizer.defaults, *groups)]
        own: dict[str, Any] = {}  # of a state elsewhere
        if type(optimizer).state_dict is not torch.optim.Optimizer.state_dict:
            own = {
                name: copy.deepcopy(each) for name, each in optimizer.state_dict().items() if name not in TORCH_STATE
            }

        def undo() -> None:
            self._restore()
            if own:
                optimizer.load_state_dict({**optimizer.state_dict(), **own})
            for name in vars(optimizer).keys() - attributes.keys():
                delattr(optimizer, name)
            vars(optimizer).update(attributes)
            state.clear()
            state.update(values)
            for each, before in options:
                each.clear()
                each.update(before)

        return undo

    def state_dict(self) -> dict[str, Any]:
        """The state of the optimizer."""
        return self.optimizer.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restores the state of the optimizer."""
        self.optimizer.load_state_dict(state_dict)

    def _rate(self) -> float:
        return float(self.optimizer.param_groups[0]["lr"])


class _DiagonalMetric(Metric):
    """The diagonal sqrt(v) + eps of an adaptive optimizer; v has one of the names of torch.optim in its state."""

    def __init__(self, optimizer: torch.optim.Optimizer, parameters: Sequence[Tensor]) -> None:
        options = {id(leaf): group for group in optimizer.param_groups for leaf in group["params"]}
        self.roots = [_root(optimizer.state.get(leaf, {}), options.get(id(leaf), {})) for leaf in parameters]

    def inverse(self, gradient: Row) -> list[Tensor | None]:
        """The gradient over the diagonal."""
        return [
            part if part is None or root is None else part / root
            for part, root in zip(gradient, self.roots, strict=True)
        ]


def _root(state: Mapping[str, Any], options: Mapping[str, Any]) -> Tensor | None:
    second = next((state[name] for name in ("exp_avg_sq", "square_avg", "sum") if name in state), None)
    if second is None:
        return None
    if "exp_avg_sq" in state:
        taken = float(state.get("step", state.get("taken", 0)))
        beta = options["betas"][1]
        second = second / (1 - beta**taken) if taken > 0 else second
    root: Tensor = second.sqrt().add_(float(options.get("eps", 1e-8)))
    return root.clamp_min_(1e-30)


def _copied(value: Any) -> Any:
    """A copy of a value in an optimizer's state."""
    if isinstance(value, Tensor):
        return value.detach().clone()
    if type(value) is dict:
        return {name: _copied(each) for name, each in value.items()}
    return copy.deepcopy(value)


def _with_gradients(
    parameters: Sequence[Tensor], rows: Mapping[str, Row], losses: Mapping[str, float]
) -> dict[str, Tensor]:
    """Losses with these values and these gradients, for a multi-task optimizer, without the network."""
    made = {}
    with torch.enable_grad():
        for task, row in rows.items():
            products = [
                (leaf * part.detach()).sum() for leaf, part in zip(parameters, row, strict=True) if part is not None
            ]
            total = torch.stack(products).sum()
            made[task] = total - total.detach() + losses[task]
    return made


def direction_rule(given: torch.optim.Optimizer | Metric | None) -> DirectionRule:
    """The rule for a search's option ``direction``.

    Raises:
        ValueError: it is neither an optimizer nor a metric.
    """
    if given is None:
        return MetricDirection(Identity())
    if isinstance(given, Metric):
        return MetricDirection(given)
    if isinstance(given, torch.optim.Optimizer):
        return OptimizerDirection(given)
    raise ValueError(f"direction is an optimizer, a metric such as Kronecker(), or None, got {type(given).__name__}")
