"""Line searches of runs, which are named in place of an optimizer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import nn

from paretorch import linesearch
from paretorch.core.contract import Method
from paretorch.linesearch import LineSearch, Metric, UpperBound
from paretorch.optim import MultiTaskOptimizer
from paretorch.training.names.constructors import check_arguments, find_named, parse, subclasses_in
from paretorch.training.names.optimizers import find_optimizer
from paretorch.training.run import Run


class StreamEncoder(nn.Module):
    """An encoder that is called once for each stream of a batch: a tuple of inputs -> a tuple of features."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, inputs: Iterable[Any]) -> tuple[Any, ...]:
        """The features of every stream."""
        return tuple(self.encoder(stream_inputs) for stream_inputs in inputs)


class LineSearchOptimizer(torch.optim.Optimizer):
    """A line search with the interface of an optimizer: it has no learning rate, and its step needs a batch.

    Args:
        search: moves the parameters.
    """

    def __init__(self, search: LineSearch) -> None:
        super().__init__(search.parts.parameters, {"lr": 1.0})
        self.search = search

    def state_dict(self) -> dict[str, Any]:
        """The state of the search."""
        return self.search.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restores the state of the search."""
        self.search.load_state_dict(state_dict)

    def step(self, closure: Any = None) -> Any:
        """Raises an error: :func:`paretorch.training.updates.by_search` calls the search."""
        raise TypeError("a line search moves the parameters by search.step(x, losses_of), not by step()")


def searches() -> dict[str, type[LineSearch]]:
    """The line searches by name."""
    return subclasses_in(linesearch, LineSearch)  # type: ignore[type-abstract]


def make_search(run: Run, model: nn.Module, method: Method[Any], optimizers: Mapping[str, Any]) -> LineSearchOptimizer:
    """The line search that a run names as its optimizer.

    Its options are plain values; ``bound`` and ``direction`` may be written as constructors: ``"UpperBound('manual', every=5)"``,
    ``"Adam(lr=0.001)"``, ``"Kronecker()"``.

    Args:
        run: names the search.
        model: with encoder and heads.
        method: balances the task gradients.
        optimizers: by name, those that may be the direction.

    Raises:
        ValueError: an option is not known or out of range, or has no effect on a line search.
    """
    made = find_named("search", run.optimizer, searches())
    for option, value, default in (
        ("clip", run.clip, None),
        ("schedule", run.schedule, "constant"),
        ("warmup", run.warmup, 0.0),
    ):
        if value != default:
            raise ValueError(
                f"a line search chooses its step size itself: {option}={value!r} has no effect on it. Leave it out"
            )
    if run.door:
        raise ValueError(
            f"{run.optimizer} calls the method itself: options of a Fork or Balancer, here {', '.join(run.door)}, have no "
            "effect. Leave them out"
        )
    if run.precision != "float32":
        raise ValueError(f"a line search compares nearly equal losses: precision is 'float32' with {run.optimizer}")
    encoder, heads = StreamEncoder(model.encoder), model.heads  # type: ignore[arg-type]
    options: dict[str, Any] = {"seed": run.seed, **run.optimizer_options}
    if isinstance(bound := options.get("bound"), str) and "(" in bound:
        call = parse(bound)
        find_named("rule of a bound", call.name, {"UpperBound": UpperBound})
        options["bound"] = UpperBound(**check_arguments(f"the bound {bound}", UpperBound, call.positional, call.named))
    if isinstance(direction := options.get("direction"), str):
        options["direction"] = _direction(direction, [*model.parameters()], optimizers)
    arguments = check_arguments(f"the search {run.optimizer}", made, (encoder, heads, method), options)
    return LineSearchOptimizer(made(**arguments))


def _direction(
    text: str, parameters: list[nn.Parameter], optimizers: Mapping[str, Any]
) -> torch.optim.Optimizer | Metric:
    call = parse(text)
    metrics = subclasses_in(linesearch, Metric)  # type: ignore[type-abstract]
    made = find_named("direction", call.name, {**optimizers, **metrics})
    first = () if call.name in metrics else (parameters,)
    arguments = check_arguments(f"the direction {text}", made, (*first, *call.positional), call.named)
    if first and not issubclass(made, MultiTaskOptimizer):
        options = {name: value for name, value in arguments.items() if name != "params"}
        find_optimizer(call.name, options, device=parameters[0].device)
    found: torch.optim.Optimizer | Metric = made(**arguments)
    return found
