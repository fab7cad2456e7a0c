"""When a step needs no measurement of the features' displacement."""

from __future__ import annotations

from typing import NamedTuple

PREDICTABLE = 0.7  # least share of its slope that every task keeps over a predictable step
CLOSE = 0.8  # the same for a step that counts toward reuse
PROJECTED = 0.3  # and the least share of the slope along the projected displacement
ENOUGH = 5  # predictable steps after which the next is expected to be predictable
MOST = 20  # upper limit of the level
REUSED = 2  # steps in a row without a measurement


class DisplacementReuse(NamedTuple):
    """Statistics of how well slopes predicted the last steps.

    Args:
        level: one more with every step that kept .7 of every task's slope, up to 20; a quarter less with each step that did not.
        run: measured steps in a row at which every task kept .8 of its slope, and .3 of the slope along the projected
            displacement.
        unmeasured: steps since the last measurement.
    """

    level: int = 0
    run: int = 0
    unmeasured: int = 0

    @property
    def can_reuse(self) -> bool:
        """Whether the next step needs no measurement: two of three, after a run of five and as long as it lasts."""
        return self.run >= ENOUGH and self.unmeasured < REUSED

    def below_expectation(self, share: float) -> bool:
        """Whether a step decreases a loss by less than the last steps let expect.

        Args:
            share: least share of its slope that a task keeps over the step.
        """
        return self.level >= ENOUGH and not share >= PREDICTABLE

    def reused(self) -> DisplacementReuse:
        """The state after a step without a measurement."""
        return self._replace(unmeasured=self.unmeasured + 1)

    def measured(self, share: float, projected: float = 0.0) -> DisplacementReuse:
        """The state after a step with a measurement.

        Args:
            share: least share of its slope that a task keeps over the step.
            projected: least share of the slope along the projected displacement.
        """
        level = min(self.level + 1, MOST) if share >= PREDICTABLE else 3 * self.level // 4
        return DisplacementReuse(level, self.run + 1 if share >= CLOSE and projected >= PROJECTED else 0)
