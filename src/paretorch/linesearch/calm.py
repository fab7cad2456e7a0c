"""Whether what a step comes to can be foreseen: where it can, features need not be looked at; where it no longer can, closer."""

from __future__ import annotations

from typing import NamedTuple

EASY = 0.7  # least share of its slope that a task keeps over a step far below what it allows
ENOUGH = 5  # easy steps after which the next is expected to be one
MOST = 20  # easy steps that are remembered
RESTED = 2  # steps in a row that are taken without a look


class Calm(NamedTuple):
    """How easy the last steps were: each of them kept at least .7 of every task's slope.

    Args:
        level: one more with every easy step, to 20, a quarter less with every other.
        unlooked: steps since one was looked at.
    """

    level: int = 0
    unlooked: int = RESTED

    @property
    def rests(self) -> bool:
        """Whether the next step need not be looked at: two of three, after five easy ones and while the looks are."""
        return self.level >= ENOUGH and self.unlooked < RESTED

    def broken(self, share: float) -> bool:
        """Whether a step comes to less than the last ones let expect.

        Args:
            share: of its slope that the worst task keeps.
        """
        return self.level >= ENOUGH and not share >= EASY

    def after(self, share: float, looked: bool) -> Calm:
        """The state after an accepted step.

        Args:
            share: of its slope that the worst task kept.
            looked: whether the features' way was looked at for it.
        """
        if not looked:
            return self._replace(unlooked=self.unlooked + 1)
        if share >= EASY:
            return Calm(min(self.level + 1, MOST), 0)
        return Calm(3 * self.level // 4, RESTED)
