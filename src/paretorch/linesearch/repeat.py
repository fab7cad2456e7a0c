"""Running a forward again with the same random draws and statistics, so that a step is the only difference."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.autograd import _unsafe_preserve_version_counter  # type: ignore[attr-defined]

from paretorch.linesearch.matching import Matching


class Repeat:
    """Takes down what a forward drew and what buffers it found; later forwards see the same and leave no trace.

    The first forward updates running statistics and advances the random numbers as any forward does; the others find
    everything as the first one found it, and what they change is put back.

    Args:
        modules: whose buffers a forward may change.
        device: whose generator it may draw from, beside the CPU's.
        matching: lets later forwards of some samples pass as among all.
    """

    def __init__(self, modules: Iterable[nn.Module], device: torch.device, matching: Matching | None = None) -> None:
        self.modules, self.device = tuple(modules), device
        self.matching = Matching() if matching is None else matching
        self._draws: tuple[list[Tensor], list[Tensor]] | None = None
        self._buffers: list[Tensor] = []
        self._before: list[Tensor] = []
        self._after: list[Tensor] = []

    @contextmanager
    def first(self) -> Iterator[None]:
        """Around the forward that counts."""
        # Every buffer, since fused kernels change running statistics without counting a version.
        self._buffers = [
            buffer
            for module in self.modules
            if any(each.training for each in module.modules())
            for buffer in module.buffers()
        ]
        self._before = [buffer.clone() for buffer in self._buffers]
        before = self._random()
        with self.matching.noted():
            yield
        after = self._random()
        drew = any(not torch.equal(one, other) for one, other in zip(before, after, strict=True))
        self._draws = (before, after) if drew else None
        self._after = [buffer.clone() for buffer in self._buffers]

    @contextmanager
    def again(self) -> Iterator[None]:
        """Around a forward that repeats the first one elsewhere; nothing is recorded for a backward."""
        # Graphs of the first forward may hold the buffers: to them nothing happens, since every value is put back.
        with torch.no_grad(), _unsafe_preserve_version_counter(tuple(self._buffers)):
            self._put(self._before)
            if self._draws is not None:
                self._set(self._draws[0])
            try:
                yield
            finally:
                self._put(self._after)
                if self._draws is not None:
                    self._set(self._draws[1])

    @property
    def drew(self) -> bool:
        """Whether the forward drew random numbers, as dropout does."""
        return self._draws is not None

    def _put(self, values: list[Tensor]) -> None:
        if self._buffers:
            torch._foreach_copy_(self._buffers, values)

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
