"""Running a forward again with the same random draws and statistics, so that a step is the only difference."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class Repeat:
    """Takes down what a forward drew and which buffers it changed; later forwards see the same and leave no trace.

    The first forward updates running statistics and advances the random numbers as any forward does; the others find
    everything as the first one found it, and what they change is put back.

    Args:
        modules: whose buffers a forward may change.
        device: whose generator it may draw from, beside the CPU's.
    """

    def __init__(self, modules: Iterable[nn.Module], device: torch.device) -> None:
        self.modules, self.device = tuple(modules), device
        self._draws: tuple[list[Tensor], list[Tensor]] | None = None
        self._changed: list[tuple[Tensor, Tensor, Tensor]] = []  # buffer, before, after

    @contextmanager
    def first(self) -> Iterator[None]:
        """Around the forward that counts."""
        buffers = [buffer for module in self.modules for buffer in module.buffers()]
        held = [buffer.clone() for buffer in buffers]
        versions = [buffer._version for buffer in buffers]
        before = self._random()
        yield
        after = self._random()
        drew = any(not torch.equal(one, other) for one, other in zip(before, after, strict=True))
        self._draws = (before, after) if drew else None
        self._changed = [
            (buffer, old, buffer.clone())
            for buffer, old, version in zip(buffers, held, versions, strict=True)
            if buffer._version != version
        ]

    @contextmanager
    def again(self) -> Iterator[None]:
        """Around a forward that repeats the first one elsewhere; nothing is recorded for a backward."""
        with torch.no_grad():
            for buffer, before, _ in self._changed:
                buffer.copy_(before)
            if self._draws is not None:
                self._set(self._draws[0])
            try:
                yield
            finally:
                for buffer, _, after in self._changed:
                    buffer.copy_(after)
                if self._draws is not None:
                    self._set(self._draws[1])

    @property
    def depends_on_more(self) -> bool:
        """Whether the forward drew random numbers or changed buffers, as dropout and BatchNorm do."""
        return self._draws is not None or bool(self._changed)

    def _random(self) -> list[Tensor]:
        states = [torch.get_rng_state()]
        if self.device.type == "cuda":
            states.append(torch.cuda.get_rng_state(self.device))
        if self.device.type == "mps":
            states.append(torch.mps.get_rng_state())
        return states

    def _set(self, states: list[Tensor]) -> None:
        torch.set_rng_state(states[0])
        if self.device.type == "cuda":
            torch.cuda.set_rng_state(states[1], self.device)
        if self.device.type == "mps":
            torch.mps.set_rng_state(states[1])
