"""Optimizers by name."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

import paretorch.optim
from paretorch.balance.equal import Equal
from paretorch.core.contract import Method
from paretorch.optim import MultiTaskOptimizer, Preconditioned
from paretorch.training.names.constructors import check_arguments, find_named, subclasses_in


def optimizers() -> dict[str, type[torch.optim.Optimizer]]:
    """The optimizers by name: those of torch.optim whose step needs no closure, and those of paretorch.optim."""
    of_torch = {
        name: value
        for name, value in subclasses_in(torch.optim, torch.optim.Optimizer).items()
        if value is not torch.optim.SparseAdam  # it refuses dense gradients
        and inspect.signature(value.step).parameters["closure"].default is None
    }
    return of_torch | subclasses_in(paretorch.optim, MultiTaskOptimizer)


def find_optimizer(
    name: str,
    options: Mapping[str, Any],
    method: Method[Any] | None = None,
    tasks: tuple[str, ...] | None = None,
    clip: float | None = None,
    device: torch.device | None = None,
) -> Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]:
    """A function that makes the optimizer called ``name`` for given parameters.

    Args:
        name: a class of torch.optim or paretorch.optim.
        options: its arguments; numbers are finite.
        method: the balancing method of ``Preconditioned``; other multi-task optimizers have their own.
        tasks: (T,) names, for multi-task optimizers.
        clip: the norm to which multi-task optimizers clip each task gradient, unless an option sets it.
        device: of the parameters; an optimizer of torch.optim takes a trial step there. None: it takes none.

    Raises:
        ValueError: the name or an option is not known, the optimizer and the method both balance, or the optimizer cannot be made
            or cannot step with these options.

    Example:
        >>> find_optimizer("SGD", {"lr": 0.1})([nn.Parameter(torch.zeros(1))]).defaults["lr"]
        0.1
    """
    made = find_named("optimizer", name, optimizers())
    arguments: dict[str, Any] = dict(options)
    if issubclass(made, MultiTaskOptimizer):
        arguments = {"tasks": tasks, "max_norm": clip, **arguments}
        if made is Preconditioned:
            arguments["method"] = Equal() if method is None else method
        elif not (method is None or isinstance(method, Equal)):
            raise ValueError(
                f"the optimizer {name} balances by itself, and so does the method {method}: "
                f"leave the method out, or use Preconditioned, which balances by any method"
            )
    check_arguments(f"the optimizer {name}", made, ([],), arguments)
    _check_finite(name, options)

    def make(parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        with _readable(name, options):
            return made(parameters, **arguments)

    parameter = nn.Parameter(torch.zeros(1, 1, device=device))
    trial = make([parameter])
    if device is not None and not issubclass(made, MultiTaskOptimizer):
        parameter.grad = torch.ones_like(parameter)
        with _readable(name, options):
            trial.step()
    return make


@contextmanager
def _readable(name: str, options: Mapping[str, Any]) -> Iterator[None]:
    """Names the optimizer and its options in any error of its constructor or its first step."""
    try:
        yield
    except Exception as error:  # torch raises assertions and RuntimeErrors, too
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(f"the optimizer {name} does not accept {dict(options)}: {reason}") from None


def _check_finite(name: str, options: Mapping[str, Any]) -> None:
    """Refuses numbers that are not finite, which torch accepts."""
    for option, value in options.items():
        numbers = value if isinstance(value, tuple | list) else (value,)
        if any(isinstance(number, float) and not math.isfinite(number) for number in numbers):
            raise ValueError(f"the optimizer {name} takes finite numbers, got {option}={value}")
