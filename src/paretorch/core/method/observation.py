"""Check that a method which uses the losses after the optimizer's step receives them."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from paretorch.core.gradients.graph import is_leaf

Warn = Callable[[str, str], None]  # of a topic and a message; warns once for each topic


class ObservationCheck:
    """Finds that parameters were updated after a step whose losses after the update were not passed on.

    The losses of a second step are certain evidence where a parameter below them has been written to since the first. Several
    backwards before one optimizer step, and steps that a GradScaler skips, change no parameter. A copy begins anew.

    Args:
        method: the method, for the message.
        call: the call to add, for the message.
        warn: warns once for each topic.
    """

    def __init__(self, method: str, call: str, warn: Warn) -> None:
        self._method, self._call, self._warn = method, call, warn
        self.is_settled = False  # whether there is nothing more to check
        self._parameter: weakref.ref[Tensor] | None = None  # one below the losses of the last step
        self._version = 0  # the number of writes to it at that time

    def __reduce__(self) -> tuple[type[ObservationCheck], tuple[str, str, Warn]]:
        return ObservationCheck, (self._method, self._call, self._warn)

    def begin_step(self, losses: Iterable[Tensor]) -> None:
        """Compare with the step before, and warn where its losses after the update are missing.

        Args:
            losses: of the step that begins, before its backward.
        """
        if self.is_settled or torch.compiler.is_compiling():
            return
        parameter = None if self._parameter is None else self._parameter()
        if parameter is not None and parameter._version != self._version:
            self.is_settled = True
            self._warn(
                "observe",
                f"{self._method} needs the losses on the same batch after the optimizer's step, and the second step begins "
                f"without those of the first, so that its weights stay as they are at the start: after optimizer.step() call "
                f"{self._call} with the losses computed again under torch.no_grad()",
            )
        elif (found := _parameter_below(losses)) is not None:
            self._parameter, self._version = weakref.ref(found), found._version

    def settle(self) -> None:
        """The losses after a step were passed on."""
        self.is_settled = True


def _parameter_below(losses: Iterable[Tensor]) -> Tensor | None:
    """A leaf of the graph of the losses, of which every optimizer step changes all that have a gradient."""
    stack, visited = [loss.grad_fn for loss in losses], set()
    while stack:
        node = stack.pop()
        if node is None or node in visited:
            continue
        visited.add(node)
        if is_leaf(node):
            leaf: Tensor = node.variable  # type: ignore[attr-defined]
            if isinstance(leaf, torch.nn.Parameter):
                return leaf
            continue
        stack += [below for below, _ in node.next_functions]
    return None
