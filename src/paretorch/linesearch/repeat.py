"""Running a forward again with the same random draws and statistics, so that a step is the only difference."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd import _unsafe_preserve_version_counter  # type: ignore[attr-defined]

from paretorch.linesearch.matching import Matching


class _Replaced(NamedTuple):
    """A buffer that the forward did not change in place: the module has another tensor since."""

    owner: dict[str, Tensor | None]
    name: str
    before: Tensor | None
    after: Tensor | None


class Repeat:
    """Takes down what a forward drew and what buffers it found; later forwards see the same and leave no trace.

    The first forward updates running statistics and advances the random numbers as any forward does; the others find
    everything as the first one found it, and what they change is put back.

    Args:
        modules: whose buffers a forward may change, in place or by assigning others.
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
        self._replaced: list[_Replaced] = []

    @contextmanager
    def first(self) -> Iterator[None]:
        """Around the forward that counts."""
        # Every buffer, since fused kernels change running statistics without counting a version.
        found = [
            (each._buffers, name, buffer, None if buffer is None else buffer.clone())
            for module in self.modules
            for each in module.modules()
            for name, buffer in each._buffers.items()
        ]
        draws = self._random()
        with self.matching.noted():
            yield
        after = self._random()
        drew = any(not torch.equal(one, other) for one, other in zip(draws, after, strict=True))
        self._draws = (draws, after) if drew else None
        self._buffers, self._before = [], []
        for owner, name, buffer, before in found:
            if owner.get(name) is not buffer:
                self._replaced.append(_Replaced(owner, name, before, owner.get(name)))
            elif buffer is not None and before is not None:
                self._buffers.append(buffer)
                self._before.append(before)
        self._after = [buffer.clone() for buffer in self._buffers]

    @contextmanager
    def again(self) -> Iterator[None]:
        """Around a forward that repeats the first one elsewhere; nothing is recorded for a backward."""
        # Graphs of the first forward may hold the buffers: to them nothing happens, since every value is put back.
        with torch.no_grad(), _unsafe_preserve_version_counter(tuple(self._buffers)):
            self._put(self._before)
            for owner, name, before, _ in self._replaced:
                owner[name] = None if before is None else before.clone()
            if self._draws is not None:
                self._set(self._draws[0])
            try:
                yield
            finally:
                self._put(self._after)
                for owner, name, _, after in self._replaced:
                    owner[name] = after
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
