"""The caller's autocast around a step: the model runs under it, the arithmetic of the search does not."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch


class CallerAutocast:
    """The autocast that is active where it is made.

    Autocast keeps the casts of parameters until its outermost context ends. A trial changes the parameters in place, and a
    forward with a cast from before the change would give the losses of the former parameters: nothing is kept here.

    Args:
        device: of the parameters.
    """

    def __init__(self, device: torch.device) -> None:
        names = dict.fromkeys(("cpu", device.type))
        self.dtypes = {name: torch.get_autocast_dtype(name) for name in names if torch.is_autocast_enabled(name)}

    @contextmanager
    def left(self) -> Iterator[None]:
        """A context without it, for a step."""
        with ExitStack() as contexts:
            for name in self.dtypes:
                contexts.enter_context(torch.autocast(name, enabled=False))
            yield

    @contextmanager
    def entered(self) -> Iterator[None]:
        """A context with it, for a forward of the model."""
        with ExitStack() as contexts:
            for name, dtype in self.dtypes.items():
                contexts.enter_context(torch.autocast(name, dtype, cache_enabled=False))
            yield
