"""Gradients of the tasks through one graph, which a compiled module may not let them go through twice."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor

from paretorch.core.gradients.graph import task_gradients

DONATED = "donated buffers"  # of the error of a compiled backward whose saved tensors are its own work space


class Backwards:
    """Several backwards from the outputs of one forward.

    A graph is kept from one to the next. A compiled backward may refuse that (it overwrites what the forward saved): then every
    further one goes through the graph of a forward computed anew.

    Args:
        outputs: of the forward, in any number.
        anew: the same forward with a graph, once more.
    """

    def __init__(self, outputs: Sequence[Tensor], anew: Callable[[], Sequence[Tensor]]) -> None:
        self.outputs: Sequence[Tensor] | None = outputs
        self.anew, self.kept = anew, True

    def gradients(
        self,
        ends: Sequence[Any],
        cotangents: Sequence[Tensor | None] | None = None,
        place: int | None = None,
        last: bool = False,
    ) -> list[Tensor | None]:
        """The gradients at some ends; None where they are not reached.

        Args:
            ends: leaves.
            cotangents: of all outputs; None: 1.
            place: of the one output that is meant; None: all.
            last: whether no other backward follows.
        """
        outputs = self.anew() if self.outputs is None else self.outputs
        outputs = outputs if place is None else [outputs[place]]
        cotangents = [None] * len(outputs) if cotangents is None else cotangents
        if self.kept and not last:
            try:
                return task_gradients(outputs, cotangents, ends, retain_graph=True)
            except RuntimeError as error:
                if DONATED not in str(error):
                    raise
                self.kept = False
        self.outputs = None
        return task_gradients(outputs, cotangents, ends, retain_graph=False)
