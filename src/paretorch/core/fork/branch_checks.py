"""Checks of a Fork's branches: the head of each task uses the task's own branch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any

import numpy as np
from torch import Tensor

from paretorch.core.arrays import Array
from paretorch.core.fork.backward_checks import Warn
from paretorch.core.fork.forwards import ForwardCall, count_backwards, running_backward
from paretorch.core.fork.loss_graphs import encoder_nodes, parts_read

FEW_STEPS = 5  # a task without a gradient in so many steps is hardly absent by chance
MANY_FORWARDS = 20  # after which, and after twice as many each time, backwards of the process are counted
CHECKED_STEPS = 2  # steps with its loss in which the graph of a task is visited


class BranchChecks:
    """Which branches had a gradient; in the first steps only, so that later ones cost next to nothing.

    Args:
        tasks: the declared names.
        warn: warns once for each topic.
    """

    def __init__(self, tasks: tuple[str, ...], warn: Warn) -> None:
        self._tasks, self._warn = tasks, warn
        self._unreached = set(range(len(tasks)))  # tasks whose branch has had no gradient yet
        self._steps = 0  # counted while there are such
        self._bypassing: set[int] = set()  # tasks of this step whose loss does not depend on their branch
        self._visits = Counter(dict.fromkeys(range(len(tasks)), CHECKED_STEPS))  # by task, those that are left
        self.is_used = False  # whether a backward has come through the Fork
        self._forwards = self._bypassed = 0  # before that: forwards, and those whose features had a gradient
        self._next_count = MANY_FORWARDS
        self._backwards = 0  # of the process, at the second forward

    def watch(self, call: ForwardCall, leaves: Iterable[Tensor]) -> None:
        """Watch a forward, before a backward has come through the Fork: the heads may not read its branches.

        Where the heads read the features, these have a gradient in a backward that does not reach the Fork; autograd runs the
        Fork's backward before the hooks of its inputs. Where they read detached branches, the process runs backwards and none
        of them comes here.
        """
        for leaf in leaves:
            leaf.register_hook(partial(self._observe, call))
        self._forwards += 1
        if self._forwards < 2 or running_backward() >= 0:
            return
        if self._forwards == 2:
            self._backwards = count_backwards()
        elif self._forwards >= self._next_count:
            found = count_backwards()
            if found - self._backwards > FEW_STEPS:
                self._warn_unused(
                    f"in {self._forwards} forwards, while {found - self._backwards - 1} backwards were run"
                )
            self._backwards += 1  # the backward that counts
            self._next_count *= 2

    def _observe(self, call: ForwardCall, _: Tensor) -> None:
        if self.is_used or call.is_bypassed:
            return
        call.is_bypassed = True
        self._bypassed += 1
        if self._bypassed == FEW_STEPS:
            self._warn_unused(f"in the first {FEW_STEPS} steps, while the features had a gradient")

    def _warn_unused(self, when: str) -> None:
        self.is_used = True  # there is nothing more to watch
        self._warn(
            "bypass",
            f"no backward reached any branch of this Fork {when}, so nothing is balanced: give each head its own branch, "
            "fork(features)[task], not the features, and do not detach it. Where the Fork is used for inference only, use "
            "torch.no_grad() or fork.eval()",
        )

    @property
    def has_unreached(self) -> bool:
        """Whether a branch has had no gradient yet."""
        return bool(self._unreached)

    def visits_graphs(self, tasks: Iterable[int]) -> bool:
        """Whether :meth:`visit` is called in a step with the losses of these tasks."""
        return any(self._visits[task] > 0 for task in tasks)

    def compare_features(self, call: ForwardCall, leaves: Iterable[Tensor]) -> None:
        """Compare the gradient of the features with what the Fork sends, while a branch has had no gradient."""
        if not self._unreached:
            return
        # A hook of somebody else may change the gradient before it is compared.
        compared = [(place, leaf) for place, leaf in enumerate(leaves) if not getattr(leaf, "_backward_hooks", None)]
        call.is_compared = bool(compared)
        for place, leaf in compared:
            leaf.register_hook(partial(self._compare, call, place))

    def _compare(self, call: ForwardCall, place: int, gradient: Tensor | None) -> None:
        sent = call.sent.pop(place, None)
        if sent is None or gradient is None or not self._unreached or gradient.data_ptr() == sent.data_ptr():
            return
        if call.is_below_another(place):
            return
        names = self._names(self._unreached)
        self._unreached = set()
        self._warn(
            "bypass",
            f"the features have a gradient that does not come from the Fork, and no gradient came through the branch of {names}: "
            "where its head reads the features themselves, its gradient is not balanced. Give the head its own branch, "
            "fork(features)[task]",
        )

    def reached(self, known: list[int], may_be_absent: bool) -> None:
        """Record which branches had a gradient, and warn about those that never had one.

        Args:
            known: the tasks with a gradient in this step.
            may_be_absent: whether the losses, or other ranks, explain why a task has none.
        """
        if not self._unreached:
            return
        self._unreached.difference_update(known)
        if not self._unreached or not known or may_be_absent:
            return
        self._steps += 1
        if self._steps == FEW_STEPS:
            names = self._names(self._unreached)
            self._unreached = set()
            self._warn(
                "bypass",
                f"no gradient came through the branch of {names} in the first {FEW_STEPS} steps: its head reads the features "
                "themselves or another task's branch, or it was absent in all of them. Give the head its own branch, "
                "fork(features)[task]",
            )

    def visit(self, losses: dict[int, Tensor], nodes: Sequence[Any]) -> None:
        """Find the tasks whose loss does not depend on their own branch, and warn of those whose loss depends on more.

        Nothing is differentiated. Heads that are computed in one batched product are connected with each other's branch, without
        a gradient on it: a connection that two tasks have in common, in both directions, is no evidence.

        Args:
            losses: by task.
            nodes: those of this step's forwards.
        """
        self._visits.subtract(losses.keys())
        encoder = encoder_nodes(nodes)
        reads = {task: parts_read(loss, nodes, encoder) for task, loss in losses.items()}
        self._bypassing = {task for task, read in reads.items() if not read.is_cut and task not in read.branches}
        for task in sorted(losses.keys() - self._bypassing):
            others = [
                other
                for other, read in reads.items()
                if other != task
                and not (read.is_cut or reads[task].is_cut)
                and not reads[task].branches.get(other, set()) <= (read.visited if task in read.branches else set())
            ]
            if others or reads[task].has_encoder:
                self._warn_of_more(task, others, reads[task].has_encoder)

    def _warn_of_more(self, task: int, others: Sequence[int], has_encoder: bool) -> None:
        parts = [f"the branch of {self._names(others)}"] * bool(others) + ["the encoder around the Fork"] * has_encoder
        self._warn(
            "more",
            f"the loss of {self._tasks[task]!r} depends on its own branch and on {' and '.join(parts)}: that part of its "
            "gradient is not balanced, or counts as another task's. Give the head its own branch alone, or both features in one "
            "call, fork((z1, z2)); detach what it reads in addition; or use paretorch.Balancer, which takes any graph",
        )

    def check_losses(self, loss_sums: Array, known: Iterable[int]) -> None:
        """Warn about losses that have a value and a factor, but no gradient on their branch.

        Args:
            loss_sums: (3, all).
            known: the tasks whose branches had a gradient.
        """
        counts = (loss_sums[2] > 0) & (loss_sums[1] != 0) & (loss_sums[0] != 0) & np.isfinite(loss_sums[0])
        counts[[task for task in known if task not in self._bypassing]] = False
        if counts.any():
            self._warn(
                "bypass",
                f"fork.losses was given the loss of {self._names(counts.nonzero()[0].tolist())}, and no gradient of it came "
                "through its branch: its head reads the features themselves or another task's branch, so that its gradient "
                "is not balanced, or counts as another's. Give the head its own branch, fork(features)[task]; where a head must "
                "read more than that use paretorch.Balancer",
            )

    def _names(self, tasks: Iterable[int]) -> str:
        return ", ".join(repr(self._tasks[task]) for task in sorted(tasks))


def has_foreign_hooks(leaf: Tensor | None) -> bool:
    """Whether a tensor has hooks that are not those of :class:`BranchChecks`."""
    hooks = () if leaf is None or leaf._backward_hooks is None else leaf._backward_hooks.values()
    return any(not isinstance(getattr(getattr(hook, "func", None), "__self__", None), BranchChecks) for hook in hooks)
