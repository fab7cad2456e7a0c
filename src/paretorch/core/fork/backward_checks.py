"""Checks of a Fork's backwards: one backward for one call, on the sum of all losses."""

from __future__ import annotations

from collections.abc import Callable

from paretorch.core.fork.forwards import ForwardCall, running_backward

SEVERAL_CALLS = (
    "one backward came through several calls of this Fork, whose features cannot be balanced together: the gradient on each must "
    "be sent before the others are known. Make one call with all features, fork((z1, z2)), where the tasks share them, or use "
    "paretorch.Balancer, which takes tasks with inputs of their own"
)

Warn = Callable[[str, str], None]  # of a topic and a message; warns once for each topic


class BackwardChecks:
    """Which tasks each backward reached, in plain numbers: a correct step costs next to nothing.

    Args:
        tasks: the declared names.
        single_tasks_allowed: whether tasks may come one at a time, because the method stores the others' gradients.
        warn: warns once for each topic.
    """

    def __init__(self, tasks: tuple[str, ...], single_tasks_allowed: bool, warn: Warn) -> None:
        self._tasks, self._warn = tasks, warn
        self._last = -1  # the backward in which features were balanced
        self._weighted_backward = -1  # the backward in which losses were weighted
        # The only task of all backwards so far; -1: none came yet; None: there were several, or they need no check.
        self._only_task: int | None = -1 if len(tasks) > 1 and not single_tasks_allowed else None

    def allow_single_tasks(self) -> None:
        """Stop checking for tasks that come one at a time: other ranks may have other tasks."""
        self._only_task = None

    def is_repeated(self, call: ForwardCall) -> bool:
        """Whether the running backward came through another forward before."""
        before, self._last = self._last, call.backward
        return before >= 0 and before == self._last

    def check_weighted_once(self) -> None:
        """Losses that are recorded in several calls would be weighted separately.

        Raises:
            RuntimeError: losses were weighted before in this backward.
        """
        backward = running_backward()
        if backward >= 0 and backward == self._weighted_backward:
            raise RuntimeError(
                "fork.losses was called several times for one backward, so the losses of each call would be weighted separately: "
                "call it once, with the losses of all tasks, after all forwards"
            )
        self._weighted_backward = backward

    def check_joint(self, call: ForwardCall, known: list[int]) -> None:
        """Warn where each task's loss has a backward of its own: then there is nothing to balance.

        Args:
            call: the forward.
            known: the tasks that have a gradient in this backward.
        """
        if call.backwards and any(set(known).isdisjoint(earlier) for earlier in call.backwards):
            self._only_task = None
            self._warn(
                "calls",
                "each task's loss was sent backward on its own, so nothing is balanced: call backward once, on the sum",
            )
        call.backwards.append(known)
        if self._only_task is None or not known:
            return
        if len(known) > 1:
            self._only_task = None
        elif self._only_task in (-1, known[0]):
            self._only_task = known[0]
        else:
            first, second = (repr(self._tasks[task]) for task in (self._only_task, known[0]))
            self._only_task = None
            self._warn(
                "alone",
                f"every backward so far brought the gradient of one task alone ({first}, then {second}), so nothing is balanced: "
                "call fork(features) once and backward once, on the sum of the losses; for tasks with inputs of their own use "
                "paretorch.Balancer",
            )
