"""What a Fork or a Balancer remembers beside the method's state."""

from __future__ import annotations

import weakref

from torch import Tensor

from paretorch.core.arrays import Array
from paretorch.core.contract import Balance
from paretorch.core.gradients.step_evidence import StepResult


class Memory:
    """Not saved, and forgotten in copies: a plain object, cheap to write to."""

    def __init__(self) -> None:
        self.outcome: StepResult | None = None
        self.balance: Balance | None = None  # made of the outcome, when it is read
        # Of age, last_weights and last_heads, and of steps: read without synchronisation.
        self.mirror: tuple[int, Array, Array] | None = None
        self.drawn: int | None = None
        self.surface: list[
            weakref.ref[Tensor]
        ] = []  # the leaves that were compared, for a method that remembers gradients

        self.shared: list[
            weakref.ref[Tensor]
        ] = []  # the leaves that were compared when several tasks were last present

    def record(self, outcome: StepResult | None) -> None:
        """Remember what a step came to; None: that there was none."""
        self.outcome, self.balance = outcome, None
