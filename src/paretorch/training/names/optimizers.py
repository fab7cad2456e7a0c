"""Optimizers by name."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
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
) -> Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]:
    """A function that makes the optimizer called ``name`` for given parameters.

    Args:
        name: a class of torch.optim or paretorch.optim.
        options: its arguments.
        method: the balancing method of ``Preconditioned``; other multi-task optimizers have their own.
        tasks: (T,) names, for multi-task optimizers.
        clip: the norm to which multi-task optimizers clip each task gradient, unless an option sets it.

    Raises:
        ValueError: the name or an option is not known, or the optimizer and the method both balance.

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
    try:
        made([nn.Parameter(torch.zeros(1))], **arguments)
    except (ValueError, TypeError) as error:
        raise ValueError(f"the optimizer {name} does not accept {dict(options)}: {error}") from None
    return lambda parameters: made(parameters, **arguments)
