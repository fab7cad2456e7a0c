"""Replay of a forward with the same random draws and state."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd import _unsafe_preserve_version_counter  # type: ignore[attr-defined]

from paretorch.linesearch.replay.autocast import CallerAutocast
from paretorch.linesearch.replay.batch_norm import BatchNormReplay
from paretorch.linesearch.replay.module_state import ModuleState, Restore, same_state

T = TypeVar("T")
# Parts of the errors of a derivative without a graph.
NO_GRAPH = ("does not require grad", "not have been used in the graph")


class _Saved(NamedTuple):
    """A buffer before the first forward, and a copy of its value."""

    owner: dict[str, Tensor | None]
    name: str
    buffer: Tensor | None
    value: Tensor | None


class _Replaced(NamedTuple):
    """A buffer that the forward replaced by another tensor."""

    owner: dict[str, Tensor | None]
    name: str
    before: Tensor | None
    after: Tensor | None


class ForwardReplay:
    """Records the random draws and the state of a first forward, and repeats them in later forwards.

    The first forward updates running statistics and other state of the modules, and advances the random numbers of torch, numpy
    and Python, as any forward does. The others start from the same state as the first, and restore all that they change.

    Args:
        modules: with buffers and attributes that a forward can change, in place or by assignment.
        device: with a generator that it can draw from, in addition to the CPU's.
        autocast: under which the modules run.
        batch_norm: replays BatchNorm in later forwards of a subsample.
        graph: whether later forwards need a graph, since the losses contain derivatives.
    """

    def __init__(
        self,
        modules: Iterable[nn.Module],
        device: torch.device,
        autocast: CallerAutocast,
        batch_norm: BatchNormReplay | None = None,
        graph: bool = False,
    ) -> None:
        self.modules, self.device, self.autocast, self.graph = tuple(modules), device, autocast, graph
        self.batch_norm = BatchNormReplay() if batch_norm is None else batch_norm
        # The state of the generators: before the first forward, None if it drew nothing; and before a repeated one.
        self._draws: list[Any] | None = None
        self._current: list[Any] = []
        self._attributes: tuple[Restore, Restore] | None = None
        self._saved: list[_Saved] = []
        self._buffers: list[Tensor] = []
        self._before: list[Tensor] = []
        self._after: list[Tensor] = []
        self._replaced: list[_Replaced] = []
        self._is_repeating = False

    @contextmanager
    def first(self) -> Iterator[None]:
        """A context for the first forward."""
        # Every buffer, since fused kernels change running statistics without counting a version.
        self._saved = [
            _Saved(each._buffers, name, buffer, None if buffer is None else buffer.clone())
            for module in self.modules
            for each in module.modules()
            for name, buffer in each._buffers.items()
        ]
        state, draws = ModuleState(self.modules), self._random()
        with self.batch_norm.recorded(), self.autocast.entered():
            yield
        after = self._random()
        drew = any(not same_state(one, other) for one, other in zip(draws, after, strict=True))
        self._draws = draws if drew else None
        self._attributes = state.changed()
        self._buffers, self._before = [], []
        for owner, name, buffer, before in self._saved:
            if owner.get(name) is not buffer:
                self._replaced.append(_Replaced(owner, name, before, owner.get(name)))
            elif buffer is not None and before is not None:
                self._buffers.append(buffer)
                self._before.append(before)
        self._after = [buffer.clone() for buffer in self._buffers]

    def evaluated(self, function: Callable[[], T]) -> T:
        """The result of a repeated forward at other parameters; ``graph`` becomes True where it needs a graph."""
        if not self.graph:
            try:
                with self.without_graph():
                    return function()
            except RuntimeError as error:
                if not lacks_graph(error):
                    raise
        with self._repeated(graph=True):
            result = function()
        self.graph = True
        return result

    def without_graph(self) -> AbstractContextManager[None]:
        """A context for a repeated forward at other parameters, without a graph."""
        return self._repeated(graph=False)

    @contextmanager
    def _repeated(self, graph: bool) -> Iterator[None]:
        # Graphs of the first forward can contain the buffers; their versions are kept, since every value is restored.
        with torch.set_grad_enabled(graph), self._versions_kept():
            self._begin()
            try:
                with self.autocast.entered():
                    yield
            finally:
                self._end()

    @contextmanager
    def with_graph(self) -> Iterator[None]:
        """A context for a repeated forward at the same parameters, with a graph for a backward."""
        with self._versions_kept():
            self._begin()
        try:
            with torch.enable_grad(), self.autocast.entered():  # the graph counts versions as the forward does
                yield
        finally:
            with self._versions_kept():
                self._end()

    def undo_buffers(self) -> None:
        """Sets the buffers, such as running statistics, from before the first forward, finished or not: its batch is not used.

        A repeated forward whose context was interrupted ends here. The context ends with the traceback, and changes nothing then.
        """
        self._end()
        with torch.no_grad():
            for owner, name, buffer, value in self._saved:
                owner[name] = buffer
                if buffer is not None and value is not None:
                    buffer.copy_(value)

    def _versions_kept(self) -> AbstractContextManager[object]:
        return _unsafe_preserve_version_counter(tuple(self._buffers))

    def _begin(self) -> None:
        """Sets the state from before the first forward."""
        if self._draws is not None:
            self._current = self._random()
        self._is_repeating = True
        self._copy(self._before)
        if self._attributes is not None:
            self._attributes[0]()
        for owner, name, before, _ in self._replaced:
            owner[name] = None if before is None else before.clone()
        if self._draws is not None:
            self._set(self._draws)

    def _end(self) -> None:
        """Sets the state from after the first forward; the random numbers, which others may have drawn since, as they were."""
        if not self._is_repeating:
            return
        if self._attributes is not None:
            self._attributes[1]()
        self._copy(self._after)
        for owner, name, _, after in self._replaced:
            owner[name] = after
        if self._draws is not None:
            self._set(self._current)
        self._is_repeating = False

    @property
    def drew(self) -> bool:
        """Whether the forward drew random numbers, as dropout does."""
        return self._draws is not None

    def _copy(self, values: list[Tensor]) -> None:
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
    """Whether the error is that of a derivative without a graph."""
    return any(text in str(error) for text in NO_GRAPH)
