"""Running a forward again with the same random draws and statistics, so that a step is the only difference."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd import _unsafe_preserve_version_counter  # type: ignore[attr-defined]

from paretorch.linesearch.replay.batch_norm import Matching
from paretorch.linesearch.replay.module_state import ModuleState, Restore, same_state

T = TypeVar("T")
NO_GRAPH = ("does not require grad", "not have been used in the graph")  # of errors where a derivative finds no graph


class _Replaced(NamedTuple):
    """A buffer that the forward did not change in place: the module has another tensor since."""

    owner: dict[str, Tensor | None]
    name: str
    before: Tensor | None
    after: Tensor | None


class Repeat:
    """Takes down what a forward drew and the state it found; later forwards see the same and leave no trace.

    The first forward updates running statistics and other state of the modules, and advances the random numbers of torch, numpy
    and Python, as any forward does; the others find everything as the first one found it, and what they change is put back.

    Args:
        modules: whose buffers and attributes a forward may change, in place or by assigning others.
        device: whose generator it may draw from, beside the CPU's.
        matching: lets later forwards of some samples pass as among all.
        graph: whether later forwards are computed with a graph, since the losses contain derivatives.
    """

    def __init__(
        self,
        modules: Iterable[nn.Module],
        device: torch.device,
        matching: Matching | None = None,
        graph: bool = False,
    ) -> None:
        self.modules, self.device, self.graph = tuple(modules), device, graph
        self.matching = Matching() if matching is None else matching
        self._draws: tuple[list[Any], list[Any]] | None = None
        self._attributes: tuple[Restore, Restore] | None = None
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
        state, draws = ModuleState(self.modules), self._random()
        with self.matching.noted():
            yield
        after = self._random()
        drew = any(not same_state(one, other) for one, other in zip(draws, after, strict=True))
        self._draws = (draws, after) if drew else None
        self._attributes = state.changed()
        self._buffers, self._before = [], []
        for owner, name, buffer, before in found:
            if owner.get(name) is not buffer:
                self._replaced.append(_Replaced(owner, name, before, owner.get(name)))
            elif buffer is not None and before is not None:
                self._buffers.append(buffer)
                self._before.append(before)
        self._after = [buffer.clone() for buffer in self._buffers]

    def evaluated(self, function: Callable[[], T]) -> T:
        """The result of a forward that repeats the first one elsewhere; ``graph`` becomes True where it needs a graph."""
        if not self.graph:
            try:
                with self.again():
                    return function()
            except RuntimeError as error:
                if not lacks_graph(error):
                    raise
        with self.again(graph=True):
            found = function()
        self.graph = True
        return found

    @contextmanager
    def again(self, graph: bool = False) -> Iterator[None]:
        """Around a forward that repeats the first one elsewhere; without ``graph`` nothing is recorded for a backward."""
        # Graphs of the first forward may hold the buffers: to them nothing happens, since every value is put back.
        with torch.set_grad_enabled(graph), self._versions_kept():
            self._begin()
            try:
                yield
            finally:
                self._end()

    @contextmanager
    def anew(self) -> Iterator[None]:
        """Around a forward that repeats the first one where it was, whose graph is used afterwards."""
        with self._versions_kept():
            self._begin()
        try:
            with torch.enable_grad():  # the graph counts versions as the forward does
                yield
        finally:
            with self._versions_kept():
                self._end()

    def _versions_kept(self) -> AbstractContextManager[object]:
        return _unsafe_preserve_version_counter(tuple(self._buffers))

    def _begin(self) -> None:
        """Sets everything to what the first forward found."""
        self._put(self._before)
        if self._attributes is not None:
            self._attributes[0]()
        for owner, name, before, _ in self._replaced:
            owner[name] = None if before is None else before.clone()
        if self._draws is not None:
            self._set(self._draws[0])

    def _end(self) -> None:
        """Sets everything to what the first forward left."""
        if self._attributes is not None:
            self._attributes[1]()
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
            with torch.no_grad():
                torch._foreach_copy_(self._buffers, values)

    def _random(self) -> list[Any]:
        states: list[Any] = [random.getstate(), np.random.get_state(), torch.get_rng_state()]  # noqa: NPY002 - users draw from it
        if self.device.type == "cuda":
            states.append(torch.cuda.get_rng_state(self.device))
        if self.device.type == "mps":
            states.append(torch.mps.get_rng_state())
        return states

    def _set(self, states: Sequence[Any]) -> None:
        random.setstate(states[0])
        np.random.set_state(states[1])  # noqa: NPY002 - as above
        torch.set_rng_state(states[2])
        if self.device.type == "cuda":
            torch.cuda.set_rng_state(states[3], self.device)
        if self.device.type == "mps":
            torch.mps.set_rng_state(states[3])


def lacks_graph(error: BaseException) -> bool:
    """Whether it says that a derivative was asked for and there is no graph to take it from."""
    return any(text in str(error) for text in NO_GRAPH)
