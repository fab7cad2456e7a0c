"""The Fork: a layer between encoder and heads that balances the tasks inside an ordinary ``backward()``."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import torch
import torch.distributed as dist
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_map, tree_unflatten

from paretorch.core import checks, fork_graph
from paretorch.core.contract import Method, Need
from paretorch.core.distributed import ALL
from paretorch.core.door import Scale
from paretorch.core.evidence import chunks
from paretorch.core.feature_step import FeatureStep

CONTAINERS = (Mapping, list, tuple)  # as a tuple: torch 2.7 does not compile a union


class Fork(FeatureStep):
    r"""Hands every task its own alias of the features and, in ``backward()``, sends one balanced gradient into the encoder.

    .. math:: \theta\text{.grad} \mathrel{+}= J_z^T \sum_t w_t \frac{\partial L_t}{\partial z}, \qquad
              w = \text{method}(G), \quad
              G_{st} = \Big\langle \frac{\partial L_s}{\partial z}, \frac{\partial L_t}{\partial z} \Big\rangle

    One encoder backward, whatever the number of tasks. Heads receive their own task's gradient, unweighted. In ``eval()`` and
    under ``torch.no_grad()`` the branches are plain aliases.

    Args:
        method: the balancing method, such as ``MGDA()``.
        tasks: names of the tasks, in a fixed order.
        heads: ``"own"``: heads receive their task's gradient; ``"weighted"``: times the task's weight, at the cost of one more
            backward through the heads (needs :meth:`losses`).
        scale: ``"calibrated"``: T equal gradients g give T g, as the sum of losses does; ``"paper"``: the method's own weights.
        copies: give each task a copy, for heads that work in place on the features.
        nonfinite: ``"pass"``: a step with inf or nan passes the plain sum on, so that GradScaler sees it and skips;
            ``"raise"``: raises FloatingPointError naming the task, on all ranks together.
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
        nonfinite: Literal["pass", "raise"] = "pass",
        every: int = 1,
        gap: int | None = None,
        factor: float | None = None,
        group: dist.ProcessGroup | str | None = ALL,
        seed: int = 0,
    ) -> None:
        super().__init__(method, scale=scale, every=every, factor=factor, group=group, seed=seed)
        checks.one_of("heads", heads, ("own", "weighted"))
        checks.one_of("nonfinite", nonfinite, ("pass", "raise"))
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

    # --- forward ---------------------------------------------------------------------------------------------------------

    def forward(self, features: Any) -> dict[str, Any]:
        """One alias of the features for each task.

        Args:
            features: a tensor of any shape, or any nesting of dicts, lists and tuples of tensors; floating leaves that require
                grad are balanced, everything else is passed along.

        Returns:
            dict from task name to features nested as given.

        Raises:
            ValueError: in training, where no leaf requires grad.
            RuntimeError: inside a torch.func transform.
        """
        if not (self.training and torch.is_grad_enabled()) or self._now.pauses:
            return {task: tree_map(_cloned, features) if self.copies else features for task in self.tasks}
        leaves, nest = ([features], None) if isinstance(features, Tensor) else tree_flatten(features)
        found = [i for i, leaf in enumerate(leaves) if _is_balanced(leaf)]
        _check_features(leaves, found)
        # a tensor that is nested in several places is one surface
        firsts = [next(j for j in found if leaves[j] is leaves[i]) for i in found]
        places = [i for i, first in zip(found, firsts, strict=True) if i == first]
        if not torch.compiler.is_compiling():
            self.ranks.join(self.tasks, self.method)
        if self._now.new_step:
            self._now.begin()
        aliases, link = fork_graph.split(self, [leaves[place] for place in places])
        if torch.compiler.is_compiling():
            self._now.link = link
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
            branch[task] = tree_unflatten(filled, nest)
        return branch

    def losses(self, losses: Mapping[str, Tensor | None]) -> dict[str, Tensor]:
        """Passes the losses through, values unchanged, and tells the fork what they are and, in backward, their factors.

        Required by methods that look at loss values and by ``heads="weighted"``. Call it once per step, after the forward. On a
        rank where no task is present call ``fork.losses({})``: the zero it returns keeps the ranks together.

        Args:
            losses: scalars by task name; a task that is absent is left out, or None.

        Returns:
            dict of the given losses; with none given, one zero.

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
        self._now.told = set(index)
        told = fork_graph.tell(self, links, index, [*checked.values(), *branches])
        return dict(zip(names or self.tasks[:1], told, strict=True))

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Within it the fork is absent: plain aliases, plain sums, no state. Also for backwards of forwards made before."""
        self._now.pauses += 1
        try:
            yield
        finally:
            self._now.pauses -= 1


def _is_balanced(leaf: Any) -> bool:
    return isinstance(leaf, Tensor) and leaf.is_floating_point() and leaf.requires_grad


def _cloned(leaf: Any) -> Any:
    return leaf.clone() if isinstance(leaf, Tensor) else leaf


def _check_features(leaves: Sequence[Any], balanced: Sequence[int]) -> None:
    """Features must carry a gradient, in containers that are known, and torch.func must not be at work."""
    for leaf in leaves:
        if isinstance(leaf, CONTAINERS):
            raise ValueError(
                f"fork(features) takes tensors in any nesting of dicts, lists and tuples, got a {type(leaf).__name__}: make it "
                "a plain one, as with dict(features), or register it with torch.utils._pytree"
            )
    if not balanced:
        got = (
            ", ".join(type(leaf).__name__ if not isinstance(leaf, Tensor) else str(leaf.dtype) for leaf in leaves)
            or "nothing"
        )
        raise ValueError(
            f"fork(features) in training expects floating features that require grad, got {got} without: was the encoder "
            "frozen, or its output detached? For a frozen encoder there is nothing to balance: leave the Fork out, or call "
            "fork.eval()"
        )
    if not torch.compiler.is_compiling() and torch._C._are_functorch_transforms_active():
        raise RuntimeError(
            "a Fork cannot run inside a torch.func transform (grad, vmap, jvp): wrap it in `with fork.paused():`"
        )
