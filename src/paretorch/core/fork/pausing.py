"""Plain gradients of a model that contains Forks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from torch import nn

from paretorch.core.fork.fork import Fork


def forks_in(model: nn.Module) -> dict[str, Fork]:
    """The Forks of a model by the names of the submodules; a Fork that has several names is listed once."""
    return {name: module for name, module in model.named_modules() if isinstance(module, Fork)}


@contextmanager
def paused_forks(model: nn.Module) -> Iterator[None]:
    """Within it no Fork of the model balances, so that each task's gradient is that of its own loss."""
    with ExitStack() as stack:
        for fork in forks_in(model).values():
            stack.enter_context(fork.paused())
        yield
