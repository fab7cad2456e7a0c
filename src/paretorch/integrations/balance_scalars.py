"""The numbers of all Forks and Balancers in a module, for a logger."""

from __future__ import annotations

from torch import nn

from paretorch.core.method.module import MethodModule


def balance_scalars(module: nn.Module, prefix: str = "balance") -> dict[str, float]:
    """The numbers of the last step of every Fork and Balancer that the module contains.

    Args:
        module: the module that is searched.
        prefix: of every name, before a slash. Where several have balanced, their place in the module follows.

    Returns:
        those of ``Balance.scalars``; empty before the first step.

    Example:
        >>> import paretorch as pt, torch
        >>> model = torch.nn.ModuleDict({"fork": pt.Fork(pt.MGDA(), tasks=("left", "right"))})
        >>> balance_scalars(model)
        {}
        >>> branch = model["fork"](torch.ones(2, requires_grad=True))
        >>> (branch["left"].sum() + branch["right"].sum()).backward()
        >>> balance_scalars(model)["balance/weight/left"]
        1.0
    """
    modules = {name: each for name, each in module.named_modules() if isinstance(each, MethodModule)}
    found = {name: each.balance for name, each in modules.items() if each.balance is not None}
    numbers: dict[str, float] = {}
    for name, balance in found.items():
        numbers |= balance.scalars(f"{prefix}/{name}" if len(found) > 1 and name else prefix)
    return numbers
