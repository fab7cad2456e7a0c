"""Several backwards through the graph of one forward."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor

from paretorch.core.gradients.graph import task_gradients

DONATED = "donated buffers"  # part of the error of a compiled backward that overwrites the saved tensors


class RepeatedBackward:
    """Gradients of the outputs of one forward, computed by one backward after another.

    The graph is retained between them. A compiled module can refuse a second backward, since the first overwrites what the
    forward saved: then each further backward uses the graph of a repeated forward.

    Args:
        outputs: of the forward.
        repeat: runs the same forward again, with a graph.
    """

    def __init__(self, outputs: Sequence[Tensor], repeat: Callable[[], Sequence[Tensor]]) -> None:
        self.outputs: Sequence[Tensor] | None = outputs
        self.repeat, self.retains = repeat, True

    def gradients(
        self,
        leaves: Sequence[Any],
        cotangents: Sequence[Tensor | None] | None = None,
        output: int | None = None,
        last: bool = False,
    ) -> list[Tensor | None]:
        """Gradients with respect to leaves; None where a leaf is not reached.

        Args:
            leaves: with respect to which the outputs are differentiated.
            cotangents: one for each output; None: 1.
            output: index of the only output to differentiate; None: all.
            last: whether no other backward follows.
        """
        outputs = self.repeat() if self.outputs is None else self.outputs
        outputs = outputs if output is None else [outputs[output]]
        cotangents = [None] * len(outputs) if cotangents is None else cotangents
        if self.retains and not last:
            try:
                return task_gradients(outputs, cotangents, leaves, retain_graph=True)
            except RuntimeError as error:
                if DONATED not in str(error):
                    raise
                self.retains = False
        self.outputs = None
        return task_gradients(outputs, cotangents, leaves, retain_graph=False)
