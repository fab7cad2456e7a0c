"""What a Fork notices about the way it is used: what each backward brought, and the sentences that it says once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from paretorch.core.arrays import Array, Mask
from paretorch.core.gradients.task_gradients import Gradients

STEPS = 5  # after so many, a task that never had a gradient is hardly absent by chance
TOGETHER = (
    20  # after so many, that two gradients never had an entry in common is hardly chance, as with few labels it may be
)
NODES = 20_000  # of a graph that are looked at

SEVERAL_CALLS = (
    "one backward came through several calls of this Fork, whose features cannot be balanced together: the gradient on each is "
    "due before the others are known. Make one call with all features, fork((z1, z2)), where the tasks share them, or use "
    "paretorch.Balancer, which is made for tasks with inputs of their own"
)

Say = Callable[[str, str], None]


class Call:
    """One forward of a Fork, as its backward finds it again."""

    def __init__(self) -> None:
        self.backwards: list[list[int]] = []  # the tasks that had a gradient in each backward of this forward
        # The backward in which the forward ran: that of a reentrant checkpoint, within which its own will run; -1: in none.
        self.outer = running_backward()
        self.sent: dict[int, Tensor] = {}  # what it sent into the encoder, by leaf, until that is compared
        self.compares = False

    @property
    def backward(self) -> int:
        """The number of the backward that is running; of the outer one within a reentrant checkpoint."""
        return self.outer if self.outer >= 0 else running_backward()


def running_backward() -> int:
    """The number of the backward that is running on this thread, unlike that of any other; -1: none is."""
    return torch._C._current_graph_task_id()  # no public name gives it


class Notices:
    """What a Fork has noticed so far. Plain numbers: a step that goes as it should costs next to nothing.

    Args:
        tasks: the declared names.
        remembers: whether tasks may come one at a time, because the method remembers the others' gradients.
    """

    def __init__(self, tasks: Sequence[str], remembers: bool) -> None:
        self.tasks = tuple(tasks)
        self.last = -1  # the backward in which features were balanced
        self.alone: int | None = (
            -1 if len(self.tasks) > 1 and not remembers else None
        )  # the task of the last step; None: settled
        self.unseen = set(range(len(self.tasks)))  # tasks whose branch has had no gradient yet
        self.steps = 0  # counted while there are such
        self.astray: set[int] = set()  # tasks of this step whose loss does not reach their branch
        self.walks = 2  # times that the losses' graphs are still to be walked
        self.met = np.eye(len(self.tasks), dtype=bool)  # (T, T) pairs whose gradients had an entry in common
        self.apart = np.zeros(self.met.shape, int)  # (T, T) steps in which they were both there and had none
        self.settled = len(self.tasks) == 1

    # --- several forwards, several backwards ---------------------------------------------------------------------------------

    def comes_again(self, call: Call) -> bool:
        """Whether this backward came through another forward before."""
        before, self.last = self.last, call.backward
        return before >= 0 and before == self.last

    def check_one_weighing(self, before: int) -> int:
        """Losses that are told one by one would be weighed one by one. Gives the running backward; ``before``: the last one.

        Raises:
            RuntimeError: where losses were weighed before in this backward.
        """
        backward = running_backward()
        if backward >= 0 and backward == before:
            raise RuntimeError(
                "fork.losses was called several times for one backward, so each call's losses would be weighed by themselves: "
                "call it once, with the losses of all tasks, after all forwards"
            )
        return backward

    def one_at_a_time(self, call: Call, known: list[int], say: Say) -> None:
        """Say where the tasks' losses are sent backward one at a time: then there is nothing to balance."""
        if call.backwards and any(set(known).isdisjoint(earlier) for earlier in call.backwards):
            self.alone = None
            say(
                "calls",
                "each task's loss was sent backward on its own, so nothing is balanced: call backward once, on the sum",
            )
        call.backwards.append(known)
        if self.alone is None or not known:
            return
        if len(known) > 1:
            self.alone = None
        elif self.alone in (-1, known[0]):
            self.alone = known[0]
        else:
            first, second = (repr(self.tasks[task]) for task in (self.alone, known[0]))
            self.alone = None
            say(
                "alone",
                f"every backward so far brought the gradient of one task alone ({first}, then {second}), so nothing is balanced: "
                "call fork(features) once and backward once, on the sum of the losses; for tasks with inputs of their own use "
                "paretorch.Balancer",
            )

    # --- heads that read something else than their branch --------------------------------------------------------------------

    def watch(self, call: Call, leaves: Iterable[Tensor], say: Say) -> None:
        """Compare what the features receive with what the Fork sends, while some task has had no gradient."""
        if not self.unseen:
            return
        # A hook of somebody else may change the gradient before it is seen here.
        watched = [(place, leaf) for place, leaf in enumerate(leaves) if not getattr(leaf, "_backward_hooks", None)]
        call.compares = bool(watched)
        for place, leaf in watched:
            leaf.register_hook(partial(self._received, call, place, say))

    def _received(self, call: Call, place: int, say: Say, gradient: Tensor) -> None:
        sent = call.sent.pop(place, None)
        if sent is None or not self.unseen or gradient.data_ptr() == sent.data_ptr():
            return
        names = self._names(self.unseen)
        self.unseen = set()
        say(
            "bypass",
            f"the features have a gradient beside the Fork's, and no gradient came through the branch of {names}: where its head "
            "reads the features themselves, its gradient is not balanced. Give the head its own branch, fork(features)[task]",
        )

    def reached(self, known: list[int], told: bool, say: Say) -> None:
        """Note which branches had a gradient; say which never had one."""
        if not self.unseen:
            return
        self.unseen.difference_update(known)
        if not self.unseen or not known or told:
            return
        self.steps += 1
        if self.steps == STEPS:
            names = self._names(self.unseen)
            self.unseen = set()
            say(
                "bypass",
                f"no gradient came through the branch of {names} in the first {STEPS} steps: its head reads the features "
                "themselves or another task's branch, or it was absent in all of them. Give the head its own branch, "
                "fork(features)[task]",
            )

    def follow(self, losses: dict[int, Tensor], nodes: Sequence[Any]) -> None:
        """Note the tasks whose loss does not depend on their own branch, in the first steps.

        Args:
            losses: by task.
            nodes: those of this step's forwards.
        """
        self.astray = set()
        if self.walks:
            self.walks -= 1
            self.astray = {task for task, loss in losses.items() if not _depends(loss, task, nodes, len(self.tasks))}

    def missed(self, told: Array, known: Iterable[int], say: Say) -> None:
        """Say which losses have a value and a factor, but no gradient on their branch.

        Args:
            told: (3, all) as losses are told.
            known: the tasks whose branches had a gradient.
        """
        counts = (told[2] > 0) & (told[1] != 0) & (told[0] != 0) & np.isfinite(told[0])
        counts[[task for task in known if task not in self.astray]] = False
        if counts.any():
            say(
                "bypass",
                f"the loss of {self._names(counts.nonzero()[0].tolist())} was told to the Fork, and no gradient of it came "
                "through its branch: its head reads the features themselves or another task's branch, so that its gradient "
                "is not balanced, or counts as another's. Give the head its own branch, fork(features)[task]; where a head must "
                "read more than that use paretorch.Balancer",
            )

    # --- gradients that never meet --------------------------------------------------------------------------------------------

    def apart_by_construction(self, gradients: Gradients, gramian: Array, say: Say) -> None:
        """Say where two tasks have no entry of the features in common: their cosine is 0 whatever the tasks want."""
        if len(gradients.known) < 2:
            return
        self.met |= np.isfinite(gramian) & (gramian != 0)
        if self.met.all():
            self.settled = True
            return
        there = gramian.diagonal() != 0
        pairs = [
            (s, t)
            for place, s in enumerate(gradients.known)
            for t in gradients.known[place + 1 :]
            if there[s] and there[t] and not self.met[s, t]
        ]
        for s, t in pairs:
            entry, row = in_common(gradients, s, t)
            self.met[s, t] = self.met[t, s] = entry
            self.apart[s, t] += not entry
            none_meet = not (self.met & ~np.eye(len(self.tasks), dtype=bool))[np.ix_(there, there)].any()
            told = row or (none_meet and covered(gradients)) or self.apart[s, t] >= TOGETHER
            if entry or not told:
                continue
            self.settled = True
            self._say_apart(s, t, row, say)
            return

    def _say_apart(self, s: int, t: int, row: bool, say: Say) -> None:
        where = (
            "have no entry of the features in common: each head reads positions, channels, levels or inputs of its own"
            if row
            else "lie on different rows of the features: each task has samples of its own (or positions, where the first "
            "dimension is not that of the samples)"
        )
        say(
            "apart",
            f"the gradients of {self.tasks[s]!r} and {self.tasks[t]!r} {where}. Their cosine is 0 by construction, and balancing "
            "on the features is blind to conflict: use paretorch.Balancer, which compares them on the shared parameters",
        )

    def _names(self, tasks: Iterable[int]) -> str:
        return ", ".join(repr(self.tasks[task]) for task in sorted(tasks))


def in_common(gradients: Gradients, s: int, t: int) -> tuple[bool, bool]:
    """Whether the gradients of two tasks share an entry that is not zero in both, and whether they share a row.

    A row is an index of the first dimension; leaves with equally many rows are rows side by side.
    """
    one, other = (gradients.rows[gradients.known.index(task)] for task in (s, t))
    rows: dict[int, list[Tensor]] = {}
    for leaf, a, b in zip(gradients.like, one, other, strict=True):
        count = leaf.shape[0] if len(leaf.shape) > 1 else 1
        for place, part in enumerate((a, b)):
            if part is not None and part.numel():
                there = rows.setdefault(
                    count, [torch.zeros(count, dtype=torch.bool, device=leaf.device) for _ in range(2)]
                )
                there[place] |= (part != 0).reshape(count, -1).any(dim=1)
        if a is not None and b is not None and bool(((a != 0) & (b != 0)).any()):
            return True, True
    return False, any(bool((there[0] & there[1]).any()) for there in rows.values())


def covered(gradients: Gradients) -> bool:
    """Whether every row of the features has the gradient of some task, as where each task brings samples of its own."""
    for index, leaf in enumerate(gradients.like):
        count = leaf.shape[0] if len(leaf.shape) > 1 else 1
        if leaf.shape.numel() and not bool((gradients.matrix(index) != 0).any(dim=0).view(count, -1).any(dim=1).all()):
            return False
    return True


def broken_names(tasks: Sequence[str], broken: Mask) -> list[str]:
    """The names of the tasks whose gradient or loss is not finite."""
    return [task for task, bad in zip(tasks, broken.tolist(), strict=True) if bad]


def _depends(loss: Tensor, task: int, nodes: Sequence[Any], tasks: int) -> bool:
    """Whether a loss's graph contains the task's own branch of some forward, or is too large to tell."""
    outputs = {id(node): len(node.like) for node in nodes}
    stack, visited = [loss.grad_fn], set()
    while stack:
        node = stack.pop()
        for below, output in () if node is None else node.next_functions:
            leaves = outputs.get(id(below))
            if leaves is not None:
                if output // leaves == task:
                    return True
            elif below is not None and below not in visited:
                visited.add(below)
                stack.append(below)
        if len(visited) > NODES:
            return True
    return False
