"""Whether what a step comes to can be foreseen: where it can, features need not be looked at; where it no longer can, closer."""

from __future__ import annotations

from typing import NamedTuple

EASY = 0.7  # least share of its slope that a task keeps over a step far below what it allows
PLAIN = 0.8  # the same of a step after which the next need not be looked at
TOLD = 0.3  # and the share of what the balanced loss's slope alone says of it
ENOUGH = 5  # easy steps after which the next is expected to be one
MOST = 20  # easy steps that are remembered
RESTED = 2  # steps in a row that are taken without a look


class Calm(NamedTuple):
    """How easy the last steps were.

    Args:
        level: one more with every step that kept .7 of every task's slope, to 20, a quarter less with every other.
        run: looks in a row at which every task kept .8, and .3 of what is known without a look.
        unlooked: steps since one was looked at.
    """

    level: int = 0
    run: int = 0
    unlooked: int = 0

    @property
    def rests(self) -> bool:
        """Whether the next step need not be looked at: two of three after a run of five, while it lasts."""
        return self.run >= ENOUGH and self.unlooked < RESTED

    def broken(self, share: float) -> bool:
        """Whether a step comes to less than the last ones let expect.

        Args:
            share: of its slope that the worst task keeps.
        """
        return self.level >= ENOUGH and not share >= EASY

    def rested(self) -> Calm:
        """The state after a step that was not looked at."""
        return self._replace(unlooked=self.unlooked + 1)

    def after(self, share: float, told: float = 0.0) -> Calm:
        """The state after a step that was looked at.

        Args:
            share: of its slope that the worst task kept.
            told: of the slope that would have been taken for its own without a look.
        """
        level = min(self.level + 1, MOST) if share >= EASY else 3 * self.level // 4
        return Calm(level, self.run + 1 if share >= PLAIN and told >= TOLD else 0)
