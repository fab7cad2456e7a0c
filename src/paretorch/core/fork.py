"""The Fork: a layer between encoder and heads that balances the tasks inside an ordinary ``backward()``."""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_map, tree_unflatten

from paretorch.core import checks, fork_graph
from paretorch.core.contract import Balance, Method, Need, Status
from paretorch.core.distributed import ALL
from paretorch.core.door import Door, Scale, Seen
from paretorch.core.evidence import Gradients, Scratch, by_sample, to_host
from paretorch.core.gap import gap_between, parameter_gramian


class _Step:
    """What a fork remembers within a step, and forgets in copies: a plain object, cheap to write to."""

    def __init__(self) -> None:
        self.pauses = 0
        self.backwards = 0  # counted for gap
        self.scratch: Scratch = {}
        self.begin()
        self.new_step = True  # the next forward begins one

    def begin(self) -> None:
        self.waiting: list[weakref.ref[Any]] = []  # nodes of the forwards whose losses are to be told, in eager mode
        self.link: Tensor | None = None  # of the last forward, in a compiled graph
        self.new_step = False


class Fork(Door):
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
        gap: every ``gap`` steps compare with the exact update on the encoder's parameters (``balance.gap``; T encoder backwards).
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
        for name, value, known in (("heads", heads, ("own", "weighted")), ("nonfinite", nonfinite, ("pass", "raise"))):
            if value not in known:
                raise ValueError(f"{name} is {known[0]!r} or {known[1]!r}, got {value!r}")
        if method.batches > 1 or not method.features:
            raise ValueError(f"{method} cannot be used on features: use paretorch.Balancer")
        if heads == "weighted" and Need.JACOBIAN in method.needs:
            raise ValueError(f"{method} has no weights to give to the heads: use heads='own'")
        if gap is not None and (
            gap < 1 or Need.JACOBIAN in method.needs or method.needs == Need.LOSSES or heads == "weighted"
        ):
            raise ValueError(
                f"gap is a number of steps, for a method that looks at the Gramian and heads='own'; got {gap} for {method}"
            )
        self.heads, self.copies, self.nonfinite, self.gap = heads, copies, nonfinite, gap
        self._declare(checks.task_names(tasks))
        self._now = _Step()

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_now": _Step()}

    @property
    def sums(self) -> bool:
        """Whether the weights are applied at the losses, and the branches' gradients are just summed."""
        return self.method.needs == Need.LOSSES or self.heads == "weighted"

    @property
    def keeps(self) -> str:
        """What the backward must find again beside the gradients."""
        if self.heads == "weighted":
            return "branches"
        return "features" if self.gap or Need.JACOBIAN in self.method.needs else "nothing"

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
        places = [i for i, leaf in enumerate(leaves) if _is_balanced(leaf)]
        self._check_features(leaves, places)
        if not torch.compiler.is_compiling():
            self.ranks.join(self.tasks, self.method)
        if self._now.new_step:
            self._now.begin()
        *aliases, link = fork_graph.split(self, [leaves[place] for place in places])
        if torch.compiler.is_compiling():
            self._now.link = link
        if self.copies:
            aliases = [alias.clone() for alias in aliases]
        if nest is None:
            return dict(zip(self.tasks, aliases, strict=True))
        branch = {}
        for task, own in zip(self.tasks, _chunks(aliases, len(self.tasks)), strict=True):
            filled = list(leaves)
            for place, alias in zip(places, own, strict=True):
                filled[place] = alias
            branch[task] = tree_unflatten(filled, nest)
        return branch

    def _check_features(self, leaves: Sequence[Any], balanced: Sequence[int]) -> None:
        """Features must carry a gradient, and torch.func must not be at work."""
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

    # --- backward --------------------------------------------------------------------------------------------------------

    def await_losses(self, node: Any) -> None:
        """Called by the node of a forward: it waits for its losses to be told, and keeps this fork alive until backward."""
        node.fork = self
        self._now.waiting = [*(ref for ref in self._now.waiting if ref() is not None), weakref.ref(node)]

    def _this_step(self) -> tuple[list[Tensor], list[Tensor]]:
        """The links of this step's forwards whose graphs are still there, and their branches, task by task, where kept."""
        if self._now.link is not None:
            return [self._now.link], []
        links: list[Tensor] = []
        rows: list[list[Tensor]] = [[] for _ in self.tasks]
        for ref in self._now.waiting:
            node = ref()
            try:
                saved = [] if node is None else list(node.saved_tensors)
            except RuntimeError:  # its backward has run
                continue
            if not saved:  # it was dropped
                continue
            link, *kept = saved
            links.append(link)
            if self.heads == "weighted":
                for row, part in zip(rows, _chunks(kept, len(self.tasks)), strict=True):
                    row += part
        return links, [leaf for row in rows for leaf in row]

    def weigh(
        self,
        losses: Sequence[Tensor],
        factors: Sequence[Tensor | None],
        link: Tensor,
        index: Sequence[int],
        branches: Sequence[Tensor],
    ) -> list[Tensor | None]:
        """Called by the backward of :meth:`losses`: the gradient to send back to each loss, and what to tell the features."""
        sent = [
            (task, loss, factor)
            for task, loss, factor in zip(index, losses, factors, strict=True)
            if factor is not None
        ]
        told = torch.zeros_like(link)
        if sent:
            rows = [torch.stack([loss.detach() for _, loss, _ in sent]), torch.stack([factor for _, _, factor in sent])]
            told[:, [task for task, _, _ in sent]] = torch.stack(
                [*(row.to(told) for row in rows), torch.ones_like(told[0, : len(sent)])]
            )
        if not self.sums or self._now.pauses:
            return [*factors, told]
        if self.heads == "weighted":
            cotangents: Sequence[Tensor | None] = [None] * len(branches)
            if sent:
                cotangents = torch.autograd.grad(
                    [loss for _, loss, _ in sent],
                    branches,
                    [factor for _, _, factor in sent],
                    retain_graph=True,
                    allow_unused=True,
                )
            per_task = len(branches) // len(self.tasks)
            weights = self._balanced(
                Gradients(_chunks(cotangents, len(self.tasks)), branches[:per_task]), told, []
            ).weights
        else:
            self.ranks.join(self.tasks, self.method)
            weights = self._weights_of_losses(to_host([told])[0])
        assert weights is not None
        scaled = [
            None if factor is None else factor * float(weights[task])
            for task, factor in zip(index, factors, strict=True)
        ]
        return [*scaled, told]

    def combine(
        self,
        cotangents: Sequence[Tensor | None],
        told: Tensor | None,
        like: Sequence[Tensor],
        kept: Sequence[Tensor],
        calls: list[frozenset[int]],
    ) -> list[Tensor]:
        """Called by the backward of the features: the one gradient to send into the encoder, leaf by leaf."""
        self._now.new_step = True
        gradients = Gradients(_chunks(cotangents, len(self.tasks)), like, self._now.scratch)
        if self._now.pauses:
            return gradients.summed()
        self._notice_calls(calls, frozenset(gradients.known))
        if told is None and (self.sums or Need.LOSSES in self.method.needs or self._lacks_factor):
            reason = (
                "looks at the loss values"
                if Need.LOSSES in self.method.needs
                else "must know the factors of the losses"
            )
            raise RuntimeError(
                f"{self.method} {reason if self.heads == 'own' else 'with heads=weighted looks at the losses'}: "
                "write losses = fork.losses(losses) before summing them"
            )
        if self.sums:
            return gradients.summed()
        balance = self._balanced(gradients, told, kept)
        if balance.update is not None:
            return gradients.split(balance.update)
        assert balance.weights is not None
        return gradients.combined(balance.weights)

    @property
    def _lacks_factor(self) -> bool:
        return not self.method.homogeneous and self.factor is None

    def _balanced(self, gradients: Gradients, told: Tensor | None, kept: Sequence[Tensor]) -> Balance:
        """One step on the features' gradients."""
        self.ranks.join(self.tasks, self.method)
        reused = self._reused(gradients.known)
        if reused is not None:
            return reused
        products, *rest = to_host([gradients.products()] if told is None else [gradients.products(), told])
        local = gradients.gramian(products)
        self._notice_own_inputs(gradients, local)
        seen = self._seen(
            rest[0] if rest else None,
            self.ranks.sum(local) / self.ranks.size**2 if self.ranks.size > 1 else local,
            gradients.resolution,
        )
        measure = self.gap is not None and bool(seen.present.any()) and self._now.backwards % self.gap == 0
        self._now.backwards += 1
        unusable = self._unusable(seen)
        if unusable is not None:
            return self._passed_on(seen, unusable)
        if Need.JACOBIAN in self.method.needs:
            return self._solve(seen, gradients.jacobian(seen.present), by_sample(kept))
        if not measure:
            return self._solve(seen)
        exact = parameter_gramian(kept, gradients, self.ranks)
        expected, _ = self._ask(seen._replace(gramian=exact), None, None)
        balance = self._solve(seen)
        self._balance = replace(balance, gap=gap_between(exact, balance, expected))
        return self._balance

    def _unusable(self, seen: Seen) -> Status | None:
        """Why the method cannot be asked this time, if so."""
        if not bool(seen.present.any()):
            return Status.ABSENT
        broken = seen.nonfinite(values=Need.LOSSES in self.method.needs)
        if broken is None:
            return None
        if self.nonfinite == "raise":
            names = [task for task, bad in zip(self.tasks, broken.tolist(), strict=True) if bad]
            raise FloatingPointError(
                f"the gradient or loss of {', '.join(map(repr, names))} is not finite; nothing was changed"
            )
        return Status.NONFINITE

    def _weights_of_losses(self, told: Tensor) -> Tensor:
        """One step of a loss method."""
        seen = self._seen(told)
        unusable = self._unusable(seen)
        balance = self._solve(seen) if unusable is None else self._passed_on(seen, unusable)
        assert balance.weights is not None
        return balance.weights

    def _notice_calls(self, calls: list[frozenset[int]], known: frozenset[int]) -> None:
        """Warn where the tasks' losses are sent backward one at a time: then there is nothing to balance."""
        if any(not known & earlier for earlier in calls):
            self._say(
                "calls",
                "each task's loss was sent backward on its own, so nothing is balanced: call backward once, on the sum",
            )
        calls.append(known)

    def _notice_own_inputs(self, gradients: Gradients, gramian: Tensor) -> None:
        """Warn where no two tasks have a gradient on the same sample: their features never meet."""
        entries = gramian.numpy()
        there = np.count_nonzero(entries.diagonal())
        if there < 2 or np.count_nonzero(entries) > there or "inputs" in self._said:
            return
        samples = [leaf.shape[0] if leaf.ndim > 1 else 1 for leaf in gradients.like]
        for index, size in enumerate(samples):
            matrix = gradients.matrix(index)
            if bool((matrix.view(len(matrix), size, -1).any(dim=2).sum(dim=0) > 1).any()):
                return
        if sum(samples) > 1:
            self._say(
                "inputs",
                "each task has samples of its own, so the tasks' gradients on the features never meet and balancing on them is "
                "blind to conflict: use paretorch.Balancer",
            )


def _chunks(items: Sequence[Any], count: int) -> list[Sequence[Any]]:
    size = len(items) // count
    return [items[place * size : (place + 1) * size] for place in range(count)]


def _is_balanced(leaf: Any) -> bool:
    return isinstance(leaf, Tensor) and leaf.is_floating_point() and leaf.requires_grad


def _cloned(leaf: Any) -> Any:
    return leaf.clone() if isinstance(leaf, Tensor) else leaf
