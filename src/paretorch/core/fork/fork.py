"""The Fork: a layer between encoder and heads that balances the tasks inside an ordinary ``backward()``."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from operator import is_
from typing import Any, Literal

import torch
import torch.distributed as dist
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_unflatten

from paretorch.core import checks
from paretorch.core.contract import Method, Need
from paretorch.core.fork import nodes as fork_graph
from paretorch.core.fork.features import check_features, is_balanced
from paretorch.core.fork.nested import has_fields, opened
from paretorch.core.fork.step import FeatureStep
from paretorch.core.gradients.ranks import ALL
from paretorch.core.gradients.task_gradients import chunks
from paretorch.core.method.runner import Scale


class Fork(FeatureStep):
    r"""Hands every task its own alias of the features and, in ``backward()``, sends one balanced gradient into the encoder.

    .. math:: \theta\text{.grad} \mathrel{+}= J_z^T \sum_t w_t \frac{\partial L_t}{\partial z}, \qquad
              w = \text{method}(G), \quad
              G_{st} = \Big\langle \frac{\partial L_s}{\partial z}, \frac{\partial L_t}{\partial z} \Big\rangle

    One encoder backward, whatever the number of tasks. Heads receive their own task's gradient, unweighted. In ``eval()`` and
    under ``torch.no_grad()`` the branches are plain aliases; a backward through those made in ``eval()`` warns once.

    Args:
        method: the balancing method, such as ``MGDA()``.
        tasks: names of the tasks, in a fixed order.
        heads: ``"own"``: heads receive their task's gradient; ``"weighted"``: times the task's weight, at the cost of one more
            backward through the heads (needs :meth:`losses`).
        scale: ``"calibrated"``: T equal gradients g give T g, as the sum of losses does; ``"paper"``: the method's own weights.
        copies: give each task a copy, for heads that work in place on the features.
        nonfinite: ``"pass"``: a step with inf or nan passes the plain sum on, so that GradScaler sees it and skips;
            ``"raise"``: raises FloatingPointError naming the task, on all ranks together; ``"skip"``: leaves that task out of the
            step, and counts it in ``skipped``. The heads' gradients are there before the Fork's backward: see the
            documentation, "When something is wrong", for what each option promises about them.
        every: reuse the weights for ``every - 1`` steps.
        gap: every ``gap`` steps (of those whose weights are not reused) compare with the exact update on the encoder's parameters
            (``balance.gap``; T encoder backwards).
        factor: dTotal/dL_t where :meth:`losses` is not used, for methods that are not homogeneous.
        group: ranks whose losses are averaged: ``"all"`` where torch.distributed is initialised, a process group, or None.
        seed: of the method's random draws.

    Raises:
        ValueError: on repeated or unknown task names and options out of range.

    Example:
        >>> import paretorch as pt
        >>> encoder, left, right = (torch.nn.Linear(n, m) for n, m in ((4, 3), (3, 1), (3, 1)))
        >>> fork = pt.Fork(pt.MGDA(), tasks=("left", "right"))
        >>> branch = fork(encoder(torch.ones(8, 4)))
        >>> losses = {"left": left(branch["left"]).square().mean(), "right": right(branch["right"]).exp().mean()}
        >>> sum(losses.values()).backward()
        >>> float(fork.balance.weights.sum())
        2.0

    References:
        Sener & Koltun, "Multi-Task Learning as Multi-Objective Optimization", NeurIPS 2018, (MGDA-UB) and Algorithm 2. They
        weight the heads' losses by one as we do; our default scale is T times theirs.
    """

    def __init__(
        self,
        method: Method[Any],
        tasks: Iterable[str],
        *,
        heads: Literal["own", "weighted"] = "own",
        scale: Scale = "calibrated",
        copies: bool = False,
        nonfinite: Literal["pass", "raise", "skip"] = "pass",
        every: int = 1,
        gap: int | None = None,
        factor: float | None = None,
        group: dist.ProcessGroup | str | None = ALL,
        seed: int = 0,
    ) -> None:
        super().__init__(method, scale=scale, every=every, factor=factor, group=group, seed=seed)
        checks.one_of("heads", heads, ("own", "weighted"))
        checks.one_of("nonfinite", nonfinite, ("pass", "raise", "skip"))
        if method.batches > 1 or not method.features:
            raise ValueError(f"{method} cannot be used on features: use paretorch.Balancer")
        if heads == "weighted" and Need.JACOBIAN in method.needs:
            raise ValueError(f"{method} has no weights to give to the heads: use heads='own'")
        if gap is not None:
            checks.whole("gap", gap)
        if gap is not None and (Need.JACOBIAN in method.needs or method.needs == Need.LOSSES or heads == "weighted"):
            raise ValueError(
                f"gap is a number of steps, for a method that looks at the Gramian and heads='own'; got {gap} for {method}"
            )
        self.copies = copies
        self._prepare(heads, nonfinite, gap)
        self._declare(checks.task_names(tasks))
        self._notices = self._new_notices()

    # --- forward ---------------------------------------------------------------------------------------------------------

    def forward(self, features: Any) -> dict[str, Any]:
        """One alias of the features for each task.

        Args:
            features: a tensor of any shape, or any nesting of dicts, lists, tuples and objects with fields (dataclasses and the
                like); floating tensors that require grad are balanced, everything else is passed along.

        Returns:
            dict from task name to features nested as given; objects that hold balanced tensors are shallow copies.

        Raises:
            ValueError: in training, where no leaf requires grad, or a leaf that does cannot be balanced (a distributed, sparse,
                nested or complex tensor, an object that cannot be copied).
            RuntimeError: inside a torch.func transform.
        """
        if not (self.training and torch.is_grad_enabled()) or self._now.pauses:
            return self._unbalanced(features)
        leaves, nest = ([features], None) if isinstance(features, Tensor) else tree_flatten(features)
        fill = None
        if nest is not None and not torch.compiler.is_compiling() and any(map(has_fields, leaves)):
            leaves, fill = opened(features, is_balanced)
        found = [i for i, leaf in enumerate(leaves) if is_balanced(leaf)]
        check_features(leaves, found)
        # a tensor that is nested in several places is one surface
        firsts = [next(j for j in found if leaves[j] is leaves[i]) for i in found]
        places = [i for i, first in zip(found, firsts, strict=True) if i == first]
        if not torch.compiler.is_compiling():
            self.ranks.agree_on_tasks(self.tasks, self.method)
            if not self.ranks.alone:
                self._now.wrapped.follow()
        if self._now.new_step:
            self._now.begin()
        aliases, link = fork_graph.split(self, [leaves[place] for place in places])
        if torch.compiler.is_compiling():
            self._now.link = link
        elif self._notices.unseen and not self.sums:
            self._notices.watch(link.grad_fn.call, [leaves[place] for place in places], self._say)  # type: ignore[union-attr]
        if self.copies:
            aliases = [alias.clone() for alias in aliases]
        if nest is None:
            return dict(zip(self.tasks, aliases, strict=True))
        branch = {}
        for task, own in zip(self.tasks, chunks(aliases, len(self.tasks)), strict=True):
            filled = list(leaves)
            aliased = dict(zip(places, own, strict=True))
            for place, first in zip(found, firsts, strict=True):
                filled[place] = aliased[first]
            branch[task] = tree_unflatten(filled, nest) if fill is None else fill(filled)
        return branch

    def _unbalanced(self, features: Any) -> dict[str, Any]:
        """The features for every task as they are, or copied, where nothing is to be balanced."""
        if torch.is_grad_enabled() and not self.training and not self._now.pauses:
            features = self._watched(features)
        if not self.copies:
            return dict.fromkeys(self.tasks, features)
        leaves, fill = opened(features, _is_tensor)
        return {task: fill([leaf.clone() if _is_tensor(leaf) else leaf for leaf in leaves]) for task in self.tasks}

    def _watched(self, features: Any) -> Any:
        """The features, seen as others whose gradient is noticed: a backward through a fork in eval mode is a plain sum."""
        if "eval" in self._said or torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active():
            return features
        leaves, fill = opened(features, is_balanced)
        watched = [
            leaf.view_as(leaf) if is_balanced(leaf) and leaf.layout is torch.strided else leaf for leaf in leaves
        ]
        for before, after in zip(leaves, watched, strict=True):
            if before is not after:
                after.register_hook(self._notice_eval)
        return features if all(map(is_, leaves, watched)) else fill(watched)

    def _notice_eval(self, _: Tensor) -> None:
        if not self._now.pauses:
            self._say(
                "eval",
                "this backward goes through branches that a Fork in eval mode made: it is the plain sum of the tasks' gradients, "
                "and nothing is balanced. fork.train() makes the Fork balance, whatever mode the rest of the model is in; where "
                "plain gradients are meant, use `with fork.paused():`",
            )

    def losses(self, losses: Mapping[str, Tensor | None]) -> dict[str, Tensor]:
        """Passes the losses through, values unchanged, and tells the fork what they are and, in backward, their factors.

        Required by methods that look at loss values and by ``heads="weighted"``. Call it once per step, after the forward. On a
        rank where no task is present call ``fork.losses({})``: the zero it returns keeps the ranks together.

        Args:
            losses: scalars by task name; a task that is absent is left out, None, or a zero without a graph.

        Returns:
            dict of the losses of the tasks that are present; with none, one zero.

        Raises:
            ValueError: on unknown names and losses that are not scalars with a graph on one device.
        """
        checked = checks.given_losses(losses, "fork.losses")
        checks.known_tasks(checked, self.tasks, "fork.losses")
        if not (self.training and torch.is_grad_enabled()) or self._now.pauses:
            return checked
        if self.heads == "weighted" and torch.compiler.is_compiling():
            raise RuntimeError(
                "heads='weighted' runs a backward of its own: call fork.losses outside the compiled function"
            )
        links, branches = self._this_step()
        if not links:
            raise RuntimeError(
                "fork.losses(losses) comes after branch = fork(features), once per step; no forward is waiting"
            )
        self._now.new_step = True
        names = tuple(checked)
        index = tuple(self.tasks.index(name) for name in names)
        self._now.told, self._now.links = set(index), len(links)
        if not torch.compiler.is_compiling() and self._notices.walks and self.method.needs != Need.LOSSES:
            self._notices.follow(dict(zip(index, checked.values(), strict=True)), self._now.nodes())
        told = fork_graph.tell(self, links, index, [*checked.values(), *branches])
        if not self.ranks.alone and not torch.compiler.is_compiling():
            told = told if names else (self._now.wrapped.tie(told[0]),)
            self._now.wrapped.released()
        return dict(zip(names or self.tasks[:1], told, strict=True))

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Within it the fork is absent: plain aliases, plain sums, no state. Also for backwards of forwards made before."""
        self._now.pauses += 1
        try:
            yield
        finally:
            self._now.pauses -= 1


def _is_tensor(leaf: Any) -> bool:
    return isinstance(leaf, Tensor)
